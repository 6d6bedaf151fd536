"""The figure of the selection function."""

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
    path = write_surface(tmp_path / "surface.csv", threshold="fpr=0.01")
    with pytest.raises(BadInputError, match=r"has no threshold 'p=0\.5'; it has fpr=0\.01"):
        read_surface(path, "p=0.5")


def test_empty_cells_and_cells_of_other_axes_are_no_points(tmp_path: Path) -> None:
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    assert cells.value.tolist() == [0.2, 0.6]


def test_cuts_lie_on_the_surface_and_beside_the_cells_that_hold_them(tmp_path: Path) -> None:
    surface = read_surface(write_surface(tmp_path / "surface.csv"), "p=0.5")
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    cuts = draw(surface, cells, SelectionFigureSettings(redshifts=(0.3, 0.4))).axes[2]
    drawn = {line.get_label(): line.get_ydata() for line in cuts.lines if str(line.get_label()).startswith("$z$")}
    assert np.allclose(drawn["$z$ = 0.3"], (surface.value[0] + surface.value[1]) / 2)
    assert np.array_equal(drawn["$z$ = 0.4"], surface.value[1])
    points = [len(container.lines[0].get_ydata()) for container in cuts.containers]
    # A lower edge belongs to its cell, and an upper one to the next.
    assert points == [2, 0]


def test_redshifts_beyond_the_surface_say_so(tmp_path: Path) -> None:
    surface = read_surface(write_surface(tmp_path / "surface.csv"), "p=0.5")
    cells = read_cells(write_cells(tmp_path / "cells.csv"), "p=0.5")
    cuts = draw(surface, cells, SelectionFigureSettings(redshifts=(2.0,))).axes[2]
    assert "outside of 0.20 to 0.80" in cuts.texts[0].get_text()
