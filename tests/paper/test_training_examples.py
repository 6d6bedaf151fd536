"""The figure of training examples."""

from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.paper.config import TrainingExamplesSettings
from dark_halo_scope.paper.style import lupton_rgb, save_figure
from dark_halo_scope.paper.training_examples import choose_rows, draw


def test_rows_are_spread_in_theta_e_among_bright_arcs() -> None:
    theta_e = np.linspace(2.5, 0.5, 100)
    arc_snr = np.where(np.arange(100) % 2 == 0, 50.0, 5.0)
    rows = choose_rows(theta_e, arc_snr, 4, min_arc_snr=25)
    assert (arc_snr[rows] >= 25).all()
    assert (np.diff(theta_e[rows]) > 0.3).all()


def test_too_few_bright_arcs_say_so() -> None:
    with pytest.raises(BadInputError, match="Only 0 pairs"):
        choose_rows(np.ones(3), np.ones(3), 2, min_arc_snr=25)


def test_a_redder_galaxy_looks_redder() -> None:
    blue, red = (
        lupton_rgb(np.array(flux, np.float32)[:, None, None] * np.ones((3, 4, 4), np.float32), 0.1, 8.0)
        for flux in ((0.10, 0.10, 0.10), (0.02, 0.10, 0.20))
    )
    assert red[0, 0, 0] > blue[0, 0, 0]
    assert red[0, 0, 2] < blue[0, 0, 2]


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_same_stamps_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    stamps = np.random.default_rng(1).normal(0, 0.02, (3, 3, 16, 16)).astype(np.float32)
    for name in ("a", "b"):
        save_figure(draw([tuple(stamps)], ["label"], TrainingExamplesSettings()), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
