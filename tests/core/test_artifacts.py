"""What results name can be checked again; what nothing names can be removed, and nothing else."""

import os
import signal
from pathlib import Path

import pytest

from dark_halo_scope.core import clean_orphans, verify_manifests
from dark_halo_scope.core.crash import VARIABLE
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import sha256_bytes, write_json
from dark_halo_scope.core.locks import lock, lock_path
from dark_halo_scope.core.manifest import Manifest, attempt

MODULE = "dark_halo_scope.core.verify_manifests"
OUTPUT = Path("results/v5/stamps.json")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(content: bytes, output: Path = OUTPUT, data_root: str | None = None) -> Manifest:
    with attempt(output, "stamps", MODULE, {"content": content.decode()}, [], data_root) as work:
        (work.prefix / "a.npy").write_bytes(content)
        return work.publish()


def make_weights() -> Path:
    """A file that a plain result names."""
    prefix = Path("results/gen5/main/best/0123456789abcdef")
    prefix.mkdir(parents=True)
    weights = prefix / "model.safetensors"
    weights.write_bytes(b"weights")
    entry = {"uri": weights.relative_to("results/gen5/main").as_posix(), "bytes": 7, "sha256": sha256_bytes(b"weights")}
    write_json(Path("results/gen5/main/best.json"), {"epoch": 3, "weights": entry})
    return weights


def test_all_that_results_name_is_checked(capsys):
    make(b"abc")
    make_weights()
    write_json(Path("results/v5/quality.json"), {"auc": 0.5})
    verify_manifests.main(["results"])
    assert "2 objects are as their manifests say" in capsys.readouterr().out


def test_every_damaged_artifact_is_named_and_the_rest_still_checked(capsys):
    Path(make(b"abc").uri, "a.npy").write_bytes(b"abd")
    make(b"xyz", Path("results/other.json"))
    make_weights().write_bytes(b"weightz")
    with pytest.raises(CorruptDataError, match="2 result file"):
        verify_manifests.main(["results"])
    shown = capsys.readouterr().out
    assert "results/v5/stamps.json: " in shown
    assert "results/gen5/main/best.json: " in shown
    assert "1 objects are as their manifests say" in shown


def test_a_manifest_that_lost_a_field_is_an_error():
    make(b"abc")
    OUTPUT.write_text(OUTPUT.read_text().replace('"kind": "stamps"', '"kind": 5'))
    with pytest.raises(CorruptDataError):
        verify_manifests.main(["results"])


@pytest.mark.parametrize("module", [verify_manifests, clean_orphans])
def test_a_directory_that_is_not_there_is_refused(module):
    with pytest.raises(BadInputError, match="nothing is not a directory"):
        module.main(["nothing"])


def test_replaced_data_are_listed_and_removed_only_on_request(capsys):
    old, new, weights = make(b"old"), make(b"new"), make_weights()
    clean_orphans.main(["results"])
    assert f"orphan\t{_size(Path(old.uri))}\t{old.uri}" in capsys.readouterr().out
    assert Path(old.uri).exists()
    clean_orphans.main(["results", "--yes"])
    assert not Path(old.uri).exists()
    assert Path(new.uri).exists()
    assert weights.exists()
    capsys.readouterr()
    clean_orphans.main(["results"])
    assert capsys.readouterr().out == "0 orphan(s), 0.0 MB.\n"


def _size(prefix: Path) -> int:
    return sum(path.stat().st_size for path in prefix.rglob("*") if path.is_file())


def test_what_a_killed_attempt_left_is_removed(monkeypatch, in_fork):
    make(b"old")
    monkeypatch.setenv(VARIABLE, "data_complete")
    assert in_fork(lambda: make(b"new")) == -signal.SIGKILL
    monkeypatch.setenv(VARIABLE, "after_write:loose.txt")
    assert in_fork(lambda: write_json(Path("results/loose.txt"), {})) == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)
    assert len(list(OUTPUT.with_suffix("").iterdir())) == 2
    assert any(path.name.startswith(".tmp-") for path in Path("results").iterdir())
    clean_orphans.main(["results", "--yes"])
    assert len(list(OUTPUT.with_suffix("").iterdir())) == 1
    assert not any(path.name.startswith(".tmp-") for path in Path("results").rglob("*"))
    verify_manifests.main(["results"])


def test_what_a_live_attempt_writes_is_left_alone():
    with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
        (work.prefix / "a.npy").write_bytes(b"abc")
        clean_orphans.main(["results", "--yes"])
        assert (work.prefix / "a.npy").exists()
        work.publish()


def make_checkpoints(content: bytes | None = b"tensors") -> Path:
    """Checkpoints of a training that was killed, before its first where there is no content."""
    checkpoints = Path("results/gen5_prime/main/checkpoints/0123456789abcdef")
    checkpoints.mkdir(parents=True)
    if content is not None:
        (checkpoints / "step-00000012").mkdir()
        (checkpoints / "step-00000012/state.safetensors").write_bytes(content)
    return checkpoints


def test_the_checkpoints_of_a_training_that_runs_are_left_alone():
    checkpoints = make_checkpoints()
    with lock(checkpoints.with_name(f"{checkpoints.name}.lock")):
        clean_orphans.main(["results", "--yes", "--checkpoints"])
        assert checkpoints.exists()
    clean_orphans.main(["results", "--yes", "--checkpoints"])
    assert not checkpoints.exists()


def test_a_killed_training_can_still_be_resumed_after_orphans_were_removed(capsys):
    old, checkpoints = make(b"old"), make_checkpoints()
    make(b"new")
    clean_orphans.main(["results"])
    listed = capsys.readouterr().out
    assert f"checkpoints\t7\t{checkpoints}\n" in listed
    assert "1 orphan(s)" in listed
    assert (
        "1 unfinished training(s), scoring(s) or cutting(s), 0.0 MB: each goes on when its rule runs again with the "
        "same code" in listed
    )
    clean_orphans.main(["results", "--yes"])
    assert not Path(old.uri).exists()
    assert (checkpoints / "step-00000012/state.safetensors").exists()
    assert f"removed\t7\t{checkpoints}" not in capsys.readouterr().out
    clean_orphans.main(["results", "--yes", "--checkpoints"])
    assert not checkpoints.exists()
    assert f"removed\t7\t{checkpoints}" in capsys.readouterr().out


def test_a_training_without_a_checkpoint_leaves_nothing_to_go_on_from(capsys):
    checkpoints = make_checkpoints(content=None)
    clean_orphans.main(["results", "--yes"])
    assert not checkpoints.exists()
    assert "unfinished" not in capsys.readouterr().out


def test_checkpoints_alone_is_refused():
    checkpoints = make_checkpoints()
    with pytest.raises(BadInputError, match="give --yes with it"):
        clean_orphans.main(["results", "--checkpoints"])
    assert checkpoints.exists()


def test_a_temporary_file_of_a_live_process_or_another_host_is_left_alone():
    Path("results").mkdir()
    mine = Path(f"results/.tmp-{os.uname().nodename}-{os.getpid()}-00000000.x.json")
    other = Path("results/.tmp-elsewhere-1-00000000.x.json")
    mine.touch()
    other.touch()
    clean_orphans.main(["results", "--yes"])
    assert mine.exists()
    assert other.exists()


def test_directories_that_are_not_data_are_left_alone():
    make(b"abc")
    Path("results/v5/notes").mkdir()
    Path("results/v5/notes/deadbeef").touch()
    clean_orphans.main(["results", "--yes"])
    assert Path("results/v5/notes/deadbeef").exists()


def test_a_result_that_cannot_be_read_stops_all_removal():
    old = make(b"old")
    make(b"new")
    Path("results/broken.json").write_text("{")
    with pytest.raises(CorruptDataError, match=r"broken\.json"):
        clean_orphans.main(["results", "--yes"])
    assert Path(old.uri).exists()


def test_orphans_below_another_data_root_are_found(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("nfs"))
    old, new = make(b"old", data_root=root), make(b"new", data_root=root)
    with lock(lock_path(OUTPUT)):
        clean_orphans.main(["results", "--data-root", root, "--yes"])
        assert Path(old.uri).exists()
    clean_orphans.main(["results", "--data-root", root, "--yes"])
    assert not Path(old.uri).exists()
    assert Path(new.uri).exists()
