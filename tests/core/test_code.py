"""The code closure is what a command line executes of ours, and the run key follows it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dark_halo_scope.core.code import closure, code_hash, external_packages, modules, run_key
from dark_halo_scope.core.errors import BadInputError, ConfigError

CLI = "dark_halo_scope.core.verify_manifests"
LIB = Path(__file__).resolve().parents[2] / "lib"


def test_the_closure_holds_the_module_what_it_imports_and_the_parents():
    names = modules(CLI)
    assert {CLI, "dark_halo_scope", "dark_halo_scope.core", "dark_halo_scope.core.crash"} <= names
    assert "dark_halo_scope.core.resume" not in names
    assert not any(name.startswith("dark_halo_scope.spark") for name in names)


def test_it_is_what_python_really_loads():
    code = (
        f"import sys; sys.path.insert(0, {str(LIB)!r}); import {CLI}; "
        "print(*(name for name in sys.modules if name.startswith('dark_halo_scope')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= modules(CLI)


def test_paths_are_sorted_relative_to_the_working_directory_and_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(LIB.parent)
    here = closure(CLI)
    assert here == sorted(here)
    assert here[0] == Path("lib/dark_halo_scope/__init__.py")
    monkeypatch.chdir(tmp_path)
    there = closure(CLI)
    assert all(not path.is_absolute() and path.is_file() for path in there)
    assert [path.resolve() for path in there] == [LIB.parent / path for path in here]


def test_a_module_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"dark_halo_scope\.core\.nothing"):
        closure("dark_halo_scope.core.nothing")
    with pytest.raises(ConfigError, match="numpy"):
        closure("numpy")


def test_what_comes_from_elsewhere_is_known_without_the_standard_library():
    assert external_packages("dark_halo_scope.core.config") == ["pydantic"]
    assert "grimp" in external_packages("dark_halo_scope.core.manifest")


def test_asking_for_a_closure_loads_no_heavy_library_and_is_fast():
    code = (
        f"import sys; sys.path.insert(0, {str(LIB)!r})\n"
        "from dark_halo_scope.core.code import closure\n"
        f"closure({CLI!r})\n"
        "print(*{'numpy', 'pyarrow', 'torch', 'pyspark', 'boto3', 'astropy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    start = time.perf_counter()
    for _ in range(20):
        closure(CLI)
    assert time.perf_counter() - start < 2


@pytest.fixture
def copy(tmp_path):
    """A small package of the same name, and what its own copy of this module says about it."""
    package = tmp_path / "lib" / "dark_halo_scope"
    for name in ("core", "leaf"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    for name in ("code", "errors", "files", "crash", "redaction"):
        (package / "core" / f"{name}.py").write_bytes((LIB / f"dark_halo_scope/core/{name}.py").read_bytes())
    (package / "leaf" / "cli.py").write_text("def main():\n    from dark_halo_scope.leaf import physics\n")
    (package / "leaf" / "physics.py").write_text("X = 1\n")
    (package / "leaf" / "other.py").write_text("X = 1\n")

    def ask(expression: str) -> str:
        code = (
            "import sys; sys.path.insert(0, 'lib'); from dark_halo_scope.core import code; from pathlib import Path; "
            f"print({expression})"
        )
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    return package, ask


def test_the_hash_changes_with_a_late_import_and_not_with_a_stranger(copy):
    package, ask = copy
    question = "code.code_hash('dark_halo_scope.leaf.cli')"
    first = ask(question)
    (package / "leaf" / "other.py").write_text("X = 2\n")
    assert ask(question) == first
    (package / "leaf" / "physics.py").write_text("X = 2\n")
    second = ask(question)
    assert second != first
    (package / "leaf" / "__init__.py").write_text("# executed as well\n")
    assert ask(question) != second


def test_imports_for_type_checkers_do_not_count(copy):
    package, ask = copy
    (package / "leaf" / "cli.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dark_halo_scope.leaf import other\n"
    )
    assert "other" not in ask("code.closure('dark_halo_scope.leaf.cli')")


def test_code_that_cannot_be_parsed_is_named(copy):
    package, ask = copy
    (package / "leaf" / "physics.py").write_text("def (\n")
    with pytest.raises(subprocess.CalledProcessError) as error:
        ask("code.closure('dark_halo_scope.leaf.cli')")
    assert "physics.py" in error.value.stderr
    assert "BadInputError" in error.value.stderr


def test_the_run_key_changes_with_settings_and_inputs_and_with_nothing_else(tmp_path):
    parent = tmp_path / "parent.json"
    parent.write_text("1")
    key = run_key(CLI, {"a": 1, "b": 2}, [parent])
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    moved = parent.rename(tmp_path / "other.json")
    assert run_key(CLI, {"b": 2, "a": 1}, [moved]) == key
    assert run_key(CLI, {"b": 2, "a": 2}, [moved]) != key
    assert run_key("dark_halo_scope.core.resume", {"a": 1, "b": 2}, [moved]) != key
    moved.write_text("2")
    assert run_key(CLI, {"a": 1, "b": 2}, [moved]) != key
    with pytest.raises(BadInputError, match=r"parent\.json"):
        run_key(CLI, {}, [parent])


def test_the_code_hash_is_the_same_from_any_directory(tmp_path, monkeypatch):
    here = code_hash(CLI)
    monkeypatch.chdir(tmp_path)
    assert code_hash(CLI) == here
