"""What the source bank promises, on real HST galaxies and on galaxies of known size."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection import sources
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.injection.sources import open_bank
from source_banks import gaussian, write_galsim_bank

SETTINGS = SourceBankSettings()


def test_real_cosmos_galaxies_have_unit_flux_and_sextractor_sizes(real_data: Path) -> None:
    path = real_data / "cosmos_sources" / "paltas_10gal"
    bank = open_bank(path, SETTINGS)
    assert len(bank) == 10
    reference = fits.getdata(next(path.glob("*catalog*_fits.fits")), 1)
    radius = dict(zip(reference["IDENT"].tolist(), (0.03 * reference["flux_radius"]).tolist(), strict=True))
    for ident in bank.idents.tolist():
        galaxy = bank.galaxy(ident)
        assert galaxy.image.sum() == pytest.approx(1.0, abs=1e-5)
        assert galaxy.half_light_radius == pytest.approx(radius[ident], rel=0.06)
        rows, columns = np.indices(galaxy.image.shape) - (len(galaxy.image) - 1) / 2
        assert abs((rows * galaxy.image).sum()) < 0.51
        assert abs((columns * galaxy.image).sum()) < 0.51


def test_real_aegis_galaxies_are_read_with_their_psf(real_data: Path) -> None:
    catalogue = real_data / "cosmos_sources" / "galsim_aegis" / "AEGIS_F814w_catalog.fits"
    kept = open_bank(catalogue, SETTINGS)
    sharp = open_bank(catalogue, SourceBankSettings(psf="deconvolve"))
    for ident in kept.idents.tolist():
        assert sharp.galaxy(ident).half_light_radius < 1.05 * kept.galaxy(ident).half_light_radius
        assert sharp.galaxy(ident).image.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_folder_with_two_catalogues_asks_for_the_file(real_data: Path) -> None:
    with pytest.raises(BadInputError, match="name the file"):
        open_bank(real_data / "cosmos_sources" / "galsim_aegis", SETTINGS)


def test_a_missing_psf_file_stops_deconvolution_but_not_plain_reading(real_data: Path) -> None:
    path = real_data / "cosmos_sources" / "paltas_10gal"
    bank = open_bank(path, SourceBankSettings(psf="deconvolve"))
    with pytest.raises(BadInputError, match="PSF"):
        bank.galaxy(int(bank.idents[0]))


def test_an_image_is_read_once_and_an_unknown_ident_is_refused(tmp_path: Path) -> None:
    bank = open_bank(write_galsim_bank(tmp_path, [gaussian(41, 3.0), gaussian(41, 4.0)]), SETTINGS)
    first = bank.galaxy(100)
    bank.galaxy(101)
    assert bank.galaxy(100) is first
    with pytest.raises(BadInputError, match="another bank"):
        bank.galaxy(7)


def test_images_are_kept_up_to_a_number_of_bytes_the_latest_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_galsim_bank(tmp_path, [gaussian(41, 3.0)] * 4)
    size = open_bank(path, SETTINGS).galaxy(100).image.nbytes
    monkeypatch.setattr(sources, "_CACHE_BYTES", 3 * size)
    bank = open_bank(path, SETTINGS)
    kept = {ident: bank.galaxy(ident) for ident in (100, 101, 102)}
    bank.galaxy(100)
    bank.galaxy(103)
    assert bank.galaxy(100) is kept[100]
    assert bank.galaxy(102) is kept[102]
    assert bank.galaxy(101) is not kept[101]
    # One that is larger than all that may be kept is kept alone.
    monkeypatch.setattr(sources, "_CACHE_BYTES", size - 1)
    assert bank.galaxy(103) is bank.galaxy(103)


def test_no_file_stays_open_however_many_a_bank_has(tmp_path: Path) -> None:
    path = write_galsim_bank(
        tmp_path, [gaussian(41, 3.0)] * 30, GAL_FILENAME=np.array([f"{k}.fits" for k in range(30)])
    )
    for number in range(30):
        shutil.copy(tmp_path / "images.fits", tmp_path / f"{number}.fits")
    bank = open_bank(path, SETTINGS)
    for ident in bank.idents.tolist():
        bank.galaxy(ident)
    assert not [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)]


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_every_image_is_that_of_its_hdu_with_its_scaling(tmp_path: Path, suffix: str) -> None:
    images = [fits.PrimaryHDU(gaussian(41, 3.0)), fits.ImageHDU((1e4 * gaussian(41, 4.0)).astype(np.int16))]
    images[1].header["BSCALE"], images[1].header["BZERO"] = 2.0, 0.0
    table = fits.BinTableHDU(np.rec.fromarrays([np.arange(3)], names="a"))
    fits.HDUList([*images, table, fits.ImageHDU(gaussian(41, 5.0))]).writeto(tmp_path / f"other{suffix}")
    names = np.array([f"other{suffix}"] * 6)
    path = write_galsim_bank(
        tmp_path, [gaussian(41, 3.0)] * 6, GAL_FILENAME=names, GAL_HDU=np.array([0, 1, 3, 2, 4, -1])
    )
    bank = open_bank(path, SETTINGS)
    for ident, sigma in ((100, 3.0), (101, 4.0), (102, 5.0)):
        assert bank.galaxy(ident).half_light_radius == pytest.approx(0.03 * 1.1774 * sigma, rel=0.03)
    for ident, reason in ((103, "it is a table"), (104, "it has 4"), (105, "it has 4")):
        with pytest.raises(BadInputError, match=rf"HDU -?\d of other{suffix} cannot be read \({reason}\)"):
            bank.galaxy(ident)


def test_a_neighbour_in_the_stamp_changes_nothing_in_a_deconvolved_galaxy(tmp_path: Path) -> None:
    alone = gaussian(121, 4.0)
    beside = alone + 0.9 * gaussian(121, 1.5, 48.0, 48.0)
    bank = open_bank(
        write_galsim_bank(tmp_path, [alone, beside], gaussian(21, 1.5)), SourceBankSettings(psf="deconvolve")
    )
    np.testing.assert_allclose(bank.galaxy(101).image, bank.galaxy(100).image, rtol=1e-4, atol=1e-9)
    assert bank.galaxy(101).half_light_radius == pytest.approx(bank.galaxy(100).half_light_radius, rel=1e-5)


@pytest.mark.parametrize("name", ["../images.fits", "/etc/passwd", "a/b.fits", ".."])
def test_file_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write_galsim_bank(tmp_path, [gaussian(41, 3.0)], GAL_FILENAME=np.array([name]))
    with pytest.raises(BadInputError, match="only files beside it"):
        open_bank(path, SETTINGS)


def test_bad_banks_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        open_bank(tmp_path / "none.fits", SETTINGS)
    with pytest.raises(BadInputError, match="found none"):
        open_bank(tmp_path, SETTINGS)
    path = write_galsim_bank(tmp_path, [np.zeros((21, 21)), np.full((21, 21), np.nan)])
    bank = open_bank(path, SETTINGS)
    with pytest.raises(BadInputError, match="no light"):
        bank.galaxy(100)
    with pytest.raises(BadInputError, match="finite"):
        bank.galaxy(101)


def test_a_repeated_ident_is_refused(tmp_path: Path) -> None:
    path = write_galsim_bank(tmp_path, [gaussian(41, 3.0)] * 2, IDENT=np.array([5, 5]))
    with pytest.raises(BadInputError, match="repeats"):
        open_bank(path, SETTINGS)


def test_a_catalogue_without_a_column_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write_galsim_bank(tmp_path, [gaussian(41, 3.0)])
    table = fits.getdata(path, 1)
    kept = [name for name in table.names if name not in ("PIXEL_SCALE", "GAL_HDU")]
    fits.BinTableHDU.from_columns([table.columns[name] for name in kept]).writeto(path, overwrite=True)
    with pytest.raises(BadInputError, match="lacks GAL_HDU, PIXEL_SCALE"):
        open_bank(path, SETTINGS)


def test_hdf5_is_loaded_for_hdf5_banks_alone() -> None:
    code = "import sys, dark_halo_scope.injection.measure_sources; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
