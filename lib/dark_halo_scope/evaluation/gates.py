"""The five gates that tell a lens finder from a network that learned a shortcut.

A new gate is one function that builds its input (in `hybrids`) and one line in REGISTRY, beside its threshold and
remedy in `config`. What each number means: execution plan of 2026-02-05, section 3, on hybrids of test pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.evaluation import intervals, metrics
from dark_halo_scope.evaluation.config import PASSED_FOR_MARGINAL, PASSED_FOR_PASS, GateSettings
from dark_halo_scope.evaluation.hybrids import (
    annulus_from_control,
    annulus_from_positive,
    core_from_positive,
    ring_averaged_arc,
)
from dark_halo_scope.evaluation.intervals import FloatArray, PairedStatistic
from dark_halo_scope.evaluation.pairs import (
    ALL,
    Hybrid,
    Pairs,
    Predict,
    ScoredPairs,
    choose_pairs,
    resolved_stratum,
    score_pairs,
    stratum_masks,
)

Verdict = Literal["pass", "marginal", "fail"]


@dataclass(frozen=True)
class Gate:
    """One gate: which images are compared how, and what that must come to.

    `first` and `second` name the kinds of image compared (a gate's own name is its hybrid). `second` also says with
    what the null exchanges labels. AUCs rank logits, because sigmoids saturate; means are of the sigmoid.
    """

    name: str
    title: str
    first: str
    second: str
    number: str
    statistic: PairedStatistic
    bound: Literal["at most", "at least"]
    weight: Literal["critical", "important"]
    judged_on: Literal["resolved", "all"]
    build: Hybrid | None = None

    def passes(self, value: float, threshold: float) -> bool:
        """Whether a value meets the threshold; NaN does not."""
        return bool(value <= threshold) if self.bound == "at most" else bool(value >= threshold)

    def samples(self, scored: ScoredPairs) -> tuple[FloatArray, FloatArray]:
        """The two aligned samples that the statistic takes."""
        first, second = scored.logits[self.first], scored.logits[self.second]
        ranks_only = self.statistic is intervals.weighted_auc
        return (first, second) if ranks_only else (expit(first), expit(second))


_AUC, _MEAN, _DROP = intervals.weighted_auc, intervals.weighted_mean, intervals.weighted_difference

REGISTRY: tuple[Gate, ...] = (
    Gate("G1", "core", "G1", "control", "AUC", _AUC, "at most", "critical", "resolved", core_from_positive),
    Gate("G2", "radial", "G2", "control", "AUC", _AUC, "at most", "critical", "resolved", ring_averaged_arc),
    Gate("G3", "annulus", "G3", "control", "AUC", _AUC, "at least", "important", "resolved", annulus_from_positive),
    Gate("G4", "hard negatives", "hard_negative", "positive", "mean p", _MEAN, "at most", "critical", "all"),
    Gate("G5", "occlusion", "positive", "G5", "drop of p", _DROP, "at least", "important", "all", annulus_from_control),
)


def measure_gates(
    predict: Predict,
    split: Pairs,
    settings: GateSettings,
    rng: np.random.Generator,
    max_pairs: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Measure every gate of a network on a packed split.

    Args:
        predict: (images (N, 3, H, W) float32 nanomaggies per pixel, packed rows (N)) -> raw logits (N,).
        split: pairs of positive, control and hard negative with their rows.
        settings: thresholds, strata, resampling; `settings.without_resampling()` leaves intervals and nulls out.
        rng: source of randomness for the choice of pairs, bootstrap and permutation.
        max_pairs: overrides `settings.max_pairs`.
        advance: told how many pairs were dealt with, for progress.

    Returns:
        JSON-ready: `thresholds, gates: {G1: {value, n, interval, null, threshold, passed, weight, strata, ...}},
        verdict, remedies, diagnostics`. A value that was not measured is None and its gate is closed.
    """
    if max_pairs is not None:
        settings = settings.model_copy(update={"max_pairs": max_pairs})
    pairs_rng, *gate_rngs, diagnostics_rng = _streams(rng)
    builders = {gate.name: gate.build for gate in REGISTRY if gate.build is not None}
    scored = score_pairs(predict, split, builders, settings, pairs_rng, advance)
    gates = {
        gate.name: judge(gate, scored, settings, gate_rng) for gate, gate_rng in zip(REGISTRY, gate_rngs, strict=True)
    }
    return {
        "thresholds": {gate.name: settings.thresholds[gate.name] for gate in REGISTRY},
        "gates": gates,
        "verdict": verdict({name: entry["passed"] for name, entry in gates.items()}),
        "remedies": remedies(gates, settings),
        "diagnostics": diagnostics(scored, settings, diagnostics_rng),
    }


def measured_pairs(rows: pa.Table, settings: GateSettings, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of the pairs that `measure_gates` looks at when it is given a generator in the same state."""
    return choose_pairs(rows, settings, _streams(rng)[0])[0]


def _streams(rng: np.random.Generator) -> list[np.random.Generator]:
    """One for the choice of pairs, one for each gate, one for the diagnostics."""
    return rng.spawn(len(REGISTRY) + 2)


def judge(gate: Gate, scored: ScoredPairs, settings: GateSettings, rng: np.random.Generator) -> dict[str, Any]:
    """One gate's entry: its number in the stratum it is judged on, and the same in every stratum."""
    first, second = gate.samples(scored)
    threshold = settings.thresholds[gate.name]
    strata = {
        stratum: measure(gate.statistic, first[mask], second[mask], scored.host[mask], settings, rng)
        for stratum, mask in stratum_masks(scored.x, settings.strata).items()
    }
    judged_on = ALL if gate.judged_on == "all" else resolved_stratum(settings.strata)
    judged = strata[judged_on]
    return {
        "title": gate.title,
        "number": gate.number,
        **judged,
        "threshold": threshold,
        "bound": gate.bound,
        "passed": judged["value"] is not None and gate.passes(judged["value"], threshold),
        "weight": gate.weight,
        "stratum": judged_on,
        "strata": strata,
    }


def measure(
    statistic: PairedStatistic,
    first: FloatArray,
    second: FloatArray,
    host: NDArray[np.intp],
    settings: GateSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """A number of one stratum: value, n, hosts, interval, null and status.

    `status` is `measured`, `too few` (pairs or hosts below the minimum) or `not finite` (the network returned NaN or
    infinity); only `measured` has a value.
    """
    hosts = len(np.unique(host))
    entry: dict[str, Any] = {"value": None, "n": len(first), "hosts": hosts, "interval": None, "null": None}
    if min(len(first), hosts) < settings.min_pairs:
        return {**entry, "status": "too few"}
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return {**entry, "status": "not finite"}
    entry["value"] = intervals.evaluate(statistic, first, second)
    if settings.bootstraps:
        interval = intervals.host_bootstrap(
            statistic, first, second, host, rng, settings.bootstraps, settings.confidence
        )
        entry["interval"] = [interval.low, interval.high]
    if settings.permutations:
        null = intervals.permutation_null(
            statistic, first, second, host, rng, settings.permutations, settings.confidence
        )
        entry["null"] = {"mean": null.mean, "low": null.low, "high": null.high, "p_value": null.p_value}
    return {**entry, "status": "measured"}


def verdict(passed: Mapping[str, bool]) -> Verdict:
    """pass: every critical gate and at least 4 of 5; marginal: at least 3 and no critical failure; fail: the rest."""
    critical_ok = all(passed[gate.name] for gate in REGISTRY if gate.weight == "critical")
    count = sum(passed[gate.name] for gate in REGISTRY)
    if critical_ok and count >= PASSED_FOR_PASS:
        return "pass"
    if critical_ok and count >= PASSED_FOR_MARGINAL:
        return "marginal"
    return "fail"


def remedies(gates: Mapping[str, Mapping[str, Any]], settings: GateSettings) -> dict[str, str]:
    """What to do about each gate that did not pass."""
    advice = {}
    for name, entry in gates.items():
        if entry["status"] == "too few":
            advice[name] = (
                f"Stratum {entry['stratum']} has {entry['n']} pairs of {entry['hosts']} hosts, below the minimum of "
                f"{settings.min_pairs}: use a split with more pairs."
            )
        elif entry["status"] == "not finite":
            advice[name] = "The network returned NaN or infinity: look for it in training and in the preprocessing."
        elif not entry["passed"]:
            advice[name] = settings.remedies[name]
    return advice


def diagnostics(scored: ScoredPairs, settings: GateSettings, rng: np.random.Generator) -> dict[str, Any]:
    """Numbers beside the gates that never decide."""
    positive, control, hard = (scored.logits[kind] for kind in ("positive", "control", "hard_negative"))
    result: dict[str, Any] = {
        "pairs": len(scored),
        "hosts": len(np.unique(scored.host)),
        "excluded": dict(scored.excluded),
        "auc_positive_control": {
            stratum: measure(_AUC, positive[mask], control[mask], scored.host[mask], settings, rng)
            for stratum, mask in stratum_masks(scored.x, settings.strata).items()
        },
        "auc_positive_hard_negative": measure(_AUC, positive, hard, scored.host, settings, rng),
    }
    if not len(scored) or not all(np.isfinite(values).all() for values in (positive, control, hard)):
        return result
    result["mean_p"] = {kind: float(expit(values).mean()) for kind, values in scored.logits.items()}
    result["tpr_at_fpr"] = {
        f"{target:g}": operating_point(metrics.tpr_at_fpr(positive, control, target, settings.confidence))
        for target in settings.fpr_targets
    }
    # p >= 0.5 is logit >= 0
    result["hard_negative_fpr_at_0.5"] = rate_entry(metrics.at_threshold(positive, hard, 0.0, settings.confidence).fpr)
    result["accuracy_at_0.5"] = rate_entry(metrics.accuracy(positive, control, 0.0, settings.confidence))
    return result


def rate_entry(rate: metrics.Rate) -> dict[str, Any]:
    """A rate as JSON."""
    return {
        "value": rate.value if rate.measured else None,
        "n": rate.trials,
        "interval": [rate.interval.low, rate.interval.high],
    }


def operating_point(point: metrics.OperatingPoint) -> dict[str, Any]:
    """An operating point as JSON, `not measurable` where too few negatives pass it."""
    return {
        "status": "measured" if point.measurable else "not measurable",
        "threshold_logit": point.threshold,
        "tpr": rate_entry(point.tpr),
        "fpr": rate_entry(point.fpr),
    }
