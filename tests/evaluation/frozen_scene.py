"""A frozen untrained finder of 32 pixels, seven hosts and the command line that injects into them."""

from pathlib import Path

import torch

from dark_halo_scope.core.files import write_json
from dark_halo_scope.evaluation.freeze import NAME, card_name, describe
from dark_halo_scope.evaluation.frozen_behaviour import behaviour
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import load_model
from recovery_scene import host, some_hosts, write_inputs

from .packed_files import write_model

SETTINGS = '{"rungs": ["sersic_noise", "clumpy"], "replicates": 1, "unit_images": 4, "part_images": 8}'
_NAMES = ("survey", "hosts=parent", "lenses", "coadds", "sources", "frozen", "model=best")
SCENE = [part for name in _NAMES for part in (f"--{name.split('=')[0]}", f"{name.split('=')[-1]}.json")]
# Threads as set: another count sums in another order, and tests before this one may have set their own.
ARGUMENTS = [*SCENE, "--device", "cpu", "--threads", "1", "--settings", SETTINGS]
THRESHOLDS = {"p0.5": {"logit": 0.0, "status": "measured"}, "fpr0.01": {"logit": None, "status": "too few"}}


def freeze(best: Path, card_path: Path, thresholds: dict[str, dict] = THRESHOLDS) -> None:
    """A card of best.json, by hand: what it was validated with does not matter here."""
    model, preprocess, described = load_model(best)
    answers = behaviour(predictor(model, preprocess, torch.device("cpu")), described, 4)
    card = {
        "generation": "toy",
        **describe(described, best),
        "thresholds": thresholds,
        "calibration": None,
        "chosen_on": {"split": "val", "packed_sha256": "0"},
        "behaviour": {**answers, "tolerance": 1e-3},
    }
    write_json(card_path, sealed({**card, NAME: card_name(card)}))


def write_scene(folder: Path) -> None:
    """Seven hosts, one of them off its brick's edge, and a frozen untrained network of 32 pixels."""
    hosts = some_hosts(6)
    write_inputs(folder, [*hosts, host(5, 150, hosts[0]["brickname"], 99)])
    write_model(folder / "best.json")
    freeze(folder / "best.json", folder / "frozen.json")
