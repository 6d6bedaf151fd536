"""Rendering: reference scenes, brute force on both array libraries, closed forms, independent convolution."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.integrate import quad
from scipy.signal import fftconvolve

from dark_halo_scope.lensing import sersic
from dark_halo_scope.lensing.magnification import sis_disc_magnification
from dark_halo_scope.lensing.psf import Psf, profile
from dark_halo_scope.lensing.render import (
    PIXEL_SCALE,
    FineImage,
    Lens,
    convolve_and_sample,
    convolve_bands,
    fine_grid,
    render_arc,
    render_fine,
    render_fine_uniform,
)
from dark_halo_scope.lensing.sources import ImageSource, SersicSource, Source, brightness

SCENES = ["arc_A", "ring_B", "compact_C", "n4_D"]
FWHM = (1.40, 1.25, 1.20)
FLUX, PEAK = 0.005, 0.01
LENS = Lens(1.2, 0.7, 0.4, 0.03, -0.02)


@pytest.fixture(scope="module")
def reference(reference_data: Path) -> dict[str, np.ndarray]:
    with np.load(reference_data / "lensing.npz") as file:
        return dict(file)


def scene(params: np.ndarray) -> tuple[Lens, SersicSource, np.ndarray]:
    theta_e, q, phi, g1, g2, x, y, r_e, n, source_q, source_phi, *magnitudes = map(float, params)
    flux = 10 ** (-0.4 * (np.array(magnitudes) - 22.5))
    return Lens(theta_e, q, phi, g1, g2), SersicSource(x, y, r_e, n, source_q, source_phi), flux


def galaxy(rng: np.random.Generator, size: int = 40) -> np.ndarray:
    """A lumpy image of unit flux, some of its pixels negative, that does not fall to zero at its edge."""
    y, x = np.indices((size, size + 6)) - size / 2
    image = np.exp(-np.hypot(x - 2, 1.5 * y) / 5)
    for _ in range(6):
        cx, cy = rng.normal(0, 6, 2)
        image += 0.5 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 6)
    image += rng.normal(0, 0.01, image.shape)
    return image / image.sum()


@pytest.mark.parametrize("name", SCENES)
def test_scenes_agree_with_the_reference_in_flux_and_peak(reference: dict[str, np.ndarray], name: str) -> None:
    lens, source, fluxes = scene(reference[f"{name}__params"])
    image = render_arc(lens, source, [Psf("moffat", fwhm) for fwhm in FWHM], fluxes)
    expected = reference[f"{name}__epsf"]
    assert image.shape == (3, 64, 64)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image.sum(axis=(1, 2)), expected.sum(axis=(1, 2)), rtol=FLUX)
    np.testing.assert_allclose(image.max(axis=(1, 2)), expected.max(axis=(1, 2)), rtol=PEAK)
    deviation = np.abs(image - expected).max(axis=(1, 2)) / expected.max(axis=(1, 2))
    assert (deviation < PEAK).all()


@pytest.mark.parametrize("name", SCENES)
def test_the_fine_images_flux_is_the_magnification(reference: dict[str, np.ndarray], name: str) -> None:
    lens, source, _ = scene(reference[f"{name}__params"])
    # On 64 pixels an n = 4 profile's outskirts are outside the stamp, as they are in the reference.
    assert render_fine(lens, source).flux == pytest.approx(float(reference[f"{name}__mu_extended"]), rel=1e-3)


def test_centred_profiles_behind_a_sphere_have_their_exact_magnification(reference: dict[str, np.ndarray]) -> None:
    for theta_e, r_e, n, mu in reference["sis_centred_sersic_mu"]:
        # The integral runs to infinity: a stamp large enough for the profile's wings.
        outside = 4 if n > 2 else 1
        fine = render_fine(Lens(theta_e), SersicSource(0, 0, r_e, n), 64 * outside)
        assert fine.flux == pytest.approx(mu, rel=3e-3), (theta_e, r_e, n)


def test_a_centred_disc_behind_a_sphere_has_its_closed_form() -> None:
    scale, radius = 0.01, 0.4
    y, x = np.indices((101, 101)) - 50
    disc = (np.hypot(x, y) * scale < radius).astype(float)
    effective = np.sqrt(disc.sum() / np.pi) * scale
    fine = render_fine(Lens(1.3), ImageSource(0, 0, disc, scale))
    assert fine.flux == pytest.approx(sis_disc_magnification(1.3, effective), rel=2e-3)


SOURCES = [
    SersicSource(0.1, -0.05, 0.15, 1.0, 0.6, 0.3),
    SersicSource(0.3, 0.2, 0.1, 4.0, 0.9, 1.0),
    ImageSource(0.1, -0.05, galaxy(np.random.default_rng(1)), 0.05, 0.4, 0.7),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("lens", [LENS, Lens(0.8, 1.0, 0, 0, 0, 0.05, -0.1), Lens(1.0, 0.5, 2.0, core=0.1), Lens(0.0)])
def test_without_tolerance_the_compiled_path_is_the_array_path(lens: Lens, source: Source) -> None:
    """Split everywhere to the same depth, both sum the same points."""
    shape = {"size": 12, "pixel_scale": 0.4, "oversampling": 2}
    fast = render_fine(lens, source, **shape, tolerance=0.0, levels_below=2).values
    slow = render_fine_uniform(lens, source, np.zeros(1), **shape, subdivisions=4)
    # The compiled path reads deflections from a table that is right to 1e-7.
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-6 * slow.max())


@pytest.mark.parametrize("source", SOURCES)
def test_torch_renders_what_numpy_renders(source: Source) -> None:
    shape = {"size": 10, "pixel_scale": 0.4, "oversampling": 2, "subdivisions": 2}
    ours = render_fine_uniform(LENS, source, np.zeros(1), **shape)
    theirs = render_fine_uniform(LENS, source, torch.zeros(1, dtype=torch.float64), **shape)
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-12, atol=1e-15)


@given(
    lens=st.builds(
        Lens,
        theta_e=st.floats(0.25, 2.0),
        q=st.floats(0.33, 1.0),
        phi=st.floats(0, 3.2),
        g1=st.floats(-0.05, 0.05),
        g2=st.floats(-0.05, 0.05),
    ),
    source=st.builds(
        SersicSource,
        x=st.floats(-0.5, 0.5),
        y=st.floats(-0.5, 0.5),
        r_e=st.floats(0.07, 0.3),
        n=st.sampled_from([0.5, 1.0, 1.7]),
        q=st.floats(0.4, 1.0),
        phi=st.floats(0, 3.2),
    ),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_adaptive_tree_agrees_with_brute_force(lens: Lens, source: SersicSource) -> None:
    """Of sources off the lens centre: points on a grid, however many, miss a perfect ring's thin crest."""
    assume(np.hypot(source.x, source.y) > 0.1)
    psf = Psf("moffat", 1.1)
    size = 40
    fast = render_fine(lens, source, size)
    values = render_fine_uniform(lens, source, np.zeros(1), size, subdivisions=3)
    slow = FineImage(values, fast.oversampling, fast.pixel_scale)
    assert fast.flux == pytest.approx(slow.flux, rel=FLUX)
    ours, theirs = convolve_and_sample(fast, psf), convolve_and_sample(slow, psf)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=PEAK / 2 * theirs.max())


@pytest.mark.parametrize(
    "psf", [Psf("moffat", 1.1), Psf("moffat", 0.65), Psf("gaussian", 1.3), Psf("moffat", 1.0, 2.5)]
)
def test_the_convolution_agrees_with_a_sum_over_the_profile(psf: Psf) -> None:
    fine = render_fine(LENS, SersicSource(0.1, 0.05, 0.1))
    s, step = fine.oversampling, fine.pixel_scale / fine.oversampling
    offset = (np.arange(-fine.size * s, fine.size * s + 1) + (0.5 if s % 2 == 0 else 0.0)) * step
    kernel = profile(psf, np.hypot(offset[:, None], offset[None]))
    # Kernel entry [size * s] is half a fine pixel beyond the fine pixel's centre, as stamp pixels' centres are.
    full = fftconvolve(fine.values, kernel)[fine.size * s :, fine.size * s :]
    expected = full[s // 2 - 1 :: s, s // 2 - 1 :: s][: fine.size, : fine.size] * PIXEL_SCALE**2
    image = convolve_and_sample(fine, psf)
    # Theirs is broadened by the fine pixel; ours undoes that.
    np.testing.assert_allclose(image, expected, rtol=0, atol=4e-3 * expected.max())
    assert image.sum() == pytest.approx(expected.sum(), rel=1e-3)


@pytest.mark.parametrize("fwhm", [0.5, 1.0, 1.36, 2.5, 5.0])
@pytest.mark.parametrize("beta", [2.5, 3.5])
def test_no_psf_moves_an_arc_or_makes_it_infinite(fwhm: float, beta: float) -> None:
    """The earlier pipeline's Moffat kernels moved arcs by up to nine pixels, and failed from FWHM 1.36 on."""
    fine = render_fine(Lens(1.5, 0.8, 0.4, x=0.1, y=-0.05), SersicSource(0.3, 0.2, 0.2))
    image = convolve_and_sample(fine, Psf("moffat", fwhm, beta))
    narrow = convolve_and_sample(fine, Psf("gaussian", 0.5))
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert 0.8 * narrow.sum() < image.sum() <= fine.flux * (1 + 1e-6)
    # The correlation with the sharper arc is symmetric about no shift at all.
    correlation = fftconvolve(image, narrow[::-1, ::-1])
    row, column = (int(index) for index in np.unravel_index(np.argmax(correlation), correlation.shape))
    lines = (correlation[row - 1 : row + 2, column], correlation[row, column - 1 : column + 2])
    for peak, (before, here, after) in zip((row, column), lines, strict=True):
        vertex = 0.5 * (before - after) / (before - 2 * here + after)
        assert peak + vertex == pytest.approx(fine.size - 1, abs=0.1)


@pytest.mark.parametrize("size", [63, 64, 65, 101])
@pytest.mark.parametrize("oversampling", [1, 2, 4, 8])
def test_a_point_of_light_becomes_the_psf_where_it_stands(size: int, oversampling: int) -> None:
    psf = Psf("moffat", 1.3)
    values = np.zeros((size * oversampling, size * oversampling))
    row, column = size * oversampling // 2 + 3, size * oversampling // 2 - 5
    values[row, column] = 1.0
    image = convolve_and_sample(FineImage(values, oversampling, PIXEL_SCALE), psf)
    axis, pixel = fine_grid(size, oversampling, PIXEL_SCALE), fine_grid(size, 1, PIXEL_SCALE)
    expected = profile(psf, np.hypot(pixel[:, None] - axis[row], pixel[None] - axis[column])) * PIXEL_SCALE**2
    # A fine pixel's light is a convolution with it that is undone: a point comes out sharper by h^2/24 times the
    # curvature, half of which is the peak's.
    tolerance = {1: 0.09, 2: 0.02, 4: 0.006, 8: 0.0015}[oversampling]
    np.testing.assert_allclose(image, expected, rtol=0, atol=tolerance * expected.max())
    assert image.sum() == pytest.approx(expected.sum(), rel=2e-3)


def test_compact_light_is_found_in_the_largest_cells() -> None:
    """A source far smaller than the cells that the tree starts from, off their middles."""
    for n in (0.5, 1.0, 2.0):
        for x in (0.0, 0.03, 0.26, 0.5):
            assert render_fine(Lens(0.0), SersicSource(x, 0.01, 0.05, n, 0.6)).flux == pytest.approx(1.0, rel=2e-3)


def test_light_at_the_lens_centre_is_integrated() -> None:
    """Where the source touches the cut its image ends at the singular centre; 384 x 384 points a pixel resolve it."""
    lens, source = Lens(0.5, 0.5, 1.0), SersicSource(-0.4375, 0.375, 0.0625, 0.5)
    precise = render_fine_uniform(lens, source, np.zeros(1), 10, subdivisions=48).sum()
    assert render_fine(lens, source, 10).flux == pytest.approx(precise, rel=5e-4)


@pytest.mark.parametrize("r_e", [0.05, 0.1, 0.2])
def test_a_perfect_rings_crest_is_integrated(r_e: float) -> None:
    theta_e, n = 1.0, 1.7

    def light(beta: float) -> float:
        return 2 * np.pi * beta * float(sersic.brightness(np.array(beta), r_e, n))

    inside = quad(lambda beta: light(beta) * 2 * theta_e / beta, 0, theta_e, points=[0.01, 0.1])[0]
    outside = quad(lambda beta: light(beta) * (1 + theta_e / beta), theta_e, 20, limit=200)[0]
    fine = render_fine(Lens(theta_e), SersicSource(0, 0, r_e, n))
    assert fine.flux == pytest.approx(inside + outside, rel=2e-3)


def test_light_near_the_edge_does_not_come_back_on_the_other_side() -> None:
    values = np.zeros((256, 256))
    values[128, 2] = 1.0
    image = convolve_and_sample(FineImage(values, 4, PIXEL_SCALE), Psf("moffat", 1.3))
    assert image[:, -16:].max() < 2e-5 * image.max()


def test_positive_light_stays_positive_and_nothing_stays_nothing() -> None:
    fine = render_fine(LENS, SersicSource(0.1, 0.05, 0.05))
    assert (convolve_and_sample(fine, Psf("moffat", 0.7)) >= 0).all()
    dark = FineImage(np.zeros((64, 64)), 4, PIXEL_SCALE)
    assert not convolve_and_sample(dark, Psf("moffat", 0.7)).any()


def test_bands_share_the_fine_image_and_scale_with_their_flux() -> None:
    fine = render_fine(LENS, SersicSource(0.1, 0.05, 0.1))
    psfs = [Psf("moffat", 1.4), Psf("gaussian", 0.8)]
    bands = convolve_bands(fine, psfs, [2.0, 5.0])
    for band, psf, flux in zip(bands, psfs, (2.0, 5.0), strict=True):
        np.testing.assert_allclose(band, flux * convolve_and_sample(fine, psf), rtol=1e-4, atol=1e-6 * band.max())
    with pytest.raises(ValueError, match="one PSF and one flux"):
        convolve_bands(fine, psfs, [1.0])


def test_moving_lens_and_source_together_moves_the_image() -> None:
    psf = Psf("moffat", 1.2)
    still = convolve_and_sample(render_fine(LENS, SersicSource(0.1, 0.05, 0.1)), psf)
    shift = 3 * PIXEL_SCALE
    moved_lens = Lens(LENS.theta_e, LENS.q, LENS.phi, LENS.g1, LENS.g2, shift, -shift)
    moved = convolve_and_sample(render_fine(moved_lens, SersicSource(0.1 + shift, 0.05 - shift, 0.1)), psf)
    np.testing.assert_allclose(moved[5:50, 10:50], still[8:53, 7:47], rtol=0, atol=2e-4 * still.max())


@given(
    theta_e=st.floats(0.3, 1.8),
    q=st.floats(0.4, 1.0),
    phi=st.floats(0, 3.2),
    g1=st.floats(-0.05, 0.05),
    x=st.floats(-0.3, 0.3),
    y=st.floats(-0.3, 0.3),
    r_e=st.sampled_from([0.05, 0.1, 0.2]),
    n=st.sampled_from([0.7, 1.0]),
)
@settings(max_examples=6, deadline=None)
@example(theta_e=1.0, q=0.6, phi=2.6, g1=0.03, x=0.02, y=-0.02, r_e=0.05, n=1.0)
@example(theta_e=0.3125, q=1.0, phi=0.0, g1=0.0, x=0.1875, y=0.1875, r_e=0.05, n=0.7)
def test_images_agree_with_lenstronomys(
    theta_e: float, q: float, phi: float, g1: float, x: float, y: float, r_e: float, n: float
) -> None:
    # Points 0.016" apart miss 0.6% of the light of a source of 0.05" whose second image is squeezed beside the centre.
    size, subpixels, fwhm = 32, 32 if r_e < 0.1 else 16, 1.2
    step = PIXEL_SCALE / subpixels
    axis = fine_grid(size, subpixels, PIXEL_SCALE)
    grid_x, grid_y = np.meshgrid(axis, axis)
    e = (1 - q) / (1 + q)
    beta = LensModel(["SIE", "SHEAR"]).ray_shooting(
        grid_x.ravel(),
        grid_y.ravel(),
        [
            {"theta_E": theta_e, "e1": e * np.cos(2 * phi), "e2": e * np.sin(2 * phi)},
            {"gamma1": g1, "gamma2": 0.0},
        ],
    )
    # lenstronomy's b_n is an approximation: the same profile has another half-light radius there.
    theirs_b, b = 1.9992 * n - 0.3271, sersic.b_n(n)
    light = LightModel(["SERSIC"]).surface_brightness(
        *beta,
        [
            {
                "amp": sersic.central_brightness(r_e, n) * np.exp(-theirs_b),
                "R_sersic": r_e * (theirs_b / b) ** n,
                "n_sersic": n,
                "center_x": x,
                "center_y": y,
            }
        ],
    )
    psf = Psf("moffat", fwhm)
    offset = (np.arange(-size * subpixels, size * subpixels + 1) + 0.5) * step
    kernel = profile(psf, np.hypot(offset[:, None], offset[None])) * PIXEL_SCALE**2
    full = fftconvolve(light.reshape(grid_x.shape) * step**2, kernel)[size * subpixels :, size * subpixels :]
    expected = full[subpixels // 2 - 1 :: subpixels, subpixels // 2 - 1 :: subpixels][:size, :size]
    image = convolve_and_sample(render_fine(Lens(theta_e, q, phi, g1), SersicSource(x, y, r_e, n), size), psf)
    assert image.sum() == pytest.approx(expected.sum(), rel=FLUX)
    assert image.max() == pytest.approx(expected.max(), rel=PEAK)
    np.testing.assert_allclose(image, expected, rtol=0, atol=PEAK * expected.max())


def test_an_image_source_keeps_its_flux_whatever_its_pixels_angle_and_scale() -> None:
    image = galaxy(np.random.default_rng(0))
    for scale, phi in ((1.0, 0.0), (0.5, 0.7), (1.7, 2.0)):
        source = ImageSource(0.13, -0.2, 7.0 * image, 0.04, phi, scale)
        assert render_fine(Lens(0.0), source).flux == pytest.approx(1.0, rel=3e-3)


def test_an_image_source_stands_and_turns_as_it_says() -> None:
    image = np.zeros((21, 21))
    image[10, 18] = 1.0  # eight pixels to the right of the centre
    source = ImageSource(0.5, -0.3, image, 0.1, np.pi / 2, 1.5)
    grid = np.linspace(-3, 3, 121)
    x, y = np.meshgrid(grid, grid)
    light = brightness(source, x, y)
    top = np.unravel_index(np.argmax(light), light.shape)
    assert grid[top[1]] == pytest.approx(0.5, abs=0.03)
    assert grid[top[0]] == pytest.approx(-0.3 + 8 * 0.1 * 1.5, abs=0.03)


def test_a_sersic_source_drawn_as_an_image_gives_the_same_arc() -> None:
    analytic = SersicSource(0.1, 0.05, 0.2, 1.0, 0.7, 0.5)
    axis = (np.arange(201) - 100) * 0.02
    x, y = np.meshgrid(axis + 0.1, axis + 0.05)
    drawn = ImageSource(0.1, 0.05, brightness(analytic, x, y), 0.02)
    psf = Psf("moffat", 1.2)
    ours, theirs = (convolve_and_sample(render_fine(LENS, source), psf) for source in (drawn, analytic))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.01 * theirs.max())


@pytest.mark.parametrize(
    "make",
    [
        lambda: SersicSource(0, 0, 0.0),
        lambda: SersicSource(0, 0, 0.1, n=20.0),
        lambda: SersicSource(float("inf"), 0, 0.1),
        lambda: ImageSource(0, 0, np.zeros((4, 4)), 0.1),
        lambda: ImageSource(0, 0, np.full((4, 4), np.nan), 0.1),
        lambda: ImageSource(0, 0, np.ones(4), 0.1),
        lambda: ImageSource(0, 0, np.ones((4, 4)), -0.1),
        lambda: render_fine(LENS, SersicSource(0, 0, 0.1), oversampling=3),
    ],
)
def test_impossible_arguments_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"source|stamp"):
        make()


def test_rendering_is_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from dark_halo_scope.lensing.render import *;"
        "image = render_arc(Lens(1.2, .7, .4, .03, -.02), SersicSource(.1, .05, .1), [Psf('moffat', 1.1)], [2.0]);"
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    hashes = {run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(hashes) == 1


def test_compiled_code_is_kept_in_numba_cache_dir(tmp_path: Path) -> None:
    run_python(
        "from dark_halo_scope.lensing.render import *; render_fine(Lens(1.0), SersicSource(.1, .05, .1))",
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert list(tmp_path.rglob("*.nbi"))


def run_python(code: str, **environment: str) -> str:
    lib = Path(__file__).resolve().parents[2] / "lib"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(lib), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout
