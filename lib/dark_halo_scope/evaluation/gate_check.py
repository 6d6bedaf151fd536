"""Whether a gates.json may open the gate: recomputed from its own numbers, and traced to the files it was made from.

A gate stays closed on anything that is missing, not finite, too few, edited by hand, or made from other inputs than the
ones at hand.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gates import REGISTRY, Gate, verdict
from dark_halo_scope.evaluation.pairs import ALL, resolved_stratum

SEAL = "content_sha256"


class GateClosedError(DarkHaloScopeError):
    """The gates do not let this network through."""


def seal(result: Mapping[str, Any]) -> str:
    """SHA-256 of a gates.json without its seal. It gives an edit away; it cannot stop a forger who computes it anew."""
    content = {key: value for key, value in result.items() if key != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its seal."""
    return {**result, SEAL: seal(result)}


def problems(result: Any, settings: GateSettings) -> list[str]:
    """Why a gates.json cannot be trusted, as clauses; empty where it can. A failed gate is a result, no problem."""
    if not isinstance(result, Mapping) or not isinstance(result.get("gates"), Mapping):
        return ["it is not a gates.json"]
    found = list(_content_problems(result, settings))
    for gate in REGISTRY:
        entry = result["gates"].get(gate.name)
        if not isinstance(entry, Mapping):
            found.append(f"{gate.name} is missing")
        else:
            found += [f"{gate.name} {problem}" for problem in _entry_problems(gate, entry, settings)]
    if not found:
        recomputed = verdict({name: entry["passed"] for name, entry in result["gates"].items()})
        if result.get("verdict") != recomputed:
            found.append(f"its verdict is {result.get('verdict')!r} where its gates say {recomputed!r}")
    return found


def failures(result: Mapping[str, Any]) -> list[str]:
    """One clause per gate that did not pass: number, threshold, remedy."""
    clauses = []
    for name, entry in result["gates"].items():
        if entry["passed"]:
            continue
        measured = "not measured" if entry["value"] is None else f"{entry['value']:.3f}"
        remedy = result["remedies"].get(name, "").rstrip(".")
        clauses.append(f"{name} {entry['title']} is {measured}, due {entry['bound']} {entry['threshold']:g} ({remedy})")
    return clauses


def _content_problems(result: Mapping[str, Any], settings: GateSettings) -> Iterator[str]:
    if result.get(SEAL) != seal(result):
        yield "its content is not what measure_gates wrote"
    if result.get("settings") != settings.model_dump(mode="json"):
        yield "it was measured with other settings than the ones now in force"
    if result.get("thresholds") != {gate.name: settings.thresholds[gate.name] for gate in REGISTRY}:
        yield "its thresholds are not the configured ones"
    if not isinstance(result.get("model_sha256"), str):
        yield "it does not say which model it judges"
    unknown = sorted(set(result["gates"]) - {gate.name for gate in REGISTRY})
    if unknown:
        yield f"it has gates that do not exist: {', '.join(unknown)}"


def _entry_problems(gate: Gate, entry: Mapping[str, Any], settings: GateSettings) -> Iterator[str]:
    threshold = settings.thresholds[gate.name]
    stratum = ALL if gate.judged_on == "all" else resolved_stratum(settings.strata)
    due = {"weight": gate.weight, "bound": gate.bound, "stratum": stratum, "threshold": threshold}
    for key, value in due.items():
        if entry.get(key) != value:
            yield f"has {key} {entry.get(key)!r} where {value!r} is due"
    if entry.get("value") is None:
        if entry.get("passed") is not False:
            yield "passed without a value"
        return
    value, n, hosts = entry["value"], entry.get("n"), entry.get("hosts")
    if not _finite(value):
        yield "is not a finite number"
        return
    if not all(_finite(count) and count >= settings.min_pairs for count in (n, hosts)):
        yield f"rests on {n} pairs of {hosts} hosts, below the minimum of {settings.min_pairs}"
    interval = entry.get("interval")
    if not (isinstance(interval, list) and len(interval) == 2 and all(map(_finite, interval))):
        yield "has no interval"
    null = entry.get("null")
    if not (isinstance(null, Mapping) and all(_finite(null.get(key)) for key in ("mean", "low", "high", "p_value"))):
        yield "has no null"
    judged = entry.get("strata", {}).get(stratum, {})
    if any(judged.get(key) != entry.get(key) for key in ("value", "n", "hosts", "interval", "null", "status")):
        yield f"differs from its own stratum {stratum}"
    if entry.get("passed") is not gate.passes(value, threshold):
        yield f"says passed {entry.get('passed')} at {value:g} against {threshold:g}"


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
