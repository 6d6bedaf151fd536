"""What `measure_realism` promises: every number from the real formats, both ways of a lens, and nothing lost unseen."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation import measure_realism, score
from dark_halo_scope.evaluation.arc_light import KIND as ARC_LIGHT
from dark_halo_scope.evaluation.arc_light import LENSES
from dark_halo_scope.evaluation.measure_arc_light import LENS_SCHEMA
from dark_halo_scope.evaluation.score_errors import COLUMNS
from dark_halo_scope.images.cutouts import KIND as CUTOUTS
from dark_halo_scope.images.cutouts import Stored, write_cutouts
from dark_halo_scope.injection.schema import encode_stamp

from . import toys
from .packed_files import write_model, write_packed

LENSES_LISTED = 70
SETTINGS = {
    "match": {"sky_arcsec": 3.5, "caliper": 3.0},
    "classifiers": {"trees": 5, "bootstraps": 20, "permutations": 20, "min_pairs": 30},
    "bricks": {"permutations": 20},
    "floor_repeats": 3,
}


def _lenses() -> tuple[np.ndarray, pa.Table]:
    """Real lenses, which are drawn as positives are; all over the sky, three of them with something wrong."""
    drawn = toys.make_split(LENSES_LISTED, seed=5, per_host=1)
    rng = np.random.default_rng(6)
    numbers = np.arange(LENSES_LISTED)
    depth = np.full(LENSES_LISTED, 24.4)
    depth[2] = np.nan  # a brick of unknown depth
    rows = pa.table(
        {
            "name": [f"J{number:04d}" for number in numbers],
            "ra": rng.uniform(10, 60, LENSES_LISTED),
            "dec": rng.uniform(-20, 20, LENSES_LISTED),
            "brickname": ["0101m050"] * LENSES_LISTED,
            "discovery": ["other"] * LENSES_LISTED,
            "tier_grade": ["A" if number % 2 else "B" for number in numbers],
            "stress": numbers == 1,
            "psfsize_r": rng.normal(toys.PSFSIZE, 0.05, LENSES_LISTED),
            "psfdepth_r": depth,
        }
    )
    return drawn.positive.astype(np.float32), rows


def _write_cutouts(path: Path, images: np.ndarray, rows: pa.Table) -> None:
    stored = [
        Stored(image, "outside the footprint" if number == 0 else None, None, 0.0)
        for number, image in enumerate(images)
    ]
    with attempt(path, CUTOUTS, "dark_halo_scope.images.cutouts", {}, []) as work:
        write_cutouts(work.prefix, rows, stored, toys.SIZE)
        work.publish(facts={"rows": rows.num_rows, "size": toys.SIZE})


def _write_arc_light(path: Path, images: np.ndarray, rows: pa.Table) -> None:
    """All lenses but the last, half an arcsec from where the list has them."""
    known = [
        {
            "name": f"other {row['name']}",
            "brickname": row["brickname"],
            "grading": "confident",
            "discovery": "other",
            "ra": row["ra"],
            "dec": row["dec"] + 0.5 / 3600,
            "psfsize_r": toys.PSFSIZE,
            "host_offset_x_arcsec": 0.0,
            "host_offset_y_arcsec": 0.0,
            "stamp_npz": encode_stamp(image),
        }
        for row, image in zip(rows.to_pylist(), images, strict=True)
    ]
    with attempt(path, ARC_LIGHT, "dark_halo_scope.evaluation.measure_arc_light", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(known[:-1], schema=LENS_SCHEMA), work.prefix / LENSES)
        work.publish()


def _measure(folder: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    names = {"model": "best.json", "packed": "packed.json", "scores": "scores.json", "cutouts": "cutouts.json"}
    names |= {"arc-light": "arc_light.json", "output": "realism.json", "errors": "errors.csv", "device": "cpu"}
    options = [text for name, value in names.items() for text in (f"--{name}", value)]
    measure_realism.main([*options, "--settings", json.dumps(settings)])
    with (folder / "errors.csv").open(newline="") as file:
        return read_json(folder / "realism.json"), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network's inputs, on disk in the real formats."""
    here = tmp_path_factory.mktemp("realism")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        split = toys.make_split(320)
        write_packed(Path("packed.json"), {"test": split})
        write_model(Path("best.json"))
        score.main(["--model", "best.json", "--packed", "packed.json", "--output", "scores.json", "--device", "cpu"])
        images, rows = _lenses()
        _write_cutouts(Path("cutouts.json"), images, rows)
        _write_arc_light(Path("arc_light.json"), images, rows)
    return here


@pytest.fixture(scope="module")
def measured(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return _measure(folder, SETTINGS)


def test_every_lens_is_probed_or_counted_with_its_reason(measured: tuple[dict[str, Any], Any]) -> None:
    result, _ = measured
    lenses = result["lenses"]
    assert lenses["excluded"] == {"cutout not ok": 1, "in a stress list": 1, "psfdepth_r unknown": 1}
    assert lenses["listed"] == LENSES_LISTED == lenses["probed"] + sum(lenses["excluded"].values())


def test_lenses_are_probed_both_ways_where_coadds_have_them(measured: tuple[dict[str, Any], Any]) -> None:
    result, _ = measured
    assert result["lenses"]["on_coadds"] == result["lenses"]["probed"] - 1
    for path in ("service", "coadd"):
        groups = result["paths"][path]
        assert set(groups) == {"all", "all_conditions_matched", "test_split"}
        assert groups["all"]["counts"]["injections"] == 160  # hosts, each once
        probe = groups["all"]["probe"]
        # Lenses are drawn as injections are: whatever tells them apart, the probe should not.
        low, high = probe["lenses_vs_injections"]["interval"]
        assert low < 0.62
        assert high > 0.38
        assert probe["floor"]["status"] == "measured"
    assert result["service_vs_coadd"]["n"] == result["lenses"]["on_coadds"]
    # The same pixels, but for the service's float16.
    assert result["service_vs_coadd"]["noise_ratio"]["r"] == pytest.approx(1.0, abs=1e-3)


def test_conditions_matched_differ_less(measured: tuple[dict[str, Any], Any]) -> None:
    """Hosts have one depth, lenses another: with the conditions among the variables none is within reach."""
    result, _ = measured
    counts = result["paths"]["service"]["all_conditions_matched"]["counts"]
    assert counts["matched"] < result["paths"]["service"]["all"]["counts"]["matched"]


def test_errors_are_a_table_whose_rows_lead_to_their_images(measured: tuple[dict[str, Any], Any], folder: Path) -> None:
    result, rows = measured
    assert tuple(rows[0]) == COLUMNS
    groups = {row["group"] for row in rows}
    assert groups == {
        "control taken for a lens",
        "hard negative taken for a lens",
        "missed injection",
        "missed lens",
    }
    table = pq.read_table(next((folder / "scores").rglob("scores.parquet"))).to_pylist()
    known = {(row["kind"], row["task_id"]): row for row in table}
    for row in rows:
        if row["source"] == "packed":
            own = known[row["kind"], row["name"]]
            assert int(row["row"]) == own["packed_row"]
            assert float(row["logit"]) == own["logit"]
        else:
            assert int(row["row"]) == int(row["name"][1:])
            assert int(row["name"][1:]) % 2 == 1  # tier A
    assert result["errors"]["lenses"]["n"] == 34  # 35 of tier A, one of them in a stress list


def test_bricks_are_compared(measured: tuple[dict[str, Any], Any]) -> None:
    result, _ = measured
    assert result["bricks"]["counts"] == {"pairs": 320, "bricks": 4, "bricks_measured": 4}


def test_the_same_inputs_give_the_same_bytes(
    measured: tuple[dict[str, Any], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = [(folder / name).read_bytes() for name in ("realism.json", "errors.csv")]
    _measure(folder, SETTINGS)
    assert [(folder / name).read_bytes() for name in ("realism.json", "errors.csv")] == before


def test_lenses_beyond_the_most_are_drawn_at_random_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    kept = [(folder / name).read_bytes() for name in ("realism.json", "errors.csv")]
    result, _ = _measure(folder, {**SETTINGS, "max_lenses": 20, "max_injections": 50})
    assert result["lenses"]["probed"] == 20
    assert result["lenses"]["excluded"]["not drawn"] == 47
    service = result["paths"]["service"]["all"]
    assert service["counts"]["injections"] == 50
    assert service["probe"]["lenses_vs_injections"]["status"] == "not measurable: fewer than 30"
    for name, content in zip(("realism.json", "errors.csv"), kept, strict=True):
        (folder / name).write_bytes(content)


def test_scores_of_another_network_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    content = read_json(folder / "scores.json")
    content["facts"]["model_sha256"] = "0" * 64
    (folder / "others.json").write_text(json.dumps(content))
    options = ["--model", "best.json", "--packed", "packed.json", "--scores", "others.json", "--device", "cpu"]
    options += ["--cutouts", "cutouts.json", "--arc-light", "arc_light.json", "--output", "x.json", "--errors", "x.csv"]
    with pytest.raises(BadInputError, match="of another network"):
        measure_realism.main(options)
    assert not (folder / "x.json").exists()
