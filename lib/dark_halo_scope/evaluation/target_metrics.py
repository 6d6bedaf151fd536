"""Where the numbers of targets lie, as data: a place in an artifact, or something to be counted there.

`evaluation.target_values` looks them up. Nothing here imports more than the standard library: the workflow reads the
registry to know what it must make.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Where:
    """The one item of a list whose `key` is `value`."""

    key: str
    value: Any


Step = str | Where


def path_text(steps: Sequence[Step]) -> str:
    """A place in an artifact in words."""
    return "/".join(step if isinstance(step, str) else f"{step.key}={step.value}" for step in steps)


class Metric(ABC):
    """What number a target is about."""

    @property
    @abstractmethod
    def artifacts(self) -> tuple[str, ...]:
        """What must be made for it."""

    @property
    @abstractmethod
    def text(self) -> str:
        """Where it lies, for a reader of targets.json."""


@dataclass(frozen=True)
class _InJson(Metric):
    artifact: str
    steps: tuple[Step, ...]

    @property
    def artifacts(self) -> tuple[str, ...]:
        return (self.artifact,)

    @property
    def text(self) -> str:
        return f"{self.artifact}.json: {path_text(self.steps)}"


@dataclass(frozen=True)
class At(_InJson):
    """The number at a place in an artifact."""


@dataclass(frozen=True)
class Largest(_InJson):
    """The largest of one number over named parts of an artifact; one that is not measurable leaves none.

    Its interval is that of the largest, whichever part it is: from the highest lower bound to the highest upper one.
    """

    keys: tuple[str, ...]
    below: tuple[Step, ...]

    @property
    def text(self) -> str:
        return f"{super().text}, largest {path_text(self.below)} of {', '.join(self.keys)}"


@dataclass(frozen=True)
class Keys(_InJson):
    """How many of the named parts an artifact reports; one without any number that was measured is none."""

    keys: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{super().text} has {', '.join(self.keys)}"


@dataclass(frozen=True)
class _InStrata(Metric):
    column: str
    strata: tuple[str, ...]

    artifacts = ("stratified_fpr",)


@dataclass(frozen=True)
class Strata(_InStrata):
    """A rate of stratified_fpr.csv, pooled over strata of positives that share all their negatives."""

    @property
    def text(self) -> str:
        return f"stratified_fpr.csv: {self.column} of {', '.join(self.strata)}"


@dataclass(frozen=True)
class SmallestRate(_InStrata):
    """The smallest of one false positive rate over strata of stratified_fpr.csv: all together reach no lower one.

    Its interval ends where the largest of them does, for all together need no higher one.
    """

    @property
    def text(self) -> str:
        return f"stratified_fpr.csv: smallest {self.column} of {', '.join(self.strata)}"


@dataclass(frozen=True)
class Difference(Metric):
    """How far two numbers lie apart."""

    first: At
    second: At

    @property
    def artifacts(self) -> tuple[str, ...]:
        return (*self.first.artifacts, *self.second.artifacts)

    @property
    def text(self) -> str:
        return f"{self.first.text} less {self.second.text}"


@dataclass(frozen=True)
class GatesPassed(Metric):
    """How many gates of these weights pass; the interval goes from those that surely do to those that may."""

    weights: tuple[str, ...] = ("critical", "important")

    artifacts = ("gates",)

    @property
    def text(self) -> str:
        return f"gates.json: {' and '.join(self.weights)} gates that pass"


@dataclass(frozen=True)
class RedFlags(Metric):
    """How many red flags a training raised, of these names; None: of any."""

    names: tuple[str, ...] | None = None

    artifacts = ("history",)

    @property
    def text(self) -> str:
        return f"history.json: red flags{'' if self.names is None else ' ' + ', '.join(self.names)}"


@dataclass(frozen=True)
class Nowhere(Metric):
    """Nothing that one run of this workflow can measure, and why."""

    why: str

    artifacts = ()
    text = "none"
