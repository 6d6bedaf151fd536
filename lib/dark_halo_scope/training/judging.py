"""Judging an epoch: validation, gates, checks, flags, which epoch is kept, and whether training ends."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.gates import measure_gates
from dark_halo_scope.evaluation.pairs import Pairs
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import class_mix, final_class_mix
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import Predict, predictor
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Rows, TrainingData, spread
from dark_halo_scope.training.diagnostics import epoch_checks, failed, no_saliency, saliency_check
from dark_halo_scope.training.image_metrics import image_metrics
from dark_halo_scope.training.red_flags import (
    Record,
    final_checkpoint,
    mid_training_checkpoint,
    no_gates,
    red_flags,
)
from dark_halo_scope.training.saliency import annulus_share
from dark_halo_scope.training.state import Progression
from dark_halo_scope.training.stepping import Tensors
from dark_halo_scope.training.validation import (
    Logits,
    image_auc,
    score_split,
    val_auc_against,
    validation_metrics,
    validation_rows,
)
from dark_halo_scope.training.watching import TrainingDivergedError

_logger = logging.getLogger(__name__)

VALIDATION_BATCH = 256
_GATE_STREAM = 3  # of the seed


class Judge:
    """Validates one run's epochs, on the first of its processes."""

    def __init__(
        self,
        settings: TrainSettings,
        model: LensFinder6CH,
        preprocess: Preprocess6CH,
        split: Pairs,
        data: TrainingData,
        device: torch.device,
        counts: tuple[int, int],
        training: TrainingData | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: of the run.
            model: a network of its own, whose weights are those to be judged.
            preprocess: the run's.
            split: the validation split, for gates.
            data: the same, as training uses it.
            device: where to compute.
            counts: pairs and images of the pool that training uses.
            training: the training split, of which `validation.train_images` are scored.
        """
        self.settings = settings
        self.model = model.to(device).to(memory_format=torch.channels_last).eval()
        self.preprocess = preprocess
        self.split = split
        self.data = data
        self.device = device
        self.counts = counts
        self.training = training
        self.best: Tensors = {}

    def judge(self, state: Progression, weights: Tensors, trained: Mapping[str, Any]) -> dict[str, Any]:
        """Validate the epoch just trained and append what was found to history and decisions.

        Args:
            state: where the run stands.
            weights: to judge.
            trained: what training says of the epoch.
        """
        settings = self.settings
        self.model.load_state_dict(weights)
        predict = self._predict()
        pairs_N, pool_M = validation_rows(self.data, settings.validation.max_pairs)
        with Progress(len(pairs_N) + len(pool_M), f"Validating epoch {state.epoch + 1}/{settings.epochs}") as progress:
            logits = score_split(predict, self.data, VALIDATION_BATCH, settings.validation.max_pairs, progress.advance)
        mix = class_mix(settings.sampler, state.epoch, self.counts)
        entry: dict[str, Any] = {
            "epoch": state.epoch,
            "step": state.step,
            "class_mix": mix._asdict(),
            **trained,
            **validation_metrics(
                logits,
                mix,
                final_class_mix(settings.sampler, self.counts),
                settings.loss,
                val_auc_against(settings.sampler),
            ),
        }
        if not self.data.paired:
            # Of pairs the lenses' share is the sampler's, and their tiers are none.
            all_of = (len(self.data.pairs_N), len(np.unique(self.data.pool_M)))
            rows = self.data.rows.take(pa.array(pairs_N))
            entry |= image_metrics(logits, rows, all_of, settings.diagnostics.calibration_bins)
        if settings.validation.train_images is not None and self.training is not None:
            entry["train_auc"] = self._train_auc(predict, settings.validation.train_images)
        if not np.isfinite([entry["val_loss"], entry["val_auc"]]).all():
            raise TrainingDivergedError(
                f"The validation of epoch {state.epoch + 1} is not finite although the training loss was; "
                "lower the learning rate."
            )
        if self._gates_are_due(state.epoch):
            entry["gates"] = self._gates(predict)
        state.history.append(entry)
        if is_best(state.history, settings.validation.monitor):
            state.best_epoch = state.epoch
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        flags = red_flags(state.history, settings.red_flags)
        for flag in flags:
            _logger.warning("Red flag %(name)s: %(value).3f against %(threshold).3f; %(advice)s", flag)
        state.decisions.extend(flags)
        if self.data.paired and state.epoch == self._day_3_epoch:
            state.decisions.append(mid_training_checkpoint(state.history))
        reason = end_reason(state, settings)
        entry["checks"] = self._checks(entry, logits, state, reason is not None)
        if reason is not None:
            state.decisions.append({"kind": "end", "name": "end of training", "epoch": state.epoch, "reason": reason})
            _logger.info("Training ends: %s", reason)
            state.finished = True
            self._conclude(state)
        return entry

    @property
    def _day_3_epoch(self) -> int:
        given = self.settings.red_flags.day_3_epoch
        return self.settings.epochs // 2 if given is None else given

    def _gates_are_due(self, epoch: int) -> bool:
        if not self.data.paired:
            return False
        every = self.settings.validation.gates_every
        last = epoch + 1 == self.settings.epochs
        if every is None:
            return last
        return last or epoch % every == 0 or epoch == self._day_3_epoch

    def _predict(self) -> Predict:
        return predictor(self.model, self.preprocess, self.device, VALIDATION_BATCH, self.settings.precision)

    def _train_auc(self, predict: Predict, count: int) -> float:
        """AUC of training's own images without augmentation, against what `val_auc` is against."""
        assert self.training is not None
        against = val_auc_against(self.settings.sampler)
        logits = score_split(predict, self.training, VALIDATION_BATCH, count, lambda _: None, ("positive", against))
        return image_auc(logits["positive"], logits[against])

    def _gates(self, predict: Predict) -> dict[str, Any]:
        """Validation gates of the judged weights, without intervals."""
        # Two parts where other streams have three, which makes it the same as the stream of epoch 3's order. That order
        # tells gates nothing, and another stream would change which pairs measure gates, and so their values.
        rng = np.random.default_rng(np.random.SeedSequence((self.settings.seed, _GATE_STREAM)))
        return measure_gates(predict, self.split, self.settings.validation.gates.without_resampling(), rng)

    def _checks(self, entry: Mapping[str, Any], logits: Logits, state: Progression, last: bool) -> list[Record]:
        """The epoch's checks, saliency included where it is due."""
        settings = self.settings.diagnostics
        pairs_N, pool_M = validation_rows(self.data, self.settings.validation.max_pairs)
        rows, pool_rows = self.data.rows.take(pa.array(pairs_N)), self.data.pool_rows.take(pa.array(pool_M))
        checks = epoch_checks(logits, rows, pool_rows, entry, state.history, settings, last)
        if settings.saliency_pairs and (last or state.epoch + 1 in settings.saliency_epochs):
            checks.append(self._saliency(state.epoch, pairs_N) if self.data.paired else no_saliency(state.epoch))
        if broken := [check["name"] for check in failed(checks)]:
            _logger.warning("Checks of epoch %d that do not hold: %s", state.epoch + 1, ", ".join(broken))
        return checks

    def _saliency(self, epoch: int, pairs_N: Rows) -> Record:
        """How much of what speaks for a lens lies where arcs are."""
        chosen = spread(pairs_N, self.settings.diagnostics.saliency_pairs)
        rows = self.data.rows.take(pa.array(chosen))
        share = annulus_share(
            self.model,
            self.preprocess,
            self.data.images("positive", chosen),
            self.data.images("control", chosen),
            rows,
            self.settings.validation.gates,
        )
        return saliency_check(epoch, share, self.settings.diagnostics)

    def _conclude(self, state: Progression) -> None:
        """Judge the epoch that is kept, with its gates, for the plan's day-5 checkpoint; without pairs say so."""
        if not self.data.paired:
            state.decisions.append(no_gates(state.epoch))
            return
        best = best_entry(state)
        if "gates" not in best:
            self.model.load_state_dict(self.best)
            best["gates"] = self._gates(self._predict())
        state.decisions.append(final_checkpoint(best, best["gates"]))


def best_entry(state: Progression) -> dict[str, Any]:
    """The epoch that is kept."""
    return next(entry for entry in state.history if entry["epoch"] == state.best_epoch)


def is_best(history: Sequence[Mapping[str, Any]], monitor: str) -> bool:
    """Whether the newest epoch is better than all before it."""
    merits = [_merit(entry, monitor) for entry in history]
    return len(merits) == 1 or merits[-1] > max(merits[:-1])


def end_reason(state: Progression, settings: TrainSettings) -> str | None:
    """Why training ends with the newest epoch; None where it goes on."""
    validation = settings.validation
    stopping = [flag["name"] for flag in state.decisions if flag.get("stops") and flag["epoch"] == state.epoch]
    if stopping:
        return f"red flag {', '.join(stopping)}"
    if validation.patience is not None:
        merits = [_merit(entry, validation.monitor) for entry in state.history]
        before, recent = merits[: -validation.patience], merits[-validation.patience :]
        if before and max(recent) <= max(before) + validation.min_delta:
            return f"no better {validation.monitor} in {validation.patience} epochs"
    return "all epochs done" if state.epoch + 1 == settings.epochs else None


def _merit(entry: Mapping[str, Any], monitor: str) -> float:
    return float(entry[monitor]) * (-1 if monitor == "val_loss" else 1)
