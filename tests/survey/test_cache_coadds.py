"""Coadds are checked whole before use, fetched again where damaged, and listed where they cannot be had."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import boto3
import fitsio
import numpy as np
import pytest
from moto import mock_aws

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.survey import cache_coadds
from dark_halo_scope.survey.bricks import read_bricks
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.config import CoaddSettings
from dark_halo_scope.survey.describe import main as describe
from dark_halo_scope.survey.names import coadd_file, products
from dark_halo_scope.survey.verify import check_coadd

ONE = CoaddSettings(pixels=300, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=2)


@pytest.fixture
def bricknames(survey) -> list[str]:
    return read_bricks(survey.verified(survey.files.bricks))["BRICKNAME"].to_pylist()[:2]


@pytest.fixture
def tree(survey, bricknames, tmp_path) -> Path:
    """A writable copy of two bricks in the release's layout."""
    root = tmp_path / "tree"
    for name in bricknames:
        for product in products():
            target = root / coadd_file(name, product, "release")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"{survey.files.coadds}/{coadd_file(name, product, 'release')}", target)
    return root


def _survey_at(root: str, path: Path, survey) -> Path:
    """survey.json of an existing survey whose coadds lie at `root`."""
    files = {**survey.files.model_dump(), "coadds": root}
    settings = {"name": "there", "release": "dr10.1", "region": "south", "coadd_layout": "release", "files": files}
    describe(["--settings", json.dumps(settings), "--output", str(path)])
    return path


def _cache(survey_path: Path, manifest: Path, output: Path, settings: str, *more: str):
    arguments = ["--survey", str(survey_path), "--manifest", str(manifest), "--output", str(output)]
    cache_coadds.main([*arguments, "--settings", settings, "--workers", "1", *more])
    return load_manifest(output, kind="coadds")


@pytest.fixture
def server(tree):
    """HTTP server of the tree, and the paths it was asked for; `tree` may be changed under it."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tree))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_a_local_tree_is_checked_in_place_and_nothing_is_copied(
    survey, survey_json, bricknames, manifest_of, coadd_settings, tmp_path
):
    rows = manifest_of(tmp_path / "manifest.json", [*bricknames, bricknames[0]])
    manifest = _cache(survey_json, rows, tmp_path / "coadds.json", coadd_settings)
    assert manifest.facts["in_place"] is True
    assert manifest.facts["missing"] == []
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (2, 2, 0)
    assert not list(tmp_path.rglob("*.fits.fz"))
    with load_brick(tmp_path / "coadds.json", bricknames[1]) as brick:
        assert brick.cutout(150, 150, 64).image.shape == (3, 64, 64)


def test_psfsize_without_exposures_is_reported(survey, tree, bricknames, manifest_of, coadd_settings, tmp_path):
    path = tree / coadd_file(bricknames[0], "psfsize-g", "release")
    header = fitsio.read_header(path, 1)
    keep = [{"name": k, "value": header[k]} for k in ("BRICKNAM", "CTYPE1", "CRVAL1", "CRVAL2", "CD1_1", "CD2_1")]
    fitsio.write(path, np.zeros((300, 300), np.float32), header=keep, compress="GZIP", qlevel=None, clobber=True)
    source = _survey_at(str(tree), tmp_path / "survey.json", survey)
    rows = manifest_of(tmp_path / "manifest.json", bricknames)
    facts = _cache(source, rows, tmp_path / "coadds.json", coadd_settings).facts
    assert facts["psfsize"]["unusable"] == [f"{bricknames[0]} psfsize-g"]
    assert facts["psfsize"]["bricks_with_some_zero_or_nan"] >= 1


def test_a_brick_that_was_not_cached_is_refused(survey_json, bricknames, manifest_of, coadd_settings, tmp_path):
    _cache(survey_json, manifest_of(tmp_path / "m.json", bricknames[:1]), tmp_path / "coadds.json", coadd_settings)
    with pytest.raises(BadInputError, match=f"Brick {bricknames[1]} is not among the cached coadds"):
        load_brick(tmp_path / "coadds.json", bricknames[1])


@pytest.mark.parametrize("product", ["image-r", "invvar-z", "maskbits"])
def test_one_flipped_byte_is_noticed_before_pixels_are_used_and_the_file_named(
    survey, tree, bricknames, manifest_of, coadd_settings, tmp_path, product
):
    source = _survey_at(str(tree), tmp_path / "survey.json", survey)
    _cache(source, manifest_of(tmp_path / "m.json", bricknames), tmp_path / "coadds.json", coadd_settings)
    path = tree / coadd_file(bricknames[0], product, "release")
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=path.name):
        load_brick(load_manifest(tmp_path / "coadds.json"), bricknames[0])
    load_brick(load_manifest(tmp_path / "coadds.json"), bricknames[1]).close()


def test_a_flipped_byte_in_the_embedded_survey_stops_the_cache(
    survey_json, bricknames, manifest_of, coadd_settings, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(survey_json.parent, copy)
    text = json.loads((copy / "survey.json").read_text())
    text["uri"] = text["uri"].replace(str(survey_json.parent), str(copy))
    (copy / "survey.json").write_text(json.dumps(text))
    path = Path(text["uri"]) / "south/coadd" / coadd_file(bricknames[0], "image-g", "release")
    data = bytearray(path.read_bytes())
    data[-9000] ^= 4
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=path.name):
        _cache(copy / "survey.json", manifest_of(tmp_path / "m.json", bricknames), tmp_path / "c.json", coadd_settings)
    assert not (tmp_path / "c.json").exists()


def test_downloads_over_http_are_complete_and_found_again(
    survey, server, tree, bricknames, manifest_of, coadd_settings, tmp_path
):
    url, asked = server
    source = _survey_at(url, tmp_path / "survey.json", survey)
    rows = manifest_of(tmp_path / "m.json", bricknames)
    first = _cache(source, rows, tmp_path / "coadds.json", coadd_settings)
    assert len(asked) == 20
    again = _cache(source, rows, tmp_path / "coadds.json", coadd_settings)
    assert len(asked) == 20
    assert again == first
    assert first.facts["in_place"] is False
    with load_brick(first, bricknames[0]) as brick:
        got = brick.cutout(150, 150, 32)
    assert np.array_equal(
        got.image[0],
        fitsio.read(tree / coadd_file(bricknames[0], "image-g", "release"), ext=1)[
            got.y0 : got.y0 + 32, got.x0 : got.x0 + 32
        ],
    )


def test_a_truncated_file_in_the_cache_is_fetched_again(
    survey, server, bricknames, manifest_of, coadd_settings, tmp_path
):
    url, asked = server
    source = _survey_at(url, tmp_path / "survey.json", survey)
    rows = manifest_of(tmp_path / "m.json", bricknames[:1])
    cache = tmp_path / "cache"
    first = _cache(source, rows, tmp_path / "coadds.json", coadd_settings, "--cache", str(cache))
    path = cache / coadd_file(bricknames[0], "invvar-r", "cache")
    path.write_bytes(path.read_bytes()[:20_000])
    again = _cache(source, rows, tmp_path / "coadds.json", coadd_settings, "--cache", str(cache))
    assert len(asked) == 11
    assert again == first


def test_a_file_truncated_at_its_source_is_tried_again_then_listed(
    survey, server, tree, bricknames, manifest_of, tmp_path
):
    url, asked = server
    bad = tree / coadd_file(bricknames[1], "image-g", "release")
    bad.write_bytes(bad.read_bytes()[:-3000])
    source = _survey_at(url, tmp_path / "survey.json", survey)
    rows = manifest_of(tmp_path / "m.json", bricknames)
    lenient = json.dumps({**ONE.model_dump(), "max_missing_fraction": 0.5})
    manifest = _cache(source, rows, tmp_path / "coadds.json", lenient)
    assert sum(path.endswith(bad.name) for path in asked) == 2
    [missing] = manifest.facts["missing"]
    assert missing["brickname"] == bricknames[1]
    assert "truncated" in missing["reason"]
    assert (manifest.rows_out, manifest.rows_quarantined) == (1, 1)
    assert not (tmp_path / "coadd_cache" / coadd_file(bricknames[1], "image-g", "cache")).exists()
    with pytest.raises(BadInputError, match="truncated"):
        load_brick(tmp_path / "coadds.json", bricknames[1])


def test_more_missing_bricks_than_allowed_publish_nothing_but_keep_the_rest(
    survey, server, tree, bricknames, manifest_of, coadd_settings, tmp_path
):
    url, asked = server
    (tree / coadd_file(bricknames[1], "maskbits", "release")).unlink()
    source = _survey_at(url, tmp_path / "survey.json", survey)
    rows = manifest_of(tmp_path / "m.json", bricknames)
    with pytest.raises(BadInputError, match=f"1 of 2 bricks cannot be used.*{bricknames[1]}"):
        _cache(source, rows, tmp_path / "coadds.json", coadd_settings)
    assert sum(path.endswith("maskbits.fits.fz") and bricknames[1] in path for path in asked) == 1  # 404 is final
    assert not (tmp_path / "coadds.json").exists()
    assert len(list((tmp_path / "coadd_cache").rglob("*.fits.fz"))) == 19


@mock_aws
def test_downloads_from_s3_are_complete(survey, tree, bricknames, manifest_of, coadd_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="survey")
    for path in tree.rglob("*.fits.fz"):
        client.put_object(Bucket="survey", Key=f"coadd/{path.relative_to(tree)}", Body=path.read_bytes())
    source = _survey_at("s3a://survey/coadd", tmp_path / "survey.json", survey)
    manifest = _cache(source, manifest_of(tmp_path / "m.json", bricknames), tmp_path / "c.json", coadd_settings)
    assert manifest.facts["missing"] == []
    load_brick(manifest, bricknames[0]).close()


def test_a_manifest_with_something_else_for_a_brick_name_is_refused(survey_json, manifest_of, coadd_settings, tmp_path):
    rows = manifest_of(tmp_path / "m.json", ["../../etc"])
    with pytest.raises(BadInputError, match="not a brick name"):
        _cache(survey_json, rows, tmp_path / "c.json", coadd_settings)


def test_a_check_names_what_is_wrong_with_a_file(tree, bricknames, tmp_path):
    name = bricknames[0]
    good = tree / coadd_file(name, "image-g", "release")
    assert check_coadd(good, name, "image-g", ONE).finite_fraction == 1.0
    with pytest.raises(CorruptDataError, match="shape"):
        check_coadd(good, name, "image-g", CoaddSettings(**{**ONE.model_dump(), "pixels": 3600}))
    with pytest.raises(CorruptDataError, match=f"is of brick {name}, not {bricknames[1]}"):
        check_coadd(good, bricknames[1], "image-g", ONE)
    pixels, header = fitsio.read(good, ext=1, header=True)
    cards = {k: header[k] for k in ("BRICKNAM", "CTYPE1", "CRVAL1", "CRVAL2", "CD1_1", "CD2_1")}
    for change, reason in (
        ({"CD1_1": -0.3 / 3600}, "arcsec per pixel"),
        ({"CTYPE1": "RA---ZEA"}, "projection"),
        ({"CRVAL1": float(header["CRVAL1"]) + 1}, "is centred on brick"),
    ):
        fitsio.write(tmp_path / "bad.fits", None, clobber=True)
        cards_now = [{"name": k, "value": v} for k, v in {**cards, **change}.items()]
        fitsio.write(tmp_path / "bad.fits", pixels, header=cards_now, clobber=True, compress="RICE", qlevel=-1e-4)
        with pytest.raises(CorruptDataError, match=reason):
            check_coadd(tmp_path / "bad.fits", name, "image-g", ONE)
    pixels[5, 5] = np.nan
    cards_now = [{"name": k, "value": v} for k, v in cards.items()]
    fitsio.write(tmp_path / "nan.fits", pixels, header=cards_now, clobber=True, compress="GZIP", qlevel=None)
    with pytest.raises(CorruptDataError, match="finite in"):
        check_coadd(tmp_path / "nan.fits", name, "image-g", ONE)
