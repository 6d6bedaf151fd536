"""HTTP(S): bodies that arrive whole, asked for a bounded number of times and with the waits that a server asks for.

`fetch` is for files. Whoever asks one service again and again, with manners of its own, makes its loop of `attempts`,
`get_once` and `turnstile`. requests and stamina are imported where they are used: executors may lack them.
"""

import logging
import random
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import explained
from dark_halo_scope.core.redaction import redact

if TYPE_CHECKING:
    import requests
    import stamina

# Of every server that is asked for bytes, S3's too.
ATTEMPTS = 5
DEADLINE_S = 300.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
# A server may ask for any wait; more than this is for a later run.
RETRY_AFTER_CAP_S = 60.0
CHUNK_BYTES = 1 << 20

_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

_logger = logging.getLogger(__name__)


class RetryError(Exception):
    """A failure worth another attempt; `after_s` is the wait that the server asked for."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


@lru_cache(maxsize=256)
def turnstile(host: str) -> threading.Lock:
    """The lock of a host (with its port): whoever holds it asks alone.

    `fetch` takes it after a 429 and until its file is there, and passes through it before it asks.
    """
    return threading.Lock()


def backoff(error: Exception) -> bool | float:
    """For stamina: whether to retry, or after how many seconds; a server's wait is capped and jittered."""
    if not isinstance(error, RetryError):
        return False
    if error.after_s is None:
        return True
    return min(error.after_s, RETRY_AFTER_CAP_S) + random.uniform(0.0, 1.0)


def attempts(number: int, deadline_s: float) -> Iterable["stamina.Attempt"]:
    """Attempts, each a context, of which a RetryError ends all but the last; the waits between them grow, with jitter.

    Args:
        number: of attempts at most.
        deadline_s: seconds after which no other is begun.

    Raises:
        RetryError: that of the last attempt.
    """
    import stamina

    return stamina.retry_context(
        on=backoff,
        attempts=number,
        timeout=deadline_s,
        wait_initial=FIRST_WAIT_S,
        wait_max=LONGEST_WAIT_S,
        wait_jitter=FIRST_WAIT_S,
    )


def open_session() -> "requests.Session":
    """A session whose answers are the bytes as they are stored: a compressed transfer has another length."""
    import requests

    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def get_once(session: "requests.Session", uri: str, target: Path) -> None:
    """Write what `uri` answers to `target`, in one attempt; `target` may hold a part of it after an error.

    Raises:
        RetryError: the server is busy or fails, the network does, or the body breaks off.
        BadInputError: it does not exist, or, with a cause, `uri` cannot be asked for.
        CorruptDataError: it is a web page, and `uri` names none.
        StorageError: the server refuses, or, with an OSError as its cause, the disk does.
    """
    import requests

    try:
        with session.get(uri, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)) as response:
            if response.status_code in _RETRIED_STATUS:
                raise RetryError(f"status {response.status_code}", _retry_after_s(response.headers.get("Retry-After")))
            if response.status_code in (404, 410):
                raise BadInputError(f"{redact(uri)} does not exist (status {response.status_code}); correct it.")
            if response.status_code != 200:
                raise StorageError(f"{redact(uri)} answers with status {response.status_code}; check access to it.")
            _stream(response, uri, target)
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    ) as error:
        raise RetryError(f"{type(error).__name__}") from error
    except requests.RequestException as error:
        raise BadInputError(f"{redact(uri)} cannot be asked for ({redact(str(error))}); correct it.") from error


def fetch(uri: str, target: Path) -> None:
    """Write what `uri` answers to `target`, in as many attempts as it takes up to ATTEMPTS.

    Raises:
        BadInputError, CorruptDataError: as `get_once` does.
        StorageError: as `get_once` does, or no attempt succeeded.
    """
    own = turnstile(urlsplit(uri).netloc)
    held = False
    try:
        with open_session() as session:
            for attempt in attempts(ATTEMPTS, DEADLINE_S):
                with attempt:
                    if not held:
                        with own:
                            pass
                    try:
                        get_once(session, uri, target)
                    except RetryError as error:
                        _logger.info("%s: %s (attempt %d of %d)", uri, error, attempt.num, ATTEMPTS)
                        if error.after_s is not None and not held:
                            held = own.acquire(timeout=DEADLINE_S)
                        raise
    except RetryError as error:
        raise StorageError(
            f"{redact(uri)} cannot be fetched in {ATTEMPTS} attempts or {DEADLINE_S:.0f} s ({error}); try again later."
        ) from error
    finally:
        if held:
            own.release()


def exists(uri: str) -> bool:
    """Whether the server has something at `uri`; it is asked once.

    Raises:
        StorageError: it does not say.
    """
    import requests

    try:
        response = requests.head(uri, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), allow_redirects=True)
    except requests.RequestException as error:
        raise StorageError(f"{redact(uri)} cannot be reached ({type(error).__name__}); try again later.") from error
    if response.status_code in (404, 410):
        return False
    if response.status_code >= 400:
        raise StorageError(f"{redact(uri)} answers with status {response.status_code}; check access to it.")
    return True


def _retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _stream(response: "requests.Response", uri: str, target: Path) -> None:
    expected = response.headers.get("Content-Length")
    wants_html = urlsplit(uri).path.endswith((".html", ".htm"))
    size = 0
    with open(target, "wb") as stream, explained(target):
        for chunk in response.iter_content(CHUNK_BYTES):
            html = "text/html" in response.headers.get("Content-Type", "") or (size == 0 and _looks_like_html(chunk))
            if html and not wants_html:
                raise CorruptDataError(f"{redact(uri)} gave a web page in place of data; correct the address.")
            size += len(chunk)
            stream.write(chunk)
    if expected is not None and size != int(expected):
        raise RetryError(f"it ended after {size} of {expected} bytes")


def _looks_like_html(start: bytes) -> bool:
    head = start[:256].lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html"))
