"""Files that are the old one or the new one, never a part: temporary sibling, fsync, rename, fsync of the directory."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dark_halo_scope.core.crash import crash_point
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.redaction import redact_values

TEMPORARY_PREFIX = ".tmp-"

_REFUSALS = {
    errno.ENOSPC: "write {where}: the disk is full; free some space",
    errno.EDQUOT: "write {where}: the disk quota is used up; free some space",
    errno.EFBIG: "write {where}: the file would exceed the size limit; raise it (ulimit -f) or free some space",
    errno.EROFS: "write {where}: the file system is read-only; choose another place or remount it",
    errno.EACCES: "use {where}: permission is denied; choose another place or correct its permissions",
    errno.EPERM: "use {where}: permission is denied; choose another place or correct its permissions",
    errno.ENOTDIR: "use {where}: a part of that path is not a directory; correct it",
    errno.EIO: "use {where}: the disk reports an input/output error; check it",
    errno.ESTALE: "use {where}: the network file system has gone; mount it again",
    errno.ENODEV: "use {where}: the device has gone; mount it again",
}


def attempt_name() -> str:
    """A name that no other attempt on any host has: `<host>-<pid>-<random>`."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def temporary_sibling(path: Path) -> Path:
    """A name beside `path`, of this attempt only, with the same suffix (some libraries look at it)."""
    return path.parent / f"{TEMPORARY_PREFIX}{attempt_name()}.{path.name}"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a disk's refusal into one sentence about the file that it names, else about `path`.

    Raises:
        StorageError: in place of an OSError of a full, read-only, forbidden or vanished place.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        # A temporary name means nothing to a user.
        where = path if named.name.startswith(TEMPORARY_PREFIX) else named
        raise StorageError(f"Cannot {_REFUSALS[error.errno].format(where=where)}.") from error


def fsync_file(path: Path) -> None:
    """Bring the content of one file to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_directory(path: Path) -> None:
    """Bring the names in one directory to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """Make `path` and its parents where they are missing.

    Raises:
        StorageError: the place is read-only, full, forbidden or gone, or a file is in the way.
    """
    with explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StorageError(f"Cannot write below {path}: it is a file; remove it or choose another place.") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write to, and make it `path` in one step when the block ends without an error.

    Raises:
        StorageError: the disk is full, read-only, forbidden or gone; `path` is then as before and nothing is left over.
    """
    path = Path(path)
    make_directory(path.parent)
    temporary = temporary_sibling(path)
    try:
        with explained(path):
            crash_point("before_write", path.name)
            yield temporary
            crash_point("after_write", path.name)
            fsync_file(temporary)
            crash_point("after_fsync", path.name)
            os.replace(temporary, path)
            crash_point("after_rename", path.name)
            fsync_directory(path.parent)
            crash_point("after_directory_fsync", path.name)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def json_text(value: Any, where: str) -> str:
    """`value` as JSON with sorted keys, without secrets: equal values give equal bytes.

    Raises:
        BadInputError: a number is NaN or infinite, or something is not JSON; the sentence names `where`.
    """
    try:
        if isinstance(value, BaseModel):
            # In its JSON form, pydantic has made null of every NaN.
            json.dumps(value.model_dump(), default=str, allow_nan=False, skipkeys=True)
            value = value.model_dump(mode="json")
        return json.dumps(redact_values(value), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInputError(
            f"{where} cannot be written as JSON ({error}); give it finite numbers, strings, lists and mappings only."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` (JSON-like, or a pydantic model) to `path` atomically, keys sorted, without secrets.

    Raises:
        BadInputError: a number is NaN or infinite, or something is not JSON.
    """
    write_text(path, json_text(value, str(path)))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def read_json(path: Path) -> Any:
    """What the JSON file `path` holds.

    Raises:
        BadInputError: there is no such file.
        CorruptDataError: it is not JSON, or holds NaN or an infinity.
    """
    try:
        return json.loads(Path(path).read_bytes(), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInputError(f"{path} does not exist; make it first.") from None
    except ValueError as error:
        raise CorruptDataError(f"{path} is not valid JSON ({error}); remove it and make it again.") from error


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether a file's content has that checksum; read once per process as long as the file does not change."""
    status = path.stat()
    return _has_sha256(path, status.st_size, status.st_mtime_ns, sha256)


@lru_cache(maxsize=65_536)
def _has_sha256(path: Path, size: int, modified_ns: int, sha256: str) -> bool:
    return sha256_file(path) == sha256


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, following no link; one that is not there is fine."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
