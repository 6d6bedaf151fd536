"""Checks as plain records: what was measured, on how many, against which criterion, and whether it holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.training.config import DiagnosticSettings

Record = dict[str, Any]
Entry = Mapping[str, Any]
Logits = Mapping[str, NDArray[np.float64]]


def measured(name: str, value: float | None, n: int, criterion: str, passed: bool) -> Record:
    """A check that was measured on `n` of something."""
    return {"name": name, "value": value, "n": n, "criterion": criterion, "passed": bool(passed)}


def unmeasured(name: str, value: float | None, n: int, criterion: str, reason: str) -> Record:
    """A check that could not be measured, which neither passes nor fails."""
    return {"name": name, "value": value, "n": n, "criterion": criterion, "passed": None, "reason": reason}


def too_few(count: int, what: str, settings: DiagnosticSettings) -> str:
    """Why a check of so few was not measured."""
    return f"{count} {what}, fewer than {settings.min_count}"
