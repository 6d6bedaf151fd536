"""What an arc promises: stated flux, stated signal to noise, and noise that vanishes where there is no arc."""

from pathlib import Path

import numpy as np
import pytest

from brick_scene import PSFSIZE, SIGMA, row
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.arcs import (
    Arc,
    NoSignalError,
    add_noise,
    arc_snr,
    arc_snr_maxpix,
    gains,
    lens_of,
    make_arc,
    psfs_of,
    shot_noise,
    source_of,
    unlensed_fluxes,
)
from dark_halo_scope.injection.galaxy_images import half_light_radius
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.injection.sources import SourceBank, open_bank
from dark_halo_scope.injection.stamp_config import (
    HardNegativeSettings,
    PsfSettings,
    ShotNoiseSettings,
    StampSettings,
)
from dark_halo_scope.lensing.render import render_arc
from dark_halo_scope.lensing.sources import ImageSource, brightness
from source_banks import earlier_image, exponential, write_galsim_bank, write_hdf5_bank

CENTRE = (0.07, -0.11)
SETTINGS = StampSettings()
PSFS = psfs_of(list(PSFSIZE.values()), SETTINGS.psf)
INVVAR = np.stack([np.full((64, 64), sigma**-2, np.float32) for sigma in SIGMA.values()])
GOOD = np.ones((64, 64), dtype=bool)
SCALE = 0.262


def _arc(changes: dict | None = None, settings: StampSettings = SETTINGS, invvar: np.ndarray = INVVAR) -> Arc:
    return make_arc(row(150, 150, **(changes or {})), CENTRE, PSFS, invvar, GOOD, None, settings, SCALE)


def test_arc_snr_grows_with_flux_and_is_the_matched_filter() -> None:
    arc = _arc().image
    assert arc_snr(10 * arc, INVVAR) == pytest.approx(10 * arc_snr(arc, INVVAR))
    # A matched filter applied to noisy copies scatters by 1 around its signal to noise.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, *arc.shape)) / np.sqrt(INVVAR)
    snr = arc_snr(arc, INVVAR)
    measured = ((arc + noise) * arc * INVVAR).sum(axis=(1, 2, 3)) / snr
    assert measured.mean() == pytest.approx(snr, abs=0.1)
    assert measured.std() == pytest.approx(1.0, abs=0.06)


def test_arc_snr_maxpix_is_the_brightest_good_r_pixel() -> None:
    arc, invvar = np.zeros((4, 4)), np.full((4, 4), 100.0)
    arc[1, 2], arc[3, 3] = 0.5, 0.3
    good = np.ones((4, 4), dtype=bool)
    assert arc_snr_maxpix(arc, invvar, good) == pytest.approx(5.0)
    good[1, 2] = False
    assert arc_snr_maxpix(arc, invvar, good) == pytest.approx(3.0)
    assert arc_snr_maxpix(arc, invvar, np.zeros_like(good)) == 0.0


def test_pixels_without_weight_add_no_signal() -> None:
    invvar = INVVAR.copy()
    invvar[:, :, :32] = 0
    assert arc_snr(_arc().image, invvar) < arc_snr(_arc().image, INVVAR)


def test_the_stated_magnitudes_are_those_of_the_source_and_of_its_lensed_light() -> None:
    arc = _arc()
    assert arc.fluxes == pytest.approx([10 ** (0.4 * (22.5 - mag)) for mag in (23.4, 23.0, 22.5)])
    for band, flux, image in zip("grz", arc.fluxes, arc.image, strict=True):
        lensed = flux * arc.measures["magnification"]
        assert arc.measures[f"lensed_mag_{band}"] == pytest.approx(22.5 - 2.5 * np.log10(lensed))
        # The PSF's wings carry a little light out of the stamp.
        assert image.sum() == pytest.approx(lensed, rel=0.02)
    assert arc.measures["magnification"] > 2


def test_a_target_arc_snr_is_met_by_scaling_all_bands_alike() -> None:
    plain, scaled = _arc(), _arc({"target_arc_snr": 37.0})
    assert arc_snr(scaled.image, INVVAR) == pytest.approx(37.0, rel=1e-5)
    assert scaled.measures["arc_snr"] == 37.0
    np.testing.assert_allclose(scaled.fluxes / plain.fluxes, (scaled.fluxes / plain.fluxes)[0])
    assert scaled.measures["src_mag_r"] == pytest.approx(22.5 - 2.5 * np.log10(scaled.fluxes[1]))
    assert scaled.measures["src_dmag"] == pytest.approx(scaled.measures["src_mag_r"] - 20.0)
    # The hard negative is of the same, scaled, light.
    assert scaled.shuffled.sum() / plain.shuffled.sum() == pytest.approx((scaled.fluxes / plain.fluxes)[0], rel=1e-3)


def test_a_target_that_no_pixel_can_meet_is_an_error_of_its_own() -> None:
    with pytest.raises(NoSignalError):
        _arc({"target_arc_snr": 37.0}, invvar=np.zeros_like(INVVAR))


def test_a_contrast_may_be_that_of_the_arc() -> None:
    lensed = _arc({"dmag_mode": "lensed", "src_mag_r": None, "src_dmag": 1.5})
    assert lensed.measures["lensed_mag_r"] == pytest.approx(21.5)
    assert lensed.measures["src_dmag"] == 1.5
    assert unlensed_fluxes(row(1, 1, src_mag_r=22.5, src_gr=0.0, src_rz=0.0), 9.0) == pytest.approx([1, 1, 1])


def test_the_arc_is_drawn_around_the_host_wherever_in_its_pixel_that_lies() -> None:
    task = row(150, 150)
    arc = _arc()
    direct = render_arc(lens_of(task, CENTRE), source_of(task, CENTRE, None), PSFS, arc.fluxes)
    np.testing.assert_allclose(arc.image, direct, rtol=1e-6)
    axis = (np.arange(64) - 31.5) * SCALE
    there = make_arc(task, (CENTRE[0] + SCALE, CENTRE[1] - 2 * SCALE), PSFS, INVVAR, GOOD, None, SETTINGS, SCALE).image
    # A move by whole pixels moves the picture by as many columns and rows.
    np.testing.assert_allclose(there[:, 10:50, 10:50], arc.image[:, 12:52, 9:49], atol=0.01 * float(arc.image.max()))
    x = (arc.shuffled[1] * axis[None, :]).sum() / arc.shuffled[1].sum()
    y = (arc.shuffled[1] * axis[:, None]).sum() / arc.shuffled[1].sum()
    assert (x, y) == pytest.approx(CENTRE, abs=0.05)


def test_measures_of_a_nearly_spherical_lens_are_those_of_the_textbook() -> None:
    centred = {"lens_e": 0.0, "shear": 0.0, "src_x_arcsec": 0.0, "src_y_arcsec": 0.0, "src_reff_arcsec": 0.1}
    measures = _arc(centred).measures
    assert measures["expected_arc_radius"] == pytest.approx(1.5, rel=0.02)
    # An isothermal sphere does not stretch radially.
    assert measures["radial_stretch"] == pytest.approx(1.0, rel=1e-6)
    assert measures["tangential_stretch"] > 5
    assert measures["physics_valid"] == 1
    assert measures["physics_warnings"] is None


@pytest.mark.parametrize("beta", [0.3, 0.7, 1.1])
def test_measures_of_a_small_source_behind_a_sphere_have_their_closed_forms(beta: float) -> None:
    """Images at theta_E +- beta with |mu| = theta_E / beta +- 1 (Narayan & Bartelmann 1996, section 3.1)."""
    theta_e = 1.5
    sphere = {"lens_e": 0.0, "shear": 0.0, "src_e": 0.0, "theta_e_arcsec": theta_e, "src_reff_arcsec": 0.03}
    measures = _arc(sphere | {"src_x_arcsec": beta, "src_y_arcsec": 0.0}).measures
    assert measures["magnification"] == pytest.approx(2 * theta_e / beta, rel=0.01)
    # The outer image has more than half of the light, stretched by its magnification, and not radially.
    assert measures["tangential_stretch"] == pytest.approx((theta_e + beta) / beta, rel=0.03)
    assert measures["radial_stretch"] == pytest.approx(1.0, rel=1e-6)
    assert measures["expected_arc_radius"] == pytest.approx((theta_e**2 + beta**2) / theta_e, rel=0.01)
    assert measures["physics_valid"] == 1
    lonely = _arc(sphere | {"src_x_arcsec": 2 * theta_e, "src_y_arcsec": 0.0}).measures
    assert lonely["magnification"] == pytest.approx(1.5, rel=0.01)
    assert lonely["expected_arc_radius"] == pytest.approx(3 * theta_e, rel=0.01)


def test_doubtful_physics_is_flagged_with_the_reason() -> None:
    assert "cut off" in _arc({"theta_e_arcsec": 8.2}).measures["physics_warnings"]
    hidden = _arc({"src_x_arcsec": 40.0})
    assert hidden.measures["physics_valid"] == 0
    assert "magnification below 1" in hidden.measures["physics_warnings"]


def test_shot_noise_has_no_mean_the_stated_variance_and_none_where_there_is_no_arc() -> None:
    arc = np.zeros((3, 8, 8))
    arc[:, 2:6, 2:6] = 0.05
    gain = np.array([2000.0, 5000.0, 9000.0])
    rng = np.random.default_rng(1)
    draws = np.array([shot_noise(arc, gain, rng) for _ in range(4000)])
    assert not draws[:, :, 0, :].any()
    lit = draws[:, :, 2:6, 2:6]
    np.testing.assert_allclose(lit.mean(axis=(0, 2, 3)), 0.0, atol=5 * np.sqrt(0.05 / 2000 / lit[:, 0].size))
    np.testing.assert_allclose(lit.var(axis=(0, 2, 3)), 0.05 / gain, rtol=0.03)


def test_shot_noise_of_ripples_below_zero_is_not_a_number_out_of_nowhere() -> None:
    ripples = np.full((3, 4, 4), -1e-9)
    assert np.abs(shot_noise(ripples, np.full(3, 5000.0), np.random.default_rng(0))).max() == 0.0


def test_gains_at_usual_r_depths_are_those_of_the_survey() -> None:
    """2,600 to 14,000 electrons per nanomaggy between r depths of 23.6 and 24.4 (5 sigma, PSF of 1.3 arcsec)."""
    for depth, low, high in ((23.6, 2000, 4000), (24.0, 4000, 8000), (24.4, 9000, 15000)):
        sigma_psf = 10 ** (-0.4 * (depth - 22.5)) / 5
        pixels = 4 * np.pi * (1.3 / 0.262 / 2.3548) ** 2
        invvar = np.full((3, 16, 16), pixels / sigma_psf**2)
        assert low < gains(invvar, ShotNoiseSettings(), SCALE)[1] < high


def test_gain_is_that_of_sky_and_not_of_the_host_or_of_pixels_without_data() -> None:
    invvar = INVVAR.copy()
    invvar[:, 28:36, 28:36] *= 0.2
    invvar[:, :10] = 0
    np.testing.assert_allclose(gains(invvar, ShotNoiseSettings(), SCALE), gains(INVVAR, ShotNoiseSettings(), SCALE))
    fixed = ShotNoiseSettings(gain={"g": 1.0, "r": 2.0, "z": 3.0})
    np.testing.assert_array_equal(gains(INVVAR, fixed, SCALE), [1.0, 2.0, 3.0])


def test_positive_and_hard_negative_carry_the_same_noise_process() -> None:
    """The same variance per light and independent draws: noise must not tell the two apart."""
    arc = _arc({"src_mag_r": 20.0})
    gain = gains(INVVAR, ShotNoiseSettings(), SCALE)[:, None, None]
    residuals: dict[str, list] = {"image": [], "shuffled": []}
    for seed in range(60):
        noisy = add_noise(arc, INVVAR, seed, ShotNoiseSettings(), SCALE)
        for kind, found in residuals.items():
            light = getattr(arc, kind)
            expected = np.sqrt(np.maximum(light, 1e-9) / gain)
            bright = light > 0.2 * light.max()
            found.append(((getattr(noisy, kind) - light) / expected)[bright])
    for found in residuals.values():
        assert np.concatenate(found).std() == pytest.approx(1.0, abs=0.02)
    assert not np.array_equal(noisy.image - arc.image, noisy.shuffled - arc.shuffled)


def test_noise_can_be_turned_off_and_repeats_with_its_seed() -> None:
    arc = _arc()
    assert add_noise(arc, INVVAR, 1, ShotNoiseSettings(enabled=False), SCALE) is arc
    one, same, other = (add_noise(arc, INVVAR, seed, ShotNoiseSettings(), SCALE).image for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_one_more_kind_of_hard_negative_changes_no_other_number() -> None:
    more = StampSettings(hard_negatives=HardNegativeSettings(extra=("blocks", "pixels")))
    plain, rich = _arc(), _arc(settings=more)
    np.testing.assert_array_equal(plain.shuffled, rich.shuffled)
    assert set(rich.extra) == {"blocks", "pixels"}
    assert not np.array_equal(rich.extra["pixels"], rich.shuffled)
    noisy = [add_noise(arc, INVVAR, 5, ShotNoiseSettings(), SCALE) for arc in (plain, rich)]
    np.testing.assert_array_equal(noisy[0].image, noisy[1].image)
    np.testing.assert_array_equal(noisy[0].shuffled, noisy[1].shuffled)


def test_psfsize_becomes_the_profile_of_equal_noise_equivalent_area() -> None:
    assert psfs_of([1.3], PsfSettings())[0].fwhm == pytest.approx(0.8113 * 1.3, rel=1e-3)
    assert psfs_of([1.3], PsfSettings(match="fwhm"))[0].fwhm == pytest.approx(1.3)


def test_a_bank_galaxy_gets_the_size_that_the_row_asks_for(real_data: Path) -> None:
    bank = open_bank(real_data / "cosmos_sources" / "paltas_10gal", SourceBankSettings())
    ident = int(bank.idents[1])
    task = row(150, 150, source_mode="image", source_id=str(ident), src_reff_arcsec=0.4, src_e=0.0, src_n=None)
    source = source_of(task, CENTRE, bank)
    assert isinstance(source, ImageSource)
    assert bank.galaxy(ident).half_light_radius * source.scale == pytest.approx(0.4)
    assert (source.x, source.y) == (CENTRE[0] + 0.25, CENTRE[1] - 0.1)
    arc = make_arc(task, CENTRE, PSFS, INVVAR, GOOD, bank, SETTINGS, SCALE)
    assert arc.measures["magnification"] > 1.5


UNLENSED = {"theta_e_arcsec": 0.0, "shear": 0.0, "src_x_arcsec": 0.0, "src_y_arcsec": 0.0}
KINDS = [
    {"source_mode": "sersic"},
    {"source_mode": "clumpy", "src_n": None},
    {"source_mode": "image", "source_id": "100", "src_n": None, "src_e": 0.0},
]


@pytest.fixture
def long_galaxy(tmp_path: Path) -> SourceBank:
    """A bank of one galaxy, three times as long along x as along y."""
    axis = np.arange(121) - 60
    image = np.exp(-0.5 * (axis / 15.0) ** 2 - 0.5 * (axis[:, None] / 5.0) ** 2)
    return open_bank(write_galsim_bank(tmp_path / "bank", [image / image.sum()]), SourceBankSettings())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("gr", "rz", "mag"), [(0.4, 0.5, 23.0), (-0.3, 0.1, 20.5)])
def test_every_kind_of_source_has_the_rows_flux_and_colours(
    long_galaxy: SourceBank, kind: dict, gr: float, rz: float, mag: float
) -> None:
    """The earlier pipeline gave all image sources one colour, by which alone they could be told."""
    task = row(150, 150, **UNLENSED, **kind, src_gr=gr, src_rz=rz, src_mag_r=mag)
    arc = make_arc(task, (0.0, 0.0), PSFS, INVVAR, GOOD, long_galaxy, SETTINGS, SCALE)
    magnitudes = 22.5 - 2.5 * np.log10(arc.image.sum(axis=(1, 2), dtype=np.float64))
    assert magnitudes == pytest.approx([mag + gr, mag, mag - rz], abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phi", [0.0, 0.5, 2.2])
def test_every_kind_of_source_has_the_rows_size_and_lies_along_its_angle(
    long_galaxy: SourceBank, kind: dict, phi: float
) -> None:
    """Counter-clockwise from +x in the stamp's frame."""
    shape = {"src_e": 0.5} if kind["source_mode"] != "image" else {}
    task = row(150, 150, **UNLENSED, **{**kind, **shape}, src_phi_rad=phi, src_reff_arcsec=0.5)
    axis = (np.arange(401) - 200) * 0.02
    x, y = np.meshgrid(axis, axis)
    light = brightness(source_of(task, (0.0, 0.0), long_galaxy), x, y)
    assert light.sum() * 0.02**2 == pytest.approx(1.0, rel=0.02)
    xx, yy, xy = (float((light * one).sum() / light.sum()) for one in (x * x, y * y, x * y))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    # Clumps pull the long axis of a galaxy off its disc's.
    assert np.cos(2 * (angle - phi)) > (0.85 if kind["source_mode"] == "clumpy" else 0.999)
    if kind["source_mode"] != "sersic":  # whose radius is that of an ellipse
        assert 0.02 * half_light_radius(light) == pytest.approx(0.5, rel=0.03)


def _earlier_bank(folder: Path) -> Path:
    rng = np.random.default_rng(6)
    return write_hdf5_bank(folder / "bank.h5", [earlier_image(20 * exponential(96, 8.0), 2.6e-3, rng)] * 2)


@pytest.mark.parametrize(
    "name", ["paltas_10gal/real_galaxy_catalog_23.5.fits", "galsim_aegis/AEGIS_F814w_catalog.fits", None]
)
def test_every_galaxy_of_every_bank_is_rendered(real_data: Path, tmp_path: Path, name: str | None) -> None:
    path = real_data / "cosmos_sources" / name if name else _earlier_bank(tmp_path)
    bank = open_bank(path, SourceBankSettings())
    for ident in bank.idents.tolist():
        task = row(150, 150, source_mode="image", source_id=str(ident), src_e=0.0, src_n=None)
        arc = make_arc(task, CENTRE, PSFS, INVVAR, GOOD, bank, SETTINGS, SCALE)
        assert np.isfinite(arc.image).all()
        assert arc.measures["arc_snr"] > 5
        # Pixels keep their noise's sign, and a source's noise is nothing beside its light.
        assert arc.image.min() > -0.01 * arc.image.max()


def test_clumps_are_the_tasks_own_and_move_no_other_draw() -> None:
    first, second = (row(150, 150, number=number, source_mode="clumpy", src_n=None) for number in (1, 2))
    sources = [source_of(task, CENTRE, None) for task in (first, first, second)]
    assert all(isinstance(source, ImageSource) for source in sources)
    images = [source.image for source in sources if isinstance(source, ImageSource)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_rows_that_no_renderer_understands_are_refused() -> None:
    with pytest.raises(BadInputError, match="no source bank"):
        source_of(row(1, 1, source_mode="image", source_id="5"), CENTRE, None)
    with pytest.raises(BadInputError, match="unknown source"):
        source_of(row(1, 1, source_mode="nova"), CENTRE, None)
