"""Confusers as stamps: drawn by name, cut by the hosts' code, with their class, cell and split."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, open_brick
from dark_halo_scope.catalogue.select_confusers import CONFUSER_SCHEMA
from dark_halo_scope.catalogue.splits import healpix_cell
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, Target, attempt, load_manifest, verified_paths
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.injection import cut_negatives
from dark_halo_scope.injection.inject import cut_host
from dark_halo_scope.injection.negative_config import NegativeSettings
from dark_halo_scope.injection.negatives import (
    CutJob,
    Dataset,
    cut_unit,
    describe_dataset,
    draw_confusers,
    negative_rows,
    units,
)
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.tasks import task_id
from galaxy_scene import BRICKS, scene_galaxies, write_scene_coadds
from stamp_scene import as_control, stamp_rows, write_stamps

CLASSES = ("merger", "ring_proxy")
NOTHING = np.empty(0, np.uint64)
DATASET = Dataset({"train": 40, "val": 20, "test": 20}, "train_stamp64_bandsgrz_gridprior", 64, NOTHING)


def confusers(count: int = 60, edge: int = 0, bricks: tuple[str, ...] = (BRICK,)) -> pa.Table:
    """Confusers of the scene's bricks in turn; the first `edge` of them too near to its edge."""
    classes = pa.array([CLASSES[i % 2] for i in range(count)])
    return scene_galaxies(count, edge, bricks).append_column(CONFUSER_SCHEMA.field("confuser"), classes)


def _files(folder: Path, table: pa.Table, parts: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"confusers-{part:04d}.parquet" for part in range(parts)]
    for part, path in enumerate(paths):
        pq.write_table(table.take(pa.array(np.arange(part, table.num_rows, parts))), path)
    return paths


def test_the_draw_is_the_same_however_confusers_lie_in_files_and_has_the_asked_numbers(tmp_path: Path) -> None:
    settings = NegativeSettings(classes=CLASSES, share_of_positives=0.1)
    table = confusers(60)
    one = draw_confusers(_files(tmp_path / "one", table, 1), frozenset([BRICK]), DATASET, settings).rows
    three = draw_confusers(_files(tmp_path / "three", table, 3), frozenset([BRICK]), DATASET, settings).rows
    assert one.equals(three)
    split = table["split"][0].as_py()
    expected = round(0.1 * DATASET.positives[split])
    for name in CLASSES:
        drawn = one.filter(pa.array(np.array(one["confuser"].to_pylist()) == name))
        assert drawn.num_rows == expected
        assert drawn["sampling_weight"].to_pylist() == [30 / expected] * expected
    other = NegativeSettings(classes=CLASSES, share_of_positives=0.1, seed=14)
    again = draw_confusers(_files(tmp_path / "one", table, 1), frozenset([BRICK]), DATASET, other).rows
    assert again["objid"].to_pylist() != one["objid"].to_pylist()


def test_only_classes_and_bricks_that_were_asked_for_are_drawn(tmp_path: Path) -> None:
    paths = _files(tmp_path / "all", confusers(20), 2)
    everywhere = {"train": 1000, "val": 1000, "test": 1000}
    settings = NegativeSettings(classes=("merger",), share_of_positives=None, per_class=everywhere)
    drawn = draw_confusers(paths, frozenset([BRICK]), DATASET, settings).rows
    assert set(drawn["confuser"].to_pylist()) == {"merger"}
    assert drawn.num_rows == 10
    assert set(drawn["sampling_weight"].to_pylist()) == {1.0}
    assert draw_confusers(paths, frozenset(["0099p000"]), DATASET, settings).rows.num_rows == 0


def test_hosts_of_the_dataset_are_no_confusers_whether_positives_or_controls(tmp_path: Path) -> None:
    """A galaxy that is in both classes taught the network the noise of its pixels."""
    table = confusers(40)
    paths = _files(tmp_path / "all", table, 3)
    places = [table.slice(i, 1).to_pylist()[0] for i in range(10)]
    rows = [
        {**row, **{n: place[n] for n in ("brickname", "ra", "dec", "objid")}}
        for row, place in zip(stamp_rows(20), 2 * places, strict=True)
    ]
    rows = [as_control(row) if row["objid"] % 3 == 0 else row for row in rows]
    stamps, _ = write_stamps(tmp_path, rows)
    dataset = describe_dataset(verified_paths(load_manifest(stamps)))
    everywhere = {"train": 1000, "val": 1000, "test": 1000}
    settings = NegativeSettings(classes=CLASSES, share_of_positives=None, per_class=everywhere)
    draw = draw_confusers(paths, frozenset([BRICK]), dataset, settings)
    assert sorted(draw.rows["objid"].to_pylist()) == list(range(10, 40))
    assert draw.in_dataset == dict.fromkeys(CLASSES, 5)
    assert len(draw_confusers(paths, frozenset([BRICK]), DATASET, settings).rows) == 40


def test_a_row_says_class_place_and_that_there_is_no_lens(tmp_path: Path) -> None:
    settings = NegativeSettings(classes=CLASSES, share_of_positives=1.0)
    drawn = draw_confusers(_files(tmp_path / "all", confusers(6), 1), frozenset([BRICK]), DATASET, settings).rows
    for row, source in zip(negative_rows(drawn, DATASET).to_pylist(), drawn.to_pylist(), strict=True):
        assert row["control_kind"] == source["confuser"]
        assert (row["is_control"], row["theta_e_arcsec"], row["lens_model"]) == (1, 0.0, "CONTROL")
        assert row["healpix_128"] == row["region_id"] == int(healpix_cell(row["ra"], row["dec"])[0])
        assert row["split"] == row["region_split"] == source["split"]
        place = (row["split"], BRICK, row["ra"], row["dec"], source["confuser"].upper(), 0)
        assert row["task_id"] == task_id(DATASET.experiment_id, "confusers", *place)


def test_two_datasets_in_one_have_no_negatives_in_common(tmp_path: Path) -> None:
    rows = stamp_rows(20)
    good, _ = write_stamps(tmp_path, rows)
    described = describe_dataset(verified_paths(load_manifest(good)))
    assert sum(described.positives.values()) == 20
    assert described.stamp_size == 32
    rows[0]["experiment_id"] = "another"
    folder = tmp_path / "two"
    folder.mkdir()
    with pytest.raises(BadInputError, match="2 kinds of experiment"):
        describe_dataset(verified_paths(load_manifest(write_stamps(folder, rows)[0])))
    folder = tmp_path / "none"
    folder.mkdir()
    for row in rows:
        as_control(row)
    with pytest.raises(BadInputError, match="0 kinds of experiment"):
        describe_dataset(verified_paths(load_manifest(write_stamps(folder, rows)[0])))


@pytest.fixture
def coadds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """coadds.json of the scene's bricks."""
    monkeypatch.chdir(tmp_path)
    return write_scene_coadds(tmp_path)


def test_pixels_are_those_of_a_host_in_the_same_place_and_failures_keep_their_row(
    tmp_path: Path, coadds: Manifest
) -> None:
    settings = NegativeSettings(classes=CLASSES, share_of_positives=1.0)
    paths = _files(tmp_path / "all", confusers(8, edge=2), 1)
    rows = negative_rows(draw_confusers(paths, frozenset([BRICK]), DATASET, settings).rows, DATASET)
    (unit,) = units(rows, 1000)
    cut = cut_unit(unit, CutJob(coadds, StampSettings(), Target(str(tmp_path / "out"))))
    assert (cut.error, cut.rows, dict(cut.reasons)) == (None, 8, {"off the edge of the brick": 2})
    stamps = pq.read_table(tmp_path / "out" / unit.name)
    assert stamps.schema.names == stamp_schema().names
    kinds = {row["task_id"]: row["control_kind"] for row in rows.to_pylist()}
    with open_brick(tmp_path / "again") as brick:
        for stamp in stamps.to_pylist():
            assert stamp["control_kind"] == kinds[stamp["task_id"]]
            x, y = brick.sky_to_pixel(stamp["ra"], stamp["dec"])
            if stamp["cutout_ok"]:
                host = cut_host(brick, float(x), float(y), 64, StampSettings())
                np.testing.assert_array_equal(decode_stamp(stamp["stamp_npz"]), host.image)
            else:
                assert stamp["stamp_npz"] is None
                assert x < 32
    assert np.sum(stamps["cutout_ok"].to_numpy()) == 6


def test_a_damaged_coadd_is_an_error_as_a_value(tmp_path: Path, coadds: Manifest) -> None:
    (damaged,) = (tmp_path / "coadds").rglob(f"*{BRICK}-image-r.fits.fz")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    settings = NegativeSettings(classes=CLASSES, share_of_positives=1.0)
    paths = _files(tmp_path / "all", confusers(4), 1)
    rows = negative_rows(draw_confusers(paths, frozenset([BRICK]), DATASET, settings).rows, DATASET)
    cut = cut_unit(next(units(rows, 1000)), CutJob(coadds, StampSettings(), Target(str(tmp_path / "out"))))
    assert cut.entry is None
    assert "has changed since its checksum was recorded" in str(cut.error)


def test_a_dataset_with_extra_hard_negatives_has_their_columns_in_its_negatives_too(
    tmp_path: Path, coadds: Manifest
) -> None:
    settings = NegativeSettings(classes=CLASSES, share_of_positives=1.0)
    paths = _files(tmp_path / "all", confusers(4, edge=1), 1)
    rows = negative_rows(draw_confusers(paths, frozenset([BRICK]), DATASET, settings).rows, DATASET)
    stamp_settings = StampSettings.model_validate({"hard_negatives": {"extra": ["blocks"]}})
    (unit,) = units(rows, 1000)
    cut = cut_unit(unit, CutJob(coadds, stamp_settings, Target(str(tmp_path / "out"))))
    assert (cut.error, cut.rows) == (None, 4)
    stamps = pq.read_table(tmp_path / "out" / unit.name)
    assert stamps.schema.equals(stamp_schema(("blocks",)))
    assert stamps["hardneg_blocks_stamp_npz"].null_count == 4
    assert stamps["stamp_npz"].null_count == 1


def test_the_command_gives_the_same_bytes_with_one_core_or_two(tmp_path: Path, coadds: Manifest) -> None:
    with attempt(Path("confusers.json"), "confusers", "dark_halo_scope.catalogue.select_confusers", {}, []) as work:
        _files(work.prefix, confusers(40, edge=1, bricks=BRICKS), 2)
        work.publish(rows_out=40)
    hosts = [{**row, "stamp_size": 64} for row in stamp_rows(300)]
    in_both = confusers(40, edge=1, bricks=BRICKS).slice(7, 1).to_pylist()[0]
    hosts[0] |= {name: in_both[name] for name in ("brickname", "ra", "dec")}
    write_stamps(tmp_path, hosts)
    arguments = ["--confusers", "confusers.json", "--stamps", "stamps.json", "--coadds", "coadds.json"]
    everything = {"train": 50, "val": 50, "test": 50}
    settings = {"classes": CLASSES, "share_of_positives": None, "per_class": everything}
    stamp_settings = {"rows_per_file": 3, "hard_negatives": {"extra": ["blocks"]}}
    found = []
    for cores in (1, 2):
        output = f"negatives{cores}.json"
        more = ["--settings", json.dumps(settings), "--stamp-settings", json.dumps(stamp_settings)]
        cut_negatives.main([*arguments, *more, "--output", output, "--spark-master", f"local[{cores}]"])
        found.append(load_manifest(Path(output), "negatives"))
    assert found[0].sha256 == found[1].sha256
    assert len(verified_paths(found[0])) >= 3
    assert found[0].rows_in == found[0].rows_out == 39
    assert sum(sum(splits.values()) for splits in found[0].facts["classes"].values()) == 39
    assert found[0].facts["already_in_dataset"] == {"merger": 0, "ring_proxy": 1}
    assert "hardneg_blocks_stamp_npz" in found[0].columns
