"""Magnifications: closed forms, the reference's images, automatic derivatives, caustics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from dark_halo_scope.lensing import magnification
from dark_halo_scope.lensing.deflection import to_source_plane
from dark_halo_scope.lensing.lens import Lens


@pytest.fixture(scope="module")
def reference(reference_data: Path) -> dict[str, np.ndarray]:
    with np.load(reference_data / "lensing.npz") as file:
        return dict(file)


def lens_of(params: np.ndarray) -> Lens:
    theta_e, q, phi, g1, g2, core, x, y = map(float, params)
    return Lens(theta_e, q, phi, g1, g2, x, y, core / np.sqrt(q))


def test_point_images_of_a_sphere_agree_to_1e_6(reference: dict[str, np.ndarray]) -> None:
    images = magnification.sis_point_images(reference["sis_pt_beta"], 1.5)
    np.testing.assert_allclose(images.mu_plus, reference["sis_pt_mu_plus"], rtol=1e-6)
    np.testing.assert_allclose(images.mu_minus, reference["sis_pt_mu_minus_abs"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(images.mu_plus + images.mu_minus, reference["sis_pt_mu_total"], rtol=1e-6)


def test_point_images_solve_the_lens_equation_with_the_jacobians_magnification() -> None:
    beta = np.array([0.05, 0.4, 1.1])
    images = magnification.sis_point_images(beta, 1.2)
    lens = Lens(1.2)
    for theta, mu in ((images.theta_plus, images.mu_plus), (images.theta_minus, -images.mu_minus)):
        np.testing.assert_allclose(to_source_plane(lens, theta, np.zeros(3))[0], beta, atol=1e-14)
        np.testing.assert_allclose(magnification.magnification(lens, theta, np.zeros(3)), mu, rtol=1e-12)
    lonely = magnification.sis_point_images(np.array([1.5]), 1.2)
    assert np.isnan(lonely.theta_minus[0])
    assert lonely.mu_minus[0] == 0


@pytest.mark.parametrize("case", ["sie_q07", "sie_q07_shear"])
def test_images_of_the_reference_lie_where_ours_do(reference: dict[str, np.ndarray], case: str) -> None:
    lens = lens_of(reference[f"{case}__params"])
    beta_x, beta_y, theta_x, theta_y, mu = reference[f"{case}__pt_images"].T
    np.testing.assert_allclose(to_source_plane(lens, theta_x, theta_y), [beta_x, beta_y], rtol=0, atol=1e-6)
    # These magnifications come from finite differences (1e-5); the next test holds ours to 1e-12.
    np.testing.assert_allclose(magnification.magnification(lens, theta_x, theta_y), mu, rtol=3e-5)


@given(
    theta_e=st.floats(0.2, 3.0),
    q=st.floats(0.2, 1.0),
    phi=st.floats(0.0, 3.2),
    g1=st.floats(-0.1, 0.1),
    g2=st.floats(-0.1, 0.1),
    core=st.floats(0.0, 0.3),
)
@settings(max_examples=50, deadline=None)
def test_jacobians_are_the_derivatives_of_the_deflection(
    theta_e: float, q: float, phi: float, g1: float, g2: float, core: float
) -> None:
    lens = Lens(theta_e, q, phi, g1, g2, 0.1, -0.2, core)
    axis = torch.linspace(-2.9, 3.1, 13, dtype=torch.float64)
    x, y = (grid.reshape(-1).requires_grad_() for grid in torch.meshgrid(axis, axis, indexing="xy"))
    beta_x, beta_y = to_source_plane(lens, x, y)
    a_xx, a_xy = torch.autograd.grad(beta_x.sum(), (x, y), retain_graph=True)
    a_yx, a_yy = torch.autograd.grad(beta_y.sum(), (x, y))
    ours = magnification.jacobian(lens, x.detach().numpy(), y.detach().numpy())
    for element, derivative in zip((ours[0], ours[1], ours[1], ours[2]), (a_xx, a_xy, a_yx, a_yy), strict=True):
        np.testing.assert_allclose(element, derivative.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", ["sis", "sie_q07", "sie_q07_shear", "nie_core01", "shear_only"])
def test_convergence_and_shear_agree_with_the_reference(reference: dict[str, np.ndarray], case: str) -> None:
    found = magnification.distortion(lens_of(reference[f"{case}__params"]), reference["grid_x"], reference["grid_y"])
    for name in ("kappa", "gamma1", "gamma2"):
        # Finite differences again.
        np.testing.assert_allclose(getattr(found, name), reference[f"{case}__{name}"], rtol=1e-5, atol=2e-5)


def test_a_spheres_stretches_are_its_eigenvalues() -> None:
    radius = np.array([0.4, 1.5, 3.0])
    tangential, radial = magnification.stretches(Lens(1.0), radius, np.zeros(3))
    np.testing.assert_allclose(tangential, 1 / np.abs(1 - 1 / radius), rtol=1e-12)
    np.testing.assert_allclose(radial, 1.0, rtol=1e-12)


def test_the_critical_curve_is_where_the_determinant_vanishes() -> None:
    lens = Lens(1.4, 0.55, 0.8, 0.05, -0.03, 0.2, 0.1)
    x, y = magnification.critical_curve(lens, np.linspace(0, 2 * np.pi, 50))
    a_xx, a_xy, a_yy = magnification.jacobian(lens, x, y)
    np.testing.assert_allclose(a_xx * a_yy - a_xy**2, 0, atol=1e-12)
    with pytest.raises(ValueError, match="core"):
        magnification.critical_curve(Lens(1.0, core=0.1), np.zeros(1))


@pytest.mark.parametrize("q", [1.0, 0.8, 0.45])
def test_an_ellipsoids_critical_curve_is_the_ellipse_of_convergence_one_half_around_the_einstein_area(q: float) -> None:
    """kappa = theta_E / (2 sqrt(q x^2 + y^2 / q)) = 1/2: semi-axes theta_E / sqrt(q) and theta_E sqrt(q)."""
    lens = Lens(1.3, q, 0.7, x=0.2, y=-0.1)
    angles = np.linspace(0, 2 * np.pi, 4001)
    x, y = magnification.critical_curve(lens, angles)
    np.testing.assert_allclose(magnification.distortion(lens, x, y).kappa, 0.5, rtol=1e-12)
    dx, dy = x - lens.x, y - lens.y
    along, across = dx * np.cos(0.7) + dy * np.sin(0.7), dy * np.cos(0.7) - dx * np.sin(0.7)
    np.testing.assert_allclose(q * along**2 + across**2 / q, 1.3**2, rtol=1e-12)
    area = 0.5 * np.sum(dx[:-1] * dy[1:] - dx[1:] * dy[:-1])
    assert area == pytest.approx(np.pi * 1.3**2, rel=1e-5)
    # On it images are stretched tangentially without bound; its shear equals its convergence.
    with np.errstate(divide="ignore"):
        tangential, radial = magnification.stretches(lens, x, y)
    assert tangential.min() > 1e9
    np.testing.assert_allclose(radial, 1.0, rtol=1e-12)


def test_caustic_radius_of_a_sphere_is_its_einstein_radius() -> None:
    assert magnification.caustic_radius(Lens(1.7, x=0.4)) == pytest.approx(1.7, rel=1e-5)


@pytest.mark.parametrize("lens", [Lens(1.2, 0.7, 0.5, 0.04, 0.02), Lens(1.0, 0.3, 1.0), Lens(0.8, 0.95, 0.0, 0.1, 0.0)])
def test_sources_have_several_images_just_inside_the_caustic_radius_and_one_outside(lens: Lens) -> None:
    radius = magnification.caustic_radius(lens)
    e = (1 - lens.q) / (1 + lens.q)
    arguments = [
        {"theta_E": lens.theta_e, "e1": e * np.cos(2 * lens.phi), "e2": e * np.sin(2 * lens.phi)},
        {"gamma1": lens.g1, "gamma2": lens.g2},
    ]
    solver = LensEquationSolver(LensModel(["SIE", "SHEAR"]))

    def most_images(distance: float) -> int:
        counts = []
        for angle in np.linspace(0, np.pi, 24, endpoint=False) + lens.phi:
            x, _ = solver.image_position_from_source(
                distance * np.cos(angle),
                distance * np.sin(angle),
                arguments,
                min_distance=0.05,
                search_window=10,
                magnification_limit=1e-3,
            )
            counts.append(len(x))
        return max(counts)

    assert most_images(1.03 * radius) == 1
    assert most_images(0.95 * radius) > 1


def test_a_centred_disc_has_its_closed_form(reference: dict[str, np.ndarray]) -> None:
    for theta_e, radius, mu in reference["sis_centred_disc_mu"]:
        assert magnification.sis_disc_magnification(theta_e, radius) == pytest.approx(mu, rel=1e-6)
