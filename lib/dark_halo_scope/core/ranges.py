"""Files that are read in pieces where they lie: local ones, and S3 objects by range requests."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

from dark_halo_scope.core import http, storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError

_ATTEMPTS = 3


def open_binary(uri: str | Path) -> BinaryIO:
    """A seekable binary file; the caller closes it.

    Raises:
        BadInputError: there is none, or it is behind HTTP.
        StorageError: the server refuses.
    """
    kind = storage.scheme(uri)
    if kind == "s3":
        return cast(BinaryIO, io.BufferedReader(_S3Object(str(uri)), buffer_size=1 << 16))
    if kind != "file":
        raise BadInputError(f"{uri} cannot be read in pieces; give a local path or s3://.")
    try:
        return storage.local_path(uri).open("rb")
    except OSError as error:
        raise BadInputError(f"{uri} cannot be opened ({error.strerror}); correct the path.") from error


class _S3Object(io.RawIOBase):
    """An S3 object of which each read is a range request; one that changes meanwhile is an error."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri, self._position = storage.normalise(uri), 0
        self._bucket, self._key = storage.split_s3(uri)
        with storage.s3_explained(uri):
            head = storage.s3_client().head_object(Bucket=self._bucket, Key=self._key)
        self._size, self._etag = int(head["ContentLength"]), str(head["ETag"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = self._range(self._position, wanted)
        buffer[:wanted] = data
        self._position += wanted
        return wanted

    def _range(self, start: int, count: int) -> bytes:
        import stamina

        # botocore retries requests, not bodies that break off.
        for attempt in stamina.retry_context(
            on=StorageError, attempts=_ATTEMPTS, timeout=http.DEADLINE_S, wait_initial=http.FIRST_WAIT_S
        ):
            with attempt, storage.s3_explained(self._uri):
                answer = storage.s3_client().get_object(
                    Bucket=self._bucket, Key=self._key, Range=f"bytes={start}-{start + count - 1}"
                )
                if str(answer["ETag"]) != self._etag:
                    raise CorruptDataError(f"{self._uri} changed while it was read; run this step again.")
                data = answer["Body"].read()
                if len(data) != count:
                    raise StorageError(f"{self._uri} ended after {len(data)} of {count} bytes; try again.")
                return bytes(data)
        raise AssertionError("unreachable: the last attempt returns or raises")
