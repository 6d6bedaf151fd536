"""AUC brick by brick, on bricks that the network was not trained on: whether a few are much worse than chance allows.

Splits keep every brick of the test out of the training as far as its cells go, so that the AUC of a test brick is that
of a brick left out.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dark_halo_scope.evaluation.intervals import evaluate, host_bootstrap, weighted_auc
from dark_halo_scope.evaluation.pairs import column, host_labels
from dark_halo_scope.evaluation.realism_config import BrickSettings

FloatArray = NDArray[np.float64]

NOTE = (
    "AUC of pairs of the bricks measured: the control of a galaxy counts once for each of its arcs, and once in all in "
    "performance.json, whose AUROC differs."
)


def pair_scores(scores: pa.Table) -> tuple[pa.Table, FloatArray, FloatArray]:
    """Positives that have a control of the same task, (N,) their logits and (N,) their controls'.

    Args:
        scores: of one split.
    """
    positives = scores.filter(pc.equal(scores["kind"], "positive"))
    controls = scores.filter(pc.equal(scores["kind"], "control"))
    own = dict(zip(controls["task_id"].to_pylist(), column(controls, "logit").tolist(), strict=True))
    control = np.array([own.get(task, np.nan) for task in positives["task_id"].to_pylist()])
    known = np.isfinite(control)
    kept = positives.filter(pa.array(known))
    return kept, column(kept, "logit"), control[known]


def measure_bricks(
    scores: pa.Table,
    settings: BrickSettings,
    bootstraps: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """AUC of positives against their controls in each brick, and its spread over bricks.

    The spread expected of sampling alone is that of as many bricks, as large, of hosts drawn at random from all.

    Args:
        scores: of one split.
        settings: fewest pairs, permutations, bricks named.
        bootstraps, confidence: of each brick's interval, over its hosts.
        rng: resamples and permutes.

    Returns:
        counts, note, auc (all bricks together), std (number; `expected`: mean and central range of sampling alone,
        `p_value`, one-sided), worst (names) and bricks (name -> number and `without`, the AUC of all other bricks).
    """
    rows, positive, control = pair_scores(scores)
    names, brick = np.unique(rows["brickname"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    host = host_labels(rows)
    sizes = np.bincount(brick, minlength=len(names))
    large = np.flatnonzero(sizes >= settings.min_pairs)
    counts = {"pairs": len(positive), "bricks": len(names), "bricks_measured": len(large)}
    if len(large) < 2:
        why = f"fewer than two bricks have {settings.min_pairs} pairs"
        empty = {"value": None, "n": len(large), "interval": None, "status": f"not measurable: {why}"}
        return {"counts": counts, "auc": None, "std": empty, "worst": [], "bricks": {}}
    used = np.isin(brick, large)
    rows_brick, rows_host = brick[used], np.unique(host[used], return_inverse=True)[1]
    a, b = positive[used], control[used]
    aucs = _aucs(a, b, rows_brick, large)
    bricks = {}
    for place, value in zip(large.tolist(), aucs.tolist(), strict=True):
        here = rows_brick == place
        interval = host_bootstrap(weighted_auc, a[here], b[here], rows_host[here], rng, bootstraps, confidence)
        bricks[str(names[place])] = {
            "value": value,
            "n": int(here.sum()),
            "hosts": len(np.unique(rows_host[here])),
            "interval": [interval.low, interval.high],
            "status": "measured",
            "without": evaluate(weighted_auc, a[~here], b[~here]),
        }
    spread = float(np.std(aucs, ddof=1))
    null = np.array([_shuffled_spread(a, b, rows_brick, rows_host, large, rng) for _ in range(settings.permutations)])
    tail = (1 - confidence) / 2
    return {
        "counts": counts,
        "note": NOTE,
        "auc": evaluate(weighted_auc, a, b),
        "std": {
            "value": spread,
            "n": len(large),
            "interval": None,
            "status": "measured",
            "expected": {"mean": float(null.mean()), "interval": np.quantile(null, [tail, 1 - tail]).tolist()},
            "p_value": (1 + int((null >= spread).sum())) / (1 + len(null)),
        },
        "worst": sorted(bricks, key=lambda name: bricks[name]["value"])[: settings.worst],
        "bricks": bricks,
    }


def _aucs(a: FloatArray, b: FloatArray, brick: NDArray[np.intp], which: NDArray[np.intp]) -> FloatArray:
    return np.array([evaluate(weighted_auc, a[brick == place], b[brick == place]) for place in which])


def _shuffled_spread(
    a: FloatArray,
    b: FloatArray,
    brick: NDArray[np.intp],
    host: NDArray[np.intp],
    which: NDArray[np.intp],
    rng: np.random.Generator,
) -> float:
    """Standard deviation over bricks when hosts, with all their pairs, change places between bricks."""
    _, first = np.unique(host, return_index=True)
    shuffled = rng.permutation(brick[first])[host]
    return float(np.std(_aucs(a, b, shuffled, which), ddof=1))
