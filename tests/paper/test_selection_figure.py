"""The figure of the selection function."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.paper.figure_config import SelectionFigureSettings
from dark_halo_scope.paper.selection_figure import draw, read_cells, read_surface

from .figure_inputs import write_cells, write_surface


def test_the_grid_does_not_depend_on_the_order_of_its_rows(tmp_path: Path) -> None:
    path = write_surface(tmp_path / "surface.csv")
    surface = read_surface(path, "p=0.5")
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *lines[::-1]]) + "\n")
    assert np.array_equal(read_surface(path, "p=0.5").value, surface.value)
    assert surface.value.shape == (4, 9)
    assert (np.diff(surface.value, axis=1) > 0).all(), "it rises with Einstein radius"
    assert (np.diff(surface.value, axis=0) < 0).all(), "and falls with redshift"


def test_a_grid_with_a_hole_is_refused(tmp_path: Path) -> None:
    path = write_surface(tmp_path / "surface.csv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(CorruptDataError, match="no grid"):
        read_surface(path, "p=0.5")


def test_an_unknown_threshold_names_those_there_are(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "cells.csv", threshold="fpr=0.01")
    with pytest.raises(BadInputError, match=r"has no threshold 'p=0\.5'; it has fpr=0\.01"):
        read_cells(path, "p=0.5")


def test_without_a_surface_the_panels_say_so_and_the_counts_remain(tmp_path: Path) -> None:
    assert read_surface(write_surface(tmp_path / "surface.csv", threshold="fpr=0.01"), "p=0.5") is None
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    figure = draw(None, cells, SelectionFigureSettings(redshifts=(0.3,)))
    assert ["too few injections" in axes.texts[0].get_text() for axes in figure.axes[:2]] == [True, True]
    assert len(figure.axes[2].containers) == 1


def test_where_no_injection_lies_the_surface_is_hatched(tmp_path: Path) -> None:
    surface = read_surface(write_surface(tmp_path / "surface.csv"), "p=0.5")
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    assert surface is not None
    everywhere = replace(surface, n=np.full_like(surface.n, 5.0))
    hatched, plain = (
        [any(any(getattr(part, "hatches", None) or ()) for part in axes.collections) for axes in figure.axes[:2]]
        for figure in (draw(part, cells, SelectionFigureSettings()) for part in (surface, everywhere))
    )
    assert (hatched, plain) == ([True, True], [False, False])


def test_empty_cells_and_cells_of_other_axes_are_no_points(tmp_path: Path) -> None:
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    assert cells.value.tolist() == [0.2, 0.6]


def test_cuts_lie_on_the_surface_and_beside_the_cells_that_hold_them(tmp_path: Path) -> None:
    surface = read_surface(write_surface(tmp_path / "surface.csv"), "p=0.5")
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    cuts = draw(surface, cells, SelectionFigureSettings(redshifts=(0.3,))).axes[2]
    (line,) = [line for line in cuts.lines if len(line.get_ydata()) == len(surface.theta_e)]
    assert np.allclose(line.get_ydata(), (surface.value[0] + surface.value[1]) / 2)
    assert [container.lines[0].get_ydata().tolist() for container in cuts.containers] == [[0.2, 0.6]]


def test_redshifts_beyond_the_surface_say_so(tmp_path: Path) -> None:
    surface = read_surface(write_surface(tmp_path / "surface.csv"), "p=0.5")
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    cuts = draw(surface, cells, SelectionFigureSettings(redshifts=(2.0,))).axes[2]
    assert "outside of 0.20 to 0.40" in cuts.texts[0].get_text()
