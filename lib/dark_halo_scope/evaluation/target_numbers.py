"""Finding a number in what was measured of a generation, whichever artifact holds it, in one form.

Artifacts differ in how they write a number (an entry with value, n, interval and status; a plain number of a training's
history; a column of a CSV file); targets and tables want one.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation.fpr_config import MIN_POSITIVES
from dark_halo_scope.evaluation.gate_check import SEAL, seal
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES
from dark_halo_scope.evaluation.target_metrics import Step, Where, path_text
from dark_halo_scope.evaluation.targets import Bound

MEASURED = "measured"

Verdict = Literal["met", "not met", "undecided", "not measurable", "not measured"]

#: Artifacts of a generation by the stem of their file, `results/{generation}/<stem>.json` or `.csv`; those of a stage
#: lie one folder deeper.
OF_GENERATION = (
    "gates",
    "performance",
    "stratified_fpr",
    "calibration",
    "completeness",
    "anchors",
    "validation",
    "selection_function",
)
OF_STAGE = ("best", "history")


@dataclass(frozen=True)
class Number:
    """A number as it was measured.

    value: None where it was not measurable; `status` says why. n: what it was measured on. interval: None where the
    artifact has none; its confidence is the artifact's.
    """

    value: float | None
    n: int | None
    interval: tuple[float, float] | None
    status: str

    @classmethod
    def unmeasured(cls, why: str, n: int | None = None) -> "Number":
        """No number, and why."""
        return cls(None, n, None, why)

    def as_json(self) -> dict[str, Any]:
        """The entry that every artifact has for a number."""
        interval = None if self.interval is None else list(self.interval)
        return {"value": self.value, "n": self.n, "interval": interval, "status": self.status}


Artifacts = Mapping[str, Any]


def read_artifacts(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What was measured of each generation: artifact -> content, by generation; of stages the last one given.

    A path names its generation: `.../{generation}/gates.json`, `.../{generation}/{stage}/history.json`.

    Raises:
        BadInputError: a file is no artifact of a generation, is there twice, says another generation than its folder,
            or is of other weights than the generation's best.json.
        CorruptDataError: a sealed file was edited.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        name = path.stem
        if name not in (*OF_GENERATION, *OF_STAGE):
            raise BadInputError(
                f"{path} is nothing that is measured of a generation; give {', '.join((*OF_GENERATION, *OF_STAGE))}."
            )
        generation = path.parts[-3 if name in OF_STAGE else -2]
        artifacts = found.setdefault(generation, {})
        if name in OF_GENERATION and name in artifacts:
            raise BadInputError(f"{path} is the second {name} of {generation}; give each once.")
        artifacts[name] = _content(path, generation)
    for generation, artifacts in found.items():
        _refuse_other_weights(generation, artifacts)
    return found


def _content(path: Path, generation: str) -> Any:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    content = read_json(path)
    if not isinstance(content, dict):
        raise CorruptDataError(f"{path} holds no measurements; measure {generation} again.")
    if (path.stem == "gates" or SEAL in content) and content.get(SEAL) != seal(content):
        raise CorruptDataError(f"{path} was changed after it was written; measure {generation} again.")
    if content.get("generation", generation) != generation:
        raise BadInputError(f"{path} is of {content['generation']}, not of {generation} as its folder says.")
    return content


def _refuse_other_weights(generation: str, artifacts: Artifacts) -> None:
    """Numbers of different weights in one row would describe a network that never was."""
    weights = {
        name: content["model_sha256"]
        for name, content in artifacts.items()
        if isinstance(content, dict) and content.get("model_sha256") is not None
    }
    if "best" in artifacts:
        weights["best"] = artifacts["best"]["weights"]["sha256"]
    if len(set(weights.values())) > 1:
        raise BadInputError(
            f"The artifacts {', '.join(sorted(weights))} of {generation} are of different weights; measure them again."
        )


def number_at(artifacts: Artifacts, artifact: str, steps: Sequence[Step]) -> Number:
    """The number that lies at `steps` in an artifact; where it lies nowhere, that is its status."""
    part = part_at(artifacts, artifact, steps)
    return part if isinstance(part, Number) else as_number(part)


def part_at(artifacts: Artifacts, artifact: str, steps: Sequence[Step]) -> Any:
    """What lies at `steps` in an artifact; where nothing does, a Number without value that says so."""
    if artifact not in artifacts:
        return Number.unmeasured(f"not measured: there is no {artifact}")
    value = artifacts[artifact]
    for step in steps:
        value = _step(value, step)
        if value is None:
            return Number.unmeasured(f"not measurable: {artifact} has no {path_text(steps)}")
    return value


def as_number(entry: Any) -> Number:
    """A number from an entry with value, n, interval and status, or from a plain number.

    Where an entry has an interval from resampling hosts too, the number's interval spans both: an exact binomial
    interval takes images of one galaxy for independent, and a bootstrap ends at 0 where nothing was found.

    Raises:
        CorruptDataError: it is neither.
    """
    if isinstance(entry, Mapping) and "value" in entry:
        value, interval = entry["value"], entry.get("interval")
        otherwise = "without a value" if value is None else MEASURED
        status = str(entry.get("status") or entry.get("reason") or otherwise)
        pair = None if interval is None else _pair(interval)
        if pair is not None and entry.get("host_interval") is not None:
            low, high = _pair(entry["host_interval"])
            pair = min(pair[0], low), max(pair[1], high)
        if value is None or status != MEASURED:
            # An artifact may give a number beside the reason why it proves nothing; an interval stays true.
            return Number(None, entry.get("n"), pair, _because(status))
        return Number(float(value), entry.get("n"), pair, MEASURED)
    if isinstance(entry, int | float) and math.isfinite(entry):
        return Number(float(entry), None, None, MEASURED)
    raise CorruptDataError(f"Where a number should be there is {str(entry)[:60]!r}; measure it again.")


def stratum_number(artifacts: Artifacts, column: str, strata: Sequence[str]) -> Number:
    """A rate of stratified_fpr.csv, pooled over strata of positives that share all their negatives.

    Where the column is `TPR@FPR...`, all these strata have one threshold, so that their true positives add up. The
    interval spans Clopper-Pearson's and, where the strata have them, the mean of their intervals over hosts: as one
    threshold moves them all, their bounds may be reached together.
    """
    rows = _stratum_rows(artifacts, column, strata)
    if isinstance(rows, Number):
        return rows
    n = sum(int(row["P"]) for row in rows)
    for row in rows:
        if row["status"] != MEASURED:
            return Number.unmeasured(f"{_because(row['status'])} ({row['stratum']})", n)
        if not row[column]:
            return Number.unmeasured(
                f"not measurable: {column} of {row['stratum']} rests on fewer than {MIN_FALSE_POSITIVES} of {row['N']} "
                "negatives",
                n,
            )
    hits = sum(round(float(row[column]) * int(row["P"])) for row in rows)
    exact = clopper_pearson(hits, n)
    low, high = float(exact[0]), float(exact[1])
    if all(row.get(f"{column}_boot_low") for row in rows):
        ends = [sum(int(row["P"]) * float(row[f"{column}_boot_{end}"]) for row in rows) / n for end in ("low", "high")]
        low, high = min(low, ends[0]), max(high, ends[1])
    return Number(hits / n, n, (low, high), MEASURED)


def smallest_rate(artifacts: Artifacts, column: str, strata: Sequence[str]) -> Number:
    """The smallest `FPR@TPR...` of stratified_fpr.csv over strata of positives, and where that of all together lies.

    Positives of all these strata together reach the completeness at no lower rate: at its threshold, one of the strata
    must reach it too. Nor do they need a higher one than the stratum that needs the highest. So the interval goes from
    the lowest bound of any stratum to the highest, exact or over hosts: the smallest rate alone can refute that a rate
    is low, never show it.
    """
    rows = _stratum_rows(artifacts, column, strata)
    if isinstance(rows, Number):
        return rows
    for row in rows:
        if row["status"] != MEASURED:
            return Number.unmeasured(f"{_because(row['status'])} ({row['stratum']})", int(row["N"]))
    # Rates of fewer false positives than are needed are empty, and smaller than any that is there.
    least = min(rows, key=lambda row: int(row[f"{column}_k"]))
    low = min(float(row[f"{column}_{end}"]) for row in rows for end in _ends(row, column, "low"))
    high = max(float(row[f"{column}_{end}"]) for row in rows for end in _ends(row, column, "high"))
    # Thresholds of a handful of positives are anywhere, and so is their rate.
    n, interval = int(least["N"]), (low, high if all(int(row["P"]) >= MIN_POSITIVES for row in rows) else 1.0)
    if not least[column]:
        few = f"{least['P']} positives"
        if int(least["P"]) >= MIN_POSITIVES:
            few = f"fewer than {MIN_FALSE_POSITIVES} of {n} negatives"
        why = f"{column} of {least['stratum']} rests on {few}"
        return Number(None, n, interval, f"not measurable: {why}")
    return Number(float(least[column]), n, interval, MEASURED)


def _ends(row: Mapping[str, str], column: str, end: str) -> list[str]:
    """Suffixes of the bounds at one end that a stratum has: the exact one, and that over hosts."""
    return [name for name in (end, f"boot_{end}") if row.get(f"{column}_{name}")]


def _stratum_rows(artifacts: Artifacts, column: str, strata: Sequence[str]) -> list[dict[str, str]] | Number:
    """Rows of stratified_fpr.csv that have positives; where none has, or no such column, a Number that says so."""
    if "stratified_fpr" not in artifacts:
        return Number.unmeasured("not measured: there is no stratified_fpr")
    rows = [row for row in artifacts["stratified_fpr"] if row["stratum"] in strata and int(row["P"]) > 0]
    if not rows:
        return Number.unmeasured(f"not measurable: no positives in {', '.join(strata)}", 0)
    if column not in rows[0]:
        return Number.unmeasured(f"not measurable: stratified_fpr has no {column}")
    return rows


def judge(number: Number, bound: Bound, threshold: float, margin: float = 0.0) -> tuple[Verdict, Verdict | None]:
    """What a number says about a target: by its whole interval, and by its value alone.

    An interval that holds values on both sides of the threshold decides nothing. A number without an interval (one
    epoch of a training, say) is judged by its value. `equal to` is met where the whole interval lies within `margin`
    of the threshold, and not met where none of it does: an interval that merely holds the threshold may be that of a
    handful of images.
    """
    if number.value is None:
        return ("not measured" if number.status.startswith("not measured") else "not measurable"), None
    low, high = number.interval or (number.value, number.value)
    if bound == "equal to":
        near: Verdict = "met" if abs(number.value - threshold) <= margin else "not met"
        if low > threshold + margin or high < threshold - margin:
            return "not met", near
        return ("met" if threshold - margin <= low and high <= threshold + margin else "undecided"), near
    by_value: Verdict = "met" if _holds(number.value, bound, threshold) else "not met"
    ends = {_holds(end, bound, threshold) for end in (low, high)}
    return (by_value if len(ends) == 1 else "undecided"), by_value


def _holds(value: float, bound: Bound, threshold: float) -> bool:
    if bound == "at least":
        return value >= threshold
    if bound == "at most":
        return value <= threshold
    return value > threshold if bound == "above" else value < threshold


def difference(first: Number, second: Number) -> Number:
    """First less second, of independent samples; the interval adds both half widths in quadrature.

    A number without an interval counts as exact; where neither has one, the difference has none.
    """
    for number in (first, second):
        if number.value is None:
            return Number.unmeasured(number.status, number.n)
    assert first.value is not None
    assert second.value is not None
    value = first.value - second.value
    n = min((number.n for number in (first, second) if number.n is not None), default=None)
    if first.interval is None and second.interval is None:
        return Number(value, n, None, MEASURED)
    first_low, first_high = first.interval or (first.value, first.value)
    second_low, second_high = second.interval or (second.value, second.value)
    low = math.hypot(first.value - first_low, second_high - second.value)
    high = math.hypot(first_high - first.value, second.value - second_low)
    return Number(value, n, (value - low, value + high), MEASURED)


def _step(value: Any, step: Step) -> Any:
    if isinstance(step, Where):
        items = value if isinstance(value, list) else []
        return next((item for item in items if isinstance(item, Mapping) and item.get(step.key) == step.value), None)
    return value.get(step) if isinstance(value, Mapping) else None


def _because(status: str) -> str:
    return status if status.startswith("not ") else f"not measurable: {status}"


def _pair(interval: Sequence[float]) -> tuple[float, float]:
    low, high = interval
    return float(low), float(high)
