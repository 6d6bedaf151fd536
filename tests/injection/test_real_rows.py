"""A dataset of real images: lenses and negatives in the same columns, no galaxy in both, nothing beside a lens."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.catalogue.sample_negatives import SAMPLE_SCHEMA
from dark_halo_scope.catalogue.splits import assert_disjoint, healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.injection import list_real_images
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_rows import REAL_SCHEMA, listed_files, negative_rows, positive_rows
from dark_halo_scope.survey.grid import brick_at
from positive_scene import ARCSEC, galaxy, lens, matched, write_positives

SETTINGS = RealImageSettings()
# In bricks of their own; the first two are of one.
PLACES = [(10.0 + 0.01 * i if i < 2 else 10.0 + 1.3 * i, 0.1 * (i % 3)) for i in range(24)]

# The plan's training manifest (section 3, step 4).
PLANNED = "galaxy_id cutout_path label sample_weight split tier type nobs_z_bin healpix_128"


def positives(count: int = 12) -> pa.Table:
    pairs = [
        (lens(ra, dec, grading="confident" if i % 3 else "probable"), galaxy(ra, dec, objid=i))
        for i, (ra, dec) in enumerate(PLACES[:count])
    ]
    return matched([one for one, _ in pairs], [one for _, one in pairs]).rows


def negatives(places: list[tuple[float, float]], first_objid: int = 1000, **changes: list) -> pa.Table:
    """Rows of the stratified sample; the second of each three is a confuser."""
    ra, dec = np.array(places, dtype=float).reshape(-1, 2).T
    names = [str(brick_at(a, d).name) for a, d in places]
    cells = healpix_cell(ra, dec)
    n2 = np.arange(len(ra)) % 3 == 1
    values: dict[str, object] = {
        "galaxy_id": [f"{name}_{first_objid + i}" for i, name in enumerate(names)],
        "brickname": names,
        "objid": first_objid + np.arange(len(ra)),
        "ra": ra,
        "dec": dec,
        "healpix_64": cells >> 2,
        "healpix_128": cells,
        "split": split_of_cells(cells),
        "pool": np.where(n2, "N2", "N1").tolist(),
        "confuser_category": ["ring_proxy" if confuser else None for confuser in n2],
        "sampling_prob": np.where(n2, 0.5, 0.25),
    } | changes
    arrays = []
    for field in SAMPLE_SCHEMA:
        value = values.get(field.name)
        if value is None and pa.types.is_string(field.type):
            value = [None if field.nullable else "SER"] * len(ra)
        elif value is None:
            value = np.full(len(ra), 20.0).astype(field.type.to_pandas_dtype())
        arrays.append(pa.array(value).cast(field.type))
    return pa.table(arrays, schema=SAMPLE_SCHEMA)


def beside(arcsec: float) -> list[tuple[float, float]]:
    return [(ra, dec + arcsec * ARCSEC) for ra, dec in PLACES]


def write_negatives(output: Path, *parts: pa.Table) -> Path:
    with attempt(output, "negatives", "dark_halo_scope.catalogue.sample_negatives", {}, []) as work:
        for number, part in enumerate(parts):
            pq.write_table(part, work.prefix / f"negatives-{number:04d}.parquet", compression="zstd")
        work.publish(rows_out=sum(part.num_rows for part in parts), facts={})
    return output


def listed(folder: Path, lenses: pa.Table, *parts: pa.Table, **settings: object) -> tuple[dict, list[pa.Table]]:
    """Facts and files of the manifest that the command line makes."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--positives", str(write_positives(folder / "positives.json", lenses))]
    arguments += ["--negatives", str(write_negatives(folder / "negatives.json", *parts))]
    output = folder / "manifest.json"
    list_real_images.main([*arguments, "--output", str(output), "--settings", json.dumps(settings)])
    manifest = load_manifest(output, "galaxies")
    return dict(manifest.facts), [pq.read_table(path) for path in verified_paths(manifest)]


def test_both_classes_have_the_same_columns_and_the_plans_training_manifest_is_among_them():
    rows = [positive_rows(positives(), SETTINGS), negative_rows(negatives(beside(60)), SETTINGS)]
    assert all(table.schema.equals(REAL_SCHEMA) for table in rows)
    assert set(PLANNED.split()) <= set(REAL_SCHEMA.names)
    assert all(table["task_id"].equals(table["galaxy_id"]) for table in rows)


def test_labels_tiers_and_weights_are_the_plans():
    lenses, others = positive_rows(positives(3), SETTINGS), negative_rows(negatives(beside(60)[:3]), SETTINGS)
    assert sorted(zip(lenses["tier"].to_pylist(), lenses["sample_weight"].to_pylist(), strict=True)) == [
        ("A", 1.0),
        ("A", 1.0),
        ("B", 0.5),
    ]
    assert others["tier"].to_pylist() == ["N1", "N2", "N1"]
    assert others["sample_weight"].to_pylist() == [1.0] * 3
    assert others["control_kind"].to_pylist() == ["N1", "ring_proxy", "N1"]
    assert others["sampling_weight"].to_pylist() == [4.0, 2.0, 4.0]
    for table, label in ((lenses, 1), (others, 0)):
        assert (set(table["label"].to_pylist()), set(table["is_control"].to_pylist())) == ({label}, {1 - label})
    assert lenses["sampling_prob"].null_count == lenses["pool"].null_count == lenses["control_kind"].null_count == 3


def test_depths_are_magnitudes_whatever_the_pool_has():
    """5 sigma of an inverse variance of 100 per square nanomaggy is half a nanomaggy: 23.25."""
    others = negative_rows(negatives(beside(60)[:1], psfdepth_r=[100.0], psfdepth_g=[None]), SETTINGS).to_pylist()[0]
    assert others["psfdepth_r"] == pytest.approx(23.2526, abs=1e-4)
    assert others["psfdepth_g"] is None
    [row] = positive_rows(positives(1), SETTINGS).to_pylist()
    assert row["psfdepth_r"] == pytest.approx(22.5 - 2.5 * np.log10(5 / np.sqrt(101.5)), abs=1e-5)
    assert (row["rmag"], row["w1mag"]) == (pytest.approx(19.8, abs=1e-5), pytest.approx(18.5, abs=1e-5))


def test_a_cutout_is_about_the_galaxy_of_the_sweeps_in_both_classes():
    """About a catalogue's own position only lenses would be off centre."""
    rows = matched([lens(dec=2 * ARCSEC)], [galaxy()]).rows
    [row] = positive_rows(rows, SETTINGS).to_pylist()
    assert (row["ra"], row["dec"]) == (10.0, 0.0)
    assert row["separation_arcsec"] == pytest.approx(2.0, abs=1e-6)


def test_a_brick_is_in_one_file_with_all_its_lenses_and_negatives(tmp_path):
    lenses, places = positives(), beside(60)
    parts = negatives(places[:8]), negatives(places[8:10], 2000)
    facts, files = listed(tmp_path, lenses, *parts)
    bricks = [set(table["brickname"].to_pylist()) for table in files]
    assert sum(len(names) for names in bricks) == len(set().union(*bricks))
    assert len(files) == 3  # the last of lenses in bricks without negatives
    assert set(files[2]["label"].to_pylist()) == {1}
    table = pa.concat_tables(files)
    assert table.num_rows == 22
    assert facts["splits"] == {name: table["split"].to_pylist().count(name) for name in ("train", "val", "test")}
    found = Counter(table["tier"].to_pylist())
    assert Counter({t: sum(of[t] for of in facts["tiers"].values()) for t in ("A", "B", "N1", "N2")}) == found
    assert sum(facts["split_shares"]["positive"].values()) == pytest.approx(1)
    cells = table["healpix_128"].to_numpy()
    assert_disjoint(table["ra"].to_numpy(), table["dec"].to_numpy(), cells, table["split"].to_pylist())


def test_a_large_file_of_negatives_becomes_many_of_whole_bricks(tmp_path):
    lenses, places = positives(), beside(60)
    parts = negatives(places[:20]), negatives(places[20:24], 2000)
    facts, files = listed(tmp_path / "many", lenses, *parts, rows_per_file=4)
    bricks = [name for table in files for name in set(table["brickname"].to_pylist())]
    assert len(bricks) == len(set(bricks))
    assert len(files) == 9
    # A brick has at most four rows, with which a file of three may be filled.
    assert max(table.num_rows for table in files) < 4 + 4
    whole, one = listed(tmp_path / "one", lenses, *parts)
    assert len(one) == 2
    order = [("brickname", "ascending"), ("objid", "ascending")]
    assert pa.concat_tables(files).sort_by(order).equals(pa.concat_tables(one).sort_by(order))
    assert {**facts, "settings": None} == {**whole, "settings": None}


def test_negatives_beside_a_positives_galaxy_are_left_out_and_counted(tmp_path):
    """The pool keeps 11 arcsec from where the catalogue has the lens, 5 arcsec from which its galaxy may be."""
    near, far = beside(10.9), beside(11.1)
    facts, files = listed(tmp_path, positives(4), negatives([*near[:2], *far[2:6]]))
    assert facts["left_out"]["negatives_near_positive"] == 2
    assert pc.sum(pa.concat_tables(files)["is_control"]).as_py() == 4


def test_a_positive_that_is_a_negative_is_refused(tmp_path):
    lenses = positives(3)
    sample = negatives(beside(60)[:3], galaxy_id=["a_1", lenses["galaxy_id"][1].as_py(), "a_2"])
    with pytest.raises(BadInputError, match="1 galaxies that are positives too"):
        listed(tmp_path, lenses, sample)
    assert not (tmp_path / "manifest.json").exists()


def test_a_galaxy_twice_is_refused_within_a_file_and_across_files(tmp_path):
    sample = negatives(beside(60)[:3])
    for number, parts in enumerate(((pa.concat_tables([sample, sample]),), (sample, sample))):
        with pytest.raises(BadInputError, match=r"twice|two files"):
            listed(tmp_path / str(number), positives(2), *parts)
    with pytest.raises(BadInputError, match="positives hold a galaxy twice"):
        list(listed_files(pa.concat_tables([positives(2)] * 2), [], SETTINGS, Counter()))


def test_rows_whose_cell_is_a_hash_of_the_object_are_refused(tmp_path):
    """As the earlier pipeline's are wherever healpy was absent."""
    sample = negatives(beside(60))
    cells = np.random.default_rng(1).integers(0, 12 * 128**2, sample.num_rows)
    hashed = negatives(beside(60), healpix_128=cells.tolist(), split=split_of_cells(cells).tolist())
    with pytest.raises(DarkHaloScopeError, match="HEALPix cell that is not their position's"):
        listed(tmp_path, positives(4), hashed)


def test_a_dataset_has_the_splits_asked_for_and_both_classes(tmp_path):
    facts, files = listed(tmp_path / "train", positives(), negatives(beside(60)), splits=["train"])
    assert set(pa.concat_tables(files)["split"].to_pylist()) == set(facts["splits"]) == {"train"}
    assert facts["left_out"]["other_split"] > 0
    with pytest.raises(BadInputError, match="No negative is left"):
        listed(tmp_path / "none", positives(), negatives([]))


def test_a_brick_name_that_is_a_path_is_refused(tmp_path):
    sample = negatives(beside(60)[:3], brickname=["../../etc", "0001p000", "0001p000"])
    with pytest.raises(DarkHaloScopeError, match="etc"):
        listed(tmp_path, positives(2), sample)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "stored", "stored_positives": "a"}, "needs stored_positives and stored_negatives"),
        ({"path": "service", "stored_negatives": "b"}, "takes no pixels from"),
        ({"path": "both"}, "path"),
        ({"splits": ["train", "train"]}, "twice"),
    ],
)
def test_pixels_come_from_one_path(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        RealImageSettings(**settings)
