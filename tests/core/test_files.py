"""Files are the old one or the new one, never a part."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dark_halo_scope.core import files
from dark_halo_scope.core.crash import ATOMIC_POINTS, VARIABLE
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import (
    atomic_path,
    has_sha256,
    json_text,
    read_json,
    sha256_bytes,
    sha256_file,
    temporary_sibling,
    write_bytes,
    write_json,
    write_text,
)


@pytest.mark.parametrize("point", ATOMIC_POINTS)
def test_a_kill_at_any_point_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, in_fork, point):
    path = tmp_path / "data.json"
    path.write_text("old")
    monkeypatch.setenv(VARIABLE, point)
    assert in_fork(lambda: write_text(path, "new" * 10_000)) == -signal.SIGKILL
    expected = "new" * 10_000 if point in ("after_rename", "after_directory_fsync") else "old"
    assert path.read_text() == expected


def test_a_crash_point_can_name_its_file(tmp_path, monkeypatch, in_fork):
    monkeypatch.setenv(VARIABLE, "after_rename:second")

    def write_both() -> None:
        write_text(tmp_path / "first", "1")
        write_text(tmp_path / "second", "2")
        write_text(tmp_path / "third", "3")

    assert in_fork(write_both) == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "data.npy"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["data.npy"]


def test_every_attempt_has_a_temporary_name_of_its_own_with_the_same_suffix(tmp_path):
    names = {temporary_sibling(tmp_path / "scores.parquet").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(".tmp-") and name.endswith(".parquet") for name in names)
    assert all(f"-{os.getpid()}-" in name for name in names)


def test_missing_parents_are_made_and_the_umask_decides_permissions(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "x")
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_parent_that_is_a_file_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="not a directory"):
        write_text(tmp_path / "file" / "below" / "x.txt", "x")
    with pytest.raises(StorageError, match="it is a file"):
        write_text(tmp_path / "file" / "x.txt", "x")


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.integers() | st.floats(allow_nan=False, allow_infinity=False))
)
def test_json_bytes_do_not_depend_on_the_order_of_keys(values):
    backwards = dict(reversed(values.items()))
    assert json_text(values, "x") == json_text(backwards, "x")


def test_json_is_read_back_as_it_was_written(tmp_path):
    values = {"b": [1, 2.5, None, True, "ä"], "a": {"nested": {}}}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values
    assert (tmp_path / "x.json").read_text().endswith("}\n")
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["a", "b"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), object(), {1, 2}])
def test_what_is_not_json_is_refused_and_the_old_file_stays(tmp_path, bad):
    path = tmp_path / "x.json"
    write_json(path, {"auc": 0.9})
    with pytest.raises(BadInputError, match=r"x\.json"):
        write_json(path, {"auc": [bad]})
    assert read_json(path) == {"auc": 0.9}


def test_a_model_is_written_as_its_values(tmp_path):
    class Point(BaseModel):
        x: int

    write_json(tmp_path / "x.json", Point(x=3))
    assert read_json(tmp_path / "x.json") == {"x": 3}


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[Infinity]", "\xff"])
def test_json_that_is_broken_or_not_a_number_is_refused_by_name(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptDataError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_json_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")


@given(st.binary(max_size=4096))
def test_both_checksums_agree(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("sha") / "x"
    write_bytes(path, data)
    assert sha256_file(path) == sha256_bytes(data)


def test_a_file_that_changed_has_not_its_checksum_any_more(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    known = sha256_file(path)
    assert has_sha256(path, known)
    assert not has_sha256(path, sha256_bytes(b"abd"))
    path.write_bytes(b"abd")
    os.utime(path, (1, 1))  # the clock of file times may be too coarse to tell
    assert not has_sha256(path, known)
    assert has_sha256(path, sha256_bytes(b"abd"))


def test_an_unchanged_file_is_read_once_in_a_process(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert has_sha256(path, sha256_bytes(b"abc"))
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("read again"))
    assert has_sha256(path, sha256_bytes(b"abc"))


def test_the_checksum_is_sha256():
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_relative_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(Path("x.txt"), "x")
    assert (tmp_path / "x.txt").read_text() == "x"
