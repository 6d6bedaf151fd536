"""A number in a JSON result: value, count, interval, and whether it was measured, the same in every file."""

from typing import Any

from dark_halo_scope.evaluation.intervals import Interval
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES, Rate

MEASURED = "measured"

#: JSON of a number: `value`, `n`, `interval`, `status`, and for rates `k`.
Entry = dict[str, Any]


def not_measurable(why: str) -> str:
    """The status of a number that the data do not carry."""
    return f"not measurable: {why}"


def bounds(interval: Interval | None) -> list[float] | None:
    """An interval as JSON."""
    return None if interval is None else [interval.low, interval.high]


def number_entry(value: float, n: int, interval: Interval | None) -> Entry:
    """A measured number of `n` images."""
    return {"value": float(value), "n": int(n), "interval": bounds(interval), "status": MEASURED}


def nothing_entry(why: str, n: int = 0) -> Entry:
    """A number that is not there, and why."""
    return {"value": None, "n": int(n), "interval": None, "status": not_measurable(why)}


def rate_entry(rate: Rate) -> Entry:
    """A binomial rate: k successes in n trials and its exact interval."""
    if not rate.measured:
        return {**nothing_entry("there was nothing to count"), "k": 0}
    return {**number_entry(rate.value, rate.trials, rate.interval), "k": rate.successes}


def fpr_entry(rate: Rate) -> Entry:
    """A false positive rate; with fewer than ten false positives only its interval is given, which stays true."""
    entry = rate_entry(rate)
    if rate.measured and rate.successes < MIN_FALSE_POSITIVES:
        return {**entry, "value": None, "status": not_measurable(few_false_positives(rate.successes))}
    return entry


def few_false_positives(count: int) -> str:
    """Why a false positive rate is not measurable."""
    return f"{count} negatives pass the threshold, and {MIN_FALSE_POSITIVES} are needed"
