"""The embedded survey is written as DR10.1 writes its files, is realistic, and is the same whenever it is drawn."""

import csv
import hashlib
import io
from pathlib import Path

import fitsio
import galsim
import healpy
import numpy as np
import pytest
from astropy.io import fits

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.survey.bricks import read_bricks
from dark_halo_scope.survey.config import MiniSettings
from dark_halo_scope.survey.grid import brick_at
from dark_halo_scope.survey.mini.build import TRUTH, build_survey
from dark_halo_scope.survey.mini.columns import SWEEP_DTYPE
from dark_halo_scope.survey.mini.sky import cells_per_split, choose_bricks, sweep_name
from dark_halo_scope.survey.names import coadd_file
from dark_halo_scope.survey.units import depth_magnitude


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "_objects.json"
    }


def _table(survey, uri: str) -> np.ndarray:
    return fitsio.read(survey.verified(uri))


@pytest.fixture(scope="module")
def sweep(survey) -> np.ndarray:
    return np.concatenate([_table(survey, uri) for uri, _ in survey.sweep_pairs()])


@pytest.fixture(scope="module")
def truth(survey) -> np.ndarray:
    rows = _table(survey, f"{survey.manifest.uri}/{TRUTH}")
    rows["KIND"] = np.char.strip(rows["KIND"])
    return rows


@pytest.fixture(scope="module")
def images(survey, sweep):
    """image, invvar (bricks, 3, H, W) of all bricks."""
    names = read_bricks(survey.verified(survey.files.bricks))["BRICKNAME"].to_pylist()
    root = Path(survey.files.coadds)
    return tuple(
        np.array([[fits.getdata(root / coadd_file(n, f"{kind}-{b}", "release"), 1) for b in "grz"] for n in names])
        for kind in ("image", "invvar")
    )


def test_two_processes_draw_the_same_bytes_as_one(tiny, tmp_path):
    smaller = {"bricks": 3, "pixels": 200, "min_cells_per_split": 0, "lrgs_per_brick": 4, "lenses": 3, "sources": 3}
    settings = MiniSettings(**{**tiny.model_dump(), **smaller})
    for processes in (1, 2):
        build_survey(settings, tmp_path / str(processes), processes)
    assert len(_digests(tmp_path / "1")) > 30
    assert _digests(tmp_path / "1") == _digests(tmp_path / "2")


def test_another_seed_draws_another_sky(tiny):
    other = MiniSettings(**{**tiny.model_dump(), "seed": tiny.seed + 1})
    assert choose_bricks(other).name.tolist() != choose_bricks(tiny).name.tolist()


def test_bricks_are_real_ones_in_distinct_places(survey, tiny):
    rows = read_bricks(survey.verified(survey.files.bricks)).to_pandas()
    assert len(rows) == rows["BRICKNAME"].nunique() == tiny.bricks
    assert brick_at(rows["RA"], rows["DEC"]).name.tolist() == rows["BRICKNAME"].tolist()
    assert ((rows["RA1"] < rows["RA"]) & (rows["RA"] < rows["RA2"])).all()


def test_the_full_survey_has_five_cells_in_every_split(project_root):
    import yaml

    text = (project_root / "config/surveys/mini.yaml").read_text()
    settings = MiniSettings(**yaml.safe_load(text)["survey"]["embedded"])
    bricks = choose_bricks(settings)
    cells = healpy.ang2pix(128, bricks.ra, bricks.dec, nest=True, lonlat=True)
    assert len(bricks.name) == 48
    assert min(cells_per_split(cells).values()) >= 5


def test_cells_fall_into_splits_as_the_catalogue_stage_splits_them():
    splits = pytest.importorskip("dark_halo_scope.catalogue.splits")
    cells = np.arange(500)
    names, counts = np.unique(splits.split_of_cells(cells), return_counts=True)
    assert cells_per_split(cells) == dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_too_few_bricks_for_the_cells_asked_are_refused(tiny):
    with pytest.raises(ConfigError, match="raise bricks"):
        choose_bricks(MiniSettings(**{**tiny.model_dump(), "min_cells_per_split": 50}))


def test_sweeps_have_the_130_columns_of_dr10_in_order_and_type(real_data, survey, sweep):
    kinds = {
        "int16": "i2",
        "int32": "i4",
        "int64": "i8",
        "uint8": "u1",
        "float32": "f4",
        "float64": "f8",
        "boolean": "b1",
    }
    text = (real_data / "derived/dr10_sweep_columns.csv").read_text()
    documented = [(row["name"], row["type"]) for row in csv.DictReader(io.StringIO(text))]
    assert [name for name, _ in documented] == list(sweep.dtype.names) == list(SWEEP_DTYPE.names)
    for name, kind in documented:
        stored = SWEEP_DTYPE[name]
        if kind.startswith("char"):
            assert stored.str[1:] == f"S{kind[5:-1]}"
        elif kind == "float32[5]":
            assert (stored.base, stored.shape) == (np.dtype("f4"), (5,))
        else:
            assert stored.str[1:] == kinds[kind]


def test_sweeps_hold_the_bricks_that_their_names_say(survey):
    for uri, _ in survey.sweep_pairs():
        rows = _table(survey, uri)
        names = {sweep_name(float(ra), float(dec)) for ra, dec in zip(rows["RA"], rows["DEC"], strict=True)}
        assert names == {Path(uri).stem}
        assert np.array_equal(brick_at(rows["RA"], rows["DEC"]).brickid, rows["BRICKID"])


def test_sweep_files_are_named_as_real_ones():
    assert sweep_name(2.0, -3.0) == "sweep-000m005-005p000"
    assert sweep_name(357.0, 4.0) == "sweep-355p000-360p005"


def test_objects_are_identified_uniquely_and_have_sane_models(sweep):
    assert len(np.unique(sweep[["BRICKID", "OBJID"]])) == len(sweep)
    kinds = np.char.strip(sweep["TYPE"])
    assert set(kinds) == {"PSF", "REX", "EXP", "DEV", "SER"}
    assert np.all(sweep["SHAPE_R"][kinds == "PSF"] == 0)
    assert np.all(sweep["SHAPE_R"][kinds != "PSF"] > 0)
    assert np.all(sweep["SERSIC"][kinds == "DEV"] == 4)
    assert np.all(np.hypot(sweep["SHAPE_E1"], sweep["SHAPE_E2"]) < 1)
    assert all(np.isfinite(sweep[name]).all() for name in sweep.dtype.names if sweep[name].dtype.kind == "f")


def test_the_luminous_red_galaxies_pass_the_cuts_of_v3(sweep, truth, tiny):
    good = (sweep["NOBS_G"] > 0) & (sweep["NOBS_R"] > 0) & (sweep["NOBS_Z"] > 0)
    lrg = (truth["KIND"] == "lrg") & good
    assert abs(lrg.sum() - tiny.bricks * tiny.lrgs_per_brick) < 8
    g, r, z, w1 = (22.5 - 2.5 * np.log10(sweep[f"FLUX_{b}"][lrg]) for b in ("G", "R", "Z", "W1"))
    passed = (z < 20.4) & (r - z > 0.4) & (z - w1 > 0.8) & (np.char.strip(sweep["TYPE"][lrg]) != "PSF")
    assert passed.mean() > 0.97
    assert 1.5 < np.median(g - r) < 2.0
    assert 0.4 < np.percentile(sweep["SHAPE_R"][lrg], 5) < np.percentile(sweep["SHAPE_R"][lrg], 95) < 3.2


def test_the_look_alikes_are_there(truth):
    assert {"spiral", "edge_on", "ring", "merger", "satellite", "field", "star"} <= set(truth["KIND"].tolist())


def test_depth_and_seeing_are_those_of_dr10(survey, sweep):
    summary = read_bricks(survey.verified(survey.files.brick_summary)).to_pandas()
    assert summary["PSFSIZE_R"].between(1.0, 1.5).all()
    assert summary["PSFDEPTH_R"].between(23.5, 24.9).all()
    for name, psfsize, depth in zip(summary["BRICKNAME"], summary["PSFSIZE_R"], summary["PSFDEPTH_R"], strict=True):
        rows = sweep[(np.char.strip(sweep["BRICKNAME"]) == name) & (sweep["NOBS_R"] > 0)]
        assert np.allclose(rows["PSFSIZE_R"], psfsize)
        assert np.median(depth_magnitude(rows["PSFDEPTH_R"])) == pytest.approx(depth, abs=0.01)


def test_the_noise_is_what_the_inverse_variance_says(images):
    image, invvar = images
    for brick in range(len(image)):
        for band in range(3):
            data, weight = image[brick, band], invvar[brick, band]
            # Neighbouring pixels of equal weight hold nearly the same light: their difference is noise.
            one, other = weight[:, ::2], weight[:, 1::2]
            pair = (one > 0) & (np.abs(other - one) < 0.005 * one)
            difference = (data[:, ::2] - data[:, 1::2])[pair] * np.sqrt(one[pair] / 2)
            spread = 1.4826 * np.median(np.abs(difference))
            assert pair.mean() > 0.3
            assert spread == pytest.approx(1.0, abs=0.04)


def test_light_adds_its_own_noise(images):
    """1/invvar grows by light/gain: the gain in electrons per nanomaggy is that of DR10's usual exposures."""
    image, invvar = images
    r, weight = image[:, 1], invvar[:, 1]
    gains = []
    for brick in range(len(image)):
        bright = (weight[brick] > 0) & (r[brick] > 0.3)
        sky = 1 / np.percentile(weight[brick], 99)
        gains += (r[brick][bright] / np.maximum(1 / weight[brick][bright] - sky, 1e-12)).tolist()
    assert len(gains) > 100
    assert 2_600 < np.median(gains) < 20_000


def test_quantisation_is_a_small_part_of_the_noise(survey, images):
    _, invvar = images
    root = Path(survey.files.coadds)
    for path in sorted(root.rglob("*-image-*.fits.fz")):
        with fits.open(path, disable_image_compression=True) as hdus:
            header, table = hdus[1].header, hdus[1].data
            assert header["ZCMPTYPE"] in ("RICE_1", "RICE_ONE")
            assert header["ZQUANTIZ"] == "SUBTRACTIVE_DITHER_2"
            assert np.allclose(table["ZSCALE"][table["ZSCALE"] > 0], 1e-4)
    assert 0.1 / np.sqrt(invvar.max(axis=(2, 3))).max() > 1e-4
    faintest = (1 / np.sqrt(np.median(invvar, axis=(2, 3)))).min()
    assert 1e-4 / np.sqrt(12) < 0.02 * faintest


def test_pixels_without_data_have_exactly_no_weight_and_are_flagged(survey, images):
    names = read_bricks(survey.verified(survey.files.bricks))["BRICKNAME"].to_pylist()
    root = Path(survey.files.coadds)
    masked = 0
    for brick, name in enumerate(names):
        bits = fits.getdata(root / coadd_file(name, "maskbits", "release"), 1)
        for band, letter in enumerate("grz"):
            nodata = images[1][brick, band] == 0
            psfsize = fits.getdata(root / coadd_file(name, f"psfsize-{letter}", "release"), 1)
            flagged = (bits >> (5 + band)) & 1 == 1
            assert np.array_equal(nodata, flagged | (psfsize == 0))
            masked += int(nodata.sum())
    assert masked > 0
    assert (images[1] >= 0).all()


def test_catalogue_fluxes_are_those_in_the_images(survey, sweep, truth, images):
    """Aperture fluxes of isolated stars in the images agree with the sweep."""
    names = read_bricks(survey.verified(survey.files.bricks))["BRICKNAME"].to_pylist()
    root = Path(survey.files.coadds)
    ratios = []
    for brick, name in enumerate(names):
        from astropy.wcs import WCS

        wcs = WCS(fits.getheader(root / coadd_file(name, "image-r", "release"), 1))
        rows = sweep[(np.char.strip(sweep["BRICKNAME"]) == name)]
        x, y = wcs.all_world2pix(rows["RA"], rows["DEC"], 0)
        for i in np.flatnonzero((np.char.strip(rows["TYPE"]) == "PSF") & (rows["FLUX_R"] > 8) & (rows["FLUX_R"] < 400)):
            lonely = np.sort(np.hypot(x - x[i], y - y[i]))[1] > 14
            if lonely and 12 < x[i] < 287 and 12 < y[i] < 287 and rows["MASKBITS"][i] & ~0x800 == 0:
                cx, cy = round(x[i]), round(y[i])
                stamp = images[0][brick, 1, cy - 10 : cy + 11, cx - 10 : cx + 11]
                ratios.append(stamp.sum() / rows["FLUX_R"][i])
    assert len(ratios) >= 3
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)


def test_lenses_are_faint_rings_around_red_galaxies_a_third_confirmed(truth, tiny):
    lenses = truth[truth["KIND"] == "lens"]
    assert len(lenses) == tiny.lenses
    assert lenses["CONFIRMED"].sum() == round(tiny.confirmed_fraction * tiny.lenses)
    assert ((lenses["THETA_E"] > 0.7) & (lenses["THETA_E"] < 3.3)).all()
    assert ((lenses["ARC_MAG_R"] > 20) & (lenses["ARC_MAG_R"] < 23.3)).all()
    assert ((lenses["MU"] > 2) & (lenses["MU"] < 60)).all()
    assert (lenses["Z_SOURCE"] > lenses["REDSHIFT"]).all()
    assert 10 < np.nanmedian(lenses["ARC_SNR"]) < 120


def test_the_lens_catalogue_is_in_lenscats_format(survey, real_data, truth):
    with (real_data / "lenscat/catalog.csv").open() as stream:
        real_columns = next(csv.reader(stream))
    with survey.verified(survey.files.lenses[0]).open() as stream:
        reader = csv.DictReader(stream)
        assert reader.fieldnames == real_columns
        rows = list(reader)
    lenses = truth[truth["KIND"] == "lens"]
    ra, dec = (np.array([float(row[key]) for row in rows]) for key in ("RA [deg]", "DEC [deg]"))
    for lens in lenses:
        distance = np.hypot((ra - lens["RA"]) * np.cos(np.radians(lens["DEC"])), dec - lens["DEC"]) * 3600
        assert distance.min() < 2.0
    assert {row["grading"] for row in rows} == {"confident", "probable"}
    assert len(rows) > len(lenses)


def test_the_lens_catalogue_of_the_full_survey_has_lenscats_traps():
    from dark_halo_scope.survey.mini.brick import TRUTH_DTYPE
    from dark_halo_scope.survey.mini.lenscat import catalogue_text

    rng = np.random.default_rng(0)
    truth = np.zeros(700, TRUTH_DTYPE)
    truth["RA"], truth["DEC"] = rng.uniform(0, 360, 700), rng.uniform(-15, 30, 700)
    truth["CONFIRMED"][:100] = True
    rows = list(csv.DictReader(io.StringIO(catalogue_text(rng, truth[:300], truth[300:]))))
    assert any(" | " in row["name"] and " | " in row["ref"] for row in rows)
    assert {"-", "measured", "L"} <= {row["zlens"] for row in rows}
    assert {"galaxy", "cluster"} == {row["type"] for row in rows}
    assert any("Lopes" in row["ref"] for row in rows)
    positions = np.array([(float(row["RA [deg]"]), float(row["DEC [deg]"])) for row in rows])
    close = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1)) * 3600 < 2
    assert (close.sum() - len(rows)) // 2 >= 3


def test_the_source_bank_opens_as_a_real_galaxy_catalogue(survey, tiny):
    path = survey.verified(survey.files.sources)
    bank = galsim.RealGalaxyCatalog(path.name, dir=str(path.parent))
    assert bank.nobjects == tiny.sources
    for i in range(3):
        galaxy = galsim.RealGalaxy(bank, index=i)
        assert galaxy.flux > 0
        assert bank.getPSFImage(i).array.sum() == pytest.approx(1.0, abs=0.05)


def test_source_magnitudes_and_sizes_are_those_of_cosmos(real_data, survey, tmp_path):
    from dark_halo_scope.survey.mini.sources import write_source_bank

    path = write_source_bank(tmp_path, seed=3, count=60)
    rows, models = fitsio.read(path), fitsio.read(str(path).replace(".fits", "_fits.fits"))
    real = real_data / "cosmos_sources/paltas_10gal/real_galaxy_catalog_23.5.fits"
    # ZPFLUX: counts of the stamps against magnitudes agree with the real bank's to within its noise.
    zero = np.median(rows["MAG"] + 2.5 * np.log10(rows["stamp_flux"]))
    known = fitsio.read(real)
    assert zero == pytest.approx(np.median(known["MAG"] + 2.5 * np.log10(known["stamp_flux"])), abs=0.3)
    assert 23.0 < np.median(rows["MAG"]) < 24.8
    assert 0.15 < np.median(models["hlr"][:, 0]) < 0.5
    assert models["hlr"][:, 0].max() < 1.2
    assert set(known.dtype.names) == set(rows.dtype.names)


def test_sources_are_irregular(tmp_path):
    """Rotated by 180 degrees and subtracted, a Sersic galaxy vanishes; these do not."""
    from dark_halo_scope.survey.mini.sources import write_source_bank

    path = write_source_bank(tmp_path, seed=5, count=30)
    rows = fitsio.read(path)
    bright = np.flatnonzero(rows["MAG"] < np.median(rows["MAG"]))
    asymmetry = []
    for i in bright:
        image = fitsio.read(path.parent / rows["GAL_FILENAME"][i].strip(), ext=int(rows["GAL_HDU"][i]))
        rotated, sigma = image[::-1, ::-1], 2.6e-3
        seen = (image > 3 * sigma) | (rotated > 3 * sigma)
        noise = 2 * sigma / np.sqrt(np.pi) * seen.sum()
        asymmetry.append((np.abs(image - rotated)[seen].sum() - noise) / image[seen].sum())
    assert np.median(asymmetry) > 0.15
