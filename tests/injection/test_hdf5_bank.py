"""What the reader of the earlier pipeline's HDF5 bank promises."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.injection.sources import SourceBank, open_bank
from source_banks import earlier_image, exponential, gaussian, write_hdf5_bank

SETTINGS = SourceBankSettings()
NOISE = 2.6e-3
FLUX = 10 ** (0.4 * (25.94 - 23.0))


def images(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [earlier_image(FLUX * exponential(96, 6.0 + 2 * k), NOISE, rng) for k in range(count)]


def bank_of(folder: Path, **changes: Any) -> SourceBank:
    return open_bank(write_hdf5_bank(folder / "bank.h5", images(), **changes), SETTINGS)


def test_a_pedestal_does_not_inflate_the_sizes_of_a_stored_bank(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    assert bank.idents.tolist() == [7, 17, 27]
    for number, ident in enumerate(bank.idents.tolist()):
        galaxy = bank.galaxy(ident)
        true = 0.03 * (6.0 + 2 * number) * 0.99
        assert galaxy.half_light_radius == pytest.approx(true, rel=0.06)
        assert bank.file.half_light_arcsec[number] > 1.2 * true
        assert galaxy.image.sum() == pytest.approx(1.0, abs=1e-5)
        assert galaxy.pixel_scale == 0.03


def test_real_galaxies_keep_their_sizes_when_the_earlier_pipeline_stores_them(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "cosmos_sources" / "paltas_10gal"
    original = open_bank(folder, SETTINGS)
    catalogue = fits.getdata(folder / "real_galaxy_catalog_23.5.fits", 1)
    rng = np.random.default_rng(2)
    radii, stored = [], []
    for entry in catalogue:
        galaxy = original.galaxy(int(entry["IDENT"]))
        stamp = np.asarray(fits.getdata(folder / entry["GAL_FILENAME"].strip(), int(entry["GAL_HDU"])), np.float64)
        if len(galaxy.image) > 96:  # it would lose its outskirts
            continue
        # As GalSim draws it: beyond the postage stamp there is noise like that in it.
        canvas = rng.normal(0.0, np.sqrt(entry["NOISE_VARIANCE"]), (300, 300))
        top, left = (150 - n // 2 for n in stamp.shape)
        canvas[top : top + stamp.shape[0], left : left + stamp.shape[1]] = stamp
        radii.append(galaxy.half_light_radius)
        stored.append(earlier_image(canvas[102:198, 102:198], 0.0, rng))
    bank = open_bank(write_hdf5_bank(tmp_path / "bank.h5", stored), SETTINGS)
    assert len(bank) >= 5
    measured = np.array([bank.galaxy(ident).half_light_radius for ident in bank.idents.tolist()])
    np.testing.assert_allclose(measured, radii, rtol=0.12)
    assert np.median(np.abs(measured / radii - 1.0)) < 0.05
    assert np.median(bank.file.half_light_arcsec / radii) > 1.1


def test_the_format_is_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    path = write_hdf5_bank(tmp_path / "real_galaxy_catalog.fits", images())
    assert open_bank(path, SETTINGS).file.format == "hdf5"
    (tmp_path / "bank.h5").write_bytes(b"these are not galaxies")
    with pytest.raises(BadInputError, match=r"neither a FITS catalogue .* nor an HDF5 file"):
        open_bank(tmp_path / "bank.h5", SETTINGS)


def test_one_galaxy_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(tmp_path)
    asked = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, place: asked.append(place) or read(self, place))
    bank.galaxy(17)
    assert asked == [1]


def test_a_bank_read_in_a_forked_process_gives_the_same(tmp_path: Path, in_fork: Any) -> None:
    bank = bank_of(tmp_path)
    expected = bank.galaxy(17).image

    def read_again() -> None:
        assert np.array_equal(bank.file.read(1).image, expected)

    assert in_fork(read_again) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": None}, "lacks images"),
        ({"meta/index": None}, "lacks meta/index"),
        ({"meta/hlr_arcsec": None}, "lacks meta/hlr_arcsec"),
        ({"scale": None}, "lacks the attribute src_pixscale_arcsec"),
        ({"scale": -0.03}, "lacks the attribute src_pixscale_arcsec"),
        ({"meta/index": np.array([5, 5, 6])}, "repeats an IDENT"),
        ({"meta/index": np.array([5, 6])}, "3 images, 2 names"),
        ({"meta/index": np.array([b"a", b"b", b"c"])}, "meta/index of source bank .* is not what"),
        ({"images": np.zeros((3, 96), np.float32)}, "images of source bank .* is not what"),
        ({"images": np.zeros((0, 96, 96), np.float32), "meta/index": np.zeros(0, int)}, "holds 0 images"),
        ({"images": h5py.ExternalLink("other.h5", "images")}, "has a link in place of images"),
        ({"meta/index": h5py.SoftLink("/elsewhere")}, "has a link in place of meta/index"),
    ],
)
def test_bad_hdf5_banks_are_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        bank_of(tmp_path, **changes)


def test_images_in_another_file_are_refused(tmp_path: Path) -> None:
    path = write_hdf5_bank(tmp_path / "bank.h5", images(), images=None)
    (tmp_path / "secret").write_bytes(bytes(4 * 3 * 96 * 96))
    with h5py.File(path, "a") as file:
        outside = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("images", (3, 96, 96), "f4", external=outside)
    with pytest.raises(BadInputError, match="lies in another file"):
        open_bank(path, SETTINGS)


def test_a_bank_that_was_cut_short_is_one_clear_sentence(tmp_path: Path) -> None:
    path = write_hdf5_bank(tmp_path / "bank.h5", images())
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(BadInputError, match="damaged or cut short"):
        open_bank(path, SETTINGS)


def test_an_unusable_image_is_named_and_others_are_read(tmp_path: Path) -> None:
    stack = np.array(images())
    stack[0, 3, 3] = np.nan
    stack[1] = 0.0
    bank = bank_of(tmp_path, images=stack)
    with pytest.raises(BadInputError, match=r"Source 7 .*finite"):
        bank.galaxy(7)
    with pytest.raises(BadInputError, match=r"Source 17 .*no light"):
        bank.galaxy(17)
    assert bank.galaxy(27).half_light_radius > 0


def test_a_bank_without_psfs_cannot_be_deconvolved(tmp_path: Path) -> None:
    path = write_hdf5_bank(tmp_path / "bank.h5", [gaussian(96, 4.0)])
    with pytest.raises(BadInputError, match="no PSFs"):
        open_bank(path, SourceBankSettings(psf="deconvolve"))
