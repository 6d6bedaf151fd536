"""Checks of what a network says of parts of the validation split: unseen arcs, bricks, sizes, errors, probabilities."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.evaluation.metrics import auc
from dark_halo_scope.evaluation.pairs import column, true_theta_e
from dark_halo_scope.training.checks import Logits, Record, measured, too_few, unmeasured
from dark_halo_scope.training.config import DiagnosticSettings

_CONFIDENT = 1.96  # standard deviations that are no accident


@dataclass(frozen=True)
class Scored:
    """Logits of a validation split and what they belong to.

    logits: by kind. rows: of the pairs. against: the kind of plain negatives that positives are compared with.
    against_rows: of those. mix: share of each kind in training.
    """

    logits: Logits
    rows: pa.Table
    against: str
    against_rows: pa.Table
    mix: Mapping[str, float]

    @classmethod
    def of(cls, logits: Logits, rows: pa.Table, pool_rows: pa.Table, mix: Mapping[str, float]) -> "Scored":
        """Positives beside their controls, or beside the pool where training shows no controls."""
        pooled = "negative" in logits and not mix["control"]
        return cls(logits, rows, "negative" if pooled else "control", pool_rows if pooled else rows, mix)

    @property
    def positive(self) -> NDArray[np.float64]:
        """Logits of the lenses."""
        return self.logits["positive"]

    @property
    def reference(self) -> NDArray[np.float64]:
        """Logits of the plain negatives."""
        return self.logits[self.against]


def group_checks(scored: Scored, settings: DiagnosticSettings) -> list[Record]:
    """The checks that the configuration review wants every ten epochs (section 3.2), and calibration."""
    return [check(scored, settings) for check in (_undetectable, _bricks, _theta_e, _errors, _calibration)]


def _undetectable(scored: Scored, settings: DiagnosticSettings) -> Record:
    """Arcs whose signal-to-noise is 0 are lenses by label and cannot be seen: who finds them reads something else."""
    name, criterion = "arc_snr_0_accuracy", f"below {settings.undetectable_accuracy:g}"
    if "arc_snr" not in scored.rows.column_names:
        return unmeasured(name, None, 0, criterion, "rows have no arc_snr")
    hidden = scored.positive[column(scored.rows, "arc_snr") == 0]
    count = len(hidden)
    if count < settings.min_count:
        return unmeasured(name, None, count, criterion, too_few(count, "arcs of arc_snr 0", settings))
    accuracy = float((hidden >= 0).mean())
    return measured(name, accuracy, count, criterion, accuracy < settings.undetectable_accuracy)


def _bricks(scored: Scored, settings: DiagnosticSettings) -> Record:
    """Spread of the AUC from brick to brick, where it is more than the numbers of images would make by themselves."""
    name, criterion = "brick_auc_std", f"below {settings.brick_auc_std:g}"
    positive_bricks, reference_bricks = _bricks_of(scored.rows), _bricks_of(scored.against_rows)
    overall = _auc(scored.positive, scored.reference)
    values, variances = [], []
    for brick in sorted(set(positive_bricks) & set(reference_bricks)):
        positive = scored.positive[positive_bricks == brick]
        negative = scored.reference[reference_bricks == brick]
        if min(len(positive), len(negative)) >= settings.brick_pairs:
            values.append(_auc(positive, negative))
            variances.append(_auc_variance(overall, len(positive), len(negative)))
    count = len(values)
    if count < 2:
        reason = f"bricks with {settings.brick_pairs} images of both kinds: {count}, fewer than 2"
        return unmeasured(name, None, count, criterion, reason)
    spread, by_chance = float(np.std(values, ddof=1)), float(np.sqrt(np.mean(variances)))
    if by_chance >= settings.brick_auc_std:
        reason = f"so few images a brick spread the AUC by {by_chance:.3f} by themselves"
        return {**unmeasured(name, spread, count, criterion, reason), "by_chance": by_chance}
    check = measured(name, spread, count, criterion, spread < settings.brick_auc_std)
    return {**check, "by_chance": by_chance}


def _theta_e(scored: Scored, settings: DiagnosticSettings) -> Record:
    """AUC of positives in bins of theta_E: wide arcs are easier, so a bin below a narrower one means something else.

    The value is the AUC of the widest bin less that of the narrowest, `n` the number of bins.
    """
    name = "theta_e_auc"
    criterion = "neither the widest bin below the narrowest nor any below the one before by more than chance"
    if not {"theta_e_arcsec", "theta_e_arcsec_true"} & set(scored.rows.column_names):
        return {**unmeasured(name, None, 0, criterion, "rows have no theta_E"), "bins": []}
    theta_e = true_theta_e(scored.rows)
    bins: list[Record] = []
    for low, high in itertools.pairwise((0.0, *settings.theta_e_edges, float("inf"))):
        inside = (theta_e >= low) & (theta_e < high)
        positive = scored.positive[inside]
        # Controls are those of the same pairs, so that a bin's hosts are alike; a pool has no theta_E.
        negative = scored.reference[inside] if scored.against == "control" else scored.reference
        if min(len(positive), len(negative)) >= settings.min_count:
            value = _auc(positive, negative)
            error = float(np.sqrt(_auc_variance(value, len(positive), len(negative))))
            upper = None if np.isinf(high) else high
            bins.append({"low": low, "high": upper, "auc": value, "error": error, "n": len(positive)})
    count = len(bins)
    if count < 2:
        reason = f"bins of theta_E with {settings.min_count} positives: {count}, fewer than 2"
        return {**unmeasured(name, None, count, criterion, reason), "bins": bins}
    values = np.array([entry["auc"] for entry in bins])
    errors = np.array([entry["error"] for entry in bins])
    falls = np.diff(values) < -_CONFIDENT * np.hypot(errors[1:], errors[:-1])
    rise = float(values[-1] - values[0])
    falls_overall = rise < -_CONFIDENT * np.hypot(errors[-1], errors[0])
    return {**measured(name, rise, count, criterion, not (falls_overall or falls.any())), "bins": bins}


def _errors(scored: Scored, settings: DiagnosticSettings) -> Record:
    """The confusion matrix at p = 0.5, and the ratio of its two error rates, which numbers of images do not change."""
    limit = settings.fp_fn_ratio
    name, criterion = "fp_fn_ratio", f"between {1 / limit:.2g} and {limit:g}"
    positives, negatives = len(scored.positive), len(scored.reference)
    alarms, missed = int((scored.reference >= 0).sum()), int((scored.positive < 0).sum())
    confusion = {"tp": positives - missed, "fn": missed, "fp": alarms, "tn": negatives - alarms}
    detail = {"confusion": confusion, "against": scored.against}
    mistakes = missed + alarms
    if mistakes < settings.min_count:
        return {**unmeasured(name, None, mistakes, criterion, too_few(mistakes, "mistakes", settings)), **detail}
    # Without a missed lens the ratio is infinite, which JSON does not have and which is no balance either.
    ratio = (alarms / negatives) / (missed / positives) if missed else None
    balanced = ratio is not None and 1 / limit <= ratio <= limit
    return {**measured(name, ratio, mistakes, criterion, balanced), **detail}


def _calibration(scored: Scored, settings: DiagnosticSettings) -> Record:
    """Distance of p from the share of lenses in bins of equal mass, at the class mix that training shows.

    Also its part above p = 0.1 and the Brier score: at few lenses in many, a constant has a small distance too.
    """
    name, criterion = "ece", f"below {settings.ece:g}"
    shown = {kind: values for kind, values in scored.logits.items() if scored.mix[kind] > 0}
    p = np.concatenate([expit(values) for values in shown.values()])
    label = np.concatenate([np.full(len(values), float(kind == "positive")) for kind, values in shown.items()])
    weight = np.concatenate([np.full(len(values), scored.mix[kind] / len(values)) for kind, values in shown.items()])
    needed = settings.min_count * settings.calibration_bins
    if len(p) < needed:
        reason = f"{len(p)} images, fewer than the {needed} that {settings.calibration_bins} bins need"
        return unmeasured(name, None, len(p), criterion, reason)
    bins = reliability(p, label, weight, settings.calibration_bins)
    ece, above = distance(bins), p > 0.1
    confident = reliability(p[above], label[above], weight[above], settings.calibration_bins) if above.any() else []
    return {
        **measured(name, ece, len(p), criterion, ece < settings.ece),
        "ece_above_0.1": distance(confident) if confident else None,
        "brier": float(np.average((p - label) ** 2, weights=weight)),
        "bins": bins,
    }


def reliability(
    p_N: NDArray[np.float64], label_N: NDArray[np.float64], weight_N: NDArray[np.float64], bins: int
) -> list[Record]:
    """Mean p and share of lenses in bins of equal weight, in order of p; equal p share a bin.

    Args:
        p_N: probabilities.
        label_N: 1 for lenses, 0 for the rest.
        weight_N: positive.
        bins: at most this many; empty ones are left out.
    """
    _, inverse = np.unique(p_N, return_inverse=True)
    mass = np.bincount(inverse, weight_N)
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    index = np.minimum((middle * bins).astype(int), bins - 1)[inverse]
    found = []
    for number in np.unique(index):
        inside = index == number
        weight = weight_N[inside]
        found.append(
            {
                "p": float(np.average(p_N[inside], weights=weight)),
                "lenses": float(np.average(label_N[inside], weights=weight)),
                "weight": float(weight.sum() / weight_N.sum()),
                "n": int(inside.sum()),
            }
        )
    return found


def distance(bins: Sequence[Record]) -> float:
    """Expected calibration error of the bins that `reliability` made."""
    return float(sum(entry["weight"] * abs(entry["p"] - entry["lenses"]) for entry in bins))


def _bricks_of(rows: pa.Table) -> NDArray[np.object_]:
    return np.array(rows.column("brickname").to_pylist(), dtype=object)


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return auc(labels, np.concatenate([positive, negative]))


def _auc_variance(value: float, positives: int, negatives: int) -> float:
    """Sampling variance of an AUC of independent scores (Hanley & McNeil 1982, eq. 2)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    both = value * (1 - value) + (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2)
    return max(0.0, both) / (positives * negatives)
