"""What the client of the cutout service promises: checked answers, kept once, asked for politely."""

import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dark_halo_scope.core import software
from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import BadInputError, ConfigError, CorruptDataError
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.survey.cutout_server import CutoutServer, encode_cutout
from dark_halo_scope.survey.cutout_service import (
    Cutout,
    CutoutClient,
    NoCutout,
    centre_on_pixels,
    fetch_cutout,
    fetch_list,
    open_client,
    read_cutout,
    unusable,
)
from dark_halo_scope.survey.description import SurveyDescription
from dark_halo_scope.survey.grid import brick_at
from dark_halo_scope.survey.names import PIXEL_SCALE, coadd_file, products
from dark_halo_scope.survey.resample import Mosaic, lanczos, target_header

EMBEDDED = CutoutServiceSettings()
CENTRED = CutoutServiceSettings(on_brick_pixels=False)
RA, DEC, SIZE = 150.25, -10.5, 16


def answer(size: int = SIZE, scale: float = PIXEL_SCALE, ra: float = RA, dec: float = DEC, **changes: float) -> bytes:
    """A good answer, but for pixels that `changes` sets: of a band, to a value."""
    image = np.random.default_rng(3).normal(0, 0.01, (3, size, size)).astype(np.float32)
    for band, value in changes.items():
        image["grz".index(band)] = value
    pixels = Mosaic(image, np.ones_like(image), np.zeros((size, size), np.int32))
    return encode_cutout(pixels, target_header(ra, dec, size, scale), "dr10.1")


def edited(data: bytes, header: dict | None = None, cube: np.ndarray | None = None) -> bytes:
    """The FITS file with other cards or another array; a card that becomes None is removed."""
    with fits.open(BytesIO(data)) as file:
        hdu = fits.PrimaryHDU(file[0].data if cube is None else cube, file[0].header)
    for key, value in (header or {}).items():
        if value is None:
            hdu.header.remove(key)
        else:
            hdu.header[key] = value
    stream = BytesIO()
    hdu.writeto(stream)
    return stream.getvalue()


def checked(data: bytes) -> Cutout:
    return read_cutout(data, "the answer", (RA, DEC), SIZE)


@pytest.fixture
def lens(survey: SurveyDescription) -> tuple[float, float]:
    import fitsio

    truth = fitsio.read(survey.verified(f"{survey.manifest.uri}/truth/truth.fits"))
    row = truth[np.char.strip(truth["KIND"]) == "lens"][0]
    return float(row["RA"]), float(row["DEC"])


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_good_answer_is_nanomaggies_in_g_r_z() -> None:
    cutout = checked(answer(g=1.0, r=2.0, z=3.0))
    assert cutout.image_3HW.shape == (3, SIZE, SIZE)
    assert cutout.image_3HW.dtype == np.float32
    assert cutout.image_3HW[:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert (cutout.ra, cutout.dec, cutout.release) == (RA, DEC, "DR10")
    assert cutout.pixel_scale == pytest.approx(PIXEL_SCALE)


@pytest.mark.parametrize(
    ("name", "scale", "release", "zeros"),
    [
        ("dr10/cutout_192.6009_-28.2675.fits", 0.06, "DR10", {"g": 0.0, "r": 0.0, "z": 0.0}),
        ("grz_cutouts/example_d.fits", 0.13025, "DR5", {"g": 0.0, "r": 0.0013, "z": 0.0}),
        ("grz_cutouts/example_bad_pix.fits", 0.13025, "DR3", {"g": 0.7571, "r": 0.7276, "z": 0.0}),
    ],
)
def test_the_services_own_files_are_read(real_data: Path, name: str, scale: float, release: str, zeros: dict) -> None:
    path = real_data / "legacysurvey" / name
    data = path.read_bytes()
    cutout = read_cutout(data, name, pixel_scale=scale)
    with fits.open(path) as file:
        planes = [file[0].data[file[0].header["BANDS"].index(band)] for band in "grz"]
    np.testing.assert_array_equal(cutout.image_3HW, planes)
    assert cutout.release == release
    assert cutout.zero_fraction == pytest.approx(zeros, abs=1e-4)
    with pytest.raises(CorruptDataError, match=r"where 0\.262 is needed"):
        read_cutout(data, name)


def test_half_missing_pixels_of_a_real_file_make_it_unusable(real_data: Path) -> None:
    data = (real_data / "legacysurvey" / "grz_cutouts" / "example_bad_pix.fits").read_bytes()
    assert unusable(read_cutout(data, "it", pixel_scale=0.13025), 0.5) == "too many pixels without data in g"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no FITS"),
        (b"<!DOCTYPE html><html>", "no FITS"),
        (answer()[:3000], "no FITS"),
        (answer(size=SIZE + 2), "18 x 18 pixels, not 16 x 16"),
        (answer(scale=PIXEL_SCALE + 0.002), r"0\.262 is needed"),
        (answer(scale=0.06), r"0\.262 is needed"),
        (answer(dec=DEC + 0.75 * PIXEL_SCALE / 3600), "not at its centre"),
        (answer(ra=RA + 1), "not at its centre"),
        (answer(ra=RA + 180, dec=-DEC), "not at its centre"),
        (answer(z=np.nan), "256 pixels that are not finite"),
        (edited(answer(), {"BANDS": "gri", "BAND2": "i"}), "g, r, z are needed"),
        (edited(answer(), {"BAND0": "r"}), "contradicts itself"),
        (edited(answer(), {"BANDS": None, "BAND0": None, "BAND1": None, "BAND2": None}), "g, r, z are needed"),
        (edited(answer(), {"BANDS": "griz", "BAND2": "i", "BAND3": "z"}), "3 planes of bands"),
        (edited(answer(), cube=np.ones((3, SIZE, SIZE))), "not a float32 cube"),
        (edited(answer(), cube=np.ones((SIZE, SIZE), np.float32)), "not a float32 cube"),
        (edited(answer(), cube=np.ones((3, SIZE, SIZE + 1), np.float32)), "16 x 17 pixels"),
        (edited(answer(), {"CTYPE1": None, "CTYPE2": None}), "no usable WCS"),
    ],
)
def test_what_is_not_what_was_asked_for_is_rejected(data: bytes, why: str) -> None:
    with pytest.raises(CorruptDataError, match=why):
        checked(data)


def test_bands_are_picked_by_name() -> None:
    cube = np.stack([np.full((SIZE, SIZE), value, np.float32) for value in (3, 2, 9, 1)])
    data = edited(answer(), {"BANDS": "zrig", "BAND0": "z", "BAND1": "r", "BAND2": "i", "BAND3": "g"}, cube)
    assert checked(data).image_3HW[:, 0, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("change", "reason"), [({}, None), ({"z": 0.0}, "no data in z"), ({"g": 0.0}, "no data in g")])
def test_a_missing_band_is_zeros_and_makes_a_cutout_unusable(change: dict, reason: str | None) -> None:
    assert unusable(checked(answer(**change)), 0.5) == reason


def test_missing_pixels_count_by_their_share_and_at_the_target() -> None:
    image = checked(answer()).image_3HW
    corner, centre = image.copy(), image.copy()
    corner[0, :8] = 0
    centre[1, 7:9, 7:9] = 0
    facts = (None, None, RA, DEC, PIXEL_SCALE, "DR10")
    assert unusable(Cutout(corner, *facts), 0.5) is None
    assert unusable(Cutout(corner, *facts), 0.4) == "too many pixels without data in g"
    assert unusable(Cutout(centre, *facts), 0.5) == "no data at the target in r"


# --- Asking -----------------------------------------------------------------------------------------------------------


def test_an_embedded_survey_is_asked_over_http_and_each_target_once(
    survey: SurveyDescription, lens: tuple[float, float], tmp_path: Path
) -> None:
    with open_client(EMBEDDED, survey, tmp_path) as client:
        first = client.fetch(*lens, 32)
        again = client.fetch(*lens, 32)
        other = client.fetch(*lens, 33)
        assert client.requests == 2
    with open_client(EMBEDDED, survey, tmp_path) as client:
        kept = client.fetch(*lens, 32)
        assert client.requests == 0
    np.testing.assert_array_equal(first.image_3HW, again.image_3HW)
    np.testing.assert_array_equal(first.image_3HW, kept.image_3HW)
    assert other.image_3HW.shape == (3, 33, 33)


def test_weights_and_masks_come_where_they_are_asked_for(
    survey: SurveyDescription, lens: tuple[float, float], tmp_path: Path
) -> None:
    with open_client(EMBEDDED, survey, tmp_path) as client:
        assert client.fetch(*lens, 32).invvar_3HW is None
        full = client.fetch(*lens, 32, invvar=True, maskbits=True)
    assert full.invvar_3HW.shape == (3, 32, 32)
    assert (full.invvar_3HW > 0).mean() > 0.5
    assert full.maskbits_HW.dtype == np.int32


def test_a_request_is_in_the_services_words(tmp_path: Path) -> None:
    client = CutoutClient(CENTRED, "https://www.legacysurvey.org/")
    assert f"{client.url}{client.query(192.6009, -28.2675, 101, maskbits=True)}" == (
        "https://www.legacysurvey.org/viewer/fits-cutout?ra=192.6009000&dec=-28.2675000&layer=ls-dr10-south"
        "&pixscale=0.262&size=101&bands=grz&maskbits"
    )
    client.close()


def test_requests_say_who_asks(survey: SurveyDescription, lens: tuple[float, float]) -> None:
    with CutoutServer(survey) as server:
        client = CutoutClient(EMBEDDED, server.url, asking=AskingSettings(user_agent="dark_halo_scope (me@here)"))
        client.fetch(*lens, 16)
        client.close()
    version = software.version("dark_halo_scope")
    assert server.user_agents == ["dark_halo_scope (me@here)" + (f"/{version}" if version else "")]


def test_requests_keep_their_distance(survey: SurveyDescription, lens: tuple[float, float]) -> None:
    with CutoutServer(survey) as server:
        client = CutoutClient(EMBEDDED, server.url, asking=AskingSettings(interval_s=0.3))
        start = time.monotonic()
        for size in (16, 17, 18):
            client.fetch(*lens, size)
        # Two intervals between the starts of three requests.
        assert time.monotonic() - start >= 0.6
        client.close()


def test_a_public_service_is_never_asked_in_haste() -> None:
    with pytest.raises(ConfigError, match="interval_s"):
        validate(AskingSettings, {"interval_s": 0}, "it")


def test_caches_of_different_surveys_do_not_mix(
    survey: SurveyDescription, lens: tuple[float, float], tmp_path: Path
) -> None:
    with open_client(EMBEDDED, survey, tmp_path) as client:
        client.fetch(*lens, 16)
    other = survey.model_copy(update={"manifest": survey.manifest.model_copy(update={"sha256": "f" * 64})})
    # The list of its files is then not the one that it was made with, so only the cache could answer.
    with pytest.raises(CorruptDataError), open_client(EMBEDDED, other, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [f"embedded-{survey.manifest.sha256[:12]}"]


def test_a_damaged_answer_in_the_cache_is_fetched_again(
    survey: SurveyDescription, lens: tuple[float, float], tmp_path: Path
) -> None:
    with open_client(EMBEDDED, survey, tmp_path) as client:
        good = client.fetch(*lens, 16)
        [path] = tmp_path.rglob("*.fits")
        data = bytearray(path.read_bytes())
        data[-3000] ^= 1
        path.write_bytes(data)
        again = client.fetch(*lens, 16)
        assert client.requests == 2
    np.testing.assert_array_equal(good.image_3HW, again.image_3HW)
    assert len(list(tmp_path.rglob("*.fits"))) == 1


def test_an_embedded_service_needs_a_survey() -> None:
    with pytest.raises(BadInputError, match=r"give survey\.json"), open_client(EMBEDDED):
        pass


def test_no_position_and_no_sky_are_reasons_and_are_not_the_services_fault(survey: SurveyDescription) -> None:
    with open_client(EMBEDDED, survey) as client:
        found = [fetch_cutout(client, *at, 16) for at in ((np.nan, 1.0), (361.0, 1.0), (10.0, -91.0), (200.0, 80.0))]
        assert client.requests == 1
    assert [(item.reason, item.by_service) for item in found if isinstance(item, NoCutout)] == [
        ("position is not finite", False),
        ("position is out of range", False),
        ("position is out of range", False),
        ("outside the footprint of the service", False),
    ]


def test_a_list_is_answered_in_its_order(survey: SurveyDescription, lens: tuple[float, float], tmp_path: Path) -> None:
    ra, dec = lens
    with open_client(EMBEDDED, survey, tmp_path) as client:
        outcomes = list(fetch_list(client, [200.0, ra, np.nan, ra], [80.0, dec, 0.0, dec], 16))
        assert client.requests == 2
    assert [isinstance(item, Cutout) for item in outcomes] == [False, True, False, True]
    assert outcomes[1].dec == pytest.approx(dec, abs=0.5 * PIXEL_SCALE / 3600)


# --- Where planes lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 101])
@pytest.mark.parametrize(("ra", "dec"), [(0.0001, -0.3), (359.9999, 12.0), (192.6009, -28.2675), (30.0, 31.9)])
def test_planes_lie_on_the_pixels_of_the_targets_brick_and_hold_it_at_their_centre(
    ra: float, dec: float, size: int
) -> None:
    brick = brick_at(ra, dec)
    wcs = WCS(target_header(float(brick.ra), float(brick.dec), 3600, PIXEL_SCALE))
    x, y = (float(value) for value in wcs.all_world2pix(*centre_on_pixels(ra, dec, size), 0))
    target = wcs.all_world2pix(ra, dec, 0)
    # The centre of an even plane lies between pixels, that of an odd one on a pixel.
    phase = 0.5 if size % 2 == 0 else 0.0
    assert [abs(value - round(value - phase) - phase) < 1e-5 for value in (x, y)] == [True, True]
    assert max(abs(x - target[0]), abs(y - target[1])) <= 0.5 + 1e-5


def test_the_pixels_of_a_real_brick_are_those_that_planes_lie_on(real_data: Path) -> None:
    folder = real_data / "legacysurvey" / "dr5_obiwan" / "coadd" / "110" / "1102p240"
    with fits.open(folder / "legacysurvey-1102p240-image-z.fits.fz") as file:
        wcs = WCS(file[1].header)
    for ra, dec in ((110.2, 24.01), (110.15, 23.95)):
        x, y = wcs.all_world2pix(*centre_on_pixels(ra, dec, 64), 0)
        assert (x % 1, y % 1) == pytest.approx((0.5, 0.5), abs=1e-4)


def test_a_target_gets_the_pixels_that_a_stamp_of_it_has(survey: SurveyDescription, lens: tuple[float, float]) -> None:
    name = str(brick_at(*lens).name)
    root = survey.files.coadds
    paths = {product: survey.verified(f"{root}/{coadd_file(name, product, 'release')}") for product in products()}
    with BrickCoadds(paths, name) as coadds, open_client(EMBEDDED, survey) as client:
        x, y = coadds.sky_to_pixel(*lens)
        stamp = coadds.cutout(float(x), float(y), 64).image
        cutout = client.fetch(*lens, 64).image_3HW
    noise = 1.4826 * np.median(np.abs(stamp), axis=(1, 2), keepdims=True)
    assert np.median(np.abs(cutout - stamp) / noise) < 0.01


def test_a_plane_that_is_centred_on_its_target_smooths_independent_noise() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(1, 200, 200)).astype(np.float32)
    rows, columns = np.mgrid[10:190, 10:190].reshape(2, -1)
    rms = [float(lanczos(noise, columns + dx, rows + dy).std() / noise.std()) for dx, dy in rng.uniform(0, 1, (40, 2))]
    # The root of the mean sum of squared weights over all shifts.
    assert np.mean(rms) == pytest.approx(0.893, abs=0.03)
    assert min(rms) > 0.77
    assert float(lanczos(noise, columns * 1.0, rows * 1.0).std() / noise[0, 10:190, 10:190].std()) == pytest.approx(1.0)


def test_a_target_is_at_the_very_centre_where_that_is_asked_for(
    survey: SurveyDescription, lens: tuple[float, float]
) -> None:
    with open_client(CENTRED, survey) as client:
        cutout = client.fetch(*lens, 32)
    assert (cutout.ra, cutout.dec) == pytest.approx(lens, abs=1e-7)
