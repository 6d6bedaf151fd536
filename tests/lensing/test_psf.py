"""PSFs: profiles, noise-equivalent areas, transfer functions, a real coadd PSF."""

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.integrate import quad

from dark_halo_scope.lensing import psf as psfs
from dark_halo_scope.lensing.psf import Psf

PROFILES = [Psf("moffat", 1.3), Psf("moffat", 0.9, 2.5), Psf("gaussian", 1.2)]


@pytest.fixture(scope="module")
def reference(reference_data: Path) -> dict[str, np.ndarray]:
    with np.load(reference_data / "lensing.npz") as file:
        return dict(file)


def test_a_moffat_agrees_with_the_reference(reference: dict[str, np.ndarray]) -> None:
    psf = Psf("moffat", float(reference["moffat_fwhm"]), float(reference["moffat_beta"]))
    assert psf.scale == pytest.approx(float(reference["moffat_alpha"]), rel=1e-12)
    np.testing.assert_allclose(
        psfs.enclosed_flux(psf, reference["moffat_r"]), reference["moffat_enclosed"], rtol=0, atol=1e-8
    )
    kernel = psfs.kernel(psf, 33, 0.262)
    # The reference's kernel is normalised to 1 on its 33 pixels, ours leaves out what lies beyond.
    np.testing.assert_allclose(kernel / kernel.sum(), reference["moffat_kernel_33_centre"], rtol=1e-9)


@pytest.mark.parametrize("psf", PROFILES)
def test_a_profile_has_unit_flux_half_its_peak_at_half_its_width_and_its_area(psf: Psf) -> None:
    def at(radius: float) -> float:
        return float(psfs.profile(psf, np.array(radius)))

    assert quad(lambda r: 2 * np.pi * r * at(r), 0, np.inf)[0] == pytest.approx(1.0, rel=1e-7)
    assert at(psf.fwhm / 2) == pytest.approx(at(0) / 2, rel=1e-12)
    area = 1 / quad(lambda r: 2 * np.pi * r * at(r) ** 2, 0, np.inf)[0]
    assert psfs.noise_equivalent_area(psf) == pytest.approx(area, rel=1e-7)
    enclosed = quad(lambda r: 2 * np.pi * r * at(r), 0, 1.1)[0]
    assert float(psfs.enclosed_flux(psf, np.array(1.1))) == pytest.approx(enclosed, rel=1e-7)


def test_psfsize_is_a_gaussians_width_and_0_811_of_it_a_moffats() -> None:
    assert psfs.psf_from_psfsize(1.3, "gaussian").fwhm == pytest.approx(1.3, rel=1e-12)
    assert psfs.psf_from_psfsize(1.3, "moffat").fwhm == pytest.approx(0.8113 * 1.3, rel=1e-4)
    assert psfs.psf_from_psfsize(1.3, "moffat", match="fwhm").fwhm == 1.3
    for kind in ("moffat", "gaussian"):
        assert psfs.noise_equivalent_fwhm(psfs.psf_from_psfsize(1.3, kind, beta=2.8)) == pytest.approx(1.3, rel=1e-12)


@pytest.mark.parametrize("psf", PROFILES)
def test_the_transfer_function_is_the_profiles_fourier_transform(psf: Psf) -> None:
    size, step = 1024, 0.06
    transform = np.fft.rfft2(np.fft.ifftshift(psfs.kernel(psf, size + 1, step)[:-1, :-1])).real
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * 2 * np.pi / step
    # The kernel's cut at 30" costs a Moffat of beta 2.5 a few 1e-5.
    np.testing.assert_allclose(transform, psfs.transfer(psf, frequency), rtol=0, atol=5e-5)


def test_the_survey_s_moffat_has_an_elementary_transfer_function() -> None:
    """(x/2)^(5/2) K_(5/2)(x) is e^-x times a polynomial."""
    psf = Psf("moffat", 1.1)
    wavenumber = np.linspace(0, 20, 200)
    x = wavenumber * psf.scale
    np.testing.assert_allclose(psfs.transfer(psf, wavenumber), np.exp(-x) * (1 + x + x**2 / 3), atol=1e-9)


@pytest.mark.parametrize("psf", PROFILES)
def test_the_table_reads_linearly_to_1e_6(psf: Psf) -> None:
    table, step = psfs.transfer_table(psf.kind, psf.beta)
    wavenumber = np.linspace(0, 12, 999)
    read = np.interp(wavenumber * psf.scale, np.arange(table.size) * step, table)
    np.testing.assert_allclose(read, psfs.transfer(psf, wavenumber), rtol=0, atol=2e-6)
    assert table[-1] < 1e-6


def test_torch_gives_what_numpy_gives() -> None:
    radius = np.linspace(0, 5, 40)
    for psf in PROFILES:
        np.testing.assert_allclose(psfs.profile(psf, torch.tensor(radius)).numpy(), psfs.profile(psf, radius))


def test_a_real_coadd_psf_is_matched_by_area_not_by_width(real_data: Path) -> None:
    """psfsize read as a profile's FWHM makes PSFs a fifth too wide."""
    (file,) = sorted((real_data / "legacysurvey" / "dr10").glob("copsf_*.fits"))
    with fits.open(file) as hdus:
        planes = [np.asarray(hdu.data, dtype=np.float64) for hdu in hdus]
    assert len(planes) == 4  # griz
    for plane in planes:
        plane = plane / plane.sum()
        psfsize = psfs.FWHM_PER_SIGMA / (2 * np.sqrt(np.pi)) * 0.262 / np.sqrt((plane**2).sum())
        errors = {}
        for match in ("nea", "fwhm"):
            model = psfs.kernel(psfs.psf_from_psfsize(psfsize, "moffat", match=match), plane.shape[0], 0.262)
            errors[match] = np.abs(model - plane).sum()
            if match == "nea":
                assert model.max() == pytest.approx(plane.max(), rel=0.1)
        assert errors["nea"] < 0.5 * errors["fwhm"]


@pytest.mark.parametrize(
    ("kind", "fwhm", "beta"), [("moffat", 0.0, 3.5), ("moffat", 1.2, 1.0), ("gaussian", float("nan"), 3.5), ("x", 1, 2)]
)
def test_an_impossible_psf_is_refused(kind: str, fwhm: float, beta: float) -> None:
    with pytest.raises(ValueError, match="PSF"):
        Psf(kind, fwhm, beta)


def test_psfsize_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="psfsize"):
        psfs.psf_from_psfsize(0.0)
