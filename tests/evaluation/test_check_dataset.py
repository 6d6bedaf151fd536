"""What `check_dataset` promises: a sound dataset is accepted, each fault refused with its reason, the JSON written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.evaluation.check_dataset import main
from dark_halo_scope.images.codec import decode_stamp, encode_stamp
from stamp_scene import stamp_rows, write_stamps

# Stamps of 32 pixels: only their outermost corners are free of the arc.
QUICK = {"shortcuts": {"trees": 5, "bootstraps": 50, "permutations": 50, "corner_pixels": 5}}


def _check(folder: Path, rows: list[dict], settings: dict | None = None, **kwargs) -> dict:
    stamps, _ = write_stamps(folder, rows, **kwargs)
    output = folder / "quality.json"
    main(["--stamps", str(stamps), "--output", str(output), "--settings", json.dumps(QUICK | (settings or {}))])
    return json.loads(output.read_text())


def test_a_sound_dataset_is_accepted_and_described(tmp_path: Path) -> None:
    rows = stamp_rows(120)
    quality = _check(tmp_path, rows)
    assert quality["verdict"] == "accepted"
    assert quality["reasons"] == []
    assert sum(split["pairs"] for split in quality["counts"].values()) == 120
    train = quality["counts"]["train"]
    assert sum(train["strata"][name] for name in ("x < 0.5", "0.5 <= x < 1", "x >= 1")) == train["strata"]["all"]
    assert train["strata"]["x >= 1"] == train["pairs"] == 2 * train["hosts"]
    assert quality["distributions"]["train"]["arc_snr"]["p50"] == 30.0
    assert quality["distributions"]["train"]["lensed_mag_r"]["weighted"]["p50"] == 21.0
    assert quality["distributions"]["train"]["z_phot"]["missing"] == train["pairs"]
    assert quality["split_integrity"]["cells_in_two_splits"] == 0
    assert quality["pixels"]["rows_decoded"] == 120
    auc = quality["shortcuts"]["auc"]
    # By construction: light was added, and the hard negative shares the profile.
    assert auc["control"]["annulus"]["logistic"]["value"] > 0.9
    assert auc["hard_negative"]["radial"]["logistic"]["value"] < 0.7
    assert abs(auc["control"]["corner_noise"]["boosting"]["value"] - 0.5) < 0.15
    assert (tmp_path / "quality.provenance.json").exists()


def _other_split(split: str) -> str:
    return "val" if split != "val" else "test"


def _cell_in_two_splits(rows: list[dict]) -> None:
    rows[0]["split"] = _other_split(rows[0]["split"])


def _source_in_two_splits(rows: list[dict]) -> None:
    for row in rows:
        row["source_id"] = "7"


def _wrong_cell(rows: list[dict]) -> None:
    rows[0]["healpix_128"] += 1


def _twin_across_a_split(rows: list[dict]) -> None:
    """A second host half an arcsecond away, on the other side of a cell's border."""
    rng = np.random.default_rng(0)
    while True:
        ra, dec = rng.uniform(10, 60, 20000), rng.uniform(-20, 20, 20000)
        cells, shifted = healpix_cell(ra, dec), healpix_cell(ra + 0.5 / 3600, dec)
        crossing = np.flatnonzero(split_of_cells(cells) != split_of_cells(shifted))
        if len(crossing):
            break
    index = int(crossing[0])
    for number, east in ((0, 0.0), (2, 0.5 / 3600)):
        cell = healpix_cell(ra[index] + east, dec[index])
        for row in rows[number : number + 2]:
            row |= {"ra": float(ra[index] + east), "dec": float(dec[index]), "healpix_128": int(cell[0])}
            row["split"] = str(split_of_cells(cell)[0])
            row["source_id"] = f"{row['split']}-{number}"


def _twin_across_ra_zero(rows: list[dict]) -> None:
    for number, ra in ((0, 0.25 / 3600), (2, 360 - 0.25 / 3600)):
        cell = healpix_cell(ra, 5.0)
        for row in rows[number : number + 2]:
            row |= {"ra": ra, "dec": 5.0, "healpix_128": int(cell[0]), "source_id": None}
            # Whatever the cells' splits are, the two hosts are given different ones.
            row["split"] = "train" if number else "test"


def _nan_in_a_stamp(rows: list[dict]) -> None:
    image = decode_stamp(rows[5]["hardneg_stamp_npz"])
    image[1, 2, 3] = np.nan
    rows[5]["hardneg_stamp_npz"] = encode_stamp(image)


def _missing_control(rows: list[dict]) -> None:
    rows[5]["ctrl_stamp_npz"] = None


def _damaged(rows: list[dict]) -> None:
    rows[5]["stamp_npz"] = rows[5]["stamp_npz"][:-50]


def _many_failures(rows: list[dict]) -> None:
    for row in rows[:10]:
        row |= {"cutout_ok": 0, "cutout_reason": "psfsize 0 in g", "stamp_npz": None}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_cell_in_two_splits, "HEALPix cells lie in more than one split"),
        (_source_in_two_splits, "source galaxies lie in more than one split"),
        (_wrong_cell, "not their position's"),
        (_twin_across_a_split, "within 1 arcsec of another's"),
        (_twin_across_ra_zero, "within 1 arcsec of another's"),
        (_nan_in_a_stamp, "hard_negative stamp that is not finite"),
        (_missing_control, "control stamp that is missing"),
        (_damaged, "positive stamp that is not readable"),
        (_many_failures, "cutouts failed"),
    ],
)
def test_each_fault_refuses_the_dataset_and_says_why(
    tmp_path: Path, fault: Callable[[list[dict]], None], reason: str
) -> None:
    rows = stamp_rows(60)
    fault(rows)
    quality = _check(tmp_path, rows, {"shortcuts": {**QUICK["shortcuts"], "max_pairs": 20}})
    assert quality["verdict"] == "refused"
    assert any(reason in text for text in quality["reasons"]), quality["reasons"]


def test_failed_cutouts_are_counted_by_reason_and_a_few_do_not_refuse(tmp_path: Path) -> None:
    rows = stamp_rows(60)
    for row, why in zip(rows[:2], ("psfsize 0 in g", "no weight in r"), strict=True):
        row |= {"cutout_ok": 0, "cutout_reason": why, "stamp_npz": None, "ctrl_stamp_npz": None}
    quality = _check(tmp_path, rows)
    assert quality["verdict"] == "accepted"
    assert quality["failures"] == {"no weight in r": 1, "psfsize 0 in g": 1}
    assert quality["pixels"]["rows_decoded"] == 58


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    quality = _check(tmp_path, [row for row in stamp_rows(60) if row["split"] != "val"])
    assert any("split val has 0 usable rows" in text for text in quality["reasons"])


def test_the_numbers_do_not_depend_on_how_rows_lie_in_files(tmp_path: Path) -> None:
    rows = stamp_rows(80)
    reports = []
    for name, order, files in (("a", rows, 1), ("b", rows[::-1], 5)):
        folder = tmp_path / name
        folder.mkdir()
        reports.append(_check(folder, order, files=files))
    for report in reports:
        report.pop("stamps_sha256")
    for key in ("counts", "distributions", "split_integrity", "pixels", "verdict"):
        assert reports[0][key] == reports[1][key]


def test_of_a_large_dataset_only_some_pixels_are_looked_at(tmp_path: Path) -> None:
    quality = _check(
        tmp_path, stamp_rows(80), {"max_decoded": 30, "shortcuts": {**QUICK["shortcuts"], "max_pairs": 20}}
    )
    assert quality["pixels"]["rows_decoded"] <= 50
    assert quality["shortcuts"]["pairs"] == 20
    assert quality["shortcuts"]["auc"]["control"]["core"]["logistic"] == "too few"


def test_unpaired_controls_are_compared_by_metadata(tmp_path: Path) -> None:
    rows = stamp_rows(200)
    for row in rows[::2]:
        row |= {"is_control": 1, "stamp_npz": row["ctrl_stamp_npz"], "ctrl_stamp_npz": None, "hardneg_stamp_npz": None}
        row |= {"psfsize_r": 1.6, "source_id": None}
    quality = _check(tmp_path, rows)
    assert quality["verdict"] == "accepted"
    assert quality["shortcuts"]["auc"]["control"]["metadata"]["boosting"]["value"] > 0.95
