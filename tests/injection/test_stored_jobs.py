"""From stored files to packed images, as the rules run it: every row accounted for, nothing twice, nothing damaged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import SIDE
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, object_list, verified_paths
from dark_halo_scope.evaluation import check_dataset
from dark_halo_scope.images import pack
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.injection import adopt_stored, list_stored
from dark_halo_scope.injection.adopt import FAILED_BEFORE
from dark_halo_scope.injection.adopt_files import AdoptJob, adopt_file
from dark_halo_scope.injection.schema import decode_stamp, encode_stamp
from dark_halo_scope.injection.stored import FILES, inventory, stored_files
from dark_halo_scope.injection.stored_config import AuditSettings, StoredSettings, Variant
from dark_halo_scope.spark.session import spark_session
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from stored_scene import stored_rows, survey_json, write_stored

MASTER = "local[2]"
COADDS = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=1)
QUALITY = {
    "shortcuts": {"bootstraps": 20, "permutations": 20, "trees": 5, "folds": 2, "max_pairs": 40},
    "max_failed_fraction": 0.5,
    "min_rows_per_split": 2,
    "shared_sources": "report",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey's coadds; each test takes a folder of its own below."""
    folder = tmp_path_factory.mktemp("stored")
    survey_json(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[None]:
    """One session for all command lines here."""
    with spark_session(MASTER, "tests"):
        yield


def _run(folder: Path, name: str, uri: Path, variant: Variant, **settings: Any) -> Path:
    """List, cache and adopt; returns the folder of the manifests."""
    here = folder / name
    here.mkdir(exist_ok=True)
    text = json.dumps({"uri": str(uri), "variant": variant} | settings)
    spark = ["--settings", text, "--spark-master", MASTER]
    list_stored.main(["--output", str(here / "manifest.json"), *spark])
    cache_coadds(folder / "survey.json", here / "manifest.json", here / "coadds.json", COADDS, folder / "cache", 1)
    arguments = ["--manifest", str(here / "manifest.json"), "--coadds", str(here / "coadds.json")]
    adopt_stored.main([*arguments, "--output", str(here / "stamps.json"), *spark])
    return here


def _rows(manifest: Manifest) -> list[dict]:
    return pa.concat_tables([pq.read_table(path) for path in verified_paths(manifest)]).to_pylist()


@pytest.fixture(scope="module")
def adopted(folder: Path) -> tuple[Path, list[dict]]:
    """A v3 dataset with every fault that stored data have, adopted; and its stored rows."""
    rows = stored_rows("v3_color_relaxed", hosts=4)
    positives = [row for row in rows if not row["is_control"]]
    controls = [row for row in rows if row["is_control"]]
    # The same stamps under another selection set, and controls again under another replicate.
    again = [row | {"task_id": row["task_id"][::-1], "selection_set_id": "zz_strat"} for row in positives[:5]]
    again += [row | {"task_id": row["task_id"][::-1], "replicate": 9} for row in controls[:3]]
    # The first of a duplicate failed: the other one is taken.
    zero = encode_stamp(np.zeros((1, 64, 64), np.float32), bands="r")
    positives[0] |= {"cutout_ok": 0, "stamp_npz": zero}
    positives[6] |= {"cutout_ok": 0, "stamp_npz": zero}
    positives[7] |= {"bandset": "r"}
    stamp = decode_stamp(positives[8]["stamp_npz"])
    stamp[0] = np.nan
    positives[8] |= {"stamp_npz": encode_stamp(stamp)}
    positives[9] |= {"stamp_npz": positives[9]["stamp_npz"][:-50]}
    positives[10] |= {"arc_snr": 0.0}
    everything = rows + again
    uri = write_stored(folder / "v3", everything, "v3_color_relaxed", codec="snappy", wrapped=True)
    return _run(folder, "v3", uri, "v3_color_relaxed", max_failed_fraction=0.1), everything


def test_every_row_is_accounted_for_and_a_stamp_is_taken_once(adopted: tuple[Path, list[dict]]) -> None:
    here, everything = adopted
    listed, stamps = load_manifest(here / "manifest.json"), load_manifest(here / "stamps.json")
    assert listed.facts["left_out"] == {"duplicate": 8, "not in g, r and z": 1}
    assert (listed.rows_in, listed.rows_quarantined) == (len(everything), 9)
    assert listed.rows_out == stamps.rows_in == stamps.rows_out == len(everything) - 9
    found = _rows(stamps)
    identity = {
        (row["brickname"], row["ra"], row["dec"], row["config_id"] if not row["is_control"] else "", row["replicate"])
        for row in found
    }
    assert len(identity) == len(found)
    assert stamps.facts["cutout_failed"] == {FAILED_BEFORE: 1, "pixels not finite": 1, "stamp not readable": 1}
    assert stamps.facts["controls"] == sum(row["is_control"] for row in found)


def test_a_failed_row_gives_way_to_the_same_stamp_that_succeeded(adopted: tuple[Path, list[dict]]) -> None:
    here, everything = adopted
    first = everything[0]
    assert first["cutout_ok"] == 0
    (found,) = [
        row
        for row in _rows(load_manifest(here / "stamps.json"))
        if (row["ra"], row["config_id"], row["replicate"]) == (first["ra"], first["config_id"], first["replicate"])
    ]
    assert (found["task_id"], found["cutout_ok"]) == (first["task_id"][::-1], 1)


def test_no_row_takes_the_pixels_of_its_neighbour(adopted: tuple[Path, list[dict]]) -> None:
    here, everything = adopted
    stored = {row["task_id"]: row for row in everything}
    for row in _rows(load_manifest(here / "stamps.json")):
        if row["cutout_ok"]:
            np.testing.assert_array_equal(
                decode_stamp(row["stamp_npz"]), decode_stamp(stored[row["task_id"]]["stamp_npz"])
            )


def test_inverted_splits_are_recorded_beside_those_of_the_cells(adopted: tuple[Path, list[dict]]) -> None:
    here, everything = adopted
    facts = load_manifest(here / "manifest.json").facts
    stored = [row["region_split"] for row in everything]
    assert facts["stored_splits"] == {split: stored.count(split) for split in ("test", "train", "val")}
    assert sum(facts["moved"].values()) > len(everything) / 3
    stamps = load_manifest(here / "stamps.json")
    assert {split: facts["splits"][split] for split in facts["splits"]} == stamps.facts["splits"]
    for row in _rows(stamps):
        assert row["region_split"] == row["split"]


def test_what_columns_lack_and_what_arcs_show_is_in_the_facts(adopted: tuple[Path, list[dict]]) -> None:
    facts = load_manifest(adopted[0] / "stamps.json").facts
    rows = _rows(load_manifest(adopted[0] / "stamps.json"))
    assert facts["nulls"]["rmag"] == facts["nulls"]["src_mag_r"] == len(rows)
    assert facts["nulls"]["magnification"] == sum(row["magnification"] is None for row in rows)
    assert facts["arc_snr_fully_masked"] == 1
    assert facts["theta_e_convention"] == facts["audit"]["convention_that_fits"] == "lacks_sqrt_q"
    assert facts["audit"]["median_shift_pixels"] < 0.05
    assert facts["arc_snr_maxpix_stored_over_measured"]["p50"] == pytest.approx(1.0, rel=1e-4)


def test_adopted_stamps_are_checked_and_packed_as_built_ones_are(adopted: tuple[Path, list[dict]]) -> None:
    here, _ = adopted
    stamps, quality, packed = (str(here / name) for name in ("stamps.json", "quality.json", "packed.json"))
    check_dataset.main(["--stamps", stamps, "--output", quality, "--settings", json.dumps(QUALITY)])
    report = json.loads(Path(quality).read_text())
    assert report["verdict"] == "accepted", report["reasons"]
    pack.main(["--stamps", stamps, "--quality", quality, "--output", packed])
    rows = _rows(load_manifest(Path(stamps)))
    for split in ("train", "val", "test"):
        opened = open_packed(Path(packed), split)
        pairs = [r for r in rows if r["split"] == split and r["cutout_ok"] and not r["is_control"]]
        assert len(opened) == len(pairs) > 0
        assert np.all(opened.rows["theta_e_arcsec_true"].to_numpy() > opened.rows["theta_e_arcsec"].to_numpy())


def _without_spark(folder: Path, name: str, uri: Path, variant: Variant, **settings: Any) -> tuple[dict, list[dict]]:
    """The same steps in this process; returns the facts of stamps.json and its rows."""
    here = folder / name
    here.mkdir(exist_ok=True)
    chosen = StoredSettings.model_validate({"uri": str(uri), "variant": variant} | settings)
    with attempt(here / "manifest.json", "manifest", list_stored.MODULE, chosen, []) as work:
        files = stored_files(chosen.uri, chosen.require_success)
        (work.prefix / FILES).write_text(json.dumps([file._asdict() for file in files]))
        for number, file in enumerate(files):
            rows = pa.concat_tables(inventory(file, number, chosen, frozenset())).select(list_stored.COLUMNS)
            pq.write_table(rows, work.prefix / f"manifest-{number:05d}-000.parquet")
        work.publish(rows_out=100, facts={"stored": {}})
    cache_coadds(folder / "survey.json", here / "manifest.json", here / "coadds.json", COADDS, folder / "cache", 1)
    listed = load_manifest(here / "manifest.json")
    (here / "out").mkdir(exist_ok=True)
    job = AdoptJob(listed, load_manifest(here / "coadds.json"), chosen, str(here / "out"), 1.0)
    names = [entry.name for entry in object_list(listed) if entry.name.endswith(".parquet")]
    facts = adopt_stored.combined([adopt_file(one, job) for one in names], listed, chosen)
    return facts, pa.concat_tables([pq.read_table(path) for path in sorted((here / "out").iterdir())]).to_pylist()


def test_spark_and_the_layout_of_files_change_no_stamp(adopted: tuple[Path, list[dict]], folder: Path) -> None:
    """The same rows in folders, gzip and 500 a file through Spark, and in columns, zstd and 3 a file without it."""
    here, everything = adopted
    uri = write_stored(folder / "again", everything, "v3_color_relaxed", layout="column", codec="zstd")
    _, rows = _without_spark(
        folder, "again", uri, "v3_color_relaxed", rows_per_file=3, max_failed_fraction=1.0, seed=13
    )
    found = {row["task_id"]: row for row in rows}
    for row in _rows(load_manifest(here / "stamps.json")):
        assert found[row["task_id"]] == row


def test_stored_pairs_keep_their_controls_and_their_edges_are_the_same_bits(folder: Path) -> None:
    stored = stored_rows("v5_cosmos_paired", hosts=1)
    uri = write_stored(folder / "paired", stored, "v5_cosmos_paired")
    facts, rows = _without_spark(folder, "paired", uri, "v5_cosmos_paired")
    controls = {row["task_id"]: decode_stamp(row["ctrl_stamp_npz"]) for row in stored}
    assert {row["edge_difference"] for row in rows} == {0.0}
    for row in rows:
        np.testing.assert_array_equal(decode_stamp(row["ctrl_stamp_npz"]), controls[row["task_id"]])
    assert facts["audit"] == {"rows": 0, "looked_at": len(rows)}
    assert facts["nulls"]["src_gr"] == len(rows)


def test_too_many_stamps_that_do_not_fit_the_coadds_refuse_the_dataset(folder: Path) -> None:
    rows = stored_rows("v4_sota", hosts=1, first=(-29, -32))
    with pytest.raises(BadInputError, match="no pixel offset gives the stamp's edge"):
        _without_spark(folder, "far", write_stored(folder / "far", rows, "v4_sota"), "v4_sota")


def test_displaced_arcs_refuse_the_dataset_or_are_flagged(folder: Path) -> None:
    rows = stored_rows("v4_sota_moffat", hosts=1, moved=(-6, -4))
    uri = write_stored(folder / "moved", rows, "v4_sota_moffat")
    with pytest.raises(BadInputError, match="from where their parameters put them"):
        _without_spark(folder, "moved", uri, "v4_sota_moffat")
    facts, _ = _without_spark(folder, "moved", uri, "v4_sota_moffat", audit={"on_failure": "flag"})
    assert facts["audit"]["median_shift_pixels"] == pytest.approx(52**0.5, abs=0.1)


def test_arcs_of_which_none_can_be_rendered_again_refuse_the_dataset_or_are_flagged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An audit that saw nothing knows no shift, and none must not pass for a shift of 0."""
    rows = stored_rows("v4_sota", hosts=1)
    for row in rows:
        row["psf_fwhm_used_r"] = None
    uri = write_stored(folder / "blind", rows, "v4_sota")
    with pytest.raises(BadInputError, match=r"No arc of .* could be rendered again .*6 were looked at"):
        _without_spark(folder, "blind", uri, "v4_sota")
    facts, _ = _without_spark(folder, "blind", uri, "v4_sota", audit={"on_failure": "flag"})
    assert facts["audit"] == {"rows": 0, "looked_at": 6}
    assert "could be rendered again" in caplog.text
    caplog.clear()
    _without_spark(folder, "blind", uri, "v4_sota", audit={"rows": 0})
    assert "could be rendered again" not in caplog.text


def test_a_stored_arc_snr_in_another_unit_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = stored_rows("v4_sota", hosts=1)
    for row in rows:
        if not row["is_control"]:
            row["arc_snr"] /= 0.03**2
    uri = write_stored(folder / "unit", rows, "v4_sota")
    facts, _ = _without_spark(folder, "unit", uri, "v4_sota")
    assert facts["arc_snr_maxpix_stored_over_measured"]["p50"] == pytest.approx(1 / 0.03**2, rel=1e-4)
    assert "another unit" in caplog.text


def test_the_audit_takes_its_share_of_positives_whatever_the_number_of_controls(
    adopted: tuple[Path, list[dict]],
) -> None:
    listed = load_manifest(adopted[0] / "manifest.json")
    positives = [row for row in _rows(load_manifest(adopted[0] / "stamps.json")) if not row["is_control"]]
    # One failed in the earlier pipeline; two whose pixels are damaged are only found when they are read.
    assert listed.facts["positives"] == len(positives) - 1 < listed.rows_out
    settings = StoredSettings(uri="x", variant="v3_color_relaxed", audit=AuditSettings(rows=5))
    assert adopt_stored.audited_fraction(listed, settings) == 5 / (len(positives) - 1)


def test_flags_that_are_booleans_and_other_types_that_mean_the_same_are_taken_over_as_numbers(folder: Path) -> None:
    stored = stored_rows("v4_sota", hosts=1)
    flags = ("is_control", "cutout_ok", "metrics_only", "physics_valid", "metrics_ok")

    def change(table: pa.Table) -> pa.Table:
        for name in flags:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.bool_()))
        for name, dtype in (("region_id", pa.int64()), ("src_e", pa.float32())):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(dtype))
        lens_model = table["lens_model"].dictionary_encode()
        return table.set_column(table.schema.get_field_index("lens_model"), "lens_model", lens_model)

    plain = _without_spark(folder, "plain", write_stored(folder / "plain", stored, "v4_sota"), "v4_sota")[1]
    uri = write_stored(folder / "flags", stored, "v4_sota", change=change)
    found = {row["task_id"]: row for row in _without_spark(folder, "flags", uri, "v4_sota")[1]}
    assert len(found) == len(plain) > 0
    for row in plain:
        same = found[row["task_id"]]
        assert {name: same[name] for name in flags} == {name: row[name] for name in flags}
        for name in ("cutout_reason", "stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz", "region_id", "lens_model"):
            assert same[name] == row[name]


def test_the_pixels_tell_a_wrong_convention(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = write_stored(folder / "wrong", stored_rows("v4_sota", hosts=1), "v4_sota")
    facts, rows = _without_spark(folder, "wrong", uri, "v4_sota", theta_e_convention="product_average")
    assert facts["audit"]["convention_that_fits"] == "lacks_sqrt_q"
    assert "fit theta_e_convention lacks_sqrt_q, and product_average is set" in caplog.text
    assert facts["nulls"]["magnification"] == len(rows)


def test_rows_without_identity_refuse_the_dataset() -> None:
    settings = StoredSettings(uri="x", variant="v4_sota")
    list_stored.check_identified({"no task_id": 1, None: 999}, 1000, settings)
    with pytest.raises(BadInputError, match="no task_id"):
        list_stored.check_identified({"no task_id": 2, None: 998}, 1000, settings)


def test_a_file_that_changed_after_it_was_listed_is_refused(adopted: tuple[Path, list[dict]], tmp_path: Path) -> None:
    here, _ = adopted
    listed, coadds = load_manifest(here / "manifest.json"), load_manifest(here / "coadds.json")
    settings = StoredSettings(uri="x", variant="v3_color_relaxed")
    job = AdoptJob(listed, coadds, settings, str(tmp_path), 0.0)
    assert adopt_file("manifest-00000-000.parquet", job).error is None
    path = sorted(here.rglob("region_split=*/*.parquet"))[0]
    before = path.read_bytes()
    try:
        table = pq.ParquetFile(path).read()
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), path, row_group_size=5)
        assert isinstance(adopt_file("manifest-00000-000.parquet", job).error, CorruptDataError)
    finally:
        path.write_bytes(before)
