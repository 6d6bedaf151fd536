"""Small inputs of the paper's figures, as evaluation writes them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.evaluation.metrics import roc_curve
from dark_halo_scope.images.cutouts import Stored, write_cutouts
from dark_halo_scope.paper.selection_figure import AXES

#: ladder.json of three rungs, the last of which is too small for its probe.
LADDER: dict[str, Any] = {
    "generation": "one",
    "floor": {"value": 0.55, "n": 60, "interval": [0.45, 0.65], "status": "measured"},
    "hosts_alone": {
        **{"value": 0.7, "n": 60, "interval": [0.6, 0.78], "status": "measured"},
        "recall": {"p0.5": {"value": 0.02, "n": 100, "interval": [0.0, 0.07], "status": "measured"}},
    },
    "real_lenses": {"recall": {"p0.5": {"value": 0.8, "n": 40, "interval": [0.64, 0.91], "status": "measured"}}},
    "rungs": [
        {
            "rung": name,
            "number": number,
            "family": "sersic",
            "probe": probe,
            "recall": {"p0.5": {"value": number / 4, "n": 100, "interval": [number / 4 - 0.125, number / 4 + 0.125]}},
        }
        for number, (name, probe) in enumerate(
            {
                "sersic_fwhm": {"value": 0.95, "n": 80, "interval": [0.9, 0.99], "status": "measured"},
                "sersic_nea": {"value": 0.85, "n": 80, "interval": [0.8, 0.9], "status": "measured"},
                "clumpy": {"value": None, "n": 3, "interval": None, "status": "too few (n = 3)"},
            }.items(),
            start=1,
        )
    ],
}


def at(value: float | None, n: int = 40) -> dict[str, Any]:
    """A share at the threshold p0.5, or none."""
    if value is None:
        return {
            "p0.5": {"value": None, "n": 0, "interval": None, "status": "not measurable: there was nothing to count"}
        }
    interval = [max(0.0, value - 0.1), min(1.0, value + 0.1)]
    return {"p0.5": {"value": value, "n": n, "interval": interval, "status": "measured"}}


def _reliability(*shares: float) -> dict[str, Any]:
    bins = [
        {"mean_probability": (i + 0.5) / len(shares), "value": share, "interval": [share / 2, (share + 1) / 2]}
        for i, share in enumerate(shares)
    ]
    return {"reliability": bins}


VALIDATION: dict[str, Any] = {
    "generation": "one",
    "thresholds": {"p0.5": {"logit": 0.0}},
    "recall": {
        "overall": {"all": at(0.75, 60)},
        "tier": {"A": at(0.9, 25), "B": at(0.6, 35)},
        "tier_not_circular": {"A": at(0.8, 10), "B": at(None)},
    },
    "fpr": {
        "sample": {"N1": at(0.01, 900), "all": at(0.02, 1000), "confuser ring_proxy": at(0.05, 80)},
        "survey": {"N1": at(0.011, 900), "all": at(0.015, 1000), "confuser ring_proxy": at(0.04, 80)},
    },
    "calibration": {
        "status": "measured",
        "test": {"probabilities": {"raw": _reliability(0.0, 0.2, 0.9), "platt": _reliability(0.1, 0.5, 0.95)}},
    },
}

STRATA = ("x < 0.5", "0.5 <= x < 1", "x >= 1", "all")


def gate(name: str, value: float | None = 0.5, judged: str = "x >= 1") -> dict[str, Any]:
    """A gate with the same number in every stratum; None is too few."""
    measured = (
        {"value": value, "n": 40, "interval": [value - 0.1, value + 0.1], "status": "measured"} if value else None
    )
    entry = measured or {"value": None, "n": 3, "interval": None, "status": "too few (n = 3)"}
    null = {"low": 0.45, "high": 0.55, "mean": 0.5, "p_value": 0.01} if value else None
    entry = entry | {"null": null}
    about = {"title": f"title of {name}", "number": "AUC", "bound": "at most", "threshold": 0.6, "stratum": judged}
    return entry | about | {"passed": True, "strata": {stratum: dict(entry) for stratum in STRATA}}


def gates(name: str, value: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    """A sealed gates.json with strata."""
    result = {
        "generation": name,
        "dataset": "pairs",
        "split": "test",
        "settings": {"confidence": 0.95, "strata": [0.5, 1.0]},
        "inputs": {"packed": {"sha256": "0" * 64}},
        "model_sha256": "a" * 64,
        "gates": {"G1": gate("G1", value), "G4": gate("G4", value, judged="all")},
        "verdict": "pass",
        "diagnostics": {"pairs": 40},
    }
    return sealed(result | changes)


def write_performance(path: Path, name: str, shift: float = 2.0, count: int = 200) -> Path:
    """performance.json with the ROC curve of scores whose classes lie `shift` apart."""
    rng = np.random.default_rng(7)
    positive, negative = (1 / (1 + np.exp(-rng.normal(mean, 1, count))) for mean in (shift - 2, -2))
    labels = np.repeat([1, 0], count)
    fpr, tpr, threshold = roc_curve(labels, np.concatenate([positive, negative]))
    low, high = clopper_pearson(np.round(tpr * count), count)
    curve = {"fpr": fpr, "tpr": tpr, "tpr_low": low, "tpr_high": high}
    lists: dict[str, Any] = {key: values.tolist() for key, values in curve.items()}
    lists["threshold"] = [None, *threshold[1:].tolist()]
    write_json(path, {"generation": name, "roc": {**lists, "n_positive": count, "n_negative": count}})
    return path


def write_anchors(path: Path, scores: list[float], tiers: list[str] | None = None, stress: int = 0) -> Path:
    """anchors.csv, the first `stress` of whose rows are of a stress list."""
    tiers = tiers or ["A"] * len(scores)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "tier_gen5_prime", "stress", "theta_e_arcsec", "score", "cutout_row"])
        for number, (score, tier) in enumerate(zip(scores, tiers, strict=True)):
            radius = "" if number % 3 == 2 else f"{0.8 + 0.1 * number}"
            writer.writerow([f"lens{number}", tier, number < stress, radius, score, number])
    return path


def write_lens_cutouts(path: Path, count: int) -> Path:
    """cutouts.json of as many lenses, each a round galaxy in noise."""
    import pyarrow as pa

    rng = np.random.default_rng(3)
    offset = np.arange(64) - 31.5
    galaxy = 0.3 * np.exp(-(offset[:, None] ** 2 + offset**2) / 30)
    stored = [
        Stored((galaxy + rng.normal(0, 0.01, (3, 64, 64))).astype(np.float32), None, None, 0.0) for _ in range(count)
    ]
    with attempt(path, "cutouts", "dark_halo_scope.paper.anchor_gallery", {}, []) as work:
        write_cutouts(Path(work.prefix), pa.table({"name": [f"lens{i}" for i in range(count)]}), stored, 64)
        work.publish(facts={"rows": count, "size": 64})
    return path


def write_surface(path: Path, threshold: str = "p=0.5") -> Path:
    """completeness_surface.csv: it rises with Einstein radius and falls with redshift."""
    lines = ["threshold,theta_e_arcsec,z,value,low,high,n"]
    for z in (0.2, 0.4, 0.6, 0.8):
        for theta in np.linspace(0.5, 2.5, 9):
            value = 1 / (1 + np.exp(-4 * (theta - 1 - 0.5 * z)))
            lines.append(
                f"{threshold},{theta},{z},{value},{max(value - 0.05, 0)},{min(value + 0.05, 1)},{20 * (z < 0.7):d}"
            )
    path.write_text("\n".join(lines) + "\n")
    return path


def write_cells(path: Path, threshold: str = "p=0.5") -> Path:
    """completeness.csv with three cells over Einstein radius and redshift, one of them empty, and one over nothing."""
    head = "threshold,axes,theta_e_arcsec_low,theta_e_arcsec_high,z_phot_low,z_phot_high,n,value,low,high"
    rows = [
        f"{threshold},{AXES},0.5,1.0,0.2,0.4,20,0.2,0.06,0.44",
        f"{threshold},{AXES},1.0,1.5,0.2,0.4,20,0.6,0.36,0.81",
        f"{threshold},{AXES},1.5,2.0,0.2,0.4,0,,,",
        f"{threshold},all,,,,,40,0.4,0.25,0.57",
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path
