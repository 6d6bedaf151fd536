"""False positive rates at fixed completeness, and completeness at fixed rates, by stratum.

Strata of theta_E, theta_E / PSF and the arc's signal to noise restrict positives and have all negatives each; strata of
PSF, depth, exposures and the galaxy's magnitude restrict both classes; strata of a kind or class of negatives restrict
negatives. A score at or above the threshold is a detection, and tied scores are told apart by no threshold: they pass
together or not at all. Thresholds come from the very images on which they are reported.

Negatives are controls and images that are in no pair, a galaxy's control once. Hard negatives are a stratum of their
own. Rates of a sample drawn with unequal probabilities are not the survey's: where negatives have a `sampling_prob`,
rates weighted by its inverse stand beside the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.evaluation import host_resampling as resampling
from dark_halo_scope.evaluation.fpr_config import MIN_POSITIVES, FprSettings
from dark_halo_scope.evaluation.intervals import FloatArray, Interval, clopper_pearson
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES
from dark_halo_scope.evaluation.number_entry import MEASURED, not_measurable
from dark_halo_scope.evaluation.score_table import CONTROL, HARD_NEGATIVE, NEGATIVE, POSITIVE, ScoreTable

#: Columns that strata are made of, read from scores; those that scores lack are looked up or left out.
NUMBERS = ("theta_e_over_psf", "psfsize_r", "psfdepth_r", "arc_snr", "nobs_z", "rmag", "sampling_prob")
#: What negatives are told apart by: the class of a confuser; N1 or N2; the intended category of an N2.
LABELS = ("control_kind", "pool", "confuser_category")
#: What a catalogue of the galaxies gives where scores lack it.
GALAXY_FACTS = ("nobs_z", "rmag")

_DECIMALS = 6

Restricts = Literal["nothing", "positives", "negatives", "both"]
Mask = NDArray[np.bool_]
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Stratum:
    """A name as in the CSV, which class it restricts, and its rows among all, (N,)."""

    name: str
    restricts: Restricts
    rows: Mask


@dataclass(frozen=True)
class Ranked:
    """A score table in the order of its scores (increasing), and what every stratum is counted with.

    level, group: (N,) level of the score and group of the host, for the bootstrap.
    levels: number of levels; `exact` where each is one score.
    weight: (N,) inverse sampling probability of negatives, NaN where unknown.
    """

    table: ScoreTable
    level: NDArray[np.int32]
    group: NDArray[np.int32]
    levels: int
    exact: bool
    weight: FloatArray
    negative: Mask
    positive: Mask


@dataclass(frozen=True)
class Side:
    """One class of one stratum: sorted scores, and counts by group and level (None without a bootstrap)."""

    score: FloatArray
    hosts: int
    counts_GK: NDArray[np.float32] | None


def stratified_rates(table: ScoreTable, settings: FprSettings) -> Iterator[dict[str, Cell]]:
    """Rows of the CSV, one per stratum.

    Args:
        table: scores, with those of NUMBERS and LABELS that are known.
        settings: bins, targets and intervals.

    Yields:
        Values by column, in the order of `columns`; None is an empty cell.
    """
    rng = np.random.default_rng(settings.seed)
    ranked = _ranked(table, rng)
    everything = {False: ranked.positive, True: ranked.negative}
    whole = {is_negative: _side(ranked, rows, settings) for is_negative, rows in everything.items()}
    whole_survey = _survey(ranked, ranked.negative, settings)
    for stratum in strata(ranked.table, settings):
        sides = []
        for is_negative, restricting in ((False, "positives"), (True, "negatives")):
            if stratum.restricts in (restricting, "both"):
                chosen = stratum.rows & (~ranked.positive if is_negative else ranked.positive)
                # Hard negatives are no negatives but in a stratum of their own.
                hard = stratum.name == _HARD and is_negative
                sides.append(_side(ranked, chosen if hard else chosen & everything[is_negative], settings))
            else:
                sides.append(whole[is_negative])
        survey = whole_survey
        if stratum.restricts in ("negatives", "both"):
            survey = _survey(ranked, ranked.negative & stratum.rows, settings)
        yield _row(stratum, sides[0], sides[1], survey, ranked, settings, rng)


def strata(table: ScoreTable, settings: FprSettings) -> Iterator[Stratum]:
    """Every stratum that has rows: ALL, then bins of each variable, then classes of negatives."""
    yield Stratum("ALL", "nothing", np.ones(len(table), bool))
    x = table.numbers.get("theta_e_over_psf")
    psf = table.numbers.get("psfsize_r")
    # Stored data may mean something else by theta_e_arcsec; x is made of the true radius. Grids of radii lie on edges
    # of bins, where single precision would put a tenth of them below.
    theta = None if x is None or psf is None else np.round(x.astype(float) * psf, _DECIMALS).astype(np.float32)
    binned: Sequence[tuple[str, Restricts, NDArray[np.float32] | None, Sequence[float]]] = (
        ("theta", "positives", theta, settings.theta_edges),
        ("res", "positives", x, settings.resolution_edges),
        ("arc_snr", "positives", table.numbers.get("arc_snr"), settings.arc_snr_edges),
        ("psf", "both", psf, settings.psf_edges),
        ("depth", "both", table.numbers.get("psfdepth_r"), settings.depth_edges),
        ("rmag", "both", table.numbers.get("rmag"), settings.magnitude_edges),
        ("nobs_z", "both", table.numbers.get("nobs_z"), (*settings.nobs_z_edges, np.inf)),
    )
    for name, restricts, values, edges in binned:
        if values is not None:
            concerned = np.isin(table.kind, (POSITIVE,) if restricts == "positives" else (POSITIVE, CONTROL, NEGATIVE))
            yield from _bins(name, restricts, values, edges, concerned)
    for name, kind in (("kind control", CONTROL), ("kind negative", NEGATIVE), (_HARD, HARD_NEGATIVE)):
        if (chosen := table.kind == kind).any():
            yield Stratum(name, "negatives", chosen)
    for label in LABELS:
        if label in table.labels:
            yield from _classes(label, *table.labels[label], table.kind == NEGATIVE)


def _classes(label: str, codes: NDArray[np.integer], names: Sequence[str], concerned: Mask) -> Iterator[Stratum]:
    """Classes of negatives by name, and those whose class is unknown, where any is known."""
    known = np.zeros(len(codes), bool)
    for code, name in sorted(enumerate(names), key=lambda item: item[1]):
        if (chosen := (codes == code) & concerned).any():
            known |= chosen
            yield Stratum(f"{label} {name}", "negatives", chosen)
    if known.any() and (unknown := concerned & ~known).any():
        yield Stratum(f"{label} unknown", "negatives", unknown)


_HARD = "kind hard_negative"


def columns(settings: FprSettings) -> list[str]:
    """Names of the CSV's columns: those of the earlier evaluator, each rate followed by its intervals."""
    found = ["stratum", "restricts", "n", "P", "N", "hosts_P", "hosts_N", "N_survey", "N_survey_effective", "status"]
    for target in settings.tpr_targets:
        name = _fpr_name(target)
        found += [name + part for part in ("", "_low", "_high", "_boot_low", "_boot_high", "_k", "_measurable")]
        found += [f"thr@TPR{target:.2f}"]
        found += [f"{name}_survey", f"{name}_survey_boot_low", f"{name}_survey_boot_high"]
    for target in settings.fpr_targets:
        name = _tpr_name(target)
        found += [name + part for part in ("", "_low", "_high", "_boot_low", "_boot_high", "_measurable")]
        found += [name + part for part in ("_fpr", "_fpr_low", "_fpr_high")] + [f"thr@FPR{target:g}"]
    return found


def _fpr_name(target: float) -> str:
    return f"FPR@TPR{target:.2f}"


def _tpr_name(target: float) -> str:
    return f"TPR@FPR{target:g}"


def _bins(
    name: str, restricts: Restricts, values: NDArray[np.float32], edges: Sequence[float], concerned: Mask
) -> Iterator[Stratum]:
    """Bins, lower edge included, and what lies in none of them or is unknown, so that nothing goes uncounted."""
    inside = np.zeros(len(values), bool)
    for low, high in pairwise(edges):
        # Edges as the values are: a float32 of 1.1 is above the float64 of 1.1.
        rows = (values >= np.float32(low)) & (values < np.float32(high)) & concerned
        inside |= rows
        if rows.any():
            yield Stratum(_bin_name(name, low, high), restricts, rows)
    unknown = np.isnan(values) & concerned
    for suffix, rows in (("outside", concerned & ~inside & ~unknown), ("unknown", unknown)):
        if rows.any():
            yield Stratum(f"{name} {suffix}", restricts, rows)


def _bin_name(name: str, low: float, high: float) -> str:
    if name == "nobs_z":
        return f"{name} {low:g}+" if np.isinf(high) else f"{name} {low:g}-{high - 1:g}"
    return f"{name}[{low:g},{high:g})"


def _ranked(table: ScoreTable, rng: np.random.Generator) -> Ranked:
    ordered = table.take(np.argsort(table.score, kind="stable"))
    positive = ordered.kind == POSITIVE
    negative = ((ordered.kind == CONTROL) | (ordered.kind == NEGATIVE)) & ~ordered.repeated
    levels = resampling.choose_levels(ordered.score[positive], ordered.score[~positive])
    probability = ordered.numbers.get("sampling_prob", np.full(len(ordered), np.nan, np.float32))
    weight = np.full(len(ordered), np.nan)
    drawn = (ordered.kind == NEGATIVE) & (probability > 0)
    weight[drawn] = 1 / probability[drawn].astype(float)
    return Ranked(
        ordered,
        levels.of(ordered.score),
        resampling.host_groups(ordered.host, rng),
        len(levels.edges),
        levels.exact,
        weight,
        negative,
        positive,
    )


def _side(ranked: Ranked, rows: Mask, settings: FprSettings) -> Side:
    chosen = np.flatnonzero(rows)
    host = ranked.table.host[chosen]
    counts = None
    if settings.bootstraps and len(chosen):
        counts = resampling.count(ranked.group[chosen], ranked.level[chosen], ranked.levels)
    hosts = int(np.count_nonzero(np.bincount(host))) if len(host) else 0
    return Side(ranked.table.score[chosen], hosts, counts)


@dataclass(frozen=True)
class _Survey:
    """Negatives with a sampling probability: sorted scores, their weights, and weights by group and level."""

    score: FloatArray
    weight: FloatArray
    weights_GK: NDArray[np.float32] | None


def _survey(ranked: Ranked, rows: Mask, settings: FprSettings) -> _Survey:
    chosen = np.flatnonzero(rows & np.isfinite(ranked.weight))
    weight = ranked.weight[chosen]
    weights = None
    if settings.bootstraps and len(chosen):
        weights = resampling.count(ranked.group[chosen], ranked.level[chosen], ranked.levels, weight)
    return _Survey(ranked.table.score[chosen], weight, weights)


def _row(
    stratum: Stratum,
    positive: Side,
    negative: Side,
    survey: _Survey,
    ranked: Ranked,
    settings: FprSettings,
    rng: np.random.Generator,
) -> dict[str, Cell]:
    n_positive, n_negative = len(positive.score), len(negative.score)
    row: dict[str, Cell] = dict.fromkeys(columns(settings))
    row |= {
        "stratum": stratum.name,
        "restricts": stratum.restricts,
        "n": n_positive + n_negative,
        "P": n_positive,
        "N": n_negative,
        "hosts_P": positive.hosts,
        "hosts_N": negative.hosts,
        "N_survey": len(survey.score),
        # Kish's effective size: how many rows of equal weight would say as much.
        "N_survey_effective": float(survey.weight.sum() ** 2 / (survey.weight**2).sum()) if len(survey.score) else 0.0,
        "status": _status(n_positive, n_negative, settings.min_rows),
    }
    if row["status"] != MEASURED:
        return row
    boots = _bootstrap(positive, negative, ranked, settings, rng)
    survey_boots = _survey_bootstrap(positive, survey, ranked, settings, rng)
    for target in settings.tpr_targets:
        row |= _fpr_cells(target, positive, negative, survey, settings, boots, survey_boots)
    for target in settings.fpr_targets:
        row |= _tpr_cells(target, positive, negative, settings, boots)
    return row


def _status(n_positive: int, n_negative: int, min_rows: int) -> str:
    if not n_positive:
        return not_measurable("no positives")
    if not n_negative:
        return not_measurable("no negatives")
    if n_positive + n_negative < min_rows:
        return not_measurable(f"{n_positive + n_negative} rows, fewer than {min_rows}")
    return MEASURED


def _above(ordered: FloatArray, threshold: float) -> int:
    """How many of the increasing scores lie at or above the threshold."""
    return len(ordered) - int(np.searchsorted(ordered, threshold, side="left"))


def _fpr_cells(
    target: float,
    positive: Side,
    negative: Side,
    survey: _Survey,
    settings: FprSettings,
    boots: Mapping[str, Interval | None],
    survey_boots: Mapping[str, Interval | None],
) -> dict[str, Cell]:
    name = _fpr_name(target)
    needed = max(1, int(np.ceil(target * len(positive.score) - 1e-9)))
    threshold = float(positive.score[-needed])
    alarms, n = _above(negative.score, threshold), len(negative.score)
    low, high = clopper_pearson(alarms, n, settings.confidence)
    # The threshold of a handful of positives is anywhere.
    enough = len(positive.score) >= MIN_POSITIVES
    measurable = alarms >= MIN_FALSE_POSITIVES and enough
    cells: dict[str, Cell] = {
        # The interval of a handful of false positives is true all the same; their ratio is no measurement.
        name: alarms / n if measurable else None,
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_k": alarms,
        f"{name}_measurable": measurable,
        f"thr@TPR{target:.2f}": threshold,
        **_interval_cells(f"{name}_boot", boots.get(name)),
    }
    passing = _above(survey.score, threshold)
    if passing >= MIN_FALSE_POSITIVES and enough:
        cells[f"{name}_survey"] = float(survey.weight[-passing:].sum() / survey.weight.sum())
        cells |= _interval_cells(f"{name}_survey_boot", survey_boots.get(name))
    return cells


def _tpr_cells(
    target: float, positive: Side, negative: Side, settings: FprSettings, boots: Mapping[str, Interval | None]
) -> dict[str, Cell]:
    name, n = _tpr_name(target), len(negative.score)
    # The tolerance keeps 0.01 * 300 at 3 where floating point says 2.9999999999999996.
    allowed = int(np.floor(target * n + 1e-9))
    threshold = float(np.nextafter(negative.score[n - 1 - allowed], np.inf))
    alarms = _above(negative.score, threshold)
    if alarms < MIN_FALSE_POSITIVES:
        return {f"{name}_measurable": False}
    hits, n_positive = _above(positive.score, threshold), len(positive.score)
    low, high = clopper_pearson([hits, alarms], [n_positive, n], settings.confidence)
    return {
        name: hits / n_positive,
        f"{name}_low": float(low[0]),
        f"{name}_high": float(high[0]),
        **_interval_cells(f"{name}_boot", boots.get(name)),
        f"{name}_measurable": True,
        f"{name}_fpr": alarms / n,
        f"{name}_fpr_low": float(low[1]),
        f"{name}_fpr_high": float(high[1]),
        f"thr@FPR{target:g}": threshold,
    }


def _interval_cells(name: str, interval: Interval | None) -> dict[str, Cell]:
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _bootstrap(
    positive: Side, negative: Side, ranked: Ranked, settings: FprSettings, rng: np.random.Generator
) -> dict[str, Interval | None]:
    if positive.counts_GK is None or negative.counts_GK is None:
        return {}
    counts = resampling.grouped(positive.counts_GK, negative.counts_GK, ranked.exact)
    return _intervals(counts, settings, rng, settings.fpr_targets)


def _survey_bootstrap(
    positive: Side, survey: _Survey, ranked: Ranked, settings: FprSettings, rng: np.random.Generator
) -> dict[str, Interval | None]:
    """Intervals of weighted rates: the threshold of the resampled positives, the weights of the resampled negatives."""
    if positive.counts_GK is None or survey.weights_GK is None:
        return {}
    return _intervals(resampling.grouped(positive.counts_GK, survey.weights_GK, ranked.exact), settings, rng, ())


def _intervals(
    counts: resampling.GroupCounts, settings: FprSettings, rng: np.random.Generator, fpr_targets: Sequence[float]
) -> dict[str, Interval | None]:
    statistics = {
        **{_fpr_name(target): partial(resampling.fpr_at_tpr, target=target) for target in settings.tpr_targets},
        **{_tpr_name(target): partial(resampling.tpr_at_fpr, target=target) for target in fpr_targets},
    }
    drawn: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    for sample in resampling.resamples(counts, rng, settings.bootstraps):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(sample))
    return {
        name: resampling.percentile_interval(np.concatenate(values), settings.confidence)
        for name, values in drawn.items()
    }
