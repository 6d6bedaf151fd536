"""Recall of lenses that a finder has never seen: which those are, and that it is shown the pixels of its own path."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import brick_wcs, planes
from dark_halo_scope.catalogue.positive_rows import POSITIVE_SCHEMA
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.evaluation import measure_known_lenses
from dark_halo_scope.evaluation.anchors import CIRCULAR
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.measure_known_lenses import NOT_CACHED, SEEN
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.models.deploy import open_finder
from recovery_scene import bricks_of, host, write_inputs

from .packed_files import write_model
from .real_scores import draw_images, write_scores

THRESHOLDS = {
    "p0.5": {"logit": 0.0, "score": 0.5, "status": "measured"},
    "fpr0.001": {"logit": None, "score": None, "status": "not measurable: too few"},
}
SIDE = 32
DEPTH = 24.0


def nothing(dtype: pa.DataType) -> Any:
    """A value for a column that must not be null and does not matter here."""
    if pa.types.is_string(dtype):
        return ""
    return [] if pa.types.is_list(dtype) else dtype.to_pandas_dtype()(0)


EMPTY = {field.name: nothing(field.type) for field in POSITIVE_SCHEMA if not field.nullable}


def lens(x: float, y: float, name: str, discovery: str = "spectroscopy", **more: Any) -> dict[str, Any]:
    """A known lens whose galaxy is at a pixel of the first brick."""
    of_host = host(x, y, bricks_of("test", 2)[0], 1)
    values = {key: of_host[key] for key in ("brickname", "ra", "dec", "split", "healpix_128", "psfsize_r", "ebv")}
    values |= {"name": name, "galaxy_id": f"{of_host['brickname']}_{name}", "discovery": discovery, "tier": "A"}
    # 5 sigma of a point source, as an inverse variance in nanomaggy^-2.
    return values | {"refs": ["a", "b"], "psfdepth_r": (5 / 10 ** (0.4 * (22.5 - DEPTH))) ** 2} | more


def write_lenses(rows: Sequence[dict[str, Any]]) -> None:
    """lenses.json, as positives are matched."""
    with attempt(Path("known_lenses.json"), "positives", "dark_halo_scope.catalogue.positives", {}, []) as work:
        table = pa.Table.from_pylist([EMPTY | row for row in rows], schema=POSITIVE_SCHEMA)
        pq.write_table(table, work.prefix / "positives.parquet")
        work.publish(rows_out=len(rows))


def write_galaxies(rows: Sequence[dict[str, Any]], path: str = "coadds") -> None:
    """galaxies.json, the finder's dataset."""
    facts = {"path": path, "settings": RealImageSettings(path=path).model_dump(mode="json")}  # type: ignore[arg-type]
    with attempt(Path("galaxies.json"), "galaxies", "dark_halo_scope.injection.list_real_images", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(list(rows)), work.prefix / "galaxies-0000.parquet")
        work.publish(rows_out=len(rows), facts=facts)


def write_validation(weights: str | None = None, scores: str | None = None) -> None:
    """validation.json of best.json and test.json, or of others."""
    weights = weights or read_json(Path("best.json"))["weights"]["sha256"]
    scores = scores or load_manifest(Path("test.json")).sha256
    found = {"model_sha256": weights, "scores_sha256": {"test": scores}, "thresholds": THRESHOLDS}
    write_json(Path("validation.json"), sealed(found))


def at(arcsec_east: float, of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A galaxy of the finder's dataset so far from a lens."""
    ra = of["ra"] + arcsec_east / 3600 / np.cos(np.deg2rad(of["dec"]))
    return {"ra": ra, "dec": of["dec"], "label": 1, "split": "train", **more}


def run() -> dict[str, Any]:
    names = ("model=best", "validation", "test", "lenses=known_lenses", "galaxies", "coadds")
    inputs = [part for name in names for part in (f"--{name.split('=')[0]}", f"{name.split('=')[-1]}.json")]
    options = [
        "--settings",
        "{}",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--output",
        "known.json",
        "--table",
        "known.csv",
    ]
    measure_known_lenses.main([*inputs, *options])
    return read_json(Path("known.json"))


def scores() -> dict[str, float]:
    with Path("known.csv").open() as file:
        return {row["name"]: float(row["logit"]) for row in csv.DictReader(file)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained network of 32 pixels, coadds of a brick of the test split, validation.json and test scores."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path, [host(150, 150, bricks_of("test", 2)[0], 0)])
    write_model(Path("best.json"))
    weights = read_json(Path("best.json"))["weights"]["sha256"]
    write_scores(Path("test.json"), draw_images(positives=20, negatives=300), "test", weights)
    write_validation()
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_lens_is_shown_as_the_coadd_has_it() -> None:
    lenses = [lens(100.0, 120.0, "one"), lens(201.3, 77.6, "two")]
    write_lenses(lenses)
    write_galaxies([at(60.0, lenses[0])])
    run()
    finder, content = open_finder(Path("best.json"), "cpu", 1), planes(seed=0)
    expected = {}
    for one in lenses:
        x, y = brick_wcs(brick=one["brickname"]).all_world2pix(one["ra"], one["dec"], 0)
        left, low = (round(float(value) - (SIDE - 1) / 2) for value in (x, y))
        image = np.stack([content[f"image-{band}"][low : low + SIDE, left : left + SIDE] for band in "grz"])
        image = image.astype(np.float16).astype(np.float32)
        row = pa.table({"psfsize_r": [one["psfsize_r"]], "psfdepth_r": [DEPTH]})
        expected[one["name"]] = float(finder.predictor()(image[None], row)[0])
    assert scores() == pytest.approx(expected, abs=1e-5)
    assert expected["one"] != pytest.approx(expected["two"], abs=1e-3), "the network tells images apart"


@pytest.mark.usefixtures("here")
def test_lenses_near_one_that_was_learned_from_are_left_out_and_counted() -> None:
    lenses = [lens(40.0 + 50 * number, 150.0, str(number)) for number in range(5)]
    far = lens(150.0, 40.0, "5", brickname="1000p000", ra=100.0)
    edge = lens(297.0, 150.0, "6")
    write_lenses([*lenses, far, edge])
    write_galaxies(
        [
            at(10.5, lenses[0]),
            at(11.5, lenses[1], split="val"),
            at(0.0, lenses[2], split="val"),
            at(0.0, lenses[3], split="test"),
            at(5.0, lenses[4], label=0, split="test"),
        ]
    )
    found = run()
    assert sorted(scores()) == ["1", "3", "4"]
    left_out = {SEEN: 2, NOT_CACHED: 1, "off the edge of the brick": 1}
    assert found["counts"] == {"known": 7, "scored": 3, "left_out": left_out}


@pytest.mark.usefixtures("here")
def test_recall_is_given_by_how_lenses_were_found_and_circular_ones_are_apart() -> None:
    lenses = [lens(60.0 + 30 * n, 150.0, str(n), CIRCULAR if n < 2 else "spectroscopy") for n in range(6)]
    lenses[5]["tier"] = "B"
    write_lenses(lenses)
    write_galaxies([at(60.0, lenses[0])])
    found, logits = run(), scores()
    recall = found["recall"]
    own = recall["overall"]["not_circular"]["p0.5"]
    assert (own["k"], own["n"]) == (sum(logits[str(n)] >= 0 for n in range(2, 6)), 4)
    counts = {scheme: {name: group["p0.5"]["n"] for name, group in groups.items()} for scheme, groups in recall.items()}
    assert counts == {
        "overall": {"all": 6, "not_circular": 4},
        "tier": {"A": 5, "B": 1},
        "tier_not_circular": {"A": 3, "B": 1},
        "discovery": {CIRCULAR: 2, "spectroscopy": 4},
    }
    assert recall["overall"]["all"]["fpr0.001"]["value"] is None
    drawn = draw_images(positives=20, negatives=300)
    negatives = np.array(drawn["logit"])[np.array(drawn["label"]) == 0]
    ours = np.array([logits[str(n)] for n in range(2, 6)])
    wins = np.mean((ours[:, None] > negatives) + 0.5 * (ours[:, None] == negatives))
    assert found["auc"]["overall"]["not_circular"]["value"] == pytest.approx(wins, abs=1e-12)
    assert found["auc"]["overall"]["not_circular"]["n"] == 304


@pytest.mark.usefixtures("here")
def test_a_finder_that_has_seen_every_lens_is_not_measurable_and_says_so() -> None:
    lenses = [lens(150.0, 150.0, "1")]
    write_lenses(lenses)
    write_galaxies([at(2.0, lenses[0])])
    found = run()
    assert found["counts"] == {"known": 1, "scored": 0, "left_out": {SEEN: 1}}
    entry = found["recall"]["overall"]["all"]["p0.5"]
    assert (entry["value"], entry["n"]) == (None, 0)
    assert entry["status"].startswith("not measurable")
    assert scores() == {}


@pytest.mark.usefixtures("here")
def test_what_cannot_be_compared_is_refused() -> None:
    lenses = [lens(150.0, 150.0, "1")]
    write_lenses(lenses)
    write_galaxies([at(60.0, lenses[0])], path="service")
    with pytest.raises(BadInputError, match="path: service"):
        run()
    write_galaxies([at(60.0, lenses[0])])
    write_validation(weights="b" * 64)
    with pytest.raises(BadInputError, match="not of one network"):
        run()
    write_validation(scores="b" * 64)
    with pytest.raises(BadInputError, match="measured on other scores"):
        run()
    write_validation()
    edited = Path("validation.json").read_text().replace('"logit": 0.0', '"logit": -9.0')
    Path("validation.json").write_text(edited)
    with pytest.raises(CorruptDataError, match="validate the finder again"):
        run()
