"""The worst errors of a network: what it takes for lenses, and which lenses it misses."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dark_halo_scope.evaluation.pairs import column, host_labels
from dark_halo_scope.evaluation.realism_config import ErrorSettings

NEGATIVE_KINDS = ("control", "hard_negative", "negative")
MISSED, MISSED_LENS = "missed injection", "missed lens"
COLUMNS = (
    *("group", "rank", "name", "kind", "ra", "dec", "brickname", "theta_e_arcsec", "theta_e_over_psf", "arc_snr"),
    *("class", "logit", "score", "is_error", "source", "row"),
)


def false_lenses(scores: pa.Table, settings: ErrorSettings) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Negatives with the highest scores, kind by kind, one a host; and how many of each kind are errors.

    The controls of a host that bears several arcs are one image, which counts once.

    Returns:
        Rows of errors.csv; kind -> {n, called_lenses, confident}.
    """
    rows: list[dict[str, Any]] = []
    counts: dict[str, Any] = {}
    for kind in NEGATIVE_KINDS:
        table = scores.filter(pc.equal(scores["kind"], kind))
        if kind == "control" and table.num_rows:
            table = table.take(pa.array(np.sort(np.unique(host_labels(table), return_index=True)[1])))
        p = column(table, "score")
        counts[kind] = {
            "n": len(p),
            "called_lenses": int((p >= settings.threshold).sum()),
            "confident": int((p >= settings.confident).sum()),
        }
        chosen = worst_hosts(-column(table, "logit"), host_labels(table) if len(p) else np.empty(0, int), settings.each)
        rows += _rows(f"{kind.replace('_', ' ')} taken for a lens", table, chosen, p >= settings.threshold, "packed")
    return rows, counts


def missed_injections(scores: pa.Table, settings: ErrorSettings) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Resolved positives with the lowest scores, one a host; and how many are missed.

    Returns:
        Rows of errors.csv; {n, missed, confident}.
    """
    positive = pc.equal(scores["kind"], "positive")
    table = scores.filter(pc.and_(positive, pc.greater_equal(scores["theta_e_over_psf"], settings.resolved_above)))
    p = column(table, "score")
    chosen = worst_hosts(column(table, "logit"), host_labels(table) if len(p) else np.empty(0, int), settings.each)
    counts = {
        "n": len(p),
        "missed": int((p < settings.threshold).sum()),
        "confident": int((p <= 1 - settings.confident).sum()),
    }
    return _rows(MISSED, table, chosen, p < settings.threshold, "packed"), counts


def missed_lenses(
    lenses: pa.Table, logit: NDArray[np.float64], score: NDArray[np.float64], settings: ErrorSettings
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Known lenses of a tier with the lowest scores, and how many are missed.

    Args:
        lenses: with their tiers, and `cutout_row`, the place of each cutout.
        logit, score: of each.
        settings: tier and threshold.
    """
    tier = np.array([name == settings.tier for name in lenses[settings.tier_column].to_pylist()], dtype=bool)
    here = np.flatnonzero(tier)
    counts = {
        "tier": f"{settings.tier_column} {settings.tier}",
        "n": len(here),
        "missed": int((score[here] < settings.threshold).sum()),
        "confident": int((score[here] <= 1 - settings.confident).sum()),
    }
    table = lenses.append_column("logit", pa.array(logit)).append_column("score", pa.array(score))
    chosen = here[np.argsort(logit[here], kind="stable")][: settings.each]
    return _rows(MISSED_LENS, table, chosen, score < settings.threshold, "cutouts"), counts


def worst_hosts(badness: NDArray[np.float64], host: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Up to `count` places by increasing value, the first of each host: replicates show one galaxy again."""
    order = np.argsort(badness, kind="stable")
    _, first = np.unique(host[order], return_index=True)
    return order[np.sort(first)][:count]


def errors_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; numbers keep all their digits, what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(
    group: str, table: pa.Table, chosen: NDArray[np.intp], is_error: NDArray[np.bool_], source: str
) -> list[dict[str, Any]]:
    names = {"name": ("task_id", "name"), "row": ("packed_row", "cutout_row"), "class": ("control_kind", "discovery")}
    result = []
    for rank, (place, values) in enumerate(zip(chosen.tolist(), table.take(pa.array(chosen)).to_pylist(), strict=True)):
        row = {name: values.get(name) for name in COLUMNS}
        for name, candidates in names.items():
            row[name] = next((values[key] for key in candidates if values.get(key) is not None), None)
        row |= {"group": group, "rank": rank + 1, "is_error": bool(is_error[place]), "source": source}
        row["kind"] = values.get("kind", "lens")
        result.append(row)
    return result
