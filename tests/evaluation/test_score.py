"""The command writes scores behind a manifest that says which model made them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import load_manifest, verified_paths
from dark_halo_scope.evaluation import score

from . import toys
from .packed_files import write_model, write_packed


def test_scores_are_a_manifest_of_one_row_per_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("packed.json"), {"test": toys.make_split(10), "val": toys.make_split(4, seed=2)})
    write_model(Path("best.json"))
    score.main(["--model", "best.json", "--packed", "packed.json", "--output", "scores.json", "--device", "cpu"])
    manifest = load_manifest(Path("scores.json"), "scores")
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (30, 30, 0)
    assert manifest.facts["model_sha256"] == read_json(Path("best.json"))["weights"]["sha256"]
    [path] = verified_paths(manifest)
    table = pq.read_table(path)
    assert table.num_rows == 30
    assert manifest.columns == {field.name: str(field.type) for field in table.schema}


def test_images_that_are_in_no_pair_are_scored_beside_the_pairs_as_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    others = toys.make_split(6, seed=3)
    kinds = pa.array(["ring_proxy"] * 6)
    packed = {"test": toys.make_split(10)}
    packed["test"].rows = packed["test"].rows.append_column("control_kind", pa.nulls(10, pa.string()))
    confusers = (others.control, others.rows.append_column("control_kind", kinds))
    write_packed(Path("packed.json"), packed, {"test": confusers})
    write_model(Path("best.json"))
    inputs = ["--model", "best.json", "--packed", "packed.json", "--device", "cpu"]
    score.main([*inputs, "--output", "scores.json"])
    score.main([*inputs, "--output", "only.json", "--settings", '{"kinds": ["negative"]}'])
    table, only = (
        pq.read_table(verified_paths(load_manifest(Path(name), "scores"))[0]) for name in ("scores.json", "only.json")
    )
    counts = {item["values"]: item["counts"] for item in pc.value_counts(table["kind"]).to_pylist()}
    assert counts == {"positive": 10, "control": 10, "hard_negative": 10, "negative": 6}
    negatives = table.filter(pc.equal(table["kind"], "negative"))
    assert negatives.equals(only)
    assert set(negatives["label"].to_pylist()) == {0}
    assert set(negatives["control_kind"].to_pylist()) == {"ring_proxy"}
    assert negatives["packed_row"].to_pylist() == list(range(6))
