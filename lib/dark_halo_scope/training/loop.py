"""The training loop: plain torch, resumable to the bit, and honest about what it saw.

Orders, class draws, augmentation and dropout follow from (seed, epoch, batch) alone, so that a checkpoint holds
weights, optimiser and counters, and a resumed run cannot differ from an uninterrupted one. Several processes take the
steps that one would: each sees its part of every batch, and the first judges, writes and logs.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from dark_halo_scope.core.crash import crash_point
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.images.control_sources import control_library
from dark_halo_scope.images.preprocess import Preprocess6CH, band_statistics
from dark_halo_scope.images.samplers import epoch_plan
from dark_halo_scope.models.lens_finder import LensFinder6CH, meta_statistics
from dark_halo_scope.training.checkpoints import newest_checkpoint, save_checkpoint
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, MinedImages, TrainingData, TrainingSplit, prefetch
from dark_halo_scope.training.diagnostics import gradient_norms
from dark_halo_scope.training.distributed import Ranks
from dark_halo_scope.training.judging import Judge, best_entry
from dark_halo_scope.training.metadata_guard import refuse_leaks
from dark_halo_scope.training.red_flags import Record
from dark_halo_scope.training.schedules import learning_rate
from dark_halo_scope.training.start import StartWeights
from dark_halo_scope.training.state import Progression, pack_state, restore_state
from dark_halo_scope.training.stepping import (
    Outcome,
    Part,
    Stepper,
    algorithms,
    check_shareable,
    mixed_seed,
    part_of,
)
from dark_halo_scope.training.tracking import Tracker
from dark_halo_scope.training.watching import PendingStep, SeenStep, TrainingDivergedError, fetch

_logger = logging.getLogger(__name__)

DECISIONS = "decisions.json"  # beside the checkpoints, also where training stopped for NaN
CHECK_EVERY_CUDA = 25  # steps between looks at what a GPU computed; on the CPU every step, where looking is free
TRACK_EVERY = 50  # steps between a tracker's points of training loss, gradient and rate
_NAMED = 5  # ids in a sentence; its file has all
_STEP_STREAM, _LIBRARY_STREAM = 2, 8  # of an epoch, the latter of the first; the sampler has others


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
        train: TrainingSplit,
        val: TrainingSplit,
        device: torch.device,
        checkpoints: Path | None,
        *,
        mined: MinedImages | None = None,
        start: StartWeights | None = None,
        ranks: Ranks | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        """Prepare network, data and optimiser.

        Args:
            settings: of this stage.
            train, val: packed splits.
            device: where to compute.
            checkpoints: folder of this run's own checkpoints; None: it cannot be resumed.
            mined: hard negatives of an earlier generation.
            start: weights of an earlier stage to begin from; the optimiser is fresh.
            ranks: this process among those that train; None: it is alone.
            tracker: told how the run goes.

        Raises:
            BadInputError, ConfigError: data or settings that cannot be trained with.
        """
        self.settings = settings
        self.device = device
        self.checkpoints = checkpoints
        self.ranks = Ranks() if ranks is None else ranks
        self.check_every = CHECK_EVERY_CUDA if device.type == "cuda" else 1
        self._tracker = tracker
        self._saved_at, self._speed = time.monotonic(), 0.0
        preprocess = Preprocess6CH(settings.preprocessing, int(train.positive.shape[-1]))
        self.train_data = TrainingData(train, settings, device, mined, controls=preprocess.needs_controls)
        # Validation is read in order, once per epoch: it stays on the CPU.
        self.val_data = TrainingData(val, settings, torch.device("cpu"), name="validation")
        labels, rows = self.train_data.labels_and_meta()
        refuse_leaks(settings.model.meta_columns, rows, labels, settings.model.meta_auc_limit)
        resumed = None if checkpoints is None else newest_checkpoint(checkpoints)
        torch.manual_seed(settings.seed)
        model = LensFinder6CH(settings.model, preprocess.channels, load_weights=resumed is None and start is None)
        check_shareable(model, device, self.ranks, settings.model.backbone)
        model.set_meta_statistics(*meta_statistics(self.train_data.meta_NM))
        if start is not None:
            start.load_into(model, preprocess)
        elif preprocess.needs_library:
            rng = np.random.default_rng(np.random.SeedSequence((settings.seed, 0, _LIBRARY_STREAM)))
            preprocess.set_library(control_library(train.control, settings.preprocessing.library_size, rng))
        elif preprocess.needs_statistics:
            _logger.info("Measuring mean and deviation of the training images")
            sample = self.train_data.sky_images(settings.preprocessing.statistics_images)
            preprocess.set_statistics(*band_statistics(sample))
        self.preprocess = preprocess.to(device)
        model.to(device).to(memory_format=torch.channels_last)
        self.stepper = Stepper(settings, model, self.preprocess, device, self.ranks)
        # What is validated and kept: the averaged weights where there is an average, else the model's own.
        judged = LensFinder6CH(settings.model, preprocess.channels, load_weights=False)
        counts = (len(self.train_data.pairs_N), len(self.train_data.pool_M))
        self.judge = Judge(settings, judged, self.preprocess, val, self.val_data, device, counts, self.train_data)
        self.state = Progression()
        if resumed is not None:
            self.state, self.judge.best = restore_state(resumed, self.stepper)
            _logger.info("Resuming at epoch %d, step %d", self.state.epoch + 1, self.state.step_in_epoch)

    @property
    def model(self) -> LensFinder6CH:
        """The network that is trained."""
        return self.stepper.model

    def run(self) -> TrainingResult | None:
        """Train to the end; the result, on the first process.

        Raises:
            TrainingDivergedError: NaN or infinite loss; the checkpoints are those before it.
        """
        state = self.state
        with algorithms(self.settings, self.device):
            while not state.finished:
                trained = self._train_epoch()
                if self.ranks.first:
                    entry = self.judge.judge(state, self.stepper.judged_weights, trained)
                    _logger.info(
                        "Epoch %d/%d: loss %.4f, validation %.4f, AUC %.4f, mean p of %s %.3f, %.0f images/s",
                        *(state.epoch + 1, self.settings.epochs, entry["train_loss"], entry["val_loss"]),
                        *(entry["val_auc"], *_hardest(entry["mean_p"]), self._speed),
                    )
                    self._track(state.step, entry)
                state.finished = self.ranks.agreed(state.finished)
                state.epoch, state.step_in_epoch, state.loss_sum, state.largest_norm = state.epoch + 1, 0, 0.0, 0.0
                self._save()
        if not self.ranks.first:
            return None
        self.judge.model.load_state_dict(self.judge.best)
        return TrainingResult(self.judge.model, self.preprocess, best_entry(state), state.history, state.decisions)

    def _train_epoch(self) -> dict[str, Any]:
        """Take the epoch's remaining steps; what history says of them."""
        state, settings, data = self.state, self.settings, self.train_data
        plans = epoch_plan(
            settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed, state.epoch, data.strata
        )
        together = settings.optimizer.accumulate
        steps = [tuple(plans[start : start + together]) for start in range(0, len(plans), together)]
        first, started, seen = state.step_in_epoch, time.monotonic(), 0
        parts = [[part_of(plan, self.ranks) for plan in step] for step in steps[first:]]
        # What lies on the GPU is gathered there.
        stream = prefetch(data, [part.mine for step in parts for part in step], workers=0 if data.resident else 1)
        norms: dict[str, float] = {}
        pending: list[PendingStep] = []
        self.model.train()
        with self._progress(len(steps), f"Epoch {state.epoch + 1}/{settings.epochs}") as advance:
            advance(first)
            with contextlib.closing(stream):
                for step in parts:
                    rate = self._rate(state.step_in_epoch, len(steps))
                    last = state.step_in_epoch + 1 == len(steps)
                    outcome = self._step(step, islice(stream, len(step)), rate, last)
                    norms = outcome.seen or norms
                    pending.append(PendingStep(state.step, tuple(part.whole for part in step), rate, outcome))
                    state.step_in_epoch += 1
                    state.step += 1
                    seen += sum(part.whole.total for part in step)
                    due = settings.checkpoints.every_steps
                    save = due is not None and state.step % due == 0
                    looks = save or last or len(pending) >= self.check_every
                    if looks:
                        self._look_at(pending)
                        pending.clear()
                    advance(1)
                    crash_point("training_step", str(state.step))
                    if looks and not last and self.ranks.agreed(save or self._time_is_up()):
                        self._save()
        self._speed = seen / max(time.monotonic() - started, 1e-9)
        return {
            "train_loss": state.loss_sum / state.step_in_epoch,
            # Validation knows neither smoothed labels nor weights of rows.
            "losses_compare": not settings.loss.label_smoothing and settings.loss.weight_column is None,
            "gradient_norm_max": state.largest_norm,
            "gradient_norms": norms,
            "learning_rate": self.stepper.optimizer.param_groups[0]["lr"],
            # Of the epoch's end, whatever was counted on the way there.
            "learning_rate_scheduled": self._rate(len(steps) - 1, len(steps)),
        }

    def _rate(self, step_in_epoch: int, steps: int) -> float:
        return learning_rate(
            self.state.epoch * steps + step_in_epoch, steps, self.settings.epochs, self.settings.optimizer
        )

    def _step(self, parts: list[Part], batches: Iterator[Batch], rate: float, last: bool) -> Outcome[dict[str, float]]:
        """One step of the optimiser; its last one of an epoch also looks at the gradients."""
        state = self.state
        start = state.step_in_epoch * self.settings.optimizer.accumulate
        seeds = [
            mixed_seed(self.settings.seed, state.epoch, _STEP_STREAM, start + index) for index in range(len(parts))
        ]
        return self.stepper.step(parts, batches, seeds, rate, state.step, gradient_norms if last else None)

    def _look_at(self, pending: list[PendingStep]) -> None:
        """Fetch what steps saw."""
        for step in fetch(pending, self.ranks):
            self._note(step)

    def _note(self, step: SeenStep) -> None:
        """Count what a step saw, and stop where it is nonsense."""
        if step.wrong is not None:
            self._diverged(step)
        self.state.loss_sum += step.loss
        self.state.largest_norm = max(self.state.largest_norm, step.norm)
        if step.number % TRACK_EVERY == 0:
            self._track(step.number, {"step/loss": step.loss, "step/norm": step.norm, "step/rate": step.rate})

    def _time_is_up(self) -> bool:
        every = self.settings.checkpoints.every_seconds
        return every is not None and time.monotonic() - self._saved_at >= every

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.checkpoints is None or not self.ranks.first:
            return
        checkpoint = pack_state(self.state, self.stepper, self.judge.best)
        save_checkpoint(self.checkpoints, self.state.step, checkpoint, self.settings.checkpoints.keep)
        write_json(self.checkpoints / DECISIONS, self.state.decisions)

    def _track(self, step: int, values: Mapping[str, Any]) -> None:
        if self._tracker is not None and self.ranks.first:
            self._tracker.log(step, values)

    @contextlib.contextmanager
    def _progress(self, total: int, text: str) -> Iterator[Callable[[int], None]]:
        """What to tell of steps that are done; only the first process shows it."""
        if not self.ranks.first:
            yield lambda _: None
            return
        with Progress(total, text) as progress:
            yield progress.advance

    def _diverged(self, step: SeenStep) -> NoReturn:
        """End the run with the ids of what the step saw, which the first process says and writes."""
        if not self.ranks.first:
            self.ranks.end_after_first()
        where = f"at epoch {self.state.epoch + 1}, step {step.number}"
        if step.wrong == "pixels":
            broken = [name for plan in step.plans for name in self.train_data.not_finite(plan)]
            named = self._recorded("pixels", step, broken, "images")
            if not broken:
                raise BadInputError(
                    f"Pixels that are not finite were trained on {where}, and the same images are finite when they "
                    "are read again; look for a fault of the memory or the GPU, and go on from the last checkpoint."
                )
            raise BadInputError(f"Pixels that are not finite were read {where}; pack again without {named}.")
        ids = sorted({name for plan in step.plans for name in self.train_data.names(plan)})
        named = self._recorded("nan", step, ids, "pairs" if self.settings.sampler.draw == "pairs" else "images")
        raise TrainingDivergedError(
            f"The {step.wrong} is NaN or infinite {where}; lower the learning rate or look at the batch's {named}."
        )

    def _recorded(self, flag: str, step: SeenStep, names: list[str], kind: str) -> str:
        """Write all names to the decisions; how many they are, the first few, and where the others stand."""
        more = ", ..." if len(names) > _NAMED else ""
        text = f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})"
        if self.checkpoints is None:
            return text
        epoch = self.state.epoch
        record: Record = {"kind": "red flag", "name": flag, "epoch": epoch, "step": step.number, "stops": True}
        write_json(self.checkpoints / DECISIONS, [*self.state.decisions, {**record, "task_ids": names}])
        return f"{text}, all named in {self.checkpoints / DECISIONS}"


def _hardest(mean_p: Mapping[str, float]) -> tuple[str, float]:
    """The hardest kind of negative that was scored, and its mean p."""
    kind = "hard_negative" if "hard_negative" in mean_p else "negative"
    return f"{kind.replace('_', ' ')}s", mean_p[kind]
