"""The loop: it learns, it watches itself, and it stops rather than go on with nonsense."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.images.mined import MinedNegatives
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import BatchPlan, epoch_plan, final_class_mix
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.models.weights import save_model
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, TrainingData
from dark_halo_scope.training.judging import Judge
from dark_halo_scope.training.loop import DECISIONS, Trainer, TrainingResult
from dark_halo_scope.training.start import open_start
from dark_halo_scope.training.stepping import Outcome, Stepper, compiles
from dark_halo_scope.training.tracking import Tracker
from dark_halo_scope.training.validation import mixed_loss, score_split
from dark_halo_scope.training.watching import TrainingDivergedError

from .toys import ToySplit, toy_galaxies, toy_rows, toy_settings

CPU = torch.device("cpu")
MakeSplit = Callable[..., ToySplit]


def train(run: Trainer) -> TrainingResult:
    result = run.run()
    assert result is not None
    return result


def trainer(
    make: MakeSplit, settings: TrainSettings, checkpoints: Path | None = None, pairs: int = 24, arc: float = 8.0
) -> Trainer:
    return Trainer(settings, make("train", pairs, 1, arc=arc), make("val", 16, 2, arc=arc), CPU, checkpoints)


def test_a_small_network_learns_to_tell_arcs_from_rings(toy_split: MakeSplit) -> None:
    settings = toy_settings(epochs=12, sampler={"batch_pairs": 8, "per_pair": "all"})
    result = train(trainer(toy_split, settings, pairs=96, arc=25.0))
    assert result.best["val_auc"] > 0.9
    assert result.best["val_auc_hard_negative"] > 0.7
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_history_and_decisions_are_plain_json(toy_split: MakeSplit) -> None:
    result = train(trainer(toy_split, toy_settings(validation={"gates_every": 1, "gates": {"min_pairs": 4}})))
    text = json.dumps({"epochs": result.history, "decisions": result.decisions}, allow_nan=False)
    history = json.loads(text)
    assert [entry["epoch"] for entry in history["epochs"]] == [0, 1]
    assert set(history["epochs"][0]["gates"]["gates"]) == {"G1", "G2", "G3", "G4", "G5"}
    assert {"day 3", "day 5", "end of training"} <= {record["name"] for record in history["decisions"]}
    assert history["epochs"][0]["class_mix"]["hard_negative"] == 0.5


def test_the_same_settings_give_the_same_network_and_another_seed_another(toy_split: MakeSplit) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = train(trainer(toy_split, toy_settings(epochs=1, seed=seed))).model
        return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_best_epoch_is_kept_not_the_last(toy_split: MakeSplit) -> None:
    # So fast that it soon knows its 24 pairs by heart.
    optimizer = {"lr": 3e-2, "warmup_epochs": 0.5, "schedule": "constant", "clip_norm": None}
    settings = toy_settings(epochs=6, seed=1, optimizer=optimizer)
    run = trainer(toy_split, settings)
    result = train(run)
    losses = [entry["val_loss"] for entry in result.history]
    assert result.best["val_loss"] == min(losses) < losses[-1] - 0.02
    logits = score_split(predictor(result.model, result.preprocess, CPU), run.val_data, 64, None, lambda _: None)
    assert mixed_loss(logits, final_class_mix(settings.sampler), settings.loss) == pytest.approx(min(losses), rel=1e-4)


def test_no_improvement_ends_training_early_and_says_why(toy_split: MakeSplit) -> None:
    settings = toy_settings(epochs=30, validation={"patience": 1, "min_delta": 10.0, "gates_every": None})
    result = train(trainer(toy_split, settings))
    assert len(result.history) == 2
    (end,) = [record for record in result.decisions if record["kind"] == "end"]
    assert "no better val_loss in 1 epochs" in end["reason"]


def test_a_red_flag_stops_where_configured(toy_split: MakeSplit) -> None:
    flags = {"after_epoch": 0, "hard_negative_mean_p": 0.0, "stop": ("hard_negative_mean_p",)}
    result = train(trainer(toy_split, toy_settings(epochs=5, red_flags=flags)))
    assert len(result.history) == 1
    goes_on = train(trainer(toy_split, toy_settings(epochs=2, red_flags=flags | {"stop": ()})))
    assert len(goes_on.history) == 2


def test_a_loss_that_is_not_finite_stops_with_the_batchs_ids_and_keeps_the_last_good_checkpoint(
    toy_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(epochs=3, sampler={"batch_pairs": 8, "per_pair": "all"})
    run = trainer(toy_split, settings, tmp_path / "checkpoints")
    forward = type(run.model).forward

    def poisoned(self: torch.nn.Module, x: torch.Tensor, meta: torch.Tensor) -> torch.Tensor:
        logits = forward(self, x, meta)  # type: ignore[arg-type]
        return logits * float("nan") if self.training and run.state.step == 4 else logits

    monkeypatch.setattr(type(run.model), "forward", poisoned)
    with pytest.raises(TrainingDivergedError, match=r"epoch 2, step 4.*8 pairs \(task-1-") as error:
        run.run()
    file = tmp_path / "checkpoints" / DECISIONS
    record = json.loads(file.read_text())[-1]
    assert record["name"] == "nan"
    assert len(set(record["task_ids"])) == 8
    assert re.findall(r"task-1-\d+", str(error.value)) == record["task_ids"][:5]
    assert f"all named in {file}" in str(error.value)
    monkeypatch.undo()
    resumed = trainer(toy_split, settings, tmp_path / "checkpoints")
    assert resumed.state.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in resumed.model.state_dict().values())


def test_images_that_are_not_finite_are_named_and_no_others(toy_split: MakeSplit, tmp_path: Path) -> None:
    train, val = toy_split("train", 8, 1), toy_split("val", 8, 2)
    positive, ring = np.array(train.positive), np.array(train.hard_negative)
    positive[3, 1, 10, 10] = np.nan
    ring[5, 0, 0, 0] = np.inf
    run = Trainer(toy_settings(), replace(train, positive=positive, hard_negative=ring), val, CPU, tmp_path)
    named = ["positive task-1-0003", "hard_negative task-1-0005"]
    with pytest.raises(BadInputError, match=rf"epoch 1, step 0; .* without 2 images \({', '.join(named)}\), all"):
        run.run()
    record = json.loads((tmp_path / DECISIONS).read_text())[-1]
    assert (record["name"], record["task_ids"]) == ("pixels", named)


def test_pixels_that_are_finite_when_read_again_are_no_faults_of_the_images(
    toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = TrainingData.batch

    def flipped(self: TrainingData, plan: BatchPlan) -> Batch:
        made = batch(self, plan)
        made.images[0, 0, 0, 0] = float("inf")
        return made

    monkeypatch.setattr(TrainingData, "batch", flipped)
    with pytest.raises(BadInputError, match="finite when they are read again; look for a fault of the memory"):
        trainer(toy_split, toy_settings()).run()


def test_a_kind_of_probability_zero_is_not_shown(toy_split: MakeSplit) -> None:
    none = {"start_hard_negative_prob": 0.0, "end_hard_negative_prob": 0.0}
    sampler = {"batch_pairs": 8, "per_pair": "all", "curriculum": none}
    assert train(trainer(toy_split, toy_settings(epochs=1, sampler=sampler, loss={"pair_ranking": 0.5}))).history


def test_one_image_per_pair_trains_too(toy_split: MakeSplit) -> None:
    result = train(trainer(toy_split, toy_settings(sampler={"batch_pairs": 8, "per_pair": "one"})))
    assert len(result.history) == 2


def test_progress_is_one_line_per_epoch(toy_split: MakeSplit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trainer(toy_split, toy_settings()).run()
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Epoch 2/2: loss")]
    assert len(lines) == 1
    assert "images/s" in lines[0]


def test_a_loss_that_is_not_finite_is_found_later_where_looking_is_rare_and_named_by_its_own_batch(
    toy_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = {"every_seconds": 1e-9}
    settings = toy_settings(epochs=1, checkpoints=checkpoints, sampler={"batch_pairs": 4, "per_pair": "all"})
    run = trainer(toy_split, settings, tmp_path)
    run.check_every = 4
    forward = type(run.model).forward
    shown: list[str] = []

    def poisoned(self: torch.nn.Module, x: torch.Tensor, meta: torch.Tensor) -> torch.Tensor:
        logits = forward(self, x, meta)  # type: ignore[arg-type]
        shown.append("a batch")
        return logits * float("nan") if self.training and run.state.step == 1 else logits

    monkeypatch.setattr(type(run.model), "forward", poisoned)
    with pytest.raises(
        TrainingDivergedError, match=r"loss is NaN or infinite at epoch 1, step 1;.*4 pairs \("
    ) as error:
        run.run()
    assert len(shown) == 4
    plan = epoch_plan(settings.sampler, np.arange(24), np.arange(0), 1, settings.seed, 0)[1]
    assert set(re.findall(r"task-1-\d+", str(error.value))) == {f"task-1-{row:04d}" for row in plan.row_B}
    assert not list(tmp_path.glob("step-*"))


def test_two_batches_accumulated_make_the_step_of_one_twice_as_large(toy_split: MakeSplit) -> None:
    plain = {"dihedral": False}

    def steps(pairs: int, accumulate: int) -> tuple[list[float], torch.Tensor, int]:
        settings = toy_settings(
            sampler={"batch_pairs": pairs, "per_pair": "all"},
            augmentation=plain,
            model={**toy_settings().model.model_dump(), "dropout": 0.0, "backbone": "test_convnext"},
            loss={"pair_ranking": 0.5},
            optimizer={"lr": 3e-3, "warmup_epochs": 0.5, "accumulate": accumulate},
        )
        run = trainer(toy_split, settings)
        result = train(run)
        flat = torch.cat([tensor.flatten().float() for tensor in run.model.state_dict().values()])
        return [entry["train_loss"] for entry in result.history], flat, run.state.step

    one, two = steps(8, 1), steps(4, 2)
    assert one[2] == two[2] == 6
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    torch.testing.assert_close(one[1], two[1], rtol=1e-4, atol=1e-5)
    assert steps(4, 1)[2] == 12


def test_what_is_left_of_an_epoch_makes_a_step_too(toy_split: MakeSplit) -> None:
    settings = toy_settings(
        epochs=1,
        sampler={"batch_pairs": 5, "per_pair": "one"},
        optimizer={"lr": 3e-3, "warmup_epochs": 0, "accumulate": 3},
    )
    run = trainer(toy_split, settings)
    train(run)
    assert run.state.step == 2  # five batches: three and two


IMAGES = {"draw": "images", "batch_images": 16, "mined_repeat": 2}


def test_positives_and_a_pool_train_without_pairs(toy_split: MakeSplit, tmp_path: Path) -> None:
    # Of so few images any column's own AUC lies far from one half by chance.
    model = {**toy_settings().model.model_dump(), "meta_auc_limit": 0.8}
    settings = toy_settings(epochs=8, sampler=IMAGES, model=model)
    mined = MinedNegatives(toy_galaxies(4, 9), toy_rows("mined", 4, 9))
    splits = toy_split("train", 48, 1, arc=25.0, negatives=48), toy_split("val", 16, 2, arc=25.0, negatives=16)
    run = Trainer(settings, *splits, CPU, None, mined=mined)
    result = train(run)
    assert run.judge.counts == (48, 56)
    # The curriculum of this sampler adds rings: half of the first epoch is of them.
    assert run.state.step > 8 * 104 / 16
    assert result.best["val_auc"] == result.best["val_auc_negative"] > 0.8


def test_a_stage_begins_with_the_weights_of_another(toy_split: MakeSplit, tmp_path: Path) -> None:
    settings = toy_settings(optimizer={"lr": 3e-3, "warmup_epochs": 0.5})
    first = train(trainer(toy_split, settings))
    path = tmp_path / "best.json"
    write_json(path, save_model(path, first.model, first.preprocess, {}))
    splits = toy_split("later", 12, 5), toy_split("val", 16, 2)
    start = open_start(path)
    later = Trainer(settings, *splits, CPU, None, start=start)
    for name, tensor in first.model.state_dict().items():
        # The metadata's mean is the first stage's too: the same network, whatever it is shown now.
        assert torch.equal(later.model.state_dict()[name], tensor), name
    assert not later.stepper.optimizer.state_dict()["state"]
    assert later.state.step == 0
    assert start.sha256 == json.loads(path.read_text())["weights"]["sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"backbone": "small_cnn", "width": 8, "hidden": 8, "pretrained": False}}, "weights differ"),
        ({"preprocessing": {"residual": False}}, "of 6 channels .* of 3 channels"),
    ],
)
def test_weights_of_another_architecture_are_refused_in_one_sentence(
    toy_split: MakeSplit, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    first = train(trainer(toy_split, toy_settings(epochs=1, optimizer={"warmup_epochs": 0})))
    path = tmp_path / "best.json"
    write_json(path, save_model(path, first.model, first.preprocess, {}))
    with pytest.raises(BadInputError, match=message):
        Trainer(toy_settings(**changes), toy_split("a", 8, 1), toy_split("b", 8, 2), CPU, None, start=open_start(path))


def test_a_column_that_tells_the_label_is_refused_before_training(toy_split: MakeSplit) -> None:
    train, val = toy_split("train", 24, 1, negatives=24), toy_split("val", 8, 2, negatives=8)
    index = train.negative_rows.column_names.index("psfsize_r")
    told = train.negative_rows.set_column(index, "psfsize_r", pa.array(np.linspace(2, 3, 24)))
    with pytest.raises(ConfigError, match=r"psfsize_r \(AUC 0\.000 \["):
        Trainer(toy_settings(sampler=IMAGES), replace(train, negative_rows=told), val, CPU, None)


def test_controls_reach_a_network_that_is_shown_them_under_the_images_own_draw(
    toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(
        epochs=1,
        optimizer={"warmup_epochs": 0},
        preprocessing={"control_source": "paired_oracle", "residual": False},
        augmentation={"noise_sigma": 0.1, "shift_pix": 2},
    )
    seen = []
    forward = Preprocess6CH.forward

    def watched(
        self: Preprocess6CH, x: torch.Tensor, controls: torch.Tensor | None = None, check: bool = True
    ) -> torch.Tensor:
        if not check and controls is not None:
            seen.append((x - controls).abs().amax((1, 2, 3)))
        return forward(self, x, controls, check)

    monkeypatch.setattr(Preprocess6CH, "forward", watched)
    assert train(trainer(toy_split, settings)).model.in_channels == 6
    assert len(seen) == 3
    for difference_B in seen:
        arcs, controls, rings = difference_B.split(8)
        assert (arcs > 0.01).all()
        assert (rings > 0.01).all()
        torch.testing.assert_close(controls, torch.zeros(8), atol=1e-6, rtol=0)


def test_each_epoch_augments_an_image_anew_and_each_image_of_a_batch_in_its_own_way(
    toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier pipeline fixed the seed of each sample, so that every epoch showed the same picture."""
    seen = []
    forward = Preprocess6CH.forward

    def watched(
        self: Preprocess6CH, x: torch.Tensor, controls: torch.Tensor | None = None, check: bool = True
    ) -> torch.Tensor:
        if not check:
            seen.append(x)
        return forward(self, x, controls, check)

    monkeypatch.setattr(Preprocess6CH, "forward", watched)
    settings = toy_settings(epochs=6, sampler={"batch_pairs": 24, "per_pair": "all"}, validation={"patience": None})
    run = trainer(toy_split, settings)
    train(run)
    plain = torch.from_numpy(run.train_data.images("positive", np.arange(24)))
    shown_ENCHW = torch.stack([batch[:24] for batch in seen])
    assert shown_ENCHW.shape == (6, 24, 3, 64, 64)
    pictures = [len(torch.unique(image_ECHW, dim=0)) for image_ECHW in shown_ENCHW.transpose(0, 1)]
    assert min(pictures) >= 2
    assert np.mean(pictures) > 3
    turned = (shown_ENCHW != plain).flatten(2).any(2).sum(1)
    assert ((turned > 8) & (turned < 24)).any(), "an eighth of the symmetries is none"
    torch.testing.assert_close(shown_ENCHW.sum((2, 3, 4)), plain.sum((1, 2, 3)).expand(6, -1), rtol=1e-4, atol=1e-2)


def test_a_library_of_galaxies_is_made_of_training_controls_by_the_seed(toy_split: MakeSplit) -> None:
    def library(seed: int) -> torch.Tensor:
        source = {"control_source": "matched_lrg", "library_size": 6}
        run = trainer(toy_split, toy_settings(seed=seed, preprocessing=source))
        return run.preprocess.state_dict()["control.library"]

    assert library(1).shape == (6, 3, 64, 64)
    assert torch.equal(library(1), library(1))
    assert not torch.equal(library(1), library(2))


def test_history_holds_what_checks_need_and_what_they_found(toy_split: MakeSplit) -> None:
    diagnostics = {"every": 1, "saliency_pairs": 8, "saliency_epochs": (1,), "min_count": 4}
    result = train(trainer(toy_split, toy_settings(diagnostics=diagnostics)))
    for entry in result.history:
        checks = {check["name"]: check for check in entry["checks"]}
        assert checks["gradient_norm"]["value"] == entry["gradient_norm_max"] > 0
        assert checks["learning_rate"]["passed"] is True
        assert checks["early_gradient"]["passed"] is not None
        assert 0 < checks["saliency"]["value"] < 1
    assert list(result.history[0]["gradient_norms"])[-1] == "head"


def test_a_rate_that_leaves_the_schedule_fails_its_check(toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    def passed() -> list[bool]:
        checks = [check for entry in train(trainer(toy_split, toy_settings())).history for check in entry["checks"]]
        return [check["passed"] for check in checks if check["name"] == "learning_rate"]

    assert passed() == [True, True]
    step: Any = Stepper.step

    def held(self: Stepper, *args: Any) -> Outcome[Any]:
        outcome: Outcome[Any] = step(self, *args[:3], 3e-3, *args[4:])
        return outcome

    monkeypatch.setattr(Stepper, "step", held)
    assert passed() == [False, False]


class _Notes:
    """A tracker's backend that keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.points += [(name, step) for name in values]

    def close(self) -> None: ...


def test_a_tracker_is_told_of_steps_and_epochs_once(
    toy_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = _Notes()
    monkeypatch.setattr("dark_halo_scope.training.loop.TRACK_EVERY", 2)
    splits = toy_split("train", 24, 1), toy_split("val", 8, 2)
    train(Trainer(toy_settings(), *splits, CPU, None, tracker=Tracker(notes, tmp_path)))
    assert [step for name, step in notes.points if name == "step/loss"] == [0, 2, 4]
    assert [step for name, step in notes.points if name == "val_auc"] == [3, 6]


@pytest.mark.parametrize("deterministic", [True, False])
def test_torchs_switches_are_as_before_after_training(
    toy_split: MakeSplit, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    seen = []
    judge = Judge.judge

    def watched(self: Judge, *args: object) -> object:
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic))
        return judge(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "judge", watched)
    train(trainer(toy_split, toy_settings(epochs=1, optimizer={"warmup_epochs": 0}, deterministic=deterministic)))
    assert seen == [(deterministic, deterministic)]
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


@pytest.mark.slow
def test_compiled_steps_train_to_the_same_numbers(toy_split: MakeSplit) -> None:
    model = {**toy_settings().model.model_dump(), "dropout": 0.0}  # compiled, it draws from a stream of its own
    plain, compiled = (train(trainer(toy_split, toy_settings(compile=mode, model=model))) for mode in ("off", "on"))
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)


def test_steps_are_compiled_where_it_pays_or_is_asked_for() -> None:
    cases = {("auto", "cuda"): True, ("auto", "cpu"): False, ("on", "cpu"): True, ("off", "cuda"): False}
    for (mode, device), expected in cases.items():
        assert compiles(toy_settings(compile=mode), torch.device(device)) is expected
