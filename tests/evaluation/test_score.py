"""The command writes scores behind a manifest that says which model made them."""

from pathlib import Path

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
