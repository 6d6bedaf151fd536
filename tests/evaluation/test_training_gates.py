"""Gates before training: the critical ones stop it, the others say what they found, and nothing passes in silence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest
from dark_halo_scope.evaluation import check_training_data
from dark_halo_scope.evaluation.training_gates import (
    Rows,
    core_brightness,
    cutouts_gate,
    overlap_gate,
    path_gate,
    refusals,
    reported_gates,
    splits_gate,
    unpaired_sample,
    weights_gate,
)
from dark_halo_scope.evaluation.training_gates_config import TrainingGateSettings
from dark_halo_scope.images import pack
from dark_halo_scope.injection.cutout_npz import encode_cutout
from dark_halo_scope.injection.real_stamps import REAL_STAMP_SCHEMA
from dark_halo_scope.injection.stamp_parquet import parquet_bytes
from real_scene import real_row

SIZE = 41
SETTINGS = TrainingGateSettings()
LOOSE = {"splits": {"train": [0.5, 0.9], "val": [0.01, 0.4], "test": [0.01, 0.4]}}
QUICK = {"shortcuts": {"max_pairs": 120, "min_pairs": 20, "folds": 3, "trees": 10, "bootstraps": 60}}


def _columns(count: int = 600, seed: int = 0) -> dict[str, Any]:
    """A sky full of galaxies, every third a lens, in the split of their cell."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 90, count), rng.uniform(-18, 32, count)
    cells = healpix_cell(ra, dec)
    label = (np.arange(count) % 3 == 0).astype(np.int64)
    tier = np.where(label == 1, np.where(np.arange(count) % 2, "A", "B"), "N1").astype(object)
    return {
        "galaxy_id": np.array([f"0001p000_{i}" for i in range(count)]),
        "tier": tier,
        "split": split_of_cells(cells),
        "pixel_path": np.full(count, "coadds", dtype=object),
        "label": label,
        "healpix_128": cells,
        "ra": ra,
        "dec": dec,
        "sample_weight": np.where(tier == "B", 0.5, 1.0),
        "cutout_ok": np.ones(count, np.int32),
    }


def test_a_clean_dataset_passes_every_critical_gate() -> None:
    rows = Rows(_columns(6000))
    gates = [cutouts_gate(rows, SETTINGS), path_gate(rows), splits_gate(rows, SETTINGS), weights_gate(rows, SETTINGS)]
    assert all(gate["passed"] for gate in [*gates, overlap_gate(rows, SETTINGS, 42)])


def test_splits_are_judged_class_by_class() -> None:
    columns = _columns(6000)
    moved = (columns["label"] == 1) & (columns["split"] == "val")
    columns["split"] = np.where(moved, "train", columns["split"])
    gate = splits_gate(Rows(columns), SETTINGS)
    assert not gate["passed"]
    assert not gate["positives"]["val"]["passed"]
    assert gate["positives"]["val"]["share"] == 0
    assert all(gate["negatives"][split]["passed"] for split in ("train", "val", "test"))


def test_a_split_gate_that_is_only_reported_says_why_and_cannot_be_so_in_silence() -> None:
    columns = _columns(60)
    columns["split"] = np.full(60, "train")
    settings = TrainingGateSettings(splits={"on_failure": "report", "reason": "few cells"})
    gate = splits_gate(Rows(columns), settings)
    reasons, notes = refusals({"splits": gate}, {}, settings)
    assert (reasons, gate["passed"]) == ([], False)
    assert "few cells" in notes[0]
    for broken in ({"on_failure": "report"}, {"reason": "few cells"}):
        with pytest.raises(ValueError, match="needs a reason"):
            TrainingGateSettings(splits=broken)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ("galaxies_in_both_classes", 1),
        ("objects_in_both_classes", 1),
        ("objects_in_two_splits", 1),
        ("rows_of_another_split", 1),
        ("rows_of_another_cell", 600),
    ],
)
def test_overlap_of_classes_and_splits_closes_the_gate(change: str, count: int) -> None:
    columns = _columns()
    if change == "galaxies_in_both_classes":
        columns["galaxy_id"][1] = columns["galaxy_id"][0]
    elif change == "objects_in_both_classes":
        columns["ra"][1], columns["dec"][1] = columns["ra"][0], columns["dec"][0] + 0.5 / 3600
    elif change == "objects_in_two_splits":
        columns["ra"][3], columns["dec"][3] = columns["ra"][0], columns["dec"][0] + 0.5 / 3600
        columns["split"][[0, 3]] = ["train", "test"]
    elif change == "rows_of_another_split":
        columns["split"][7] = "test" if columns["split"][7] != "test" else "val"
    else:
        # As the earlier pipeline had them: a hash of each object's own coordinates.
        columns["healpix_128"] = (columns["healpix_128"] + 1 + np.arange(600)) % (12 * 128**2)
    gate = overlap_gate(Rows(columns), SETTINGS, 42)
    assert not gate["passed"]
    assert gate[change] == count
    (reason,), _ = refusals({"overlap": gate}, {}, SETTINGS)
    assert change in reason


def test_splits_hashed_object_by_object_are_found_as_cells_in_two_splits() -> None:
    """Trap 11: positives whose split was Python's hash of their own coordinates."""
    columns = _columns(6000)
    columns["split"] = np.random.default_rng(1).choice(["train", "val", "test"], 6000)
    gate = overlap_gate(Rows(columns), SETTINGS, 42)
    assert gate["cells_in_two_splits"] > 100
    assert gate["rows_of_another_split"] > 1000


@pytest.mark.parametrize(("tier", "weight"), [("A", 0.95), ("B", 0.29), ("B", 0.61), ("N1", 0.5), ("N1", float("nan"))])
def test_a_weight_that_is_not_its_tiers_closes_the_gate(tier: str, weight: float) -> None:
    columns = _columns()
    place = int(np.flatnonzero(columns["tier"] == tier)[0])
    columns["sample_weight"][place] = weight
    gate = weights_gate(Rows(columns), SETTINGS)
    assert not gate["passed"]
    assert sum(gate["wrong"].values()) == 1


def test_labels_that_contradict_tiers_close_the_gate() -> None:
    columns = _columns()
    columns["tier"][1] = "A"
    assert weights_gate(Rows(columns), SETTINGS)["wrong"]["of_no_tier"] == 1


def test_failed_cutouts_count_by_class_and_an_empty_class_is_refused() -> None:
    columns = _columns(3000)
    columns["cutout_ok"][np.flatnonzero(columns["label"] == 0)[:40]] = 0
    gate = cutouts_gate(Rows(columns), SETTINGS)
    assert gate["passed"]
    assert gate["all_positives_usable"]
    columns["cutout_ok"][np.flatnonzero(columns["label"] == 0)[:50]] = 0
    assert not cutouts_gate(Rows(columns), SETTINGS)["passed"]
    columns["cutout_ok"] = columns["label"].astype(np.int32) * 0 + (columns["label"] == 0)
    gate = cutouts_gate(Rows(columns), SETTINGS)
    assert (gate["passed"], gate["positives"]["failed"]) == (False, 1000)


def test_pixels_of_two_paths_are_refused() -> None:
    columns = _columns()
    columns["pixel_path"][5] = "service"
    gate = path_gate(Rows(columns))
    assert not gate["passed"]
    assert "coadds, service" in refusals({"path": gate}, {}, SETTINGS)[0][0]


def _sample(images: np.ndarray, start: int = 0):
    count = len(images)
    rng = np.random.default_rng(start + 5)
    return unpaired_sample(
        images, rng.normal(1, 0.1, (count, 8)), np.arange(count) // 4, np.arange(start, start + count)
    )


def test_smoothed_noise_of_one_class_is_found_in_its_corners_and_reported_not_stopped() -> None:
    """What a second extraction path leaves, or a resampled cutout."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 0.1, (2, 120, 3, SIZE, SIZE)).astype(np.float32)
    settings = TrainingGateSettings(**QUICK)
    same = reported_gates(_sample(first), _sample(second, 500), settings)
    assert same["corner_noise_auc"]["auc"]["boosting"]["value"] < 0.65
    assert same["feature_auc"]["flags"] == {}
    smooth = (first + np.roll(first, 1, axis=-1)) / np.sqrt(2)
    found = reported_gates(_sample(smooth), _sample(second, 500), settings)
    assert found["corner_noise_auc"]["passed"] is False
    assert found["feature_auc"]["flags"]["corner_noise boosting"] == "red"
    reasons, notes = refusals({}, found, settings)
    assert reasons == []
    assert "the gate corner_noise_auc fails" in notes
    stopping = TrainingGateSettings(**QUICK, stop_on=["corner_noise_auc"])
    assert refusals({}, found, stopping)[0] == ["the gate corner_noise_auc fails"]


def test_arcs_in_their_annulus_raise_no_flag_of_it() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 0.1, (2, 120, 3, SIZE, SIZE)).astype(np.float32)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    first += np.where(np.abs(np.hypot(axis[:, None], axis[None]) - 10) < 2, 0.3, 0).astype(np.float32)
    found = reported_gates(_sample(first), _sample(second, 500), TrainingGateSettings(**QUICK))
    assert found["feature_auc"]["auc"]["annulus"]["logistic"]["interval"][0] > 0.7
    assert not any(name.startswith("annulus") for name in found["feature_auc"]["flags"])


def test_too_few_galaxies_are_not_a_pass_and_close_a_gate_that_should_stop() -> None:
    few = _sample(np.zeros((3, 3, SIZE, SIZE), np.float32))
    found = reported_gates(few, few, SETTINGS)
    assert found["core_auc"]["passed"] is None
    assert refusals({}, found, SETTINGS)[0] == []
    assert "could not be measured" in refusals({}, found, TrainingGateSettings(stop_on=["core_auc"]))[0][0]


def test_the_core_brightness_ratio_has_its_interval_about_the_truth() -> None:
    rng = np.random.default_rng(4)
    images = rng.gamma(4, 0.25, (400, 1, 1, 1)) * np.ones((1, 3, SIZE, SIZE))
    gate = core_brightness(1.3 * images[:200], images[200:], SETTINGS, rng)
    assert not gate["passed"]
    assert gate["interval"][0] < 1.3 < gate["interval"][1]
    assert gate["interval"][1] - gate["interval"][0] < 0.5


def _stamps(folder: Path, count: int = 400, broken: str | None = None) -> Manifest:
    columns = _columns(count)
    rng = np.random.default_rng(9)
    rows = []
    for i in range(count):
        galaxy = {"brickname": "0001p000", "objid": i, "ra": columns["ra"][i], "dec": columns["dec"][i]}
        galaxy |= {"split": str(columns["split"][i]), "healpix_128": int(columns["healpix_128"][i])}
        row = real_row(galaxy, bool(columns["label"][i]), SIZE)
        if row["label"]:
            row |= {"tier": columns["tier"][i], "sample_weight": float(columns["sample_weight"][i])}
        image = rng.normal(0, 0.1, (3, SIZE, SIZE)).astype(np.float32)
        if broken == "nan" and i == 7:
            image[0, 0, 0] = np.nan
        if broken == "shape" and i == 7:
            image = image[:, :-1, :-1]
        blob = b"no zip" if broken == "blob" and i == 7 else encode_cutout(image, {})
        rows.append(row | {"cutout_ok": 1, "pixel_path": "coadds", "quality_ok": 1, "stamp_npz": blob})
    with attempt(folder / "stamps.json", "stamps", "dark_halo_scope.injection.cut_real", {}, []) as work:
        for number in range(2):
            table = pa.Table.from_pylist(rows[number::2], schema=REAL_STAMP_SCHEMA)
            (work.prefix / f"stamps-galaxies-{number}.parquet").write_bytes(parquet_bytes(table))
        return work.publish(rows_out=count, facts={"pairs": False, "split_seed": 42})


def _check(folder: Path, **settings: Any) -> dict[str, Any]:
    arguments = ["--stamps", str(folder / "stamps.json"), "--output", str(folder / "quality.json")]
    check_training_data.main([*arguments, "--settings", json.dumps(LOOSE | QUICK | settings)])
    return json.loads((folder / "quality.json").read_text())


def _pack(folder: Path) -> Manifest:
    arguments = ["--stamps", str(folder / "stamps.json"), "--quality", str(folder / "quality.json")]
    pack.main([*arguments, "--output", str(folder / "packed.json")])
    return load_manifest(folder / "packed.json")


def test_an_accepted_dataset_is_packed_with_all_of_its_rows(tmp_path: Path) -> None:
    _stamps(tmp_path)
    report = _check(tmp_path)
    assert report["reasons"] == []
    assert report["critical"]["pixels"]["decoded"] == 400
    assert report["reported"]["core_auc"]["passed"] is True
    assert _pack(tmp_path).rows_out == 400


@pytest.mark.parametrize(("broken", "count"), [("nan", "not_finite"), ("shape", "unreadable_or_of_another_shape")])
def test_one_bad_cutout_refuses_the_dataset_and_nothing_is_packed(tmp_path: Path, broken: str, count: str) -> None:
    _stamps(tmp_path, broken=broken)
    report = _check(tmp_path)
    assert report["verdict"] == "refused"
    assert report["critical"]["pixels"][count] == 1
    with pytest.raises(BadInputError, match="decoded cutouts"):
        _pack(tmp_path)
    assert not (tmp_path / "packed.json").exists()


def test_a_split_gate_that_fails_stops_packing(tmp_path: Path) -> None:
    _stamps(tmp_path)
    report = _check(tmp_path, splits={"train": [0.98, 0.99], "val": [0.001, 0.002], "test": [0.001, 0.002]})
    assert report["verdict"] == "refused"
    with pytest.raises(BadInputError, match="shares of a class"):
        _pack(tmp_path)
