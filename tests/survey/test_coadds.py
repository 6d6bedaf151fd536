"""Cutouts are the brick's own pixels, at the place that the WCS says."""

import numpy as np
import pytest
from astropy.io import fits

from brick_scene import BRICK, open_brick, planes, write_brick
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey import coadds
from dark_halo_scope.survey.bricks import read_bricks
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.names import coadd_file, products
from tiny_survey import whole_sweep


@pytest.fixture
def brickname(survey) -> str:
    return read_bricks(survey.verified(survey.files.bricks))["BRICKNAME"][0].as_py()


@pytest.fixture
def paths(survey, brickname):
    root = survey.files.coadds
    return {p: survey.verified(f"{root}/{coadd_file(brickname, p, 'release')}") for p in products()}


def test_both_layouts_name_the_files_of_the_release_and_of_the_flat_cache():
    file = "1102p240/legacysurvey-1102p240-image-z.fits.fz"
    assert coadd_file("1102p240", "image-z", "release") == f"110/{file}"
    assert coadd_file("1102p240", "image-z", "cache") == file


def test_a_real_coadd_has_the_name_and_the_place_that_the_code_gives_it(real_data):
    root = real_data / "legacysurvey/dr5_obiwan/coadd"
    assert (root / coadd_file("1102p240", "image-z", "release")).is_file()


def test_a_real_compressed_coadd_opens_in_one_band(real_data, tmp_path):
    root = real_data / "legacysurvey/dr5_obiwan/coadd"
    files = {p: root / coadd_file("1102p240", p, "release") for p in ("image-z", "invvar-z")}
    # That release has no such products for this brick; any plane of the same size stands in.
    files |= {"psfsize-z": files["invvar-z"], "maskbits": root / coadd_file("1102p240", "nexp-z", "release")}
    whole = fits.getdata(files["image-z"], 1)
    with BrickCoadds(files, "1102p240", bands=("z",)) as brick:
        cut = brick.cutout(50.2, 40.9, 20)
        ra, dec = brick.pixel_to_sky(50.2, 40.9)
        assert np.allclose(brick.sky_to_pixel(ra, dec), (50.2, 40.9), atol=1e-6)
    assert np.array_equal(cut.image[0], whole[cut.y0 : cut.y0 + 20, cut.x0 : cut.x0 + 20])


def test_a_cutout_is_bit_identical_to_the_decompressed_brick(paths, brickname):
    with BrickCoadds(paths, brickname) as brick:
        cut = brick.cutout(140.6, 97.3, 64)
    window = slice(cut.y0, cut.y0 + 64), slice(cut.x0, cut.x0 + 64)
    for band, name in enumerate("grz"):
        assert np.array_equal(cut.image[band], fits.getdata(paths[f"image-{name}"], 1)[window])
        assert np.array_equal(cut.invvar[band], fits.getdata(paths[f"invvar-{name}"], 1)[window])
        assert cut.psfsize[band] == fits.getdata(paths[f"psfsize-{name}"], 1)[97, 141]
    assert np.array_equal(cut.maskbits, fits.getdata(paths["maskbits"], 1)[window])


@pytest.mark.parametrize("lossless", [False, True])
def test_machines_without_fitsio_get_the_same_bits(tmp_path, monkeypatch, lossless):
    pytest.importorskip("fitsio", reason="fitsio has no wheels for this machine, so there is nothing to compare with")
    content = planes()
    content["image-g"][95:120, 70:130] = np.nan
    content["image-z"][:100, :100] = 0
    content["invvar-r"][50:150] = 0
    content["maskbits"][100:104] = 1 << 11
    paths = write_brick(tmp_path, content, lossless=lossless)
    cuts = []
    for module in (coadds.fitsio, None):
        monkeypatch.setattr(coadds, "fitsio", module)
        with BrickCoadds(paths, BRICK) as brick:
            cuts.append([brick.cutout(x, y, 64) for x, y in ((99.6, 101.2), (32, 32), (260.4, 267.1), (150, 150))])
            assert brick.sky_to_pixel(0.125, 0.0) == pytest.approx((149.5, 149.5), abs=1e-6)
    for one, other in zip(*cuts, strict=True):
        for name in ("image", "invvar", "psfsize", "maskbits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.isnan(cuts[0][0].image[0]).any()


def test_a_cutout_does_not_depend_on_those_before_it_and_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(coadds, "_TILES_KEPT", 5)
    content = planes()
    places = [(40 + 37 * k % 220, 40 + 61 * k % 220) for k in range(12)]
    with open_brick(tmp_path, content) as brick:
        for x, y in places:
            cut = brick.cutout(x, y, 64)
            window = slice(cut.y0, cut.y0 + 64), slice(cut.x0, cut.x0 + 64)
            for band, name in enumerate("grz"):
                np.testing.assert_array_equal(cut.image[band], content[f"image-{name}"][window])
            assert len(brick._tiles) <= 5


def test_targets_in_the_order_of_their_place_share_tiles(tmp_path):
    with open_brick(tmp_path) as brick:
        assert brick.place([5, 205, 95, 5], [99, 0, 100, 250]).argsort().tolist() == [0, 1, 2, 3]
        assert brick.place(10, 10) == brick.place(99, 99) < brick.place(100, 10) < brick.place(10, 100)


@pytest.mark.parametrize("x", [100.0, 100.3, 100.5, 100.7, 101.0])
@pytest.mark.parametrize("size", [63, 64])
def test_the_target_lies_within_half_a_pixel_of_the_middle(paths, brickname, x, size):
    with BrickCoadds(paths, brickname) as brick:
        cut = brick.cutout(x, 120.0, size)
    assert abs(x - cut.x0 - (size - 1) / 2) <= 0.5
    assert abs(120.0 - cut.y0 - (size - 1) / 2) <= 0.5


def test_bright_galaxies_are_at_the_positions_of_the_catalogue(survey, paths, brickname):
    for sweep, _ in survey.sweep_pairs():
        rows = whole_sweep(survey.verified(sweep), ["BRICKNAME", "RA", "DEC", "FLUX_Z", "TYPE", "MASKBITS"]).to_pandas()
        rows = rows[(rows["BRICKNAME"] == brickname) & (rows["FLUX_Z"] > 12) & (rows["MASKBITS"] == 0)]
        if len(rows):
            break
    checked = 0
    with BrickCoadds(paths, brickname) as brick:
        for x, y in zip(*brick.sky_to_pixel(rows["RA"], rows["DEC"]), strict=True):
            if 12 < x < 288 and 12 < y < 288:
                z = brick.cutout(float(x), float(y), 21).image[2]
                near = z[8:13, 8:13].mean()
                checked += near > 3 * np.median(z)
    assert len(rows) >= 4
    assert checked >= 0.8 * len(rows)


def test_a_square_beyond_the_edge_is_refused(paths, brickname):
    with BrickCoadds(paths, brickname) as brick:
        brick.cutout(31.5, 31.5, 64)
        for x, y in ((30.4, 100), (100, 30.4), (269.6, 100), (100, 269.6)):
            with pytest.raises(BadInputError, match="does not fit into brick"):
                brick.cutout(x, y, 64)


def test_a_brick_under_a_wrong_name_or_incomplete_is_refused(paths, brickname):
    with pytest.raises(CorruptDataError, match=f"is of brick {brickname}, not 0001p000"):
        BrickCoadds(paths, "0001p000")
    with pytest.raises(CorruptDataError, match="lacks invvar-r"):
        BrickCoadds({k: v for k, v in paths.items() if k != "invvar-r"}, brickname)


def test_files_of_different_shape_are_refused(paths, brickname, real_data, tmp_path):
    small = real_data / "legacysurvey/dr5_obiwan/coadd/110/1102p240/legacysurvey-1102p240-image-z.fits.fz"
    with fits.open(small) as hdus:
        hdus[1].header["BRICKNAM"] = brickname
        hdus.writeto(tmp_path / "small.fits.fz")
    with pytest.raises(CorruptDataError, match="another shape or WCS"):
        BrickCoadds({**paths, "image-z": tmp_path / "small.fits.fz"}, brickname)


def test_a_file_that_is_no_fits_is_named(paths, brickname, tmp_path):
    bad = tmp_path / "bad.fits.fz"
    bad.write_text("<html>not found</html>")
    with pytest.raises(CorruptDataError, match=r"bad\.fits\.fz"):
        BrickCoadds({**paths, "maskbits": bad}, brickname)
