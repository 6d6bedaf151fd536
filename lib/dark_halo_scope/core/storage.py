"""Where bytes live: local paths, S3 (`s3://`, `s3a://`) and HTTP(S), behind one set of functions.

Uploads and downloads are whole or absent, are checked for length (and for the ETag where it is an MD5), and are
retried a bounded number of times. boto3 is imported where it is used: executors may lack it.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from dark_halo_scope.core import http
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import atomic_path, explained, remove_tree, write_bytes
from dark_halo_scope.core.redaction import redact

# Where relative paths start in a process that others started elsewhere, such as a Spark executor.
DIRECTORY_VARIABLE = "DHS_DIRECTORY"

_MISSING_CODES = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


def normalise(uri: str | Path) -> str:
    """`uri` as text, `s3a://` and `s3n://` as `s3://`, `file://` as a path, no trailing slash."""
    text = str(uri)
    for alias in ("s3a://", "s3n://"):
        if text.startswith(alias):
            text = f"s3://{text.removeprefix(alias)}"
    if text.startswith("file://"):
        text = "/" + text.removeprefix("file://").lstrip("/")
    return text.rstrip("/") or "/"


def scheme(uri: str | Path) -> str:
    """`file`, `s3`, `http` or `https`.

    Raises:
        BadInputError: any other scheme.
    """
    text = normalise(uri)
    if "://" not in text:
        return "file"
    name = text.partition("://")[0].lower()
    if name not in ("s3", "http", "https"):
        raise BadInputError(f"{redact(text)} is of an unknown kind: give a local path, s3://, http:// or https://.")
    return name


def is_local(uri: str | Path) -> bool:
    """Whether `uri` is a path of this machine."""
    return scheme(uri) == "file"


def local_path(uri: str | Path) -> Path:
    """The path that a local `uri` names; a relative one starts at $DHS_DIRECTORY, else at the working directory."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, "")) / normalise(uri)


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with `parts` below it.

    Raises:
        BadInputError: a part is absolute, climbs with `..` or holds a backslash or control character.
    """
    for part in parts:
        pieces = part.split("/")
        if part.startswith("/") or ".." in pieces or "\\" in part or not part.isprintable() or part == "":
            raise BadInputError(f"{part!r} is not a name below {redact(str(uri))}: it must not leave that place.")
    return "/".join([normalise(uri).rstrip("/"), *(part.strip("/") for part in parts)])


# --- S3 ---------------------------------------------------------------------------------------------------------------


def split_s3(uri: str | Path) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI.

    Raises:
        BadInputError: it names no bucket.
    """
    bucket, _, key = normalise(uri).removeprefix("s3://").partition("/")
    if not bucket:
        raise BadInputError(f"{uri} names no bucket; give s3://bucket/path.")
    return bucket, key


@lru_cache(maxsize=8)
def _s3_client(endpoint: str | None, process: int) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            retries={"mode": "standard", "max_attempts": http.ATTEMPTS},
            connect_timeout=http.CONNECT_TIMEOUT_S,
            read_timeout=http.READ_TIMEOUT_S,
            # Other servers of this protocol know neither trailing checksums nor virtual hosts.
            request_checksum_calculation="when_required" if endpoint else "when_supported",
            response_checksum_validation="when_supported",
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


def s3_client() -> Any:
    """A boto3 client for S3; `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` choose another server.

    One per endpoint and process: a client must not cross a fork.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _s3_client(endpoint or None, os.getpid())


@contextlib.contextmanager
def s3_explained(uri: str | Path) -> Iterator[None]:
    """What boto3 raises inside the block, as one sentence about `uri`.

    Raises:
        BadInputError: it does not exist.
        StorageError: the server refuses or fails.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code in _MISSING_CODES:
            raise BadInputError(f"{uri} does not exist; correct the path or make it first.") from error
        raise StorageError(f"S3 refuses {uri} ({code}: {error}); check access and try again.") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(
            f"S3 fails for {uri} ({error}); check the network and credentials, and try again."
        ) from error


def _md5_etag(response: dict[str, Any]) -> str | None:
    """The MD5 that S3 promises, where its ETag is one: a single part, not encrypted with a customer's key."""
    etag = str(response.get("ETag", "")).strip('"').lower()
    encrypted = response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response
    is_md5 = len(etag) == 32 and all(character in "0123456789abcdef" for character in etag)
    return etag if is_md5 and not encrypted else None


def _md5_of(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _get_s3(uri: str, target: Path) -> None:
    bucket, key = split_s3(uri)
    with s3_explained(uri):
        response = s3_client().get_object(Bucket=bucket, Key=key)
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        with open(target, "wb") as stream, explained(target):
            for chunk in response["Body"].iter_chunks(http.CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                stream.write(chunk)
    if size != response["ContentLength"]:
        raise CorruptDataError(f"{uri} ended after {size} of {response['ContentLength']} bytes; try again.")
    etag = _md5_etag(response)
    if etag is not None and etag != digest.hexdigest():
        raise CorruptDataError(f"{uri} does not match its ETag {etag}; try again, and if it stays so, replace it.")


def _keys_s3(uri: str | Path) -> list[tuple[str, int]]:
    """Key and size of the object `uri` and of all objects below it, sorted."""
    bucket, key = split_s3(uri)
    found = []
    with s3_explained(uri):
        for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", []):
                # The prefix `a/b` is also that of `a/bc`.
                if not key or item["Key"] == key or item["Key"].startswith(f"{key}/"):
                    found.append((item["Key"], int(item["Size"])))
    return sorted(found)


def _list_s3(uri: str | Path) -> list[tuple[str, int]]:
    prefix = split_s3(uri)[1]
    names = ((key.removeprefix(prefix).lstrip("/"), size) for key, size in _keys_s3(uri))
    return [(name, size) for name, size in names if name and not name.endswith("/")]


# --- All kinds --------------------------------------------------------------------------------------------------------


def fetch(uri: str | Path, path: Path) -> None:
    """Copy what `uri` names to the local file `path`, atomically and whole.

    Raises:
        BadInputError: it does not exist (not retried).
        CorruptDataError: its length or ETag is wrong, or it is a web page in place of data.
        StorageError: the server or disk still fails after bounded retries.
    """
    text, kind = normalise(uri), scheme(uri)
    with atomic_path(path) as temporary:
        if kind == "file":
            import shutil

            try:
                shutil.copyfile(local_path(text), temporary)
            except FileNotFoundError:
                raise BadInputError(f"{text} does not exist; correct the path or make it first.") from None
        elif kind == "s3":
            _retried_s3(text, temporary)
        else:
            http.fetch(text, temporary)


def _retried_s3(uri: str, target: Path) -> None:
    # botocore retries requests, not bodies that break off or arrive wrong.
    import stamina

    for attempt in stamina.retry_context(
        on=(CorruptDataError, StorageError), attempts=3, timeout=http.DEADLINE_S, wait_initial=http.FIRST_WAIT_S
    ):
        with attempt:
            _get_s3(uri, target)


def read_bytes(uri: str | Path) -> bytes:
    """The whole content of `uri`.

    Raises:
        as `fetch` does.
    """
    import tempfile

    if is_local(uri):
        try:
            return local_path(uri).read_bytes()
        except FileNotFoundError:
            raise BadInputError(f"{uri} does not exist; correct the path or make it first.") from None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "content"
        fetch(uri, path)
        return path.read_bytes()


def put(uri: str | Path, data: bytes) -> None:
    """Write `data` to `uri`, whole or not at all.

    Raises:
        BadInputError: HTTP cannot be written to.
        StorageError: the server or disk refuses.
    """
    kind = scheme(uri)
    if kind == "file":
        write_bytes(local_path(uri), data)
    elif kind == "s3":
        bucket, key = split_s3(uri)
        with s3_explained(uri):
            response = s3_client().put_object(Bucket=bucket, Key=key, Body=data)
        etag = _md5_etag(response)
        if etag is not None and etag != hashlib.md5(data, usedforsecurity=False).hexdigest():
            remove(uri)
            raise StorageError(f"{uri} arrived changed (ETag {etag}) and was removed; try again.")
    else:
        raise BadInputError(f"{redact(str(uri))} cannot be written to; give a local path or s3://.")


def upload(path: Path, uri: str | Path) -> None:
    """Copy the local file `path` to `uri`, whole or not at all; large files go in parts.

    Raises:
        as `put` does.
    """
    if is_local(uri):
        fetch(path, local_path(uri))
        return
    if scheme(uri) != "s3":
        raise BadInputError(f"{redact(str(uri))} cannot be written to; give a local path or s3://.")
    bucket, key = split_s3(uri)
    with s3_explained(uri):
        # It aborts a multipart upload that fails, so that no part stays behind.
        s3_client().upload_file(str(path), bucket, key)
        stored = s3_client().head_object(Bucket=bucket, Key=key)
    size, etag = path.stat().st_size, _md5_etag(stored)
    if stored["ContentLength"] != size:
        remove(uri)
        raise StorageError(f"{uri} arrived with {stored['ContentLength']} of {size} bytes and was removed; try again.")
    # What went in parts has an ETag that is no MD5.
    if etag is not None and etag != _md5_of(path):
        remove(uri)
        raise StorageError(f"{uri} arrived changed (ETag {etag}) and was removed; try again.")


def exists(uri: str | Path) -> bool:
    """Whether `uri` names a file, a directory or an S3 prefix with at least one object.

    Raises:
        StorageError: the server does not say.
    """
    kind, text = scheme(uri), normalise(uri)
    if kind == "file":
        return local_path(text).exists()
    if kind == "s3":
        bucket, key = split_s3(text)
        with s3_explained(text):
            # The object itself is the first of its prefix; what lies below it may come after any number of others.
            for prefix in (key, f"{key}/" if key else ""):
                page = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
                if any(prefix.endswith("/") or item["Key"] == key or not key for item in page.get("Contents", [])):
                    return True
        return False
    return http.exists(text)


def list_sizes(uri: str | Path) -> list[tuple[str, int]]:
    """Sorted (name below `uri`, bytes) of all files below it; hidden names are left out.

    Raises:
        BadInputError: there is no such place, or HTTP, which has no listings.
    """
    kind, text = scheme(uri), normalise(uri)
    if kind == "s3":
        found = _list_s3(text)
    elif kind == "file":
        root = local_path(text)
        if not root.is_dir():
            raise BadInputError(f"{text} is not a directory; correct the path or make it first.")
        found = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in root.rglob("*") if path.is_file()]
    else:
        raise BadInputError(f"{redact(text)} cannot be listed: HTTP has no listings; name its files one by one.")
    return sorted(item for item in found if not any(part.startswith(".") for part in item[0].split("/")))


def list_files(uri: str | Path) -> list[str]:
    """Sorted URIs of all files below `uri`; hidden names are left out.

    Raises:
        as `list_sizes` does.
    """
    return [f"{normalise(uri)}/{name}" for name, _ in list_sizes(uri)]


def remove(uri: str | Path) -> None:
    """Remove one file, or all below a directory or S3 prefix; one that is not there is fine.

    Raises:
        BadInputError: HTTP, or a whole bucket.
        StorageError: the server refuses.
    """
    kind, text = scheme(uri), normalise(uri)
    if kind == "file":
        path = local_path(text)
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        return
    if kind != "s3" or not split_s3(text)[1]:
        raise BadInputError(f"{redact(text)} is not something to remove: give a local path, or a key below a bucket.")
    bucket, client = split_s3(text)[0], s3_client()
    with s3_explained(text):
        # One by one: not every S3-compatible server knows the batch call.
        for name, _ in _keys_s3(text):
            client.delete_object(Bucket=bucket, Key=name)
