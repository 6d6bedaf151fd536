"""Which of our files a module executes, and the keys that follow from them.

Snakemake does not see edits in imported modules, so every rule takes the closure of its command line as input.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import grimp
from pydantic import BaseModel

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import sha256_bytes, sha256_file

PACKAGE = "dark_halo_scope"
_PACKAGE_ROOT = Path(__file__).resolve().parents[1]

RUN_KEY_LENGTH = 16


def _snapshot() -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of every module: a cached graph is never older than the code."""
    found = []
    for path in sorted(_PACKAGE_ROOT.rglob("*.py")):
        status = path.stat()
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=2)
def _graph(snapshot: tuple[tuple[str, int, int], ...]) -> grimp.ImportGraph:
    try:
        return grimp.build_graph(
            PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
        )
    except grimp.exceptions.SourceSyntaxError as error:
        raise BadInputError(f"The code cannot be read: {error}; correct it there.") from error


def _file(module: str) -> Path:
    path = _PACKAGE_ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _parents(module: str) -> Iterable[str]:
    parts = module.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def modules(module: str) -> frozenset[str]:
    """`module`, all of our modules that importing it executes, and their parent packages.

    Raises:
        ConfigError: there is no such module in the package.
    """
    return _modules(module, _snapshot())


@lru_cache(maxsize=1024)
def _modules(module: str, snapshot: tuple[tuple[str, int, int], ...]) -> frozenset[str]:
    graph = _graph(snapshot)
    if module not in graph.modules or not _is_ours(module):
        raise ConfigError(f"There is no module {module} in {_PACKAGE_ROOT}; correct its name.")
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += _parents(current)
            waiting += filter(_is_ours, graph.find_modules_directly_imported_by(current))
    return frozenset(found)


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def closure(module: str) -> list[Path]:
    """Files of the static import closure of `module` inside the package, parent `__init__` files included.

    Sorted, and relative to the working directory. Imports for type checkers only do not count.

    Raises:
        ConfigError: there is no such module.
        BadInputError: a module cannot be parsed.
    """
    return sorted(Path(os.path.relpath(_file(name))) for name in modules(module))


def external_packages(module: str) -> list[str]:
    """Top-level names of what the closure of `module` imports from elsewhere, without the standard library."""
    graph = _graph(_snapshot())
    found = {
        name
        for ours in modules(module)
        for name in graph.find_modules_directly_imported_by(ours)
        if not _is_ours(name) and name not in sys.stdlib_module_names
    }
    return sorted(found)


def code_hash(module: str) -> str:
    """SHA-256 over the closure of `module`: names and contents, wherever the checkout lies."""
    entries = [[name, sha256_file(_file(name))] for name in sorted(modules(module))]
    return sha256_bytes(json.dumps(entries).encode())


def plain_settings(settings: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON-like values."""
    return settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings)


def run_key(module: str, settings: BaseModel | Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """16 hexadecimal digits that change with the code, the settings or the content of an input, and with nothing else.

    Raises:
        BadInputError: an input does not exist.
    """
    content = {
        "module": module,
        "code": code_hash(module),
        "settings": plain_settings(settings),
        "inputs": [input_hash(path) for path in inputs],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())[:RUN_KEY_LENGTH]


def input_hash(path: Path) -> str:
    """SHA-256 of an input file.

    Raises:
        BadInputError: there is no such file.
    """
    try:
        return sha256_file(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInputError(f"The input {path} is not a file; make it first.") from None
