"""Large data as a small JSON manifest of an immutable prefix, and the provenance file beside it.

The data of `results/x/stamps.json` lie in `results/x/stamps/<run key>/`, with their names, sizes and checksums in
`_objects.json`. The manifest is written last and atomically, so that it never names data that are not whole, and holds
nothing of when, where or by which code it was made: identical content is identical bytes.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dark_halo_scope.core import code, software, storage
from dark_halo_scope.core.crash import crash_point
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    explained,
    fsync_directory,
    fsync_file,
    has_sha256,
    json_text,
    make_directory,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
    write_text,
)
from dark_halo_scope.core.locks import lock, lock_path

ReadT = TypeVar("ReadT")

_logger = logging.getLogger(__name__)

OBJECTS = "_objects.json"
# Ends the hidden name of what says that the object beside it is whole, while an attempt that can be resumed runs.
WHOLE = ".whole"
QUARANTINE_PREFIX = "quarantine/"
# `<run key>`, `<run key>-2` where that one holds something else, `<run key>.<random>` while it is written.
PREFIX_NAME = re.compile(rf"[0-9a-f]{{{code.RUN_KEY_LENGTH}}}(-[0-9]+|\.[0-9a-f]+)?")

# Where `verified_path` keeps what it fetched from S3 or HTTP; an environment fact, so no setting.
SCRATCH_VARIABLE = "DHS_SCRATCH"


class ObjectEntry(BaseModel):
    """One file of a prefix: its name below the prefix, bytes, and SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a prefix holds. `uri` is relative to the working directory, absolute, or `s3://...`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    uri: str
    objects: int
    bytes: int
    sha256: str
    rows_in: int | None = None
    rows_out: int | None = None
    rows_quarantined: int | None = None
    columns: dict[str, str] = {}
    facts: dict[str, Any] = {}


# --- Writing ----------------------------------------------------------------------------------------------------------


def write_object(uri: str | Path, name: str, data: bytes) -> ObjectEntry:
    """Write one object below a prefix, whole or not at all, and say what was written; may run on a Spark executor.

    Raises:
        BadInputError: the name leaves the prefix.
        StorageError: the disk or server refuses.
    """
    storage.put(storage.join(uri, name), data)
    return ObjectEntry(name=name, size=len(data), sha256=sha256_bytes(data))


def write_object_file(uri: str | Path, name: str, write: Callable[[Path], None]) -> ObjectEntry:
    """`write_object` for what had better not be in memory: `write` fills a local file, which becomes the object.

    Raises:
        as `write_object` does.
    """
    target = storage.join(uri, name)
    if storage.is_local(uri):
        with atomic_path(storage.local_path(target)) as path:
            write(path)
            return _entry_of(path, name)
    with tempfile.TemporaryDirectory(prefix="dark_halo_scope-") as directory:
        path = Path(directory) / "object"
        write(path)
        storage.upload(path, target)
        return _entry_of(path, name)


@dataclass(frozen=True)
class Target:
    """Where the tasks of an attempt write; small, and sent to them.

    uri: the attempt's own prefix, an absolute local path or `s3://...`.
    made_with: checksum of the versions of what it runs on, where the attempt can be gone on with; else None.
    earlier: prefixes that interrupted attempts at the same left, by the same code from the same inputs and settings.
    """

    uri: str
    made_with: str | None = None
    earlier: tuple[str, ...] = ()


def write_or_take_over(
    target: Target, name: str, write: Callable[[Path], ReadT], read: Callable[[Path], ReadT]
) -> tuple[ObjectEntry, ReadT]:
    """`write_object_file`, or the object as an interrupted attempt at the same, or a failed task, has written it.

    Its checksum was written beside it: what is not those bytes, or was made with other software, is made anew.

    Args:
        name: of the object; an attempt gives it to the same content always.
        write: makes the file, and says what there is to say of it.
        read: says the same of a file that is there.

    Raises:
        as `write_object_file` does.
    """
    results: list[ReadT] = []
    if target.made_with is None:
        entry = write_object_file(target.uri, name, lambda path: results.append(write(path)))
        return entry, results[0]
    wanted = storage.local_path(storage.join(target.uri, name))
    for uri in (target.uri, *target.earlier):
        path = storage.local_path(storage.join(uri, name))
        found = _whole(path, name, target.made_with)
        if found is not None:
            if path != wanted:
                make_directory(wanted.parent)
                os.rename(path, wanted)
                _mark_whole(wanted, found, target.made_with)
            return found, read(wanted)
    entry = write_object_file(target.uri, name, lambda path: results.append(write(path)))
    _mark_whole(wanted, entry, target.made_with)
    return entry, results[0]


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}{WHOLE}")


def _mark_whole(path: Path, entry: ObjectEntry, made_with: str) -> None:
    write_text(_mark(path), json_text({**entry.model_dump(), "made_with": made_with}, str(path)))


def _whole(path: Path, name: str, made_with: str) -> ObjectEntry | None:
    """The object, if it is there as it was written, with the same software."""
    if not path.is_file() or not _mark(path).is_file():
        return None
    entry = _entry_of(path, name)
    if read_json(_mark(path)) == {**entry.model_dump(), "made_with": made_with}:
        return entry
    _logger.warning("%s changed since it was written, or was made with other software; it is made anew.", path)
    return None


def is_unfinished(prefix: str) -> bool:
    """Whether a prefix holds what an interrupted attempt has written and the next one goes on with."""
    return storage.is_local(prefix) and any(storage.local_path(prefix).rglob(f".*{WHOLE}"))


def _entry_of(path: Path, name: str) -> ObjectEntry:
    return ObjectEntry(name=name, size=path.stat().st_size, sha256=sha256_file(path))


def _entries(prefix: Path) -> list[ObjectEntry]:
    """The files below a local prefix, sorted by name and brought to the disk."""
    found = []
    for directory, directories, names in os.walk(prefix):
        for name in [*directories, *names]:
            path = Path(directory) / name
            if path.is_symlink():
                raise BadInputError(f"{path} is a link; write the file itself into the artifact.")
        for name in names:
            path = Path(directory) / name
            relative = path.relative_to(prefix).as_posix()
            if name.startswith(TEMPORARY_PREFIX) or name.endswith((".crc", WHOLE)):
                path.unlink()
            elif relative != OBJECTS:
                fsync_file(path)
                found.append(ObjectEntry(name=relative, size=path.stat().st_size, sha256=sha256_file(path)))
        fsync_directory(Path(directory))
    return sorted(found, key=lambda entry: entry.name)


def _objects_text(entries: Sequence[ObjectEntry]) -> str:
    ordered = sorted(entries, key=lambda entry: entry.name)
    if len({entry.name for entry in ordered}) != len(ordered):
        raise BadInputError("Two objects of one artifact have the same name; give each its own.")
    # One line per object: a list of thousands stays readable and small.
    lines = ",\n".join(json.dumps(entry.model_dump(), sort_keys=True) for entry in ordered)
    return f"[\n{lines}\n]\n" if ordered else "[]\n"


def _relative_uri(path: Path) -> str:
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else absolute.as_posix()


def _parent_uri(output: Path, data_root: str | None) -> str:
    """Where the prefixes of an artifact lie: beside its manifest, or at the same relative place below the data root."""
    stem = output.with_suffix("")
    if data_root is None:
        return _relative_uri(stem)
    relative = _relative_uri(stem).lstrip("/")
    below = storage.join(data_root, relative)
    return _relative_uri(Path(below)) if storage.is_local(below) else below


def _names(key: str) -> Iterator[str]:
    yield key
    for number in itertools.count(2):
        yield f"{key}-{number}"


def _fresh_prefix(parent: str, key: str) -> str:
    """A prefix of this attempt alone: what outlives a killed one (a Spark task, say) cannot write into it."""
    if not storage.is_local(parent):
        # Nothing can be renamed there, so it is the final name.
        return next(uri for uri in (f"{parent}/{name}" for name in _names(key)) if not storage.exists(uri))
    prefix = Path(parent) / f"{key}.{secrets.token_hex(4)}"
    make_directory(prefix)
    return _relative_uri(prefix)


def _interrupted(parent: str) -> list[Path]:
    """Local prefixes of attempts that never ended; to be asked for by who holds the artifact's lock."""
    names = Path(parent).absolute().glob("*.*")
    return sorted(path for path in names if path.is_dir() and PREFIX_NAME.fullmatch(path.name))


def _settle(prefix: Path, key: str) -> str:
    """Give a complete local prefix its final name: a rerun after a crash ends with the names of a clean run."""
    for name in _names(key):
        final = prefix.parent / name
        try:
            os.rename(prefix, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            continue
        fsync_directory(final.parent)
        return _relative_uri(final)
    raise AssertionError("the names never end")


@dataclass
class Attempt:
    """One attempt at an artifact: write data below `prefix` (or `uri`), then `publish` once.

    Both are of this attempt only: the lasting address is that of the manifest which `publish` returns.
    """

    output: Path
    kind: str
    module: str
    settings: dict[str, Any]
    inputs: list[Path]
    uri: str
    run_key: str
    prefix: Path
    started: datetime
    published: Manifest | None = field(default=None)
    made_with: str | None = None
    earlier: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """Where tasks write, whatever folder they run in."""
        uri = str(self.prefix) if storage.is_local(self.uri) else self.uri
        return Target(uri, self.made_with, self.earlier)

    def publish(
        self,
        rows_in: int | None = None,
        rows_out: int | None = None,
        rows_quarantined: int | None = None,
        columns: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
        objects: Sequence[ObjectEntry] | None = None,
    ) -> Manifest:
        """Check and record all that was written, then write provenance and manifest.

        Args:
            rows_in, rows_out, rows_quarantined: where all three are given, in = out + quarantined must hold.
            columns: name and type of each column.
            facts: what consumers need to know and every run repeats; neither times nor hosts.
            objects: for `s3://`, what `write_object` returned; without it every object is read back.

        An older prefix beside this one that holds the identical data is kept in its place, and the manifest is then
        the same, byte for byte, as before.

        Raises:
            BadInputError: rows are lost, a fact is no finite number, a link lies in the prefix.
            CorruptDataError: what lies below an `s3://` prefix is not what `objects` says.
        """
        from dark_halo_scope.core.quarantine import check_balance

        if rows_in is not None and rows_out is not None and rows_quarantined is not None:
            check_balance(rows_in, rows_out, rows_quarantined, str(self.output))
        entries = self._complete(objects)
        crash_point("data_complete", self.output.name)
        text = _objects_text(entries)
        kept = self._identical_older(text)
        if kept is None:
            storage.put(storage.join(self.uri, OBJECTS), text.encode())
            crash_point("objects_written", self.output.name)
            if storage.is_local(self.uri):
                self.uri = _settle(self.prefix, self.run_key)
                self.prefix = Path.cwd() / self.uri
        crash_point("data_settled", self.output.name)
        manifest = Manifest(
            kind=self.kind,
            uri=kept or self.uri,
            objects=len(entries),
            bytes=sum(entry.size for entry in entries),
            sha256=sha256_bytes(text.encode()),
            rows_in=rows_in,
            rows_out=rows_out,
            rows_quarantined=rows_quarantined,
            columns=dict(columns or {}),
            facts=dict(facts or {}),
        )
        # Before anything of the old artifact is touched, so that a NaN leaves it whole.
        manifest_text = json_text(manifest, str(self.output))
        write_provenance(self.output, self.module, self.settings, self.inputs, self.started, self.run_key)
        crash_point("provenance_written", self.output.name)
        write_text(self.output, manifest_text)
        self.published = manifest
        crash_point("manifest_written", self.output.name)
        if kept is not None:
            storage.remove(self.uri)
        return manifest

    def _complete(self, objects: Sequence[ObjectEntry] | None) -> list[ObjectEntry]:
        with explained(self.prefix):
            local = _entries(self.prefix)
        if storage.is_local(self.uri):
            fsync_directory(self.prefix.parent)
            if objects is not None and sorted(objects, key=lambda entry: entry.name) != local:
                raise CorruptDataError(f"{self.uri} does not hold what its writers wrote; run this step again.")
            return local
        for entry in local:
            storage.upload(self.prefix / entry.name, storage.join(self.uri, entry.name))
        sizes = dict(storage.list_sizes(self.uri))
        known = {entry.name: entry for entry in [*(objects or []), *local]}
        for name in sizes.keys() - known.keys():
            if objects is not None:
                raise CorruptDataError(f"{self.uri}/{name} was written by nobody of this run; run this step again.")
            data = storage.read_bytes(storage.join(self.uri, name))
            known[name] = ObjectEntry(name=name, size=len(data), sha256=sha256_bytes(data))
        for name, entry in known.items():
            if sizes.get(name) != entry.size:
                raise CorruptDataError(
                    f"{self.uri}/{name} has {sizes.get(name, 0)} of {entry.size} bytes; run this step again."
                )
        return [known[name] for name in sorted(known)]

    def _identical_older(self, objects_text: str) -> str | None:
        """The prefix beside this one that holds the same, checked again so that damaged data are never kept."""
        parent, _, own = self.uri.rpartition("/")
        if storage.is_local(parent):
            names = sorted(path.name for path in Path(parent).iterdir() if path.is_dir())
        else:
            names = sorted({name.partition("/")[0] for name, _ in storage.list_sizes(parent)})
        for name in names:
            uri = f"{parent}/{name}"
            # A name with a dot is that of an attempt that never ended.
            if name == own or "." in name or not PREFIX_NAME.fullmatch(name) or not storage.exists(f"{uri}/{OBJECTS}"):
                continue
            try:
                if storage.read_bytes(f"{uri}/{OBJECTS}") == objects_text.encode():
                    _verify(uri, [ObjectEntry(**entry) for entry in json.loads(objects_text)])
                    return uri
            except CorruptDataError:
                continue
        return None


@contextlib.contextmanager
def attempt(
    output: Path,
    kind: str,
    module: str,
    settings: BaseModel | Mapping[str, Any],
    inputs: Sequence[Path],
    data_root: str | None = None,
    resumable: bool = False,
) -> Iterator[Attempt]:
    """Hold the artifact's lock and a fresh prefix while the block writes data and publishes them.

    A block that fails leaves nothing, unless it is resumable; a process that is killed leaves a prefix that no manifest
    names.

    Args:
        output: the manifest to write, `....json`.
        kind: what it is, such as `stamps`; `load_manifest` asks for it.
        module: the dotted name of the command line that makes it.
        settings: all that it was called with.
        inputs: the manifests and other small files that it read.
        data_root: where the data go in place of beside the manifest: a local directory or `s3://...`.
        resumable: whether objects are written by `write_or_take_over`, so that what a failed or killed attempt has
            written is kept for the next one at the same. Not below a data root, which other checkouts may share: the
            artifact's lock is beside its manifest.

    Raises:
        LockHeldError: another live process makes the same artifact.
        BadInputError: an input does not exist.
        StorageError: the place is read-only, full or gone.
    """
    output = Path(output)
    if output.suffix != ".json":
        raise BadInputError(f"The output {output} must end in .json: it is the manifest of the data.")
    values = code.plain_settings(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock(lock_path(output)))
        key = code.run_key(module, values, inputs)
        parent = _parent_uri(output, data_root)
        resumable = resumable and data_root is None
        left = _interrupted(parent) if resumable else []
        uri = _fresh_prefix(parent, key)
        if storage.is_local(uri):
            prefix = Path.cwd() / uri
        else:
            prefix = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dark_halo_scope-")))
        work = Attempt(output, kind, module, values, list(inputs), uri, key, prefix, datetime.now(UTC))
        if resumable:
            packages = json_text(software.versions(code.external_packages(module)), str(output))
            work.made_with = sha256_bytes(packages.encode())
            work.earlier = tuple(str(path) for path in left if path.name.startswith(f"{key}."))
        crash_point("prefix_made", output.name)
        try:
            with explained(prefix):
                yield work
            if work.published is None:
                raise RuntimeError(f"The attempt at {output} ended without publishing")
        except BaseException:
            # Not after the manifest was written: it may name this prefix.
            if work.published is None and is_unfinished(work.uri):
                _logger.info("What was written stays in %s: this step goes on with it when it is run again.", work.uri)
            elif work.published is None:
                with contextlib.suppress(StorageError, OSError):
                    storage.remove(work.uri)
            raise
        for path in left:
            with contextlib.suppress(StorageError, OSError):
                storage.remove(path)


def provenance_path(path: Path) -> Path:
    """`results/x/stamps.json` -> `results/x/stamps.provenance.json`."""
    return path.with_name(f"{path.stem}.provenance.json")


def write_provenance(
    path: Path,
    module: str,
    settings: BaseModel | Mapping[str, Any],
    inputs: Sequence[Path],
    started: datetime | None = None,
    run_key: str | None = None,
) -> None:
    """Write beside `path` how it was made: settings, code, inputs, software, host and times. No rule reads it."""
    now = datetime.now(UTC)
    write_json(
        provenance_path(path),
        {
            "artifact": path.name,
            "module": module,
            "run_key": run_key or code.run_key(module, settings, inputs),
            "settings": code.plain_settings(settings),
            "code_sha256": code.code_hash(module),
            "inputs": [{"path": _relative_uri(item), "sha256": code.input_hash(item)} for item in inputs],
            "software": software.versions(code.external_packages(module)),
            "host": software.host(),
            "started": started.isoformat(timespec="seconds") if started else None,
            "finished": now.isoformat(timespec="seconds"),
        },
    )


def write_result(
    path: Path,
    value: Any,
    module: str,
    settings: BaseModel | Mapping[str, Any],
    inputs: Sequence[Path],
    started: datetime | None = None,
) -> None:
    """Write a small JSON result (and its provenance beside it) atomically.

    Raises:
        BadInputError: a number is NaN or infinite; nothing is written then.
        LockHeldError: another live process writes the same result.
    """
    path = Path(path)
    text = json_text(value, str(path))
    with lock(lock_path(path)):
        write_provenance(path, module, settings, inputs, started)
        write_text(path, text)


# --- Reading ----------------------------------------------------------------------------------------------------------


def load_manifest(path: Path, kind: str | None = None) -> Manifest:
    """The manifest in the file `path`.

    Raises:
        BadInputError: there is no such file, or it is of another kind.
        CorruptDataError: it is no manifest.
    """
    values = read_json(path)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise CorruptDataError(
            f"{path} is not a manifest ({error.error_count()} problems, the first: {error.errors()[0]['msg']}); "
            "make it again."
        ) from error
    if kind is not None and manifest.kind != kind:
        raise BadInputError(f"{path} is a manifest of {manifest.kind!r}, and one of {kind!r} is needed here.")
    return manifest


@lru_cache(maxsize=64)
def _parse_objects(data: bytes) -> tuple[ObjectEntry, ...]:
    return tuple(ObjectEntry.model_validate(entry) for entry in json.loads(data))


def object_list(manifest: Manifest) -> list[ObjectEntry]:
    """The objects of a manifest, sorted by name.

    Raises:
        CorruptDataError: the list is missing or is not the one that the manifest was made with.
    """
    uri = storage.join(manifest.uri, OBJECTS)
    try:
        data = storage.read_bytes(uri)
    except BadInputError as error:
        raise CorruptDataError(f"{uri} is missing; make the artifact again.") from error
    if sha256_bytes(data) != manifest.sha256:
        raise CorruptDataError(f"{uri} does not match the checksum in its manifest; make the artifact again.")
    return list(_parse_objects(data))


def scratch_directory() -> Path:
    """Where fetched objects are kept: $DHS_SCRATCH, else below the system's temporary directory."""
    return Path(os.environ.get(SCRATCH_VARIABLE) or Path(tempfile.gettempdir()) / f"dark_halo_scope-{os.getuid()}")


def _check(path: Path, entry: ObjectEntry) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptDataError(f"{path} is missing; make the artifact that it belongs to again.") from None
    if size != entry.size:
        raise CorruptDataError(
            f"{path} has {size} bytes and not the {entry.size} of its manifest; make the artifact again."
        )
    if not has_sha256(path, entry.sha256):
        raise CorruptDataError(f"{path} does not match the checksum of its manifest; make the artifact again.")


def _local_path(uri: str, entry: ObjectEntry) -> Path:
    source = storage.join(uri, entry.name)
    if storage.is_local(uri):
        # Absolute, so that a Spark worker with another working directory finds it.
        return Path.cwd() / storage.local_path(source)
    path = scratch_directory() / sha256_bytes(uri.encode())[:16] / entry.name
    if not path.exists() or path.stat().st_size != entry.size:
        storage.fetch(source, path)
    return path


def _verify(uri: str, entries: Sequence[ObjectEntry]) -> None:
    for entry in entries:
        _check(_local_path(uri, entry), entry)


def verified_path(manifest: Manifest, name: str) -> Path:
    """The absolute local path of one object, fetched if need be, its size and checksum compared on first use.

    Raises:
        BadInputError: the manifest has no such object.
        CorruptDataError: the file is missing or changed; the sentence names it.
    """
    for entry in object_list(manifest):
        if entry.name == name:
            path = _local_path(manifest.uri, entry)
            _check(path, entry)
            return path
    raise BadInputError(f"{manifest.uri} has no object {name!r}; correct the name or make the artifact again.")


def verified_paths(manifest: Manifest, suffix: str = ".parquet") -> list[Path]:
    """Absolute local paths of all objects with that suffix, sorted by name, each checked; no quarantined rows.

    Raises:
        CorruptDataError: a file is missing or changed; the sentence names it.
    """
    chosen = [
        entry
        for entry in object_list(manifest)
        if entry.name.endswith(suffix) and not entry.name.startswith(QUARANTINE_PREFIX)
    ]
    _verify(manifest.uri, chosen)
    return [_local_path(manifest.uri, entry) for entry in chosen]


def verify_manifest(manifest: Manifest) -> None:
    """Check every object of a manifest, and its totals, against the disk.

    Raises:
        CorruptDataError: anything is missing, changed, or not in the list; the sentence names it.
    """
    entries = object_list(manifest)
    if len(entries) != manifest.objects or sum(entry.size for entry in entries) != manifest.bytes:
        raise CorruptDataError(f"{manifest.uri}: the manifest's totals do not match its objects; make it again.")
    _verify(manifest.uri, entries)
    extra = {name for name, _ in storage.list_sizes(manifest.uri)} - {entry.name for entry in entries} - {OBJECTS}
    if extra:
        raise CorruptDataError(f"{manifest.uri}/{min(extra)} is not in the object list; make the artifact again.")
