"""What ran: versions, host and times for provenance files."""

import importlib.metadata
import platform
import socket
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def version(package: str) -> str | None:
    """Version of the distribution that provides the importable name `package`; None where it is not installed."""
    for name in (package, *_distributions().get(package, [])):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of Python and of each of `packages` that is installed."""
    found = {package: version(package) for package in packages}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text is not None}}


def host() -> dict[str, str]:
    """Name, system and processor architecture of this machine."""
    return {"name": socket.gethostname(), "system": platform.platform(), "machine": platform.machine()}
