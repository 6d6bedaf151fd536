"""Recall of lenses that a finder has never seen: which those are, and that it is shown the pixels of its own path."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from brick_scene import brick_wcs, planes
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation import measure_known_lenses
from dark_halo_scope.evaluation.anchors import CIRCULAR
from dark_halo_scope.evaluation.measure_known_lenses import NOT_CACHED, SEEN
from dark_halo_scope.models.deploy import open_finder
from recovery_scene import bricks_of, host, write_inputs

from .packed_files import write_model
from .real_scores import draw_images, write_scores

THRESHOLDS = {
    "p0.5": {"logit": 0.0, "score": 0.5, "status": "measured"},
    "fpr0.001": {"logit": None, "score": None, "status": "not measurable: too few"},
}
SIDE = 32


def lens(x: float, y: float, name: str, discovery: str = "spectroscopy", **more: Any) -> dict[str, Any]:
    """A known lens at a pixel of the first brick."""
    of_host = host(x, y, bricks_of("test", 2)[0], 1)
    keys = ("brickname", "ra", "dec", "split", "healpix_128", "psfsize_r", "psfdepth_r", "ebv")
    values = {key: of_host[key] for key in keys} | {"name": name, "discovery": discovery, "stress": False}
    return values | {"tier_grade": "A", "theta_e_arcsec": 1.2, **more}


def write_list(rows: Sequence[dict[str, Any]]) -> None:
    """anchors.json."""
    with attempt(Path("anchors.json"), "anchors", "dark_halo_scope.catalogue.anchors", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(list(rows)), work.prefix / "anchors.parquet")
        work.publish(rows_out=len(rows))


def write_galaxies(rows: Sequence[dict[str, Any]], path: str = "coadds") -> None:
    """galaxies.json, the finder's dataset."""
    with attempt(Path("galaxies.json"), "galaxies", "dark_halo_scope.injection.list_real_images", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(list(rows)), work.prefix / "galaxies-0000.parquet")
        work.publish(rows_out=len(rows), facts={"path": path, "settings": {"exclude_arcsec": 11.0}})


def at(arcsec_east: float, of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A galaxy of the finder's dataset so far from a lens."""
    ra = of["ra"] + arcsec_east / 3600 / np.cos(np.deg2rad(of["dec"]))
    return {"ra": ra, "dec": of["dec"], "label": 1, "split": "train", **more}


def run() -> dict[str, Any]:
    arguments = ["--model", "best.json", "--validation", "validation.json", "--test", "test.json", "--device", "cpu"]
    arguments += [
        "--anchors",
        "anchors.json",
        "--galaxies",
        "galaxies.json",
        "--coadds",
        "coadds.json",
        "--threads",
        "1",
    ]
    arguments += ["--stamp-settings", "{}", "--settings", "{}", "--output", "known.json", "--table", "known.csv"]
    measure_known_lenses.main(arguments)
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
    write_json(Path("validation.json"), {"model_sha256": weights, "thresholds": THRESHOLDS})
    write_scores(Path("test.json"), draw_images(positives=20, negatives=300), "test", weights)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_lens_is_shown_as_the_coadd_has_it() -> None:
    lenses = [lens(100.0, 120.0, "one"), lens(201.3, 77.6, "two")]
    write_list(lenses)
    write_galaxies([at(60.0, lenses[0])])
    run()
    finder, content = open_finder(Path("best.json"), "cpu", 1), planes(seed=0)
    expected = {}
    for one in lenses:
        x, y = brick_wcs(brick=one["brickname"]).all_world2pix(one["ra"], one["dec"], 0)
        left, low = (round(float(value) - (SIDE - 1) / 2) for value in (x, y))
        image = np.stack([content[f"image-{band}"][low : low + SIDE, left : left + SIDE] for band in "grz"])
        image = image.astype(np.float16).astype(np.float32)
        row = pa.Table.from_pylist([one])
        expected[one["name"]] = float(finder.predictor()(image[None], row)[0])
    assert scores() == pytest.approx(expected, abs=1e-5)
    assert expected["one"] != pytest.approx(expected["two"], abs=1e-3), "the network tells images apart"


@pytest.mark.usefixtures("here")
def test_lenses_near_one_that_was_learned_from_are_left_out_and_counted() -> None:
    lenses = [lens(40.0 + 50 * number, 150.0, str(number)) for number in range(5)]
    far = lens(150.0, 40.0, "elsewhere", brickname="1000p000", ra=100.0)
    edge = lens(297.0, 150.0, "edge")
    write_list([*lenses, far, edge])
    write_galaxies(
        [
            at(10.5, lenses[0]),
            at(11.5, lenses[1], split="val"),
            at(0.0, lenses[2], split="val"),
            at(0.0, lenses[3], split="test"),
            at(0.0, lenses[4], label=0),
        ]
    )
    found = run()
    assert sorted(scores()) == ["1", "3", "4"]
    assert found["counts"]["listed"] == 7
    assert found["counts"]["scored"] == 3
    assert found["counts"]["excluded"] == {SEEN: 2, NOT_CACHED: 1, "off the edge of the brick": 1}


@pytest.mark.usefixtures("here")
def test_recall_is_given_by_how_lenses_were_found_and_circular_ones_are_apart() -> None:
    lenses = [lens(60.0 + 30 * n, 150.0, str(n), CIRCULAR if n < 2 else "spectroscopy") for n in range(6)]
    lenses.append(lens(150.0, 60.0, "hst", "space", stress=True))
    write_list(lenses)
    write_galaxies([at(60.0, lenses[0])])
    found = run()
    logits = scores()
    passed = {name: logit >= 0 for name, logit in logits.items()}
    own = found["recall"]["overall"]["not_circular"]["p0.5"]
    assert (own["k"], own["n"]) == (sum(passed[str(n)] for n in range(2, 6)), 4)
    assert found["recall"]["overall"]["headline"]["p0.5"]["n"] == 6
    assert found["recall"]["discovery"].keys() == {CIRCULAR, "spectroscopy"}
    assert found["recall"]["stress"]["all"]["p0.5"]["n"] == 1
    assert found["recall"]["overall"]["headline"]["fpr0.001"]["value"] is None
    assert "too few" in found["recall"]["overall"]["headline"]["fpr0.001"]["status"]
    negatives = draw_images(positives=20, negatives=300)
    negatives = expit(np.array(negatives["logit"])[np.array(negatives["label"]) == 0])
    ours = np.array([expit(logits[str(n)]) for n in range(2, 6)])
    wins = np.mean((ours[:, None] > negatives) + 0.5 * (ours[:, None] == negatives))
    assert found["auc"]["overall"]["not_circular"]["value"] == pytest.approx(wins, abs=1e-12)
    assert found["contamination"]["negative"]["p0.5"]["n"] == 300


@pytest.mark.usefixtures("here")
def test_what_cannot_be_compared_is_refused() -> None:
    lenses = [lens(150.0, 150.0, "one")]
    write_list(lenses)
    write_galaxies([at(2.0, lenses[0])])
    with pytest.raises(BadInputError, match="every lens of"):
        run()
    write_galaxies([at(60.0, lenses[0])], path="service")
    with pytest.raises(BadInputError, match="path: service"):
        run()
    write_galaxies([at(60.0, lenses[0])])
    write_json(Path("validation.json"), {"model_sha256": "b" * 64, "thresholds": THRESHOLDS})
    with pytest.raises(BadInputError, match="not of one network"):
        run()
