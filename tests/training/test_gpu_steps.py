"""Steps on a GPU: none waits for it, and deterministic ones repeat themselves."""

from collections.abc import Callable, Iterator

import pytest
import torch

from dark_halo_scope.images.samplers import epoch_plan
from dark_halo_scope.training.distributed import Ranks
from dark_halo_scope.training.loop import Trainer
from dark_halo_scope.training.stepping import Stepper, part_of

from .toys import ToySplit, toy_settings

MakeSplit = Callable[..., ToySplit]
CUDA = torch.device("cuda")

AUGMENTATION = {
    "noise_sigma": 0.05,
    "psf_blur_sigma_pix": 0.5,
    "centre_degradation_probability": 0.3,
}
PREPROCESSING = [
    {"stretch": "asinh"},
    {"residual": False, "control_source": "paired_oracle"},
    {"residual": False, "control_source": "matched_lrg"},
]
LEARNING = {"lr": 3e-3, "warmup_epochs": 0.5, "ema_decay": 0.9, "clip_norm": 1.0}


def trainer(make: MakeSplit, preprocessing: dict[str, object], deterministic: bool) -> Trainer:
    settings = toy_settings(
        compile="off",
        deterministic=deterministic,
        augmentation={**AUGMENTATION, "shift_pix": 0 if preprocessing.get("control_source") == "matched_lrg" else 3},
        preprocessing=preprocessing,
        optimizer=LEARNING,
        loss={"pair_ranking": 0.5},
    )
    return Trainer(settings, make("train", 24, 1), make("val", 16, 2), CUDA, None)


@pytest.fixture
def waiting_is_an_error() -> Iterator[Callable[[], None]]:
    """A function after which whatever makes the host wait for the GPU is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("preprocessing", PREPROCESSING)
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "one of two processes"])
def test_a_step_never_waits_for_the_gpu(
    toy_split: MakeSplit,
    waiting_is_an_error: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    preprocessing: dict[str, object],
    shared: bool,
) -> None:
    run = trainer(toy_split, preprocessing, deterministic=False)
    data, settings = run.train_data, run.settings
    ranks = Ranks(0, 2) if shared else Ranks()
    stepper = Stepper(settings, run.model, run.preprocess, CUDA, ranks)
    # Gradients travel between processes by torch's own code, which is not what is looked at.
    monkeypatch.setattr(stepper, "_prepared", lambda: stepper.model)
    plans = epoch_plan(settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed, 0)
    for number, plan in enumerate(plans):
        part = part_of(plan, ranks)
        batch = data.batch(part.mine)
        if number:  # the first step loads kernels and makes the optimiser's state
            waiting_is_an_error()
        outcome = stepper.step([part], [batch], [number], 1e-3, number)
        torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(outcome.loss)


@pytest.mark.gpu
@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_a_deterministic_training_runs_and_repeats_itself_to_the_bit(
    toy_split: MakeSplit, preprocessing: dict[str, object]
) -> None:
    def weights() -> torch.Tensor:
        result = trainer(toy_split, preprocessing, deterministic=True).run()
        assert result is not None
        return torch.cat([tensor.flatten().float() for tensor in result.model.state_dict().values()])

    assert torch.equal(weights(), weights())
