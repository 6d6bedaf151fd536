"""Where the numbers of targets lie: a place in an artifact, or something to be counted there."""

from dataclasses import dataclass
from typing import Protocol

from dark_halo_scope.evaluation.target_numbers import (
    MEASURED,
    Artifacts,
    Number,
    Step,
    difference,
    judge,
    number_at,
    part_at,
    path_text,
    stratum_number,
)


class Metric(Protocol):
    """Where a target's number comes from."""

    def of(self, artifacts: Artifacts) -> Number:
        """The number, out of a generation's artifacts."""

    @property
    def text(self) -> str:
        """The same place in words, for a reader of targets.json."""


@dataclass(frozen=True)
class At:
    """The number at a place in an artifact."""

    artifact: str
    steps: tuple[Step, ...]

    def of(self, artifacts: Artifacts) -> Number:
        return number_at(artifacts, self.artifact, self.steps)

    @property
    def text(self) -> str:
        return f"{self.artifact}.json: {path_text(self.steps)}"


@dataclass(frozen=True)
class Strata:
    """A column of stratified_fpr.csv, pooled over strata of positives."""

    column: str
    strata: tuple[str, ...]

    def of(self, artifacts: Artifacts) -> Number:
        return stratum_number(artifacts, self.column, self.strata)

    @property
    def text(self) -> str:
        return f"stratified_fpr.csv: {self.column} of {', '.join(self.strata)}"


@dataclass(frozen=True)
class Difference:
    """How far two numbers lie apart."""

    first: At
    second: At

    def of(self, artifacts: Artifacts) -> Number:
        return difference(self.first.of(artifacts), self.second.of(artifacts))

    @property
    def text(self) -> str:
        return f"{self.first.text} less {self.second.text}"


@dataclass(frozen=True)
class GatesPassed:
    """How many gates of a weight pass; the interval goes from those that surely do to those that may."""

    weights: tuple[str, ...] = ("critical", "important")

    def of(self, artifacts: Artifacts) -> Number:
        if "gates" not in artifacts:
            return Number.unmeasured("not measured: there is no gates")
        gates = [gate for gate in artifacts["gates"]["gates"].values() if gate["weight"] in self.weights]
        verdicts = [judge(number_at({"gate": gate}, "gate", ()), gate["bound"], gate["threshold"]) for gate in gates]
        sure = sum(verdict == "met" for verdict, _ in verdicts)
        possible = sum(verdict in {"met", "undecided"} for verdict, _ in verdicts)
        return Number(sum(gate["passed"] for gate in gates), len(gates), (sure, possible), MEASURED)

    @property
    def text(self) -> str:
        return f"gates.json: {' and '.join(self.weights)} gates that pass"


@dataclass(frozen=True)
class RedFlags:
    """How many red flags a training raised."""

    names: tuple[str, ...] | None = None

    def of(self, artifacts: Artifacts) -> Number:
        if "history" not in artifacts:
            return Number.unmeasured("not measured: there is no history")
        history = artifacts["history"]
        flags = [
            record
            for record in history["decisions"]
            if record["kind"] == "red flag" and (self.names is None or record["name"] in self.names)
        ]
        return Number(len(flags), len(history["epochs"]), None, MEASURED)

    @property
    def text(self) -> str:
        return f"history.json: red flags{'' if self.names is None else ' ' + ', '.join(self.names)}"


@dataclass(frozen=True)
class Keys:
    """How many of the named parts an artifact reports."""

    artifact: str
    steps: tuple[Step, ...]
    keys: tuple[str, ...]

    def of(self, artifacts: Artifacts) -> Number:
        part = part_at(artifacts, self.artifact, self.steps)
        if isinstance(part, Number):
            return part
        return Number(sum(key in part for key in self.keys), len(self.keys), None, MEASURED)

    @property
    def text(self) -> str:
        return f"{self.artifact}.json: {path_text(self.steps)} has {', '.join(self.keys)}"


@dataclass(frozen=True)
class Largest:
    """The largest of one number over named parts of an artifact; without any of them it is not measurable."""

    artifact: str
    steps: tuple[Step, ...]
    keys: tuple[str, ...]
    below: tuple[Step, ...]

    def of(self, artifacts: Artifacts) -> Number:
        numbers = [number_at(artifacts, self.artifact, (*self.steps, key, *self.below)) for key in self.keys]
        return next(
            (number for number in numbers if number.value is None),
            max(numbers, key=lambda number: number.value or 0.0),
        )

    @property
    def text(self) -> str:
        return (
            f"{self.artifact}.json: {path_text(self.steps)}, largest {path_text(self.below)} of {', '.join(self.keys)}"
        )


@dataclass(frozen=True)
class Nowhere:
    """Nothing that one run of this workflow can measure, and why."""

    why: str

    def of(self, artifacts: Artifacts) -> Number:
        return Number.unmeasured(f"not measurable: {self.why}")

    @property
    def text(self) -> str:
        return "none"
