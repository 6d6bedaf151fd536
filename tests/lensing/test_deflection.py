"""Deflections: reference values, lenstronomy, both array libraries."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel

from dark_halo_scope.lensing.deflection import deflect, shear, sie, to_source_plane
from dark_halo_scope.lensing.lens import Lens

CASES = ["sis", "sie_q07", "sie_q07_shear", "sie_q04", "sie_q0999", "nie_core01", "shear_only"]
ARCSEC = 1e-6


def reference_alpha(params: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deflection with the reference's conventions: shear about the origin, core on the product-average axis."""
    theta_e, q, phi, g1, g2, core, cx, cy = map(float, params)
    sie_x, sie_y = sie(x - cx, y - cy, theta_e, q, phi, core / np.sqrt(q))
    shear_x, shear_y = shear(x, y, g1, g2)
    return sie_x + shear_x, sie_y + shear_y


@pytest.fixture(scope="module")
def reference(reference_data: Path) -> dict[str, np.ndarray]:
    with np.load(reference_data / "lensing.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", CASES)
def test_deflections_agree_with_the_reference(reference: dict[str, np.ndarray], case: str) -> None:
    alpha_x, alpha_y = reference_alpha(reference[f"{case}__params"], reference["grid_x"], reference["grid_y"])
    np.testing.assert_allclose(alpha_x, reference[f"{case}__alpha_x"], rtol=0, atol=ARCSEC)
    np.testing.assert_allclose(alpha_y, reference[f"{case}__alpha_y"], rtol=0, atol=ARCSEC)


def test_published_unit_tests_of_an_isothermal_lens_hold(reference_data: Path) -> None:
    cases = json.loads((reference_data / "lensing_reference_values.json").read_text())["autogalaxy_isothermal"]["cases"]
    for case in (case for case in cases if "alpha_yx" in case):
        q = case.get("q", 1.0)
        sin2, cos2 = case.get("ell_comps", (0.0, 1.0))
        theta_e = case["einstein_radius"] * 2 * np.sqrt(q) / (1 + q)
        y, x = np.subtract(case["at_yx"], case["centre_yx"])
        alpha = sie(np.array(x), np.array(y), theta_e, q, np.arctan2(sin2, cos2) / 2)
        np.testing.assert_allclose(alpha[::-1], case["alpha_yx"], atol=1e-5)


def test_published_unit_test_of_a_shear_holds(reference_data: Path) -> None:
    published = json.loads((reference_data / "lensing_reference_values.json").read_text())["lenstronomy_shear"]
    case = published["cases"][0]
    alpha = shear(np.array(float(case["at_xy"][0])), np.array(float(case["at_xy"][1])), case["gamma1"], case["gamma2"])
    np.testing.assert_allclose(alpha, case["alpha_xy"], rtol=1e-14)


@given(
    theta_e=st.floats(0.1, 3.0),
    q=st.floats(0.2, 1.0),
    phi=st.floats(-7.0, 7.0),
    g1=st.floats(-0.2, 0.2),
    g2=st.floats(-0.2, 0.2),
    x0=st.floats(-0.5, 0.5),
    y0=st.floats(-0.5, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_deflections_agree_with_lenstronomy(
    theta_e: float, q: float, phi: float, g1: float, g2: float, x0: float, y0: float
) -> None:
    # On a grid that misses the centre, where lenstronomy's softening of 1e-10 shows.
    x, y = np.meshgrid(np.linspace(-4, 4, 24) + x0 + 0.01, np.linspace(-4, 4, 24) + y0 + 0.01)
    e = (1 - q) / (1 + q)
    theirs = LensModel(["SIE", "SHEAR"]).alpha(
        x.ravel(),
        y.ravel(),
        [
            {"theta_E": theta_e, "e1": e * np.cos(2 * phi), "e2": e * np.sin(2 * phi), "center_x": x0, "center_y": y0},
            {"gamma1": g1, "gamma2": g2, "ra_0": x0, "dec_0": y0},
        ],
    )
    ours = deflect(Lens(theta_e, q, phi, g1, g2, x0, y0), x, y)
    for axis in range(2):
        np.testing.assert_allclose(ours[axis].ravel(), theirs[axis], rtol=0, atol=ARCSEC)


@pytest.mark.parametrize("q", [1.0, 1 - 1e-16, 1 - 1e-12, 1 - 1e-9, 1 - 1e-7])
def test_a_nearly_round_lens_is_a_round_one(q: float) -> None:
    x, y = np.meshgrid(np.linspace(-4, 4, 41), np.linspace(-4, 4, 41))
    radius = np.hypot(x, y)
    radius[radius == 0] = 1
    alpha_x, alpha_y = sie(x, y, 1.5, q, 0.3)
    np.testing.assert_allclose(alpha_x, 1.5 * x / radius, rtol=0, atol=ARCSEC)
    np.testing.assert_allclose(alpha_y, 1.5 * y / radius, rtol=0, atol=ARCSEC)


def test_a_lens_does_not_deflect_at_its_centre() -> None:
    assert sie(np.zeros(1), np.zeros(1), 1.0, 0.7, 0.3) == (0.0, 0.0)


def test_torch_gives_what_numpy_gives_and_keeps_its_dtype() -> None:
    x, y = np.meshgrid(np.linspace(-4, 4, 32), np.linspace(-4, 4, 32))
    lens = Lens(1.3, 0.6, 0.4, 0.03, -0.02, 0.1, -0.05, core=0.05)
    for ours, theirs in zip(
        to_source_plane(lens, x, y), to_source_plane(lens, torch.tensor(x), torch.tensor(y)), strict=True
    ):
        np.testing.assert_allclose(theirs.numpy(), ours, rtol=0, atol=1e-14)
    single = to_source_plane(lens, torch.tensor(x).float(), torch.tensor(y).float())
    assert {axis.dtype for axis in single} == {torch.float32}


def test_parameters_broadcast_so_that_many_lenses_go_in_one_call() -> None:
    x, y = torch.rand(5, 7, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64)
    theta_e, q = torch.linspace(0.5, 2, 5)[:, None].double(), torch.linspace(0.4, 1, 5)[:, None].double()
    together = sie(x, y, theta_e, q, 0.2)
    for row in range(5):
        alone = sie(x[row], y[row], float(theta_e[row, 0]), float(q[row, 0]), 0.2)
        assert torch.allclose(together[0][row], alone[0], rtol=1e-12)
        assert torch.allclose(together[1][row], alone[1], rtol=1e-12)


@pytest.mark.parametrize(
    "parameters",
    [{"theta_e": -1.0}, {"theta_e": float("nan")}, {"q": 0.0}, {"q": 1.2}, {"g1": 0.8, "g2": 0.7}, {"core": -0.1}],
)
def test_an_impossible_lens_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lens"):
        Lens(**({"theta_e": 1.0} | parameters))
