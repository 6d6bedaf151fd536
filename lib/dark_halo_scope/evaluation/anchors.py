"""What a network says of known lenses: recall at given thresholds, by what is known of them, with exact intervals.

Recall here is of lenses that somebody has found, not of lenses that there are. Where machine learning found them in
these very images, it is circular; where they are known from spectra or from space, the arcs may be invisible from the
ground. So each group is reported apart, and the stress lists never enter a headline.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.intervals import delong
from dark_halo_scope.evaluation.metrics import rate
from dark_halo_scope.evaluation.pairs import column
from dark_halo_scope.evaluation.score_table import CONTROL, HARD_NEGATIVE, NEGATIVE, ScoreTable

#: Lenses that were found by machine learning in these very images.
CIRCULAR = "machine_learning_this_survey"
#: Columns with this prefix are tier schemes, each kept apart by its name.
TIER_PREFIX = "tier_"
UNKNOWN = "unknown"
#: What negatives are told apart by: column of their scores -> how a sample of one of its values is called.
COMPARED = {"control_kind": "negative", "confuser_category": "confuser"}
#: What anchors.csv holds of each anchor that was scored, where its list says it.
TABLE_COLUMNS = (
    *("name", "ra", "dec", "tier_grade", "tier_gen5_prime", "stress", "discovery", "theta_e_arcsec", "split"),
    *("logit", "score", "cutout_row"),
)
NOTES = (
    f"Lenses of discovery `{CIRCULAR}` were found by machine learning in these very images: recall on them is circular "
    "and says how alike two finders are; `not_circular` leaves them out.",
    "Stress lists hold lenses known from spectra or from space, whose arcs may be invisible from the ground; they are "
    "under `stress` and in no other group.",
    "Groups hold lenses of every split, those under `split` apart: for a finder that was trained on lenses of the sky "
    "they are recall on its own training, and validation.json has that of its test split.",
    "Thresholds at a false positive rate come from validation negatives, whose mix is not the sky's.",
    "Intervals take images for independent. Each lens is one galaxy; samples without lenses may hold several images "
    "of one (hard negatives), for which performance.json has intervals over galaxies.",
)

Entry = dict[str, Any]


@dataclass(frozen=True)
class Threshold:
    """Scores at or above `value` are detections.

    name: `p0.5`, or `fpr0.001` for a threshold at a false positive rate.
    value: in p; None where it could not be measured.
    status: `measured`, or why not.
    """

    name: str
    value: float | None
    status: str = "measured"


def thresholds(probabilities: Sequence[float], operating_points: Sequence[Mapping[str, Any]]) -> list[Threshold]:
    """All thresholds: fixed probabilities, then those at fixed false positive rates.

    Args:
        probabilities: in (0, 1).
        operating_points: of performance.json, each with `fpr_target`, `threshold` (in p, or null) and `status`.

    Raises:
        BadInputError: an operating point lacks one of the three.
    """
    found = [Threshold(f"p{p:g}", p) for p in probabilities]
    for point in operating_points:
        try:
            value = point["threshold"]
            found.append(
                Threshold(
                    f"fpr{float(point['fpr_target']):g}", None if value is None else float(value), str(point["status"])
                )
            )
        except KeyError as error:
            raise BadInputError(f"An operating point of performance.json lacks {error}; measure it again.") from None
    return found


def share_above(scores_N: NDArray[np.float64], threshold: Threshold, confidence: float) -> Entry:
    """Share of scores at or above a threshold, with its Clopper-Pearson interval."""
    n = len(scores_N)
    if threshold.value is None:
        return _entry(None, None, n, None, threshold, threshold.status)
    if n == 0:
        return _entry(None, 0, 0, None, threshold, "not measurable: there is none")
    found = rate(int(np.sum(scores_N >= threshold.value)), n, confidence)
    return _entry(found.value, found.successes, n, [found.interval.low, found.interval.high], threshold, "measured")


def _entry(
    value: float | None, k: int | None, n: int, interval: list[float] | None, threshold: Threshold, status: str
) -> Entry:
    return {"value": value, "k": k, "n": n, "interval": interval, "threshold": threshold.value, "status": status}


def is_stress(rows: pa.Table) -> NDArray[np.bool_]:
    """(N,) whether a row is of a stress list; without the column, none is."""
    if "stress" not in rows.column_names:
        return np.zeros(rows.num_rows, dtype=bool)
    return np.array([bool(value) for value in rows["stress"].to_pylist()], dtype=bool)


def groups(rows: pa.Table, theta_e_edges: Sequence[float]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Who belongs together: scheme -> group -> (N,) mask.

    `overall` has `headline` (all but stress lists) and `not_circular`, `stress` the stress lists, whole and by tier;
    the others (each tier scheme, `discovery`, `split`, `theta_e`) divide the headline. Bins without anybody stay, so
    that what was not tested shows.
    """
    stress_N = is_stress(rows)
    headline_N = ~stress_N
    circular_N = np.array([value == CIRCULAR for value in _texts(rows, "discovery")], dtype=bool)
    found = {"overall": {"headline": headline_N, "not_circular": headline_N & ~circular_N}}
    schemes = [name for name in rows.column_names if name.startswith(TIER_PREFIX)]
    for scheme in (*schemes, "discovery", "split"):
        found[scheme] = _by_value(_texts(rows, scheme), headline_N)
    theta_e_N = (
        column(rows, "theta_e_arcsec") if "theta_e_arcsec" in rows.column_names else np.full(len(stress_N), np.nan)
    )
    found["theta_e"] = {name: inside_N & headline_N for name, inside_N in _bins(theta_e_N, theta_e_edges).items()}
    found["stress"] = {"all": stress_N}
    for scheme in schemes:
        parts = _by_value(_texts(rows, scheme), stress_N)
        found["stress"] |= {f"{scheme} {value}": mask_N for value, mask_N in parts.items()}
    return found


def _texts(rows: pa.Table, name: str) -> list[str]:
    if name not in rows.column_names:
        return [UNKNOWN] * rows.num_rows
    return [UNKNOWN if value is None else str(value) for value in rows[name].to_pylist()]


def _by_value(values: Sequence[str], within_N: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    array_N = np.array(values, dtype=object)
    return {value: np.asarray(array_N == value, dtype=bool) & within_N for value in sorted(set(array_N[within_N]))}


def _bins(values_N: NDArray[np.float64], edges: Sequence[float]) -> dict[str, NDArray[np.bool_]]:
    known_N = np.isfinite(values_N)
    bins = {f"below {edges[0]:g}": known_N & (values_N < edges[0])}
    for low, high in pairwise(edges):
        bins[f"[{low:g},{high:g})"] = known_N & (values_N >= low) & (values_N < high)
    bins[f"{edges[-1]:g} and above"] = known_N & (values_N >= edges[-1])
    bins[UNKNOWN] = ~known_N
    return bins


def measure_anchors(
    rows: pa.Table,
    excluded: Mapping[str, int],
    comparison: Mapping[str, NDArray[np.float64]],
    cuts: Sequence[Threshold],
    settings: AnchorEvaluationSettings,
) -> dict[str, Any]:
    """Recall of scored anchors by group, and what the same thresholds let through.

    Args:
        rows: scored anchors, with `score`.
        excluded: why anchors were not scored -> how many.
        comparison: name of a sample without lenses -> scores in p; `control` is the one that AUCs are measured against.
        cuts: thresholds.
        settings: bins and confidence.

    Returns:
        JSON-ready. `recall` and `contamination` hold, by group and threshold, `value`, `k`, `n`, `interval`
        (Clopper-Pearson), `threshold` and `status`; `auc` the AUC of a group against the controls (DeLong).
    """
    scores_N = column(rows, "score")
    members = groups(rows, settings.theta_e_edges)
    controls = comparison.get("control", np.empty(0))
    listed = rows.num_rows + sum(excluded.values())
    return {
        "counts": {
            "listed": listed,
            "scored": rows.num_rows,
            "headline": int(members["overall"]["headline"].sum()),
            "stress": int(members["stress"]["all"].sum()),
            "excluded": dict(sorted(excluded.items())),
        },
        "thresholds": {cut.name: {"threshold": cut.value, "status": cut.status} for cut in cuts},
        "recall": {
            scheme: {
                name: {cut.name: share_above(scores_N[mask_N], cut, settings.confidence) for cut in cuts}
                for name, mask_N in parts.items()
            }
            for scheme, parts in members.items()
        },
        "auc": {
            scheme: {
                name: auc_against(scores_N[mask_N], controls, settings.confidence) for name, mask_N in parts.items()
            }
            for scheme, parts in members.items()
        },
        "contamination": {
            name: {cut.name: share_above(scores, cut, settings.confidence) for cut in cuts}
            for name, scores in sorted(comparison.items())
        },
        "quantiles": {
            **{
                f"{scheme} {name}": _quantiles(scores_N[mask_N])
                for scheme, parts in members.items()
                if scheme == "overall" or scheme.startswith(TIER_PREFIX)
                for name, mask_N in parts.items()
            },
            **{name: _quantiles(scores) for name, scores in sorted(comparison.items())},
        },
        "confidence": settings.confidence,
        "notes": list(NOTES),
    }


def auc_against(scores_N: NDArray[np.float64], controls_M: NDArray[np.float64], confidence: float) -> Entry:
    """AUC of anchors against galaxies that are no lenses, with DeLong's interval."""
    n = len(scores_N)
    if min(n, len(controls_M)) < 2:
        return {"value": None, "n": n, "n_controls": len(controls_M), "interval": None, "status": _TOO_FEW}
    value, interval = delong(scores_N, controls_M, confidence)
    bounds: list[float] | None = [interval.low, interval.high]
    if interval.low == interval.high:
        bounds = _without_overlap(value, n, len(controls_M), confidence)
    return {"value": value, "n": n, "n_controls": len(controls_M), "interval": bounds, "status": "measured"}


def _without_overlap(value: float, n: int, m: int, confidence: float) -> list[float] | None:
    """Interval of the AUC of n and m images that do not overlap: DeLong's variance is zero, which a few do not prove.

    A share r of controls lies below some score q. That all m do has the probability r^m, and that all n anchors lie
    above it, where a share s does, has s^n. Where neither is less likely than half a tail, the AUC is r s at least.
    """
    least = ((1 - confidence) / 4) ** (1 / n + 1 / m)
    if value == 1:
        return [float(least), 1.0]
    return [0.0, float(1 - least)] if value == 0 else None


_TOO_FEW = "not measurable: fewer than two of a class"
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def _quantiles(scores_N: NDArray[np.float64]) -> dict[str, Any]:
    values = np.quantile(scores_N, _QUANTILES).tolist() if len(scores_N) else [None] * len(_QUANTILES)
    return {"n": len(scores_N), **{f"q{100 * q:02.0f}": value for q, value in zip(_QUANTILES, values, strict=True)}}


def comparison_samples(table: ScoreTable) -> dict[str, NDArray[np.float64]]:
    """Scores in p of images that are no lenses, by kind; negatives also by their class and their confuser category.

    A galaxy's control counts once, however many arcs the galaxy bears. The score table was read with `COMPARED`.
    """
    found = {"control": table.score[(table.kind == CONTROL) & ~table.repeated]}
    found["hard_negative"] = table.score[table.kind == HARD_NEGATIVE]
    negative_N = table.kind == NEGATIVE
    found["negative"] = table.score[negative_N]
    for column_name, prefix in COMPARED.items():
        codes_N, names = table.labels.get(column_name, (np.full(len(table), -1, np.int16), ()))
        found |= {f"{prefix} {name}": table.score[negative_N & (codes_N == code)] for code, name in enumerate(names)}
    return {name: scores for name, scores in found.items() if len(scores)}


def excluded_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """How many rows were left out for each reason."""
    return dict(sorted(Counter(reasons).items()))


def anchor_table(rows: pa.Table) -> pa.Table:
    """The columns of anchors.csv; those that the list lacks are empty."""
    n = rows.num_rows
    arrays = [rows[name] if name in rows.column_names else pa.nulls(n, pa.string()) for name in TABLE_COLUMNS]
    return pa.table(dict(zip(TABLE_COLUMNS, arrays, strict=True))).sort_by(
        [("ra", "ascending"), ("dec", "ascending"), ("name", "ascending")]
    )
