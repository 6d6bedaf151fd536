"""Parents as a dataset: those of the splits asked for, away from lenses, cut by the hosts' code."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, open_brick
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.code import modules
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_paths
from dark_halo_scope.images import pack
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.injection import cut_parents, list_parents
from dark_halo_scope.injection.inject import cut_host
from dark_halo_scope.injection.parent_config import ParentStampSettings
from dark_halo_scope.injection.parents import parent_rows
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.cache_coadds import bricknames_of
from galaxy_scene import BRICKS, galaxies, scene_galaxies, write_scene_coadds

NO_LENS = LensPositions(np.empty(0), np.empty(0))
EVERY = ("train", "val", "test")


def sky(count: int = 200) -> pa.Table:
    """Galaxies all over the sky, so that every split has some."""
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(0, 60, count), rng.uniform(-20, 20, count)
    return galaxies(ra, dec, [f"{i // 10:04d}p000" for i in range(count)])


def _files(folder: Path, table: pa.Table, parts: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"parent-{part:04d}.parquet" for part in range(parts)]
    for part, path in enumerate(paths):
        pq.write_table(table.take(pa.array(np.arange(part, table.num_rows, parts))), path)
    return paths


def _rows(paths: list[Path], lenses: LensPositions = NO_LENS, **settings: object) -> tuple[pa.Table, Counter]:
    counts: Counter[str] = Counter()
    tables = list(parent_rows(paths, lenses, ParentStampSettings(**settings), counts))
    return pa.concat_tables(tables).sort_by("task_id"), counts


def test_only_galaxies_of_training_cells_are_listed_unless_others_are_asked_for(tmp_path: Path) -> None:
    table = sky()
    splits = Counter(table["split"].to_pylist())
    assert min(splits[split] for split in EVERY) > 5
    rows, counts = _rows(_files(tmp_path, table, 3))
    assert set(split_of_cells(healpix_cell(rows["ra"].to_numpy(), rows["dec"].to_numpy()))) == {"train"}
    assert (rows.num_rows, counts["other_split"]) == (splits["train"], 200 - splits["train"])
    rows, _ = _rows(_files(tmp_path, table, 3), splits=EVERY)
    assert Counter(rows["split"].to_pylist()) == splits


def test_a_galaxy_that_is_in_training_by_name_and_not_by_place_stops_the_listing(tmp_path: Path) -> None:
    table = sky()
    wrong = pa.array(["train"] * table.num_rows)
    table = table.set_column(table.column_names.index("split"), table.schema.field("split"), wrong)
    with pytest.raises(CorruptDataError, match="not their cell's"):
        _rows(_files(tmp_path, table, 2))


def test_galaxies_near_known_lenses_are_left_out_by_radius(tmp_path: Path) -> None:
    table = sky()
    train = table.filter(pc.equal(table["split"], "train"))
    ra, dec = (train[name].to_numpy() for name in ("ra", "dec"))
    # 10.9" from the first, 11.1" from the second.
    lenses = LensPositions(ra[:2].copy(), dec[:2] + np.array([10.9, 11.1]) / 3600)
    rows, counts = _rows(_files(tmp_path, table, 2), lenses)
    assert counts["near_lens"] == 1
    assert set(train["objid"].to_pylist()) - set(rows["objid"].to_pylist()) == {train["objid"][0].as_py()}
    assert _rows(_files(tmp_path, table, 2), lenses, exclude_arcsec=5)[1]["near_lens"] == 0


def test_a_limit_draws_by_name_whatever_the_files_and_weights_what_it_draws(tmp_path: Path) -> None:
    table = sky()
    limits = {"max_galaxies": {"train": 30, "val": 1000}, "splits": ("train", "val")}
    one, counts = _rows(_files(tmp_path / "one", table, 1), **limits)
    five, _ = _rows(_files(tmp_path / "five", table, 5), **limits)
    assert one.equals(five)
    splits = Counter(table["split"].to_pylist())
    assert Counter(one["split"].to_pylist()) == {"train": 30, "val": splits["val"]}
    assert counts["not_drawn"] == splits["train"] - 30
    weights = {(row["split"], row["sampling_weight"]) for row in one.to_pylist()}
    assert weights == {("train", splits["train"] / 30), ("val", 1.0)}
    other, _ = _rows(_files(tmp_path / "one", table, 1), **limits, seed=14)
    assert other["task_id"].to_pylist() != one["task_id"].to_pylist()


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="limits val"):
        ParentStampSettings(max_galaxies={"val": 3})
    with pytest.raises(ValueError, match="positive"):
        ParentStampSettings(max_galaxies={"train": 0})
    with pytest.raises(ValueError, match="twice"):
        ParentStampSettings(splits=("train", "train"))


@pytest.fixture
def coadds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """coadds.json of the scene's bricks."""
    monkeypatch.chdir(tmp_path)
    return write_scene_coadds(tmp_path)


def _list(table: pa.Table, splits: tuple[str, ...] = EVERY) -> Manifest:
    with attempt(Path("parent.json"), "parent", "dark_halo_scope.catalogue.parent", {}, []) as work:
        _files(work.prefix, table, 2)
        work.publish(rows_out=table.num_rows)
    with attempt(Path("lenses.json"), "lenses", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        first = table.slice(0, 1).select(["ra", "dec"])
        pq.write_table(first, work.prefix / "lenses.parquet")
        work.publish(rows_out=1)
    settings = json.dumps({"splits": splits, "exclude_arcsec": 1.0})
    inputs = ["--parent", "parent.json", "--lenses", "lenses.json"]
    list_parents.main([*inputs, "--settings", settings, "--output", "manifest.json"])
    return load_manifest(Path("manifest.json"), "galaxies")


def test_parents_become_packed_images_that_are_the_hosts_pixels(tmp_path: Path, coadds: Manifest) -> None:
    """The whole chain, with one core and with two."""
    listed = _list(scene_galaxies(40, edge=3, bricks=BRICKS))
    assert (listed.rows_in, listed.rows_out, listed.facts["left_out"]["near_lens"]) == (40, 39, 1)
    assert bricknames_of(listed) == sorted(BRICKS), "what cache_coadds reads"
    found = []
    for cores in (1, 2):
        arguments = ["--manifest", "manifest.json", "--coadds", "coadds.json", "--output", f"stamps{cores}.json"]
        settings = json.dumps({"rows_per_file": 3})
        cut_parents.main([*arguments, "--settings", settings, "--spark-master", f"local[{cores}]"])
        found.append(load_manifest(Path(f"stamps{cores}.json"), "stamps"))
    assert found[0].sha256 == found[1].sha256
    assert found[0].rows_in == found[0].rows_out == 39
    assert found[0].facts["cutout_failed"] == {"off the edge of the brick": 2}
    assert found[0].facts["splits"] == listed.facts["splits"]
    stamps = pa.concat_tables(pq.read_table(path) for path in verified_paths(found[0]))
    assert stamps.schema.names == stamp_schema().names
    assert len(set(stamps["task_id"].to_pylist())) == 39
    with open_brick(tmp_path / "again") as brick:
        for stamp in stamps.filter(pc.equal(stamps["brickname"], BRICK)).to_pylist():
            assert (stamp["is_control"], stamp["control_kind"]) == (1, "parent")
            x, y = brick.sky_to_pixel(stamp["ra"], stamp["dec"])
            if stamp["cutout_ok"]:
                host = cut_host(brick, float(x), float(y), 64, StampSettings())
                np.testing.assert_array_equal(decode_stamp(stamp["stamp_npz"]), host.image)

    quality = {"verdict": "accepted", "stamps_sha256": found[0].sha256}
    Path("quality.json").write_text(json.dumps(quality))
    pack.main(["--stamps", "stamps1.json", "--quality", "quality.json", "--output", "packed.json"])
    packed = [open_packed(Path("packed.json"), split) for split in EVERY]
    assert [len(split) for split in packed] == [0, 0, 0], "no pairs"
    images = {row["task_id"]: row["stamp_npz"] for row in stamps.to_pylist()}
    for split in packed:
        for row, image in zip(split.negative_rows.to_pylist(), split.negative, strict=True):
            np.testing.assert_array_equal(image, decode_stamp(images[row["task_id"]]).astype(np.float16))
    assert sum(split.negative_rows.num_rows for split in packed) == 37


def test_galaxies_of_a_brick_without_coadds_keep_their_rows_and_the_reason(tmp_path: Path, coadds: Manifest) -> None:
    for path in (tmp_path / "coadds" / BRICKS[1]).glob("*"):
        path.unlink()
    write_again = write_scene_coadds(tmp_path / "rest", BRICKS[::2])
    assert [item["brickname"] for item in write_again.facts["missing"]] == [BRICKS[1]]
    _list(scene_galaxies(12, bricks=BRICKS).slice(1))
    arguments = ["--manifest", "manifest.json", "--coadds", "coadds.json", "--output", "stamps.json"]
    cut_parents.main([*arguments, "--spark-master", "local[1]"])
    stamps = load_manifest(Path("stamps.json"), "stamps")
    assert stamps.rows_out == 10
    assert stamps.facts["cutout_failed"] == {"coadds missing": 3}


def test_a_parent_sample_without_galaxies_of_the_splits_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = sky()
    with pytest.raises(BadInputError, match="no galaxy in the split val"):
        _list(table.filter(pc.equal(table["split"], "train")), ("val",))


def test_a_damaged_coadd_stops_the_cutting_and_is_named(tmp_path: Path, coadds: Manifest) -> None:
    _list(scene_galaxies(12, bricks=BRICKS))
    (damaged,) = (tmp_path / "coadds").rglob(f"*{BRICK}-image-r.fits.fz")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    arguments = ["--manifest", "manifest.json", "--coadds", "coadds.json", "--output", "stamps.json"]
    with pytest.raises(CorruptDataError, match=f"{BRICK}-image-r"):
        cut_parents.main([*arguments, "--spark-master", "local[1]"])
    assert not Path("stamps.json").exists()


def test_listing_needs_no_code_that_renders() -> None:
    """An edit of the lensing code lists no galaxy anew; the coadds that the list asks for stay."""
    executed = modules("dark_halo_scope.injection.list_parents")
    assert "dark_halo_scope.injection.parents" in executed
    rendering = [name for name in executed if name.startswith("dark_halo_scope.lensing") or name.endswith(".inject")]
    assert rendering == []
