"""The number that each kind of metric stands for, out of what was measured of a generation."""

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

from dark_halo_scope.evaluation.target_metrics import (
    At,
    Difference,
    GatesPassed,
    Keys,
    Largest,
    Nowhere,
    RedFlags,
    SmallestRate,
    Strata,
)
from dark_halo_scope.evaluation.target_numbers import (
    MEASURED,
    Artifacts,
    Number,
    as_number,
    difference,
    judge,
    number_at,
    part_at,
    smallest_rate,
    stratum_number,
)
from dark_halo_scope.evaluation.targets import Target


def target_entry(target: Target, generation: str, artifacts: Artifacts | None) -> dict[str, Any]:
    """The entry of targets.json: what is due, what was measured, and what that says.

    Args:
        target: what is due.
        generation: one of `target.generations`.
        artifacts: what was measured of it; None where it does not exist.
    """
    if artifacts is None:
        number = Number.unmeasured("not measured: generation not trained yet")
    else:
        number = value_of(target.metric, artifacts)
    verdict, by_value = judge(number, target.bound, target.threshold, target.margin)
    return {
        "target": target.name,
        "generation": generation,
        "source": target.source,
        "what": target.what,
        "metric": target.metric.text,
        "condition": target.condition,
        "bound": target.bound,
        "threshold": target.threshold,
        "due": target.due,
        **number.as_json(),
        "verdict": verdict,
        "by_value": by_value,
    }


@singledispatch
def value_of(metric: Any, artifacts: Artifacts) -> Number:
    """The number of a metric.

    Raises:
        CorruptDataError: an artifact holds something else where the number should be.
    """
    raise TypeError(f"{metric!r} is no metric")


@value_of.register
def _at(metric: At, artifacts: Artifacts) -> Number:
    return number_at(artifacts, metric.artifact, metric.steps)


@value_of.register
def _strata(metric: Strata, artifacts: Artifacts) -> Number:
    return stratum_number(artifacts, metric.column, metric.strata)


@value_of.register
def _smallest_rate(metric: SmallestRate, artifacts: Artifacts) -> Number:
    return smallest_rate(artifacts, metric.column, metric.strata)


@value_of.register
def _difference(metric: Difference, artifacts: Artifacts) -> Number:
    return difference(value_of(metric.first, artifacts), value_of(metric.second, artifacts))


@value_of.register
def _largest(metric: Largest, artifacts: Artifacts) -> Number:
    numbers = [number_at(artifacts, metric.artifact, (*metric.steps, key, *metric.below)) for key in metric.keys]
    if missing := [number for number in numbers if number.value is None]:
        return missing[0]
    largest = max(numbers, key=lambda number: number.value or 0.0)
    # A part of few images, whose own value is small, may be the largest in truth.
    ends = [number.interval for number in numbers if number.interval is not None]
    interval = (max(low for low, _ in ends), max(high for _, high in ends)) if len(ends) == len(numbers) else None
    return replace(largest, interval=interval)


@value_of.register
def _keys(metric: Keys, artifacts: Artifacts) -> Number:
    part = part_at(artifacts, metric.artifact, metric.steps)
    if isinstance(part, Number):
        return part
    return Number(sum(_reports(part.get(key)) for key in metric.keys), len(metric.keys), None, MEASURED)


def _reports(part: Any) -> bool:
    """Whether any number below has a value: cells that are all empty report nothing."""
    if isinstance(part, Mapping):
        return part["value"] is not None if "value" in part else any(map(_reports, part.values()))
    return isinstance(part, list) and any(map(_reports, part))


@value_of.register
def _gates_passed(metric: GatesPassed, artifacts: Artifacts) -> Number:
    part = part_at(artifacts, "gates", ("gates",))
    if isinstance(part, Number):
        return part
    gates = [gate for gate in part.values() if gate["weight"] in metric.weights]
    verdicts = [judge(as_number(gate), gate["bound"], gate["threshold"])[0] for gate in gates]
    # A gate that could not be measured may pass as well as not.
    sure, possible = verdicts.count("met"), len(verdicts) - verdicts.count("not met")
    return Number(sum(gate["passed"] for gate in gates), len(gates), (sure, possible), MEASURED)


@value_of.register
def _red_flags(metric: RedFlags, artifacts: Artifacts) -> Number:
    decisions = part_at(artifacts, "history", ("decisions",))
    if isinstance(decisions, Number):
        return decisions
    flags = [record["name"] for record in decisions if record["kind"] == "red flag"]
    count = sum(metric.names is None or name in metric.names for name in flags)
    return Number(count, len(artifacts["history"]["epochs"]), None, MEASURED)


@value_of.register
def _nowhere(metric: Nowhere, artifacts: Artifacts) -> Number:
    return Number.unmeasured(f"not measurable: {metric.why}")
