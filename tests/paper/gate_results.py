"""Results of a generation on disk, as tables read them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.training.history import write_history

VALUES = {"G1": 0.50, "G2": 0.55, "G3": 0.90, "G4": 0.04, "G5": None}


def gates(name: str, weights: str = "a" * 64, **changes: Any) -> dict[str, Any]:
    """A sealed gates.json in which G5 was not measured."""
    entries = {
        gate: {
            "title": f"title of {gate}",
            "bound": "at most",
            "threshold": 0.6,
            "value": value,
            "interval": None if value is None else [value - 0.01, value + 0.01],
            "n": 100,
            "status": "too few" if value is None else "measured",
            "passed": value is not None and value <= 0.6,
        }
        for gate, value in VALUES.items()
    }
    auc = {"value": 0.93, "interval": [0.91, 0.95], "n": 100, "status": "measured"}
    result = {
        "generation": name,
        "dataset": "pairs",
        "split": "test",
        "settings": {"confidence": 0.95},
        "inputs": {"packed": {"sha256": "0" * 64}},
        "model_sha256": weights,
        "gates": entries,
        "verdict": "fail",
        "diagnostics": {"pairs": 100, "auc_positive_control": {"all": auc}},
    }
    return sealed(result | changes)


def write_gates(folder: Path, name: str, weights: str = "a" * 64, **changes: Any) -> Path:
    path = folder / name / "gates.json"
    write_json(path, gates(name, weights, **changes))
    return path


def write_stage(
    folder: Path, name: str, stage: str, weights: str, epochs: int = 3, minutes: float | None = 2.5
) -> Path:
    """best.json, history.json and, where the time is known, the provenance of a stage."""
    place = folder / name / stage
    card = {"generation": name, "stage": stage, "dataset": "pairs", "epoch": 1, "val_auc": 0.9}
    write_json(place / "best.json", card | {"weights": {"sha256": weights}})
    numbers = {"train_loss": 0.4, "val_loss": 0.5, "val_auc": 0.9, "val_auc_hard_negative": 0.8}
    history = [{"epoch": epoch, **numbers} for epoch in range(epochs)]
    trained = SimpleNamespace(best=history[1], history=history, decisions=[])
    write_history(place / "history.json", trained, "dark_halo_scope.training.train", {}, [])
    if minutes is not None:
        times = {"started": "2026-01-01T00:00:00+00:00", "finished": f"2026-01-01T00:{int(minutes):02d}:30+00:00"}
        write_json(place / "best.provenance.json", times)
    return place / "best.json"


def write_scores(
    folder: Path, name: str, logits: dict[str, np.ndarray], weights: str = "a" * 64, order: np.ndarray | None = None
) -> Path:
    """Scores of pairs, two of a host, in the order `order`."""
    tables = []
    for kind, values in logits.items():
        index = np.arange(len(values))
        table = pa.table(
            {
                "task_id": [f"task{i:04d}" for i in index],
                "kind": [kind] * len(values),
                "logit": values,
                "brickname": ["0001p000"] * len(values),
                "objid": index // 2,
            }
        )
        tables.append(table if order is None else table.take(order))
    path = folder / name / "scores.json"
    with attempt(path, "scores", "dark_halo_scope.evaluation.score", {}, []) as work:
        pq.write_table(pa.concat_tables(tables), work.prefix / "scores.parquet")
        work.publish(facts={"model_sha256": weights})
    return path
