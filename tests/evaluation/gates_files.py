"""A gates.json on disk, with the files it was made from beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import write_result
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.gates import Predict, measure_gates
from dark_halo_scope.evaluation.measure_gates import MODULE, describe_inputs

from . import toys

SETTINGS = GateSettings(bootstraps=50, permutations=50)


def write_gates(folder: Path, predict: Predict, generation: str = "gen5_prime", seed: int = 0) -> dict[str, Any]:
    """Measure the gates of a toy network and write `gates.json`, its provenance, `best.json` and `packed.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    model, packed = folder / "best.json", folder / "packed.json"
    write_json(model, {"generation": generation, "weights": {"sha256": "a" * 64}})
    write_json(packed, {"kind": "packed", "seed": seed})
    measured = measure_gates(predict, toys.make_split(seed=seed), SETTINGS, np.random.default_rng(seed))
    result = sealed(
        {
            "generation": generation,
            "dataset": "toys",
            "split": "test",
            "model_sha256": "a" * 64,
            "settings": SETTINGS.model_dump(mode="json"),
            "inputs": describe_inputs({"model": model, "packed": packed}),
            **measured,
        }
    )
    write_result(folder / "gates.json", result, MODULE, SETTINGS, [model, packed])
    return result
