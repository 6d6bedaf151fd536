"""What `check_dataset` promises: a sound dataset is accepted, each fault refused with its reason, the JSON written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, verified_paths
from dark_halo_scope.evaluation.check_dataset import main
from dark_halo_scope.evaluation.dataset_rows import read_rows
from dark_halo_scope.images.codec import decode_stamp, encode_stamp
from stamp_scene import as_control, stamp_rows, write_negatives, write_stamps

# Stamps of 32 pixels: only their outermost corners are free of the arc.
QUICK = {"shortcuts": {"trees": 5, "bootstraps": 50, "permutations": 50, "corner_pixels": 5}}


def _check(
    folder: Path, rows: list[dict], settings: dict | None = None, negatives: Path | None = None, **kwargs
) -> dict:
    stamps, _ = write_stamps(folder, rows, **kwargs)
    output = folder / "quality.json"
    more = [] if negatives is None else ["--negatives", str(negatives)]
    text = json.dumps(QUICK | (settings or {}))
    main(["--stamps", str(stamps), *more, "--output", str(output), "--settings", text])
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
    rows = _half_controls(stamp_rows(240), 1.25)
    settings = {"max_decoded": 200, "shortcuts": {**QUICK["shortcuts"], "max_pairs": 80}}
    reports = []
    for name, order, files in (("a", rows, 1), ("b", rows[::-1], 5)):
        folder = tmp_path / name
        folder.mkdir()
        reports.append(_check(folder, order, settings, files=files))
    for report in reports:
        report.pop("stamps_sha256")
    assert reports[0]["shortcuts"]["pairs"] == 80
    assert set(reports[0]["shortcuts"]["auc"]) == {"control", "hard_negative", "unpaired"}
    assert reports[0] == reports[1]


def test_little_is_held_of_a_row_whatever_its_columns(tmp_path: Path) -> None:
    write_stamps(tmp_path, stamp_rows(600), files=2)
    rows = read_rows(verified_paths(load_manifest(tmp_path / "stamps.json")))
    held = sum(value.nbytes for value in vars(rows).values() if isinstance(value, np.ndarray))
    assert held / len(rows) < 120
    assert len(rows) == 600


def test_of_a_large_dataset_only_some_pixels_are_looked_at(tmp_path: Path) -> None:
    quality = _check(
        tmp_path, stamp_rows(80), {"max_decoded": 30, "shortcuts": {**QUICK["shortcuts"], "max_pairs": 20}}
    )
    assert quality["pixels"]["rows_decoded"] <= 50
    assert quality["shortcuts"]["pairs"] == 20
    assert quality["shortcuts"]["auc"]["control"]["core"]["logistic"] == "too few"


def _half_controls(rows: list[dict], seeing: float) -> list[dict]:
    """Every other host an unpaired control, wholly."""
    for row in rows:
        if row["objid"] % 2:
            as_control(row)
            row["psfsize_r"] = seeing
    return rows


def test_unpaired_controls_of_the_same_sky_are_accepted(tmp_path: Path) -> None:
    quality = _check(tmp_path, _half_controls(stamp_rows(300), 1.25))
    assert quality["verdict"] == "accepted", quality["reasons"]
    found = quality["shortcuts"]["auc"]["unpaired"]
    assert found["metadata"]["boosting"]["value"] == pytest.approx(0.5, abs=0.01)
    assert found["annulus"]["logistic"]["value"] > 0.9
    assert abs(found["corner_noise"]["logistic"]["value"] - 0.5) < 0.2
    assert quality["counts"]["train"]["controls"] > 0


def test_unpaired_controls_in_worse_seeing_refuse_the_dataset(tmp_path: Path) -> None:
    rows = _half_controls(stamp_rows(300), 1.6)
    quality = _check(tmp_path, rows)
    assert any("seeing, depth and extinction alone" in reason for reason in quality["reasons"])
    assert quality["shortcuts"]["auc"]["unpaired"]["metadata"]["logistic"]["interval"][0] > 0.95
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    assert _check(allowed, rows, {"max_metadata_auc": 1.0})["verdict"] == "accepted"


def test_confusers_are_checked_and_compared_too(tmp_path: Path) -> None:
    named = {"control_kind": "edge_on_proxy", "brickname": "9999p000"}
    confusers = [as_control(row) | named for row in stamp_rows(160, seed=5)]
    path, manifest = write_negatives(tmp_path, confusers)
    quality = _check(tmp_path, stamp_rows(120), negatives=path)
    assert quality["verdict"] == "accepted", quality["reasons"]
    assert quality["negatives_sha256"] == [manifest.sha256]
    assert sum(split["confusers"]["edge_on_proxy"] for split in quality["counts"].values()) == 160
    assert quality["shortcuts"]["auc"]["confusers"]["annulus"]["logistic"]["value"] > 0.9
    assert "unpaired" not in quality["shortcuts"]["auc"]
    confusers[3]["stamp_npz"] = confusers[3]["stamp_npz"][:-50]
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    quality = _check(damaged, stamp_rows(120), negatives=write_negatives(damaged, confusers)[0])
    assert any("have a negative stamp that is not readable" in reason for reason in quality["reasons"])
    assert quality["pixels"]["bad"]["positive"] == {"missing": 0, "not readable": 0, "not finite": 0}


def test_stamps_of_two_sizes_are_refused_as_packing_does(tmp_path: Path) -> None:
    rows = stamp_rows(40)
    for row in rows[:2]:
        row["stamp_size"] = 64
    with pytest.raises(BadInputError, match=r"Stamps of sizes \[32, 64\] cannot share an array"):
        _check(tmp_path, rows)


def test_a_stamp_of_another_size_than_its_row_says_is_not_readable(tmp_path: Path) -> None:
    rows = stamp_rows(40)
    rows[3]["ctrl_stamp_npz"] = encode_stamp(np.zeros((3, 31, 31), np.float32))
    quality = _check(tmp_path, rows)
    assert any("control stamp that is not readable" in reason for reason in quality["reasons"])


def test_splits_are_judged_by_the_seed_that_made_them(tmp_path: Path) -> None:
    rows = stamp_rows(200)
    for row in rows:
        row["split"] = str(split_of_cells([row["healpix_128"]], 7)[0])
        row["source_id"] = row["split"] + row["source_id"]
    assert _check(tmp_path, rows, facts={"split_seed": 7})["verdict"] == "accepted"
    folder = tmp_path / "default"
    folder.mkdir()
    assert any("not their cell's" in reason for reason in _check(folder, rows)["reasons"])


def test_arcs_of_one_colour_are_noticed_and_arcs_of_many_are_not(tmp_path: Path) -> None:
    """The earlier pipeline gave every arc g = r - 0.3225 and z = r + 0.21, and a classifier of g pixels found it."""
    rng = np.random.default_rng(3)
    found = {}
    for name, scatter in (("one", 0.0), ("many", 0.3)):
        rows = stamp_rows(120)
        for row in rows:
            control, arc = decode_stamp(row["ctrl_stamp_npz"]), decode_stamp(row["stamp_npz"])
            arc = arc - control
            colour = np.array([-0.3225, 0.0, 0.21]) + rng.normal(0, scatter, 3) * [1, 0, 1]
            row["stamp_npz"] = encode_stamp(control + arc * 10 ** (-0.4 * colour)[:, None, None])
        folder = tmp_path / name
        folder.mkdir()
        found[name] = _check(folder, rows)
    one, many = (quality["shortcuts"]["arc_colours"] for quality in found.values())
    assert one["g_minus_r"]["median"] == pytest.approx(-0.3225, abs=0.005)
    assert one["r_minus_z"]["median"] == pytest.approx(-0.21, abs=0.005)
    assert one["g_minus_r"]["constant"]
    assert one["r_minus_z"]["constant"]
    assert any("one colour, g - r = -0.32" in sentence for sentence in found["one"]["warnings"])
    assert many["g_minus_r"]["scatter"] == pytest.approx(0.3, rel=0.5)
    assert not many["g_minus_r"]["constant"]
    assert not any("one colour" in sentence for sentence in found["many"]["warnings"])


def test_arcs_of_one_colour_are_noticed_in_whatever_seeing_each_band_has(tmp_path: Path) -> None:
    """Flux within an annulus scattered with the bands' PSFs, and hid the constant colours of the earlier pipeline."""
    rng = np.random.default_rng(3)
    rows = stamp_rows(120)
    for row in rows:
        control, positive = decode_stamp(row["ctrl_stamp_npz"]), decode_stamp(row["stamp_npz"])
        arc = (positive - control) * 10 ** (-0.4 * np.array([-0.3225, 0.0, 0.21]))[:, None, None]
        blurred = [gaussian_filter(plane, rng.uniform(0.5, 3), mode="constant") for plane in arc]
        row["stamp_npz"] = encode_stamp(control + np.stack(blurred))
    found = _check(tmp_path, rows)["shortcuts"]["arc_colours"]
    assert found["g_minus_r"]["constant"]
    assert found["r_minus_z"]["constant"]
    assert found["g_minus_r"]["median"] == pytest.approx(-0.3225, abs=0.01)


def test_splits_in_the_wrong_proportions_are_refused(tmp_path: Path) -> None:
    """26, 39 and 35% were once taken for 70, 15 and 15%."""
    rows = stamp_rows(400)
    of = {name: [row for row in rows if row["split"] == name] for name in ("train", "val", "test")}
    few = min(len(of["val"]) // 39, len(of["test"]) // 35)
    inverted = of["train"][: 26 * few] + of["val"][: 39 * few] + of["test"][: 35 * few]
    quality = _check(tmp_path, inverted)
    assert [reason for reason in quality["reasons"] if "split train has 2" in reason]
    assert _check(tmp_path, rows)["verdict"] == "accepted"


def test_what_a_column_lacks_and_what_repeats_is_said(tmp_path: Path) -> None:
    rows = stamp_rows(120)
    for row in rows:
        row["magnification"] = 3.0
    for row in rows[::4]:
        row["magnification"] = None
    copy = {**rows[7], "task_id": "f" + rows[7]["task_id"][1:], "selection_set_id": "other"}
    quality = _check(tmp_path, [*rows, copy])
    assert quality["nulls"]["magnification"] == pytest.approx(30 / 121)
    assert quality["nulls"]["z_phot"] == 1
    assert "arc_snr" not in quality["nulls"]
    assert quality["duplicates"] == 1
    assert any("1 rows repeat others" in sentence for sentence in quality["warnings"])
    assert any("z_phot" in sentence for sentence in quality["warnings"])
    assert quality["distributions"]["train"]["theta_e_arcsec_true"]["p50"] == 1.5


def test_replicates_of_an_unpaired_control_repeat_it_as_packing_counts_them(tmp_path: Path) -> None:
    rows = stamp_rows(120)
    for row in rows[:4]:  # two hosts with two replicates each
        as_control(row)
    assert _check(tmp_path, rows)["duplicates"] == 2


def test_grid_cells_and_classes_are_counted_in_every_stratum(tmp_path: Path) -> None:
    rows = stamp_rows(240)
    for row in rows:
        host = row["objid"]
        row |= {"psf_bin": host % 2, "depth_bin": 0, "config_id": f"cell{host // 2 % 3}"}
    even = _check(tmp_path, rows)
    total = sum(found["positives"] for strata in even["balance"].values() for found in strata.values())
    assert total == 120
    assert {name for strata in even["balance"].values() for name in strata} == {"psf0 depth0", "psf1 depth0"}
    for row in rows:
        row["config_id"] = "cell0" if row["objid"] > 4 else "cell1"
    uneven = _check(tmp_path, rows)
    assert any("Grid cells occur unevenly" in sentence for sentence in uneven["warnings"])


def test_a_grid_cell_that_a_stratum_lacks_counts_there_as_none(tmp_path: Path) -> None:
    rows = stamp_rows(240)
    for row in rows:
        host = row["objid"]
        row |= {"psf_bin": host % 2, "depth_bin": 0, "config_id": f"cell{host // 2 % (2 if host % 2 else 3)}"}
    quality = _check(tmp_path, rows)
    lacking = quality["balance"]["train"]["psf1 depth0"]
    assert (lacking["cells"], lacking["rarest"]) == (2, 0)
    assert quality["balance"]["train"]["psf0 depth0"]["cells"] == 3
    assert quality["balance"]["train"]["psf0 depth0"]["rarest"] > 0
    assert any("Grid cells occur unevenly" in sentence for sentence in quality["warnings"])
