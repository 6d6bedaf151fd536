"""The training loop: plain torch, resumable to the bit, and honest about what it saw.

Orders, class draws, augmentation and dropout follow from (seed, epoch, step) alone, so that a checkpoint holds weights,
optimiser and counters, and a resumed run cannot differ from an uninterrupted one.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dark_halo_scope.core.crash import crash_point
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.gates import measure_gates
from dark_halo_scope.images.augment import augment
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import (
    batches,
    class_mix,
    draw_classes,
    draw_variants,
    epoch_order,
    final_class_mix,
)
from dark_halo_scope.models.device import autocast, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH, meta_statistics
from dark_halo_scope.models.predict import predictor
from dark_halo_scope.training.checkpoints import Checkpoint, newest_checkpoint, save_checkpoint
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, PairedData, PairedImages
from dark_halo_scope.training.losses import image_loss, pair_ranking_loss
from dark_halo_scope.training.red_flags import Record, final_checkpoint, mid_training_checkpoint, red_flags
from dark_halo_scope.training.schedules import ema_decay, learning_rate
from dark_halo_scope.training.validation import score_split, validation_metrics

_logger = logging.getLogger(__name__)

DECISIONS = "decisions.json"  # beside the checkpoints, also where training stopped for NaN
VALIDATION_BATCH = 256
_STEP_STREAM, _GATE_STREAM = 2, 3  # the sampler's streams of an epoch are 0 and 1

Tensors = dict[str, torch.Tensor]


class TrainingDivergedError(DarkHaloScopeError):
    """The loss or its gradient is NaN or infinite."""


@dataclass
class Progression:
    """Where a run stands, JSON-ready apart from the weights of its best epoch."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[Record] = field(default_factory=list)
    best_epoch: int | None = None
    finished: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch's network and what was measured on the way."""

    model: LensFinder6CH
    preprocess: Preprocess6CH
    best: Mapping[str, Any]
    history: list[dict[str, Any]]
    decisions: list[Record]


class Trainer:
    """One run. `run()` trains from scratch or from the newest checkpoint, to the end."""

    def __init__(
        self,
        settings: TrainSettings,
        train: PairedImages,
        val: PairedImages,
        device: torch.device,
        checkpoints: Path | None,
    ) -> None:
        """Prepare network, data and optimiser.

        Args:
            settings: of this stage.
            train, val: packed splits.
            device: where to compute.
            checkpoints: folder of this run's own checkpoints; None: it cannot be resumed.

        Raises:
            BadInputError, ConfigError: data or settings that cannot be trained with.
        """
        self.settings = settings
        self.device = device
        self.dtype = resolve_precision(settings.precision, device)
        self.checkpoints = checkpoints
        columns = settings.model.meta_columns
        self.train_data = PairedData(train, columns, device)
        # Validation is read in order, once per epoch: it stays on the CPU.
        self.val_data = PairedData(val, columns, torch.device("cpu"))
        self.val_split = val
        self.preprocess = Preprocess6CH(settings.preprocessing, self.train_data.size).to(device)
        resumed = None if checkpoints is None else newest_checkpoint(checkpoints)
        torch.manual_seed(settings.seed)
        self.model = LensFinder6CH(settings.model, self.preprocess.channels, load_weights=resumed is None)
        self.model.set_meta_statistics(*meta_statistics(self.train_data.meta_NM))
        self.model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.model, settings)
        # What is validated and kept: the averaged weights where there is an average, else the model's own.
        self.judged = LensFinder6CH(settings.model, self.preprocess.channels, load_weights=False)
        self.judged.to(device).to(memory_format=torch.channels_last).eval()
        self.average: Tensors | None = None
        if settings.optimizer.ema_decay is not None:
            self.average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.best: Tensors = {}
        self.state = Progression()
        self._saved_at = time.monotonic()
        if resumed is not None:
            self._restore(resumed)
            _logger.info("Resuming at epoch %d, step %d", self.state.epoch + 1, self.state.step_in_epoch)

    def run(self) -> TrainingResult:
        """Train to the end.

        Raises:
            TrainingDivergedError: NaN or infinite loss; the checkpoints are those before it.
        """
        state, settings = self.state, self.settings
        while not state.finished:
            started, seen = time.monotonic(), self._train_epoch()
            speed = seen / max(time.monotonic() - started, 1e-9)
            entry = self._judge_epoch()
            _logger.info(
                "Epoch %d/%d: loss %.4f, validation %.4f, AUC %.4f, mean p of hard negatives %.3f, %.0f images/s",
                *(state.epoch + 1, settings.epochs, entry["train_loss"], entry["val_loss"], entry["val_auc"]),
                *(entry["mean_p"]["hard_negative"], speed),
            )
            state.finished = self._ends(entry)
            state.epoch, state.step_in_epoch, state.loss_sum = state.epoch + 1, 0, 0.0
            if state.finished:
                self._conclude()
            self._save()
        self.judged.load_state_dict(self.best)
        best = next(entry for entry in state.history if entry["epoch"] == state.best_epoch)
        return TrainingResult(self.judged, self.preprocess, best, state.history, state.decisions)

    def _train_epoch(self) -> int:
        """Take the epoch's remaining steps; the number of images seen."""
        state, settings = self.state, self.settings
        order = epoch_order(len(self.train_data), settings.sampler, settings.seed, state.epoch)
        parts = batches(order, settings.sampler.batch_pairs)
        mix = class_mix(settings.sampler, state.epoch)
        classes = draw_classes(len(self.train_data), mix, settings.seed, state.epoch)
        variants = draw_variants(len(self.train_data), self.train_data.hard_negatives, settings.seed, state.epoch)
        seen = 0
        self.model.train()
        with Progress(len(parts), f"Epoch {state.epoch + 1}/{settings.epochs}") as progress:
            progress.advance(state.step_in_epoch)
            for rows_P in parts[state.step_in_epoch :]:
                if settings.sampler.per_pair == "all":
                    batch = self.train_data.batch_all(rows_P, mix, variants[rows_P])
                else:
                    batch = self.train_data.batch_one(rows_P, classes[rows_P], variants[rows_P])
                rate = learning_rate(state.step, len(parts), settings.epochs, settings.optimizer)
                state.loss_sum += self._step(batch, rate)
                state.step_in_epoch += 1
                state.step += 1
                seen += len(batch.labels)
                progress.advance()
                crash_point("training_step", str(state.step))
                if state.step_in_epoch < len(parts) and self._checkpoint_is_due():
                    self._save()
        return seen

    def _step(self, batch: Batch, rate: float) -> float:
        """One step of the optimiser; the batch's loss before it."""
        settings = self.settings
        step_seed = _seed(settings.seed, self.state.epoch, _STEP_STREAM, self.state.step_in_epoch)
        # A generator on the CPU draws the same on every device; dropout draws from torch's own.
        generator = torch.Generator().manual_seed(step_seed)
        torch.manual_seed(step_seed)
        try:
            x_B3HW, _ = augment(batch.images, settings.augmentation, self.preprocess, generator)
            x_B6HW = self.preprocess(x_B3HW)
        except BadInputError as error:
            raise BadInputError(f"{error} The batch holds {self._named(batch)}.") from error
        with autocast(self.device, self.dtype):
            logit_B = self.model(x_B6HW, batch.meta)
        class_loss = (image_loss(logit_B, batch.labels, settings.loss) * batch.weights).mean()
        loss = class_loss
        if settings.loss.pair_ranking:
            ranking = pair_ranking_loss(logit_B.view(-1, len(np.unique(batch.rows))))
            loss = loss + settings.loss.pair_ranking * ranking
        if not bool(torch.isfinite(loss)):
            self._diverged("loss", batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = settings.optimizer.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), float("inf") if limit is None else limit)
        if not bool(torch.isfinite(norm)):
            self._diverged("gradient", batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._update_average()
        return float(class_loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None or self.settings.optimizer.ema_decay is None:
            return
        weight = 1 - ema_decay(self.state.step, self.settings.optimizer.ema_decay)
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, weight)
            else:
                self.average[name].copy_(tensor)

    def _judge_epoch(self) -> dict[str, Any]:
        """Validate the epoch just trained, and record its numbers, its flags and whether it is the best."""
        state, settings = self.state, self.settings
        self.judged.load_state_dict(self.average if self.average is not None else self.model.state_dict())
        predict = predictor(self.judged, self.preprocess, self.device, VALIDATION_BATCH, settings.precision)
        pairs = len(self.val_data)
        with Progress(pairs, f"Validating epoch {state.epoch + 1}/{settings.epochs}") as progress:
            logits = score_split(
                predict, self.val_data, VALIDATION_BATCH, settings.validation.max_pairs, progress.advance
            )
        mix = class_mix(settings.sampler, state.epoch)
        entry: dict[str, Any] = {
            "epoch": state.epoch,
            "step": state.step,
            "class_mix": mix._asdict(),
            "train_loss": state.loss_sum / state.step_in_epoch,
            **validation_metrics(logits, mix, final_class_mix(settings.sampler), settings.loss),
        }
        if not np.isfinite([entry["val_loss"], entry["val_auc"]]).all():
            raise TrainingDivergedError(
                f"The validation of epoch {state.epoch + 1} is not finite although the training loss was; "
                "lower the learning rate."
            )
        last = state.epoch + 1 == settings.epochs
        if self._gates_are_due(last):
            entry["gates"] = self._measure_gates()
        state.history.append(entry)
        if self._is_best(entry):
            state.best_epoch = state.epoch
            self.best = {name: tensor.clone() for name, tensor in self.judged.state_dict().items()}
        flags = red_flags(state.history, settings.red_flags)
        for flag in flags:
            _logger.warning("Red flag %(name)s: %(value).3f against %(threshold).3f; %(advice)s", flag)
        state.decisions.extend(flags)
        if state.epoch == self._day_3_epoch:
            state.decisions.append(mid_training_checkpoint(state.history))
        return entry

    @property
    def _day_3_epoch(self) -> int:
        given = self.settings.red_flags.day_3_epoch
        return self.settings.epochs // 2 if given is None else given

    def _gates_are_due(self, last: bool) -> bool:
        every = self.settings.validation.gates_every
        if every is None:
            return last
        return last or self.state.epoch % every == 0 or self.state.epoch == self._day_3_epoch

    def _measure_gates(self) -> dict[str, Any]:
        """Validation gates of the judged weights, without intervals."""
        settings = self.settings
        predict = predictor(self.judged, self.preprocess, self.device, VALIDATION_BATCH, settings.precision)
        rng = np.random.default_rng(np.random.SeedSequence((settings.seed, _GATE_STREAM)))
        return measure_gates(predict, self.val_split, settings.validation.gates.without_resampling(), rng)

    def _is_best(self, entry: Mapping[str, Any]) -> bool:
        earlier = [self._merit(past) for past in self.state.history[:-1]]
        return not earlier or self._merit(entry) > max(earlier)

    def _merit(self, entry: Mapping[str, Any]) -> float:
        monitor = self.settings.validation.monitor
        return float(entry[monitor]) * (-1 if monitor == "val_loss" else 1)

    def _ends(self, entry: Mapping[str, Any]) -> bool:
        """Whether training ends with this epoch; why is recorded."""
        state, validation = self.state, self.settings.validation
        reason = None
        stopping = [flag["name"] for flag in state.decisions if flag.get("stops") and flag["epoch"] == state.epoch]
        if stopping:
            reason = f"red flag {', '.join(stopping)}"
        elif validation.patience is not None:
            merits = [self._merit(past) for past in state.history]
            before, recent = merits[: -validation.patience], merits[-validation.patience :]
            if before and max(recent) <= max(before) + validation.min_delta:
                reason = f"no better {validation.monitor} in {validation.patience} epochs"
        if reason is None and state.epoch + 1 < self.settings.epochs:
            return False
        reason = reason or "all epochs done"
        state.decisions.append({"kind": "end", "name": "end of training", "epoch": state.epoch, "reason": reason})
        _logger.info("Training ends: %s", reason)
        return True

    def _conclude(self) -> None:
        """Judge the epoch that is kept, with its gates, for the plan's day-5 checkpoint."""
        state = self.state
        best = next(entry for entry in state.history if entry["epoch"] == state.best_epoch)
        if "gates" not in best:
            self.judged.load_state_dict(self.best)
            best["gates"] = self._measure_gates()
        state.decisions.append(final_checkpoint(best, best["gates"]))

    def _checkpoint_is_due(self) -> bool:
        settings = self.settings.checkpoints
        if settings.every_steps is not None and self.state.step % settings.every_steps == 0:
            return True
        return settings.every_seconds is not None and time.monotonic() - self._saved_at >= settings.every_seconds

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        state = self.state
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in (self.average or {}).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": tensor for slot, tensor in slots.items()}
        save_checkpoint(self.checkpoints, state.step, Checkpoint(tensors, vars(state)), self.settings.checkpoints.keep)
        write_json(self.checkpoints / DECISIONS, state.decisions)
        self._saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        parts: dict[str, Tensors] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor.to(self.device)
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average = parts["average"]
        self.best = parts["best"]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        slots: dict[int, Tensors] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, slot = name.partition(".")
            if slot != "step":
                # The fused kernel walks weights and moments in memory order: they must be laid out alike.
                tensor = torch.empty_like(parameters[int(index)], requires_grad=False).copy_(tensor)
            slots.setdefault(int(index), {})[slot] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.state = Progression(**checkpoint.values)

    def _named(self, batch: Batch) -> str:
        ids = self.train_data.task_ids(batch.rows)
        return f"{len(ids)} pairs: {', '.join(ids)}"

    def _diverged(self, what: str, batch: Batch) -> None:
        state = self.state
        ids = self.train_data.task_ids(batch.rows)
        record: Record = {"kind": "red flag", "name": "nan", "epoch": state.epoch, "step": state.step, "stops": True}
        if self.checkpoints is not None:
            write_json(self.checkpoints / DECISIONS, [*state.decisions, {**record, "task_ids": ids}])
        raise TrainingDivergedError(
            f"The {what} is NaN or infinite at epoch {state.epoch + 1}, step {state.step}; lower the learning rate or "
            f"look at the batch's {self._named(batch)}."
        )


def _optimizer(model: LensFinder6CH, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices and kernels only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.optimizer.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.optimizer.beta1, settings.optimizer.beta2)
    return torch.optim.AdamW(groups, lr=settings.optimizer.lr, betas=betas, fused=True)


def _seed(*parts: int) -> int:
    """A seed of 63 bits that differs wherever a part differs."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def history_json(result: TrainingResult) -> dict[str, Any]:
    """history.json: every epoch's numbers, what was decided and which epoch is kept."""
    return {"best_epoch": result.best["epoch"], "epochs": result.history, "decisions": result.decisions}
