"""Mining takes the galaxies of training cells that score highest, each once, with their pixels, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, logit

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.evaluation import mine_hard_negatives, score
from dark_halo_scope.evaluation.mining import winners
from dark_halo_scope.evaluation.mining_config import MiningSettings
from dark_halo_scope.images.mined import HARD_MINED, open_mined
from dark_halo_scope.images.packed import open_packed

from . import toys
from .packed_files import write_model, write_packed

NO_LENS = LensPositions(np.empty(0), np.empty(0))


def positions(count: int, split: str = "train", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places of a split, arcminutes apart."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 90, 12 * count + 100), rng.uniform(-30, 30, 12 * count + 100)
    here = split_of_cells(healpix_cell(ra, dec)) == split
    return ra[here][:count], dec[here][:count]


def score_rows(count: int, seed: int = 0, split: str = "train") -> pa.Table:
    """Scores of galaxies that are in no pair; logits come in steps, so that many are equal."""
    rng = np.random.default_rng(seed)
    ra, dec = positions(count, split, seed)
    logits = np.round(rng.normal(0, 2, count), 1)
    return pa.table(
        {
            "task_id": [f"{i:08x}" for i in rng.permutation(count)],
            "ra": ra,
            "dec": dec,
            "split": [split] * count,
            "kind": ["negative"] * count,
            "label": np.zeros(count, np.int8),
            "packed_row": np.arange(count),
            "logit": logits,
            "score": expit(logits),
        }
    )


def changed(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def mine(folder: Path, table: pa.Table, lenses: LensPositions = NO_LENS, files: int = 1, **settings: object):
    paths = [folder / f"scores{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(table.take(pa.array(np.arange(number, table.num_rows, files))), path, row_group_size=50)
    return winners(paths, lenses, MiningSettings(**settings))


def expected(table: pa.Table, most: int, least: float) -> list[str]:
    """The same, by sorting everything."""
    rows = [row for row in table.to_pylist() if row["score"] >= least]
    return [row["task_id"] for row in sorted(rows, key=lambda row: (-row["logit"], row["task_id"]))][:most]


@pytest.mark.parametrize(("most", "least"), [(20, 0.5), (1000, 0.9), (1, 0.0)])
def test_the_highest_logits_win_and_ties_go_by_name_whatever_batches_and_files(
    tmp_path: Path, most: int, least: float
) -> None:
    table = score_rows(300)
    assert len(set(table["logit"].to_pylist())) < 150
    for batch, files in ((7, 1), (64, 3), (1000, 2)):
        found = mine(tmp_path, table, files=files, top_k=most, min_score=least, batch_rows=batch)
        assert found.rows["task_id"].to_pylist() == expected(table, most, least)
        assert found.counts["scored"] == 300


def test_scores_that_round_to_one_are_told_apart_by_their_logits(tmp_path: Path) -> None:
    table = score_rows(4)
    high = np.array([40.0, 45.0, 42.0, 50.0])
    table = changed(changed(table, "logit", high), "score", expit(high))
    assert len(set(table["score"].to_pylist())) == 1
    assert mine(tmp_path, table).rows["logit"].to_pylist() == [50.0, 45.0, 42.0, 40.0]


def test_a_galaxy_that_was_scored_twice_counts_once_with_its_highest_logit(tmp_path: Path) -> None:
    table = score_rows(60)
    again = changed(table, "task_id", [f"again{i:03d}" for i in range(60)])
    again = changed(changed(again, "logit", np.full(60, 5.0)), "score", np.full(60, expit(5.0)))
    for both in (pa.concat_tables([table, again]), pa.concat_tables([again, table])):
        found = mine(tmp_path, both, top_k=40, min_score=0.0, batch_rows=7).rows
        assert found["task_id"].to_pylist() == [f"again{i:03d}" for i in range(40)]


def test_no_galaxy_of_a_validation_or_test_cell_can_enter(tmp_path: Path) -> None:
    """By its place, whatever its row says; by its row, whatever the manifest says."""
    table = score_rows(50)
    for split in ("val", "test"):
        with pytest.raises(BadInputError, match=f"scores of the split {split}"):
            mine(tmp_path, pa.concat_tables([table, score_rows(1, split=split)]))
        ra, dec = positions(1, split)
        moved = {name: [*table[name].to_pylist()[:-1], place[0]] for name, place in (("ra", ra), ("dec", dec))}
        stranger = changed(changed(table, "ra", moved["ra"]), "dec", moved["dec"])
        with pytest.raises(CorruptDataError, match="1 galaxies that do not lie in a training cell"):
            mine(tmp_path, stranger, min_score=0.0)


def test_known_lenses_are_left_out_by_radius(tmp_path: Path) -> None:
    table = score_rows(50)
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    lenses = LensPositions(ra[:2].copy(), dec[:2] + np.array([10.9, 11.1]) / 3600)
    found = mine(tmp_path, table, lenses, min_score=0.0)
    assert found.counts["near_lens"] == 1
    assert set(table["task_id"].to_pylist()) - set(found.rows["task_id"].to_pylist()) == {table["task_id"][0].as_py()}
    assert mine(tmp_path, table, lenses, min_score=0.0, exclude_arcsec=5).counts["near_lens"] == 0


def test_images_of_pairs_are_not_mined_and_lenses_among_negatives_are_an_error(tmp_path: Path) -> None:
    table = score_rows(30)
    kinds = ["positive", "control", "hard_negative", *["negative"] * 27]
    found = mine(tmp_path, changed(table, "kind", kinds), min_score=0.0)
    assert found.rows["packed_row"].to_pylist()
    assert set(found.rows["packed_row"].to_pylist()) == set(range(3, 30))
    assert found.counts["of_pairs"] == 3
    with pytest.raises(CorruptDataError, match="labelled lenses"):
        mine(tmp_path, changed(table, "label", np.ones(30, np.int8)), min_score=0.0)


def test_scores_without_task_ids_are_refused(tmp_path: Path) -> None:
    """The earlier pipeline's had none: what was mined could not be found again."""
    with pytest.raises(BadInputError, match="lacks the columns task_id"):
        mine(tmp_path, score_rows(5).drop_columns(["task_id"]))


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.evaluation.mining_config import MiningSettings
from dark_halo_scope.evaluation.mining import winners
sys.path[:0] = [{support!r}]
from peak_memory import peak_mb
none = LensPositions(np.empty(0), np.empty(0))
found = winners([Path(sys.argv[1])], none, MiningSettings(top_k=2000, min_score=0.5, batch_rows=10_000))
assert found.rows.num_rows == 2000
print(peak_mb())
"""


def test_ten_times_the_scores_take_no_more_memory(tmp_path: Path, project_root: Path) -> None:
    base = score_rows(10_000)
    support = str(project_root / "tests" / "support")
    peaks = []
    for times in (3, 30):
        path = tmp_path / f"scores{times}.parquet"
        with pq.ParquetWriter(path, base.schema) as writer:
            for part in range(times):
                rows = changed(base, "task_id", [f"{part:04d}{i:060d}" for i in range(base.num_rows)])
                # Each part a few arcseconds beside the others, in the same cells but for a few galaxies.
                moved = base["dec"].to_numpy() + part * 2e-6
                keep = split_of_cells(healpix_cell(base["ra"].to_numpy(), moved)) == "train"
                writer.write_table(changed(rows, "dec", moved).filter(pa.array(keep)))
        run = subprocess.run(
            [sys.executable, "-c", _MEASURE.format(support=support), str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(run.stdout))
    # All rows at once add 150 MB.
    assert peaks[1] < peaks[0] + 40, f"{peaks[0]:.0f} MB, then {peaks[1]:.0f} MB"


# --- The command ------------------------------------------------------------------------------------------------------


def parents(count: int = 40, seed: int = 1) -> tuple[np.ndarray, pa.Table]:
    """Galaxies that are in no pair: images of noise, some with a one-sided ring that a finder takes for an arc."""
    split = toys.make_split(count, seed=seed)
    rng = np.random.default_rng(seed)
    images = np.where(rng.random(count)[:, None, None, None] < 0.5, split.positive, split.control)
    ra, dec = positions(count)
    rows = changed(changed(split.rows, "ra", ra), "dec", dec)
    rows = changed(changed(rows, "split", ["train"] * count), "is_control", np.ones(count, np.int32))
    rows = changed(rows, "theta_e_arcsec", np.zeros(count))
    kinds, names = pa.array(["parent"] * count), pa.array([f"galaxy{i}" for i in range(count)])
    return images, rows.append_column("control_kind", kinds).append_column("galaxy_id", names)


def write_scores(path: Path, packed: Path, logits: np.ndarray, split: str = "train") -> None:
    """scores.json of the packed galaxies."""
    rows = open_packed(packed, "train").negative_rows
    table = rows.select(["task_id", "ra", "dec", "split"])
    count = len(logits)
    added = {"kind": ["negative"] * count, "label": np.zeros(count, np.int8), "packed_row": np.arange(count)}
    for name, values in (added | {"logit": logits, "score": expit(logits)}).items():
        table = table.append_column(name, pa.array(values))
    facts = {"generation": "gen2", "split": split, "model_sha256": "0" * 64}
    with attempt(path, "scores", "dark_halo_scope.evaluation.score", {}, []) as work:
        pq.write_table(table, work.prefix / "scores.parquet")
        work.publish(rows_out=count, facts=facts | {"packed_sha256": load_manifest(packed).sha256})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, pa.Table]:
    """packed.json of parents, without any pair, and lenses.json far from all."""
    monkeypatch.chdir(tmp_path)
    images, rows = parents()
    write_packed(Path("packed.json"), {"train": toys.make_split(0)}, {"train": (images, rows)})
    with attempt(Path("lenses.json"), "lenses", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        pq.write_table(pa.table({"ra": [200.0], "dec": [80.0]}), work.prefix / "lenses.parquet")
        work.publish(rows_out=1)
    return images, rows


def run_mining(**settings: object) -> Path:
    inputs = ["--scores", "scores.json", "--packed", "packed.json", "--lenses", "lenses.json"]
    mine_hard_negatives.main([*inputs, "--settings", json.dumps(settings), "--output", "hard_negatives.json"])
    return Path("hard_negatives.json")


def test_what_is_mined_has_the_pixels_and_the_columns_of_the_contract(scene: tuple[np.ndarray, pa.Table]) -> None:
    images, rows = scene
    logits = np.random.default_rng(3).normal(1, 2, 40)
    write_scores(Path("scores.json"), Path("packed.json"), logits)
    mined = open_mined(run_mining(top_k=10, min_score=0.6))
    order = np.argsort(-logits)[:10]
    assert expit(logits[order[-1]]) > 0.6
    assert mined.rows["task_id"].to_pylist() == rows["task_id"].take(pa.array(order)).to_pylist()
    np.testing.assert_array_equal(mined.images, images[order])
    np.testing.assert_array_equal(mined.rows["logit"].to_numpy(), logits[order])
    for name in ("ra", "dec", "psfsize_r", "brickname", "objid", "sampling_weight"):
        assert mined.rows[name].to_pylist() == rows[name].take(pa.array(order)).to_pylist()
    assert mined.rows.schema.field("is_control").type == pa.int8()
    constants = {name: set(mined.rows[name].to_pylist()) for name in ("is_control", "control_kind", "mined_from")}
    assert constants == {"is_control": {1}, "control_kind": {HARD_MINED}, "mined_from": {"parent"}}
    facts = load_manifest(Path("hard_negatives.json")).facts
    assert (facts["generation"], facts["shortfall"], facts["split"]) == ("gen2", 0, "train")
    assert facts["lowest_score"] == pytest.approx(expit(logits[order[-1]]))


@pytest.mark.parametrize(("highest", "count"), [(0.95, 7), (0.5, 0)])
def test_too_few_above_the_score_are_recorded_and_none_is_an_answer(
    scene: tuple[np.ndarray, pa.Table], caplog: pytest.LogCaptureFixture, highest: float, count: int
) -> None:
    logits = np.full(40, -3.0)
    logits[:7] = logit(highest)
    write_scores(Path("scores.json"), Path("packed.json"), logits)
    mined = open_mined(run_mining(top_k=30))
    assert len(mined) == count
    assert mined.images.shape == (count, 3, toys.SIZE, toys.SIZE)
    manifest = load_manifest(Path("hard_negatives.json"))
    assert (manifest.rows_out, manifest.facts["shortfall"]) == (count, 30 - count)
    assert manifest.facts["counts"]["below_min_score"] == 40 - count
    assert f"{30 - count} hard negatives fewer than the 30 asked for" in caplog.text


def test_scores_of_other_splits_or_other_images_are_refused(scene: tuple[np.ndarray, pa.Table]) -> None:
    write_scores(Path("scores.json"), Path("packed.json"), np.ones(40), split="val")
    with pytest.raises(BadInputError, match="scores of the split val"):
        run_mining()
    write_scores(Path("scores.json"), Path("packed.json"), np.ones(40))
    images, rows = scene
    write_packed(Path("packed.json"), {"train": toys.make_split(0)}, {"train": (images[::-1], rows)})
    with pytest.raises(BadInputError, match="other images"):
        run_mining()
    assert not Path("hard_negatives.json").exists()


def test_a_network_scores_parents_and_its_false_positives_are_mined(scene: tuple[np.ndarray, pa.Table]) -> None:
    """The two commands in a row, on images that are in no pair."""
    images, _ = scene
    write_model(Path("best.json"))
    inputs = ["--model", "best.json", "--packed", "packed.json", "--split", "train", "--device", "cpu"]
    score.main([*inputs, "--output", "scores.json"])
    manifest = load_manifest(Path("scores.json"), "scores")
    assert (manifest.rows_in, manifest.rows_out) == (40, 40)
    table = pq.read_table(Path.cwd() / manifest.uri / "scores.parquet")
    assert set(table["kind"].to_pylist()) == {"negative"}
    assert set(table["label"].to_pylist()) == {0}
    assert set(table["control_kind"].to_pylist()) == {"parent"}
    assert table["galaxy_id"].to_pylist() == [f"galaxy{i}" for i in range(40)]
    mined = open_mined(run_mining(top_k=5, min_score=0.0))
    best = sorted(table.to_pylist(), key=lambda row: (-row["logit"], row["task_id"]))[:5]
    assert mined.rows["task_id"].to_pylist() == [row["task_id"] for row in best]
    np.testing.assert_array_equal(mined.images, images[[row["packed_row"] for row in best]])
