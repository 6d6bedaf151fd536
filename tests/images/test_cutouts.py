"""What cutouts of a list promise: an image or a reason for every row, and the same bytes from the same sky."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, brick_wcs, planes, write_brick
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_path
from dark_halo_scope.images.cutouts import (
    IMAGES,
    ROWS,
    TOO_BRIGHT,
    Stored,
    open_cutouts,
    write_cutouts,
)
from dark_halo_scope.images.fetch_cutouts import main, read_positions
from dark_halo_scope.survey.cutout_server import CutoutServer
from dark_halo_scope.survey.description import load_survey
from dark_halo_scope.survey.names import coadd_file, products
from tiny_survey import field_rows, write_survey

SIZE = 32
SETTINGS = json.dumps({"size": SIZE})


@pytest.fixture
def survey_json(tmp_path: Path) -> Path:
    """A survey with the coadds of one brick."""
    root = tmp_path / "sky"
    tiny = write_survey(root, {"sweep-000p000-005p005": field_rows(2)})
    content = planes()
    content["image-z"][:, 200:] = 0
    paths = write_brick(tmp_path / "flat", content)
    for product in products():
        target = root / "coadd" / coadd_file(BRICK, product, "release")
        target.parent.mkdir(parents=True, exist_ok=True)
        paths[product].rename(target)
    return tiny.description


def positions(*pixels: tuple[float, float]) -> list[tuple[float, float]]:
    return [tuple(float(v) for v in brick_wcs().all_pix2world(x, y, 0)) for x, y in pixels]


@pytest.fixture
def list_csv(tmp_path: Path) -> Path:
    """Two usable targets, one in a band's gap, one off the sky, one without a number."""
    rows = [*positions((100, 100), (120, 140), (250, 150)), (200.0, 80.0)]
    path = tmp_path / "list.csv"
    lines = [f"t{number},{ra},{dec}" for number, (ra, dec) in enumerate(rows)]
    path.write_text("\n".join(["name,ra,dec", *lines, "t4,,5"]) + "\n")
    return path


def fetch(survey_json: Path, list_csv: Path, output: Path, settings: str = SETTINGS) -> Path:
    main(["--survey", str(survey_json), "--list", str(list_csv), "--output", str(output), "--settings", settings])
    return output


def test_every_row_has_an_image_or_a_reason(survey_json: Path, list_csv: Path, tmp_path: Path) -> None:
    images, rows = open_cutouts(fetch(survey_json, list_csv, tmp_path / "cutouts.json"))
    assert images.shape == (5, 3, SIZE, SIZE)
    assert images.dtype == np.float16
    assert rows["cutout_row"].to_pylist() == [0, 1, 2, 3, 4]
    assert rows["cutout_ok"].to_pylist() == [True, True, False, False, False]
    assert rows["cutout_reason"].to_pylist() == [
        None,
        None,
        "no data in z",
        "outside the footprint of the service",
        "position is not finite",
    ]
    assert np.all(images[2:] == 0)
    assert np.all(images[:2].std(axis=(2, 3)) > 0)
    facts = load_manifest(tmp_path / "cutouts.json").facts
    assert (facts["rows"], facts["usable"], sum(facts["reasons"].values())) == (5, 2, 3)


def test_a_cutout_is_the_coadds_own_pixels_wherever_its_target_is(survey_json: Path, tmp_path: Path) -> None:
    [(ra, dec)] = positions((100.3, 120.9))
    (tmp_path / "one.csv").write_text(f"ra,dec\n{ra},{dec}\n")
    images, _ = open_cutouts(fetch(survey_json, tmp_path / "one.csv", tmp_path / "cutouts.json"))
    # The centre between pixels that is nearest to the target is (100.5, 120.5).
    native = planes()["image-r"][105:137, 85:117]
    np.testing.assert_allclose(images[0, 1], native, atol=5e-3 * native.std())


def test_another_run_gives_the_same_bytes_and_asks_nothing(survey_json: Path, list_csv: Path, tmp_path: Path) -> None:
    first = fetch(survey_json, list_csv, tmp_path / "cutouts.json").read_bytes()
    for path in (tmp_path / "sky" / "coadd").rglob("*.fz"):
        path.unlink()
    usable = tmp_path / "usable.csv"
    usable.write_text("\n".join(list_csv.read_text().splitlines()[:4]) + "\n")
    # Without coadds, only the cache can answer.
    images, rows = open_cutouts(fetch(survey_json, usable, tmp_path / "again.json"))
    assert rows["cutout_ok"].to_pylist() == [True, True, False]
    np.testing.assert_array_equal(images[:2], open_cutouts(tmp_path / "cutouts.json")[0][:2])
    assert (tmp_path / "cutouts.json").read_bytes() == first


def test_identical_content_is_identical_bytes_from_another_port_and_cache(
    survey_json: Path, list_csv: Path, tmp_path: Path
) -> None:
    one, two = (
        load_manifest(fetch(survey_json, list_csv, tmp_path / name / "cutouts.json")) for name in ("one", "two")
    )
    assert one.sha256 == two.sha256


@pytest.mark.parametrize("name", [IMAGES, ROWS])
def test_one_flipped_byte_is_an_error_that_names_the_file(
    survey_json: Path, list_csv: Path, tmp_path: Path, name: str
) -> None:
    path = verified_path(load_manifest(fetch(survey_json, list_csv, tmp_path / "cutouts.json")), name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=name):
        open_cutouts(tmp_path / "cutouts.json")


def test_a_service_that_fails_on_the_way_is_asked_again(survey_json: Path, list_csv: Path, tmp_path: Path) -> None:
    faults = ["429:1", "500", "truncated"]
    with CutoutServer(load_survey(survey_json), faults=faults) as server:
        settings = json.dumps({"size": SIZE, "service": server.url})
        _, rows = open_cutouts(fetch(survey_json, list_csv, tmp_path / "cutouts.json", settings))
    assert rows["cutout_ok"].to_pylist() == [True, True, False, False, False]
    # Four targets and three faults.
    assert len(server.requests) == 7
    assert server.most_at_once == 1
    assert rows["cutout_url"][0].as_py() == f"{server.url}{server.requests[0]}"


def test_how_politely_a_service_is_asked_is_in_no_result(survey_json: Path, list_csv: Path, tmp_path: Path) -> None:
    ways = {"calm": {"interval_s": 0.2, "user_agent": "me@here.example"}, "brisk": {"interval_s": 0.1, "attempts": 2}}
    results = {}
    with CutoutServer(load_survey(survey_json)) as server:
        settings = json.dumps({"size": SIZE, "service": server.url})
        for name, way in ways.items():
            output = tmp_path / name / "cutouts.json"
            options = ["--list", str(list_csv), "--survey", str(survey_json), "--settings", settings]
            main([*options, "--asking", json.dumps(way), "--output", str(output)])
            manifest = load_manifest(output)
            results[name] = (manifest.sha256, manifest.facts)
        assert "me@here.example" in server.user_agents[0]
    assert results["calm"] == results["brisk"]
    assert not any(b"me@here" in path.read_bytes() for path in tmp_path.glob("calm/**/*.json"))


@pytest.mark.parametrize("fault", ["html", "wrong_size", "wrong_scale"])
def test_too_many_faults_of_the_service_publish_nothing(
    survey_json: Path, list_csv: Path, tmp_path: Path, fault: str
) -> None:
    with CutoutServer(load_survey(survey_json), faults=[fault]) as server:
        settings = {"size": SIZE, "service": server.url}
        with pytest.raises(StorageError, match="1 of 5 cutouts failed by fault of the service"):
            fetch(survey_json, list_csv, tmp_path / "cutouts.json", json.dumps(settings))
        assert not (tmp_path / "cutouts.json").exists()
        # The rest was kept: now one target is asked for, and the one that is off the sky.
        before = len(server.requests)
        fetch(survey_json, list_csv, tmp_path / "cutouts.json", json.dumps(settings))
        assert len(server.requests) - before == 2
    some = {"size": SIZE, "max_failed": 0.2}
    fetch(survey_json, list_csv, tmp_path / "cutouts.json", json.dumps(some))


def test_a_password_in_the_services_address_is_in_no_result(survey_json: Path, list_csv: Path, tmp_path: Path) -> None:
    with CutoutServer(load_survey(survey_json)) as server:
        address = server.url.replace("http://", "http://me:canary-0123456789@")
        settings = json.dumps({"size": SIZE, "service": address})
        _, rows = open_cutouts(fetch(survey_json, list_csv, tmp_path / "results" / "cutouts.json", settings))
    assert "/viewer/fits-cutout?ra=" in rows["cutout_url"][0].as_py()
    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert written
    assert not any(b"canary" in path.read_bytes() or "canary" in str(path) for path in written)
    assert not any("canary" in text for text in rows["cutout_url"].to_pylist() if text)


def test_an_image_too_bright_for_float16_is_a_reason(tmp_path: Path) -> None:
    image = np.full((3, 8, 8), 7e4, np.float32)
    rows = write_cutouts(tmp_path, pa.table({"ra": [1.0]}), [Stored(image, None, "u", 0.0)], 8)
    assert rows["cutout_reason"].to_pylist() == [TOO_BRIGHT]
    assert not np.load(tmp_path / IMAGES).any()


def test_a_list_of_nobody_is_no_error(survey_json: Path, tmp_path: Path) -> None:
    with attempt(tmp_path / "list.json", "anchors", "dark_halo_scope.catalogue.anchors", {}, []) as work:
        empty = pa.table({"ra": pa.array([], pa.float64()), "dec": pa.array([], pa.float64())})
        pq.write_table(empty, work.prefix / "anchors.parquet")
        work.publish(rows_out=0)
    output = fetch(survey_json, tmp_path / "list.json", tmp_path / "cutouts.json")
    images, rows = open_cutouts(output)
    assert images.shape == (0, 3, SIZE, SIZE)
    assert rows.num_rows == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [("name,ra\nA,1\n", "has no column dec"), ("ra,dec\n1,two\n", "no number"), ("", "no CSV|not a CSV")],
)
def test_a_list_without_positions_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(BadInputError, match=why):
        read_positions(tmp_path / "list.csv")


def test_a_column_that_cutouts_have_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cutout_ok"):
        write_cutouts(tmp_path, pa.table({"ra": [1.0], "cutout_ok": [True]}), [], 8)
