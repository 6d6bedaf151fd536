"""Golden losses: a change of the code that changes what a seed trains to does not go unnoticed.

golden_losses.json holds the losses of the first steps, the last validation and the final weights of a few runs on toy
pairs. `python -m training.test_golden_losses` (from tests/) writes it anew, which is right only where a change of the
numbers is meant; the commit then says why.
"""

import hashlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dark_halo_scope.models.weights_file import pack_tensors
from dark_halo_scope.training.loop import Trainer
from dark_halo_scope.training.watching import SeenStep

from .toys import toy_settings, write_toy_split

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS = 12  # three of each of four epochs: 24 pairs in batches of 8
VALIDATED = ("val_auc", "val_auc_hard_negative", "val_loss", "val_loss_epoch_mix")
CASES: dict[str, dict[str, Any]] = {
    "all": {"sampler": {"batch_pairs": 8, "per_pair": "all"}},
    "one": {"sampler": {"batch_pairs": 8, "per_pair": "one"}},
    "focal": {"loss": {"kind": "focal"}},
    "pair_ranking": {"loss": {"pair_ranking": 0.5}},
}


class _Recording(Trainer):
    """A run that keeps the loss of every step."""

    losses: list[float]

    def _note(self, step: SeenStep) -> None:
        super()._note(step)
        self.losses.append(step.loss)


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Losses by step, the last validation's numbers, and the digest of the trained weights, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        settings = toy_settings(epochs=4, **CASES[case])
        train, val = write_toy_split(folder / "train", 24, 1), write_toy_split(folder / "val", 16, 2)
        trainer = _Recording(settings, train, val, torch.device("cpu"), None)
        trainer.losses = []
        result = trainer.run()
        assert result is not None
    finally:
        torch.set_num_threads(threads)
    weights = hashlib.sha256(pack_tensors(trainer.model.state_dict())).hexdigest()
    validated = {name: result.history[-1][name] for name in VALIDATED}
    return {"losses": trainer.losses, "validated": validated, "weights": weights}


def machine() -> dict[str, str]:
    """What the last bits of a sum depend on: the processor, its instructions as torch uses them, and torch itself."""
    name = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": name[0].partition(":")[2].strip() if name else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@pytest.fixture(params=sorted(CASES))
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """What is measured, what was recorded, and whether on a machine like this."""
    recorded = json.loads(GOLDEN.read_text())
    return measure(request.param, tmp_path), recorded["cases"][request.param], recorded["machine"] == machine()


def test_a_seed_trains_to_the_recorded_numbers(measured: tuple[dict[str, Any], dict[str, Any], bool]) -> None:
    now, golden, same_machine = measured
    assert len(now["losses"]) == STEPS
    if same_machine:
        assert now == golden
    np.testing.assert_allclose(now["losses"], golden["losses"], rtol=1e-6)
    assert now["validated"] == pytest.approx(golden["validated"], rel=1e-6)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        cases = {case: measure(case, Path(scratch) / case) for case in sorted(CASES)}
    GOLDEN.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=2) + "\n")
