"""Recovery as a job: refuses a finder that changed, gives the same bytes however it is run, goes on after a kill, and
leaves no image behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.artifacts import CHECKPOINTS
from dark_halo_scope.core.crash import VARIABLE
from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path, verified_paths
from dark_halo_scope.evaluation import inject_recovery, recovery_parts
from dark_halo_scope.evaluation.freeze import FrozenChangedError, load_frozen
from dark_halo_scope.injection.recovery import Rendered
from dark_halo_scope.injection.recovery_schema import INJECTION_SCHEMA, LEFT_OUT_SCHEMA, RECOVERY_SCHEMA
from recovery_scene import some_hosts

from .frozen_scene import ARGUMENTS, write_scene

LIB = Path(__file__).resolve().parents[2] / "lib"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a frozen finder and seven hosts, to be in."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path)
    return tmp_path


def _recover(output: str, *more: str) -> Manifest:
    inject_recovery.main([*ARGUMENTS, "--output", output, *more])
    return load_manifest(Path(output), "recovery")


def test_every_injection_is_a_row_or_is_left_out_with_the_reason(here: Path) -> None:
    found = _recover("recovery.json")
    assert (found.rows_in, found.rows_out, found.rows_quarantined) == (14, 12, 2)
    [path] = verified_paths(found)
    rows = pq.read_table(path)
    assert rows.schema.equals(RECOVERY_SCHEMA)
    assert np.isfinite(rows["logit"].to_numpy()).all()
    assert pc.all(pc.equal(rows["split"], "test")).as_py()
    left_out = pq.read_table(verified_path(found, "quarantine/recovery.parquet"))
    assert set(left_out["galaxy_id"].to_pylist()) == {f"{some_hosts(1)[0]['brickname']}_99"}
    frozen = load_frozen(Path("frozen.json"))
    assert found.facts["frozen_sha256"] == frozen.sha256
    assert found.facts["model_sha256"] == frozen.weights_sha256
    assert found.facts["thresholds"] == {"p0.5": 0.0}
    assert found.facts["rungs"] == {"sersic_noise": 6, "clumpy": 6}
    assert found.facts["families"] == {"sersic": "sersic_noise", "clumpy": "clumpy"}
    # No stamp is kept: what is written is one table and what was left out.
    assert {path.suffix for path in here.joinpath("recovery").rglob("*") if path.is_file()} == {".parquet", ".json"}


def test_processes_that_render_change_no_byte(here: Path) -> None:
    assert _recover("alone.json").sha256 == _recover("two.json", "--workers", "2").sha256


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(here: Path) -> None:
    whole = _recover("whole.json")
    killed = subprocess.run(
        [sys.executable, "-m", "dark_halo_scope.evaluation.inject_recovery", *ARGUMENTS, "--output", "recovery.json"],
        env=os.environ | {"PYTHONPATH": str(LIB), VARIABLE: "after_rename:hosts-000000004.json"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not Path("recovery.json").exists()
    parts = sorted(path.name for path in Path("recovery", CHECKPOINTS).rglob("hosts-*.json"))
    assert parts == ["hosts-000000000.json", "hosts-000000004.json"]
    assert _recover("recovery.json").sha256 == whole.sha256
    assert not Path("recovery", CHECKPOINTS).exists()


def test_a_part_that_is_damaged_after_it_was_found_whole_is_injected_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _recover("whole.json")
    monkeypatch.setattr(recovery_parts, "is_done", lambda folder, name, made_on: name == "hosts-000000000")
    assert _recover("recovery.json").sha256 == whole.sha256


def test_a_finder_that_changed_since_it_was_frozen_is_refused(here: Path) -> None:
    card = read_json(Path("best.json"))
    card["preprocessing"]["clip_high"] = 12.0
    write_json(Path("best.json"), card)
    with pytest.raises(FrozenChangedError, match="preprocessing changed"):
        _recover("recovery.json")
    assert not Path("recovery.json").exists()


def test_a_logit_that_is_not_finite_stops_the_run() -> None:
    row = {field.name: "x" if pa.types.is_string(field.type) else 0 for field in INJECTION_SCHEMA}
    rows = pa.Table.from_pylist([row | {"selection": True}], schema=INJECTION_SCHEMA)
    unit = Rendered(np.zeros((1, 3, 8, 8), np.float16), rows, LEFT_OUT_SCHEMA.empty_table())
    with pytest.raises(CorruptDataError, match="is not finite"):
        recovery_parts.score_rendered(lambda images, rows, /, controls=None: np.full(len(images), np.nan), unit)
