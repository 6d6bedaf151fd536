"""What lies below a results directory: the files that name data, and the prefixes that none of them names."""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import CorruptDataError, DarkHaloScopeError
from dark_halo_scope.core.files import TEMPORARY_PREFIX, read_json, sha256_file
from dark_halo_scope.core.locks import live_owner, lock_path
from dark_halo_scope.core.manifest import PREFIX_NAME, is_unfinished, load_manifest, verify_manifest

_MANIFEST_KEYS = {"kind", "uri", "objects", "bytes", "sha256"}
_FILE_KEYS = {"uri", "bytes", "sha256"}
CHECKPOINTS = "checkpoints"  # the folder whose prefixes a run that was killed goes on from


@dataclass(frozen=True)
class Orphan:
    """Data that nothing names.

    resumable: whether a run that did not end would go on from them: checkpoints, or whole files of stamps.
    """

    uri: str
    bytes: int
    resumable: bool = False


def result_files(results: Path) -> Iterator[tuple[Path, Any]]:
    """Path and content of every JSON file below `results` that is neither provenance, nor hidden, nor inside data.

    Raises:
        CorruptDataError: a file is not JSON.
    """
    for path in sorted(results.rglob("*.json")):
        parts = path.relative_to(results).parts
        inside_data = any(PREFIX_NAME.fullmatch(part) for part in parts[:-1])
        hidden = any(part.startswith(".") for part in parts)
        if not inside_data and not hidden and not path.name.endswith(".provenance.json"):
            yield path, read_json(path)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _mappings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def _is_file_entry(item: Mapping[str, Any]) -> bool:
    return item.keys() >= _FILE_KEYS and "objects" not in item


def _located(path: Path, item: Mapping[str, Any]) -> str:
    """Where the `uri` of a mapping in the result file `path` points.

    A manifest's prefix is relative to the working directory; a single file, such as the weights behind best.json, to
    the file that names it, so that the two can be copied together.
    """
    uri = str(item["uri"])
    return (path.parent / uri).as_posix() if _is_file_entry(item) and storage.is_local(uri) else uri


def named_uris(path: Path, values: Any) -> set[str]:
    """Every place that a result file names: a manifest's prefix, or a single file."""
    return {_located(path, item) for item in _mappings(values) if isinstance(item.get("uri"), str)}


def verify_result(path: Path, values: Any) -> int:
    """Check all data that one result file names, by size and checksum, and say how many objects they are.

    Raises:
        CorruptDataError: anything is missing or changed; the sentence names it.
    """
    if isinstance(values, Mapping) and values.keys() >= _MANIFEST_KEYS:
        manifest = load_manifest(path)
        verify_manifest(manifest)
        return manifest.objects
    files = [item for item in _mappings(values) if _is_file_entry(item)]
    for item in files:
        if storage.is_local(str(item["uri"])):
            _verify_file(Path(_located(path, item)), item, path)
    return len(files)


def _verify_file(file: Path, entry: Mapping[str, Any], named_by: Path) -> None:
    if not file.is_file():
        raise CorruptDataError(f"{file} is missing, and {named_by} names it; make it again.")
    if file.stat().st_size != entry["bytes"] or sha256_file(file) != entry["sha256"]:
        raise CorruptDataError(f"{file} does not match the checksum in {named_by}; make it again.")


def orphans(results: Path, data_root: str | None = None) -> list[Orphan]:
    """Prefixes and temporary files below `results` (and `data_root`) that nothing names and no live process makes.

    Raises:
        CorruptDataError: a result file cannot be read, so that what it names is not known.
    """
    named = {_absolute(uri) for path, values in result_files(results) for uri in named_uris(path, values)}
    roots = {results.as_posix(): results}
    if data_root is not None:
        # `attempt` puts the data of results/x.json below <data root>/results/x.
        roots[storage.join(data_root, _relative(results))] = results
    found = []
    for root, home in roots.items():
        for prefix, size in _prefixes(root).items():
            artifact = home / f"{prefix.removeprefix(f'{root}/').rpartition('/')[0]}.json"
            if not _is_named(_absolute(prefix), named) and not _is_live(prefix, artifact):
                # A run that was killed before its first checkpoint leaves an empty folder.
                resumable = size > 0 and (PurePosixPath(prefix).parent.name == CHECKPOINTS or is_unfinished(prefix))
                found.append(Orphan(prefix, size, resumable))
    for path in results.rglob(f"{TEMPORARY_PREFIX}*"):
        inside = any(path.as_posix().startswith(f"{orphan.uri}/") for orphan in found)
        if path.is_file() and not inside and _is_abandoned(path):
            found.append(Orphan(path.as_posix(), path.stat().st_size))
    return sorted(found, key=lambda orphan: orphan.uri)


def remove_orphan(orphan: Orphan) -> None:
    """Remove an orphan.

    Raises:
        DarkHaloScopeError: it cannot be removed.
    """
    try:
        storage.remove(orphan.uri)
    except OSError as error:
        raise DarkHaloScopeError(f"{orphan.uri} cannot be removed ({error.strerror}); remove it by hand.") from error


def _prefixes(root: str) -> dict[str, int]:
    """Data prefixes below a local directory or S3 place, with their bytes; the outermost where they nest."""
    found: dict[str, int] = {}
    if not storage.is_local(root):
        for name, size in storage.list_sizes(root):
            parts = name.split("/")
            for position, part in enumerate(parts[1:-1], start=1):
                if PREFIX_NAME.fullmatch(part):
                    uri = f"{root}/{'/'.join(parts[: position + 1])}"
                    found[uri] = found.get(uri, 0) + size
                    break
        return found
    for directory, directories, _ in os.walk(root):
        for name in list(directories):
            path = Path(directory) / name
            if PREFIX_NAME.fullmatch(name) and not path.is_symlink() and directory != root:
                directories.remove(name)
                found[path.as_posix()] = sum(item.lstat().st_size for item in path.rglob("*") if not item.is_dir())
    return found


def _is_named(prefix: str, named: set[str]) -> bool:
    return any(uri == prefix or uri.startswith(f"{prefix}/") for uri in named)


def _is_live(prefix: str, artifact: Path) -> bool:
    """Whether somebody makes the artifact now, or holds the prefix itself, as training does with its checkpoints."""
    locks = [lock_path(artifact), *([Path(f"{prefix}.lock")] if storage.is_local(prefix) else [])]
    return any(live_owner(path) is not None for path in locks)


def _absolute(uri: str) -> str:
    return os.path.abspath(uri) if storage.is_local(uri) else storage.normalise(uri)


def _relative(results: Path) -> str:
    absolute, here = Path(os.path.abspath(results)), Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else absolute.as_posix().lstrip("/")


def _is_abandoned(temporary: Path) -> bool:
    """Whether the process in a temporary file's name has ended; one of another host may live."""
    owner, host = temporary.name.removeprefix(TEMPORARY_PREFIX), socket.gethostname()
    pid = owner.removeprefix(f"{host}-").partition("-")[0]
    if not owner.startswith(f"{host}-") or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
