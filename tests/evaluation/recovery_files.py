"""A frozen finder whose completeness is known, and injections that it has scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit, logit

from dark_halo_scope.core.files import read_json, sha256_file, write_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.freeze import NAME, card_name, describe
from dark_halo_scope.evaluation.gate_check import sealed

THRESHOLDS = {"p0.5": 0.0, "fpr0.01": 1.2}
#: How much better each family is found, in logits.
FAMILIES = {"clumpy": -0.6, "image": 0.0, "sersic": 0.9}
RANGES = {
    "theta_e_arcsec": (0.5, 3.0),
    "z_phot": (0.0, 1.0),
    "psfsize_r": (0.7, 1.6),
    "psfdepth_r": (23.5, 25.0),
    "rmag": (17.0, 22.0),
    "lensed_mag_r": (19.0, 25.0),
}


def true_logit(axes: dict[str, np.ndarray], family: np.ndarray) -> np.ndarray:
    """Centre of the finder's logits: a threshold t finds the share expit(centre - t) of the injections there."""
    centre = 2.2 * (axes["theta_e_arcsec"] - 1.5) - 2.0 * (axes["z_phot"] - 0.5) - 2.5 * (axes["psfsize_r"] - 1.1)
    centre += 0.5 * (axes["psfdepth_r"] - 24) - 0.3 * (axes["rmag"] - 20) - 0.8 * (axes["lensed_mag_r"] - 22)
    return centre + np.array([FAMILIES[name] for name in family])


def draw_recovery(
    draws: int, seed: int, families: tuple[str, ...] = tuple(FAMILIES), hosts: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns of recovery rows and, by threshold, the true completeness of each.

    Every draw goes through every family; the finder's noise is independent between them.
    """
    rng = np.random.default_rng(seed)
    hosts = hosts or draws
    host = np.repeat(rng.integers(0, hosts, draws), len(families))
    family = np.tile(families, draws)
    axes = {name: np.repeat(np.round(rng.uniform(*RANGES[name], draws), 6), len(families)) for name in AXES}
    centre = true_logit(axes, family)
    noise = logit(rng.uniform(1e-12, 1, len(centre)))
    rows = {
        "task_id": np.repeat(np.array([f"draw{number}" for number in range(draws)]), len(families)),
        "brickname": np.array([f"b{number // 1000}" for number in host]),
        "objid": host % 1000,
        "split": np.full(len(host), "test"),
        "family": family,
        "rung": family,
        "selection": np.ones(len(host), dtype=bool),
        "weight": np.ones(len(host)),
        "logit": centre + noise,
        **axes,
    }
    return rows, {name: expit(centre - threshold) for name, threshold in THRESHOLDS.items()}


def write_frozen(folder: Path, thresholds: dict[str, float | None] | None = None) -> tuple[Path, Path]:
    """best.json with its weights, and the card of the finder."""
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"a finder of which only the completeness is known")
    best = folder / "best.json"
    write_json(
        best,
        {
            "weights": {"uri": weights.name, "sha256": sha256_file(weights), "bytes": weights.stat().st_size},
            "model": {"backbone": "known"},
            "preprocessing": {},
            "stamp_size": 101,
            "in_channels": 3,
            "meta": [],
        },
    )
    entries = THRESHOLDS if thresholds is None else thresholds
    card: dict[str, Any] = {
        "generation": "real_known",
        **describe(read_json(best), best),
        "thresholds": {
            name: {"logit": value, "status": "measured" if value is not None else "not measurable: 3 negatives pass"}
            for name, value in entries.items()
        },
        "calibration": None,
        "chosen_on": {"split": "val"},
        "behaviour": {"probes": 8, "logits": [0.0] * 8, "tolerance": 0.02},
    }
    card[NAME] = card_name(card)
    path = folder / "frozen.json"
    write_json(path, sealed(card))
    return path, best


def write_recovery(path: Path, rows: dict[str, np.ndarray], **facts: Any) -> Path:
    """recovery.json of these rows."""
    with attempt(path, "recovery", "dark_halo_scope.evaluation.measure_selection_function", {}, []) as work:
        pq.write_table(pa.table(rows), work.prefix / "recovery.parquet")
        work.publish(rows_out=len(rows["logit"]), facts=facts)
    return path
