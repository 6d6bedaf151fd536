"""Keeping secrets out of logs, JSON and tracebacks."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

PLACEHOLDER = "[redacted]"

# Shorter values are words and numbers like `true` or `1`, whose removal would destroy logs and data.
MINIMUM_LENGTH = 8

_SECRET_WORD = r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE)_?KEY"
_SECRET_SETTING = re.compile(_SECRET_WORD, re.IGNORECASE)
# A variable may be called SERVICE_KEY alone; in results, run_key and ra_key are not secret.
_SECRET_VARIABLE = re.compile(rf"{_SECRET_WORD}|(?:^|_)KEYS?(?:_|$)", re.IGNORECASE)
_LOCATION_NAME = re.compile(r"_(?:FILE|PATH|DIR|HOME)$", re.IGNORECASE)
# `https://user:password@host`, and the signature of a presigned URL.
_URL_USER = re.compile(r"(?<=://)[^/\s:@'\"]+:[^/\s@'\"]+(?=@)")
_URL_SIGNATURE = re.compile(
    r"((?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|token)=)[^&\s'\"]+", re.IGNORECASE
)


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret (and not the path of a file with one)."""
    return bool(_SECRET_VARIABLE.search(name)) and not _LOCATION_NAME.search(name)


def is_secret_setting(name: str) -> bool:
    """Whether a setting of this name holds a secret (and not the path of a file with one)."""
    return bool(_SECRET_SETTING.search(name)) and not _LOCATION_NAME.search(name)


def secrets(environment: Mapping[str, str] | None = None) -> list[str]:
    """Secret values of the environment, longest first so that one inside another leaves no rest."""
    variables = os.environ if environment is None else environment
    found = {
        part.strip()
        for name, value in variables.items()
        if is_secret_variable(name)
        for part in (value, *value.splitlines())
        if len(part.strip()) >= MINIMUM_LENGTH
    }
    return sorted(found, key=lambda value: (-len(value), value))


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without the environment's secrets, passwords in URLs and signatures of presigned URLs."""
    return _redact(text, secrets(environment))


def redact_values(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """The same JSON-like structure with every string redacted, and every string under a secret's name replaced."""
    return _redact_values(value, secrets(environment))


def _redact(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, PLACEHOLDER)
    text = _URL_USER.sub(PLACEHOLDER, text)
    return _URL_SIGNATURE.sub(rf"\1{PLACEHOLDER}", text)


def _redact_values(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _redact(value, known)
    if isinstance(value, Mapping):
        return {
            key: PLACEHOLDER
            if isinstance(item, str) and isinstance(key, str) and is_secret_setting(key)
            else _redact_values(item, known)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redact_values(item, known) for item in value]
    return value
