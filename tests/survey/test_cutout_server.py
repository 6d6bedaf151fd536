"""What the local cutout service promises: the real service's format, and the survey's pixels at the right place."""

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from brick_scene import BRICK, open_brick, planes
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.coadds import Cutout
from dark_halo_scope.survey.cutout_server import CutoutServer, encode_cutout
from dark_halo_scope.survey.description import SurveyDescription
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.resample import lanczos, mosaic, target_header

LAYER = "layer=ls-dr10-south&pixscale=0.262&bands=grz"


class SmoothBrick:
    """A brick on an equatorial row whose pixels are `value` of the sky position; no compression, no file."""

    def __init__(self, centre: tuple[float, float], value: Callable, side: int = 3600) -> None:
        self.shape = (side, side)
        self.wcs = WCS(target_header(*centre, side, PIXEL_SCALE))
        self.value = value

    def sky_to_pixel(self, ra, dec):
        return self.wcs.all_world2pix(ra, dec, 0)

    def cutout(self, x: float, y: float, size: int) -> Cutout:
        x0, y0 = (int(np.floor(c - (size - 1) / 2 + 0.5)) for c in (x, y))
        assert min(x0, y0) >= 0
        assert max(x0, y0) + size <= self.shape[0]
        rows, columns = np.mgrid[y0 : y0 + size, x0 : x0 + size]
        plane = self.value(*self.wcs.all_pix2world(columns, rows, 0)).astype(np.float32)
        return Cutout(np.stack([plane] * 3), np.stack([plane] * 3), np.ones(3), np.ones(plane.shape, np.int32), x0, y0)


def one_brick(brick):
    return lambda name: brick if name == BRICK else None


def lens_positions(survey: SurveyDescription) -> tuple[np.ndarray, np.ndarray]:
    import fitsio

    truth = fitsio.read(survey.verified(f"{survey.manifest.uri}/truth/truth.fits"))
    lenses = truth[np.char.strip(truth["KIND"]) == "lens"]
    return lenses["RA"], lenses["DEC"]


def asked(url: str) -> fits.HDUList:
    with urlopen(url) as answer:
        return fits.open(BytesIO(answer.read()))


def test_a_target_on_a_pixel_centre_gets_the_bricks_own_pixels(tmp_path: Path) -> None:
    content = planes()
    content["maskbits"][150, 150] = 5
    with open_brick(tmp_path, content) as brick:
        ra, dec = brick.pixel_to_sky(150.0, 150.0)
        pixels = mosaic(float(ra), float(dec), 65, PIXEL_SCALE, one_brick(brick))
    expected = slice(150 - 32, 150 + 33)
    native = np.stack([content[f"image-{band}"][expected, expected] for band in "grz"])
    # The two tangent planes differ by less than a ten-thousandth of a pixel over the stamp.
    np.testing.assert_allclose(pixels.image_3HW, native, atol=1e-3 * native.std())
    assert pixels.maskbits_HW[32, 32] == 5
    assert pixels.maskbits_HW.sum() == 5


def test_a_smooth_image_is_resampled_to_three_thousandths_at_any_shift() -> None:
    def wave(ra, dec):
        return 10 + np.sin(ra * 3600 / 2.5) + np.cos(dec * 3600 / 3.1)

    brick = SmoothBrick((0.125, 0.0), wave)
    for shift in (0.0, 0.1, 0.37, 0.5):
        ra, dec = 0.13 + shift * PIXEL_SCALE / 3600, 0.01
        pixels = mosaic(ra, dec, 64, PIXEL_SCALE, one_brick(brick))
        rows, columns = np.mgrid[:64, :64]
        truth = wave(*WCS(target_header(ra, dec, 64, PIXEL_SCALE)).all_pix2world(columns, rows, 0))
        # The waves are of 60 pixels; what is left is the kernel's own ripple.
        np.testing.assert_allclose(pixels.image_3HW[1], truth, rtol=3e-3)
        assert np.mean(pixels.image_3HW[1] - truth) == pytest.approx(0.0, abs=2e-3)


def test_a_constant_stays_what_it_is_also_beside_missing_pixels() -> None:
    image = np.full((1, 20, 20), 3.0, np.float32)
    image[0, 5, 5] = np.nan
    x = np.random.default_rng(1).uniform(-0.5, 19.5, (2, 200))
    np.testing.assert_allclose(lanczos(image, *x), 3.0, rtol=1e-5)


def test_flux_per_pixel_is_not_conserved_at_another_pixel_scale() -> None:
    brick = SmoothBrick((0.125, 0.0), lambda ra, dec: 1.0 + 0.0 * ra)
    fine = mosaic(0.125, 0.0, 64, PIXEL_SCALE / 2, one_brick(brick))
    # Four pixels where there was one, each with its value.
    np.testing.assert_allclose(fine.image_3HW, 1.0, rtol=1e-5)


def test_pixels_across_a_border_come_from_the_brick_that_owns_them() -> None:
    west, east = (
        SmoothBrick((centre, 0.0), lambda ra, dec, v=v: v + 0.0 * ra) for centre, v in ((0.125, 1), (0.375, 2))
    )
    bricks = {"0001p000": west, "0003p000": east}
    pixels = mosaic(0.25, 0.0, 64, PIXEL_SCALE, bricks.get)
    # East is left.
    np.testing.assert_allclose(pixels.image_3HW[0, :, :32], 2.0, rtol=1e-5)
    np.testing.assert_allclose(pixels.image_3HW[0, :, 32:], 1.0, rtol=1e-5)
    alone = mosaic(0.25, 0.0, 64, PIXEL_SCALE, one_brick(west))
    assert np.all(alone.image_3HW[0, :, :32] == 0)


def test_bricks_on_both_sides_of_ra_0_are_one_sky() -> None:
    bricks = {"3598p000": SmoothBrick((359.875, 0.0), lambda ra, dec: 1 + 0 * ra)}
    bricks["0001p000"] = SmoothBrick((0.125, 0.0), lambda ra, dec: 2 + 0 * ra)
    pixels = mosaic(0.0, 0.0, 32, PIXEL_SCALE, bricks.get)
    assert pixels.image_3HW[0, 16, [4, 28]].round(3).tolist() == [2.0, 1.0]


def test_what_no_image_covers_is_zero_and_nothing_at_all_is_no_cutout(tmp_path: Path) -> None:
    with open_brick(tmp_path) as brick:
        ra, dec = brick.pixel_to_sky(10.0, 150.0)
        edge = mosaic(float(ra), float(dec), 64, PIXEL_SCALE, one_brick(brick))
        assert mosaic(0.2, 0.1, 64, PIXEL_SCALE, one_brick(brick)) is None
    # West is right, so column 10 of the brick is in the middle and 22 pixels on the left are missing.
    assert np.all(edge.image_3HW[:, :, :21] == 0)
    assert np.all(edge.invvar_3HW[:, :, :21] == 0)
    assert np.all(edge.image_3HW[:, :, 22:] != 0)


def test_headers_are_those_of_the_services_own_files(real_data: Path, tmp_path: Path) -> None:
    with fits.open(real_data / "legacysurvey" / "dr10" / "cutout_192.6009_-28.2675.fits") as file:
        real = file[0].header
    with open_brick(tmp_path) as brick:
        ra, dec = (float(value) for value in brick.pixel_to_sky(150.0, 150.0))
        pixels = mosaic(ra, dec, 64, PIXEL_SCALE, one_brick(brick))
    ours = fits.open(BytesIO(encode_cutout(pixels, target_header(ra, dec, 64, PIXEL_SCALE), "dr10.1")))[0].header
    # Theirs has four bands, may be extended, and says twice what FITS is.
    assert [key for key in real if key not in ("BAND3", "COMMENT", "EXTEND")] == list(ours)
    same = ("SIMPLE", "BITPIX", "NAXIS", "SURVEY", "VERSION", "IMAGETYP", "CTYPE1", "CTYPE2", "CD1_2", "CD2_1")
    assert {key: real[key] for key in same} == {key: ours[key] for key in same}
    for header in (real, ours):
        assert header["CRPIX1"] == header["CRPIX2"] == (header["NAXIS1"] + 1) / 2
        assert header["CD2_2"] == pytest.approx(-header["CD1_1"], rel=1e-12)
        assert header["CD2_2"] > 0
        assert header["IMAGEW"] == header["NAXIS1"]


def test_the_server_answers_with_images_weights_and_masks(survey: SurveyDescription) -> None:
    ra, dec = (values[0] for values in lens_positions(survey))
    with CutoutServer(survey) as server:
        file = asked(f"{server.url}/viewer/fits-cutout?ra={ra}&dec={dec}&size=48&{LAYER}&invvar&maskbits")
    assert [hdu.header["IMAGETYP"] for hdu in file] == ["IMAGE", "INVVAR", "MASKBITS"]
    assert [hdu.data.shape for hdu in file] == [(3, 48, 48), (3, 48, 48), (48, 48)]
    assert file[0].data.dtype == ">f4"
    assert WCS(file[0].header, naxis=2).all_world2pix(ra, dec, 0) == [pytest.approx(23.5)] * 2
    # The lens is the brightest thing near the middle.
    z = file[0].data[2]
    assert z[22:26, 22:26].max() > 5 * np.median(np.abs(z))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (f"ra=200&dec=80&size=64&{LAYER}", 404),
        ("ra=10&dec=0&size=64&layer=sdss", 404),
        (f"ra=ten&dec=0&{LAYER}", 400),
        (f"dec=0&{LAYER}", 400),
        (f"ra=10&dec=95&{LAYER}", 400),
    ],
)
def test_a_query_that_cannot_be_served_has_the_services_status(
    survey: SurveyDescription, query: str, status: int
) -> None:
    with CutoutServer(survey) as server, pytest.raises(HTTPError) as error:
        urlopen(f"{server.url}/viewer/fits-cutout?{query}")
    assert error.value.code == status


def test_a_coadd_that_changed_is_an_error_and_gives_no_pixels(survey: SurveyDescription, tmp_path: Path) -> None:
    ra, dec = (values[0] for values in lens_positions(survey))
    copy = tmp_path / "survey"
    shutil.copytree(survey.manifest.uri, copy)
    for path in copy.rglob("*-image-g.fits.fz"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    moved = survey.model_copy(
        update={
            "manifest": survey.manifest.model_copy(update={"uri": str(copy)}),
            "files": survey.files.model_copy(
                update={"coadds": survey.files.coadds.replace(survey.manifest.uri, str(copy))}
            ),
        }
    )
    with CutoutServer(moved) as server, pytest.raises(HTTPError) as error:
        urlopen(f"{server.url}/viewer/fits-cutout?ra={ra}&dec={dec}&size=48&{LAYER}")
    assert error.value.code == 500


def test_an_unknown_fault_is_refused(survey: SurveyDescription) -> None:
    with pytest.raises(BadInputError, match="429:<seconds>"):
        CutoutServer(survey, faults=["teapot"])
