"""Checks of a run by itself: what was measured, on how many, against which criterion, and whether it holds.

The checks, their criteria and their cadence are those of the configuration review (sections 3.1, 3.2 and question 1).
None of them stops a run: red flags do. A check that cannot be measured says why and neither passes nor fails.

An epoch's entry holds, beside what `validation_metrics` measures: `epoch` counted from 0, `step`, `train_loss`,
`losses_compare` (whether training has the targets and weights of validation), `class_mix`, `gradient_norm_max` (total
norm before clipping, the largest of the epoch's steps), `gradient_norms` (see `gradient_norms`, of its last step),
`learning_rate` (that the optimiser used last) and `learning_rate_scheduled` (that the schedule gives for the epoch's
end).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dark_halo_scope.images.samplers import KINDS
from dark_halo_scope.training.checks import Entry, Logits, Record, measured, too_few, unmeasured
from dark_halo_scope.training.config import DiagnosticSettings
from dark_halo_scope.training.group_checks import Scored, group_checks

#: Containers of a backbone's stages, whose children are depths of their own.
_CONTAINERS = ("stages", "blocks", "layers", "features")
_BACKBONE = "backbone."
_SALIENCY = "attribution in the arc annulus above its share of the area and what untrained networks reach"
_SAME_RATE = 1e-9  # relative difference of learning rates that rounding may make


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Norm of the gradient by depth: the backbone's stages from first to last, then metadata and head.

    Parameters without a gradient are left out. A gradient that is not finite shows as such.
    """
    squares: dict[str, list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares.setdefault(_depth(name), []).append(parameter.grad.detach().float().square().sum())
    if not squares:
        return {}
    # One transfer for all depths: each would make a GPU wait.
    norms = torch.stack([torch.stack(parts).sum() for parts in squares.values()]).sqrt().tolist()
    return dict(zip(squares, norms, strict=True))


def is_due(epoch: int, every: int | None, last: bool) -> bool:
    """Whether what is done every so many epochs is done after this one, counted from 0; always after the last."""
    return every is not None and (last or (epoch + 1) % every == 0)


def epoch_checks(
    logits: Logits,
    rows: pa.Table,
    pool_rows: pa.Table,
    entry: Entry,
    history: Sequence[Entry],
    settings: DiagnosticSettings,
    last: bool = False,
) -> list[Record]:
    """All checks that are due after an epoch.

    Args:
        logits: of the validation split by kind, as `score_split` gives them.
        rows: of its pairs, aligned with `positive`, `control` and `hard_negative`.
        pool_rows: aligned with `negative`.
        entry: the epoch's numbers (see above); what is missing makes its check unmeasured.
        history: entries of the run; those before this epoch are used.
        settings: criteria and cadence.
        last: whether training ends with this epoch, so that everything is due.

    Returns:
        Records with `kind`, `name`, `epoch`, `value`, `n`, `criterion` and `passed`, which is None with a `reason`
        where the check could not be measured.
    """
    earlier = [past for past in history if past["epoch"] < entry["epoch"]]
    checks = [
        *_losses(logits, entry, earlier, settings),
        *_optimisation(entry, earlier, settings),
        *_accuracies(logits, settings),
    ]
    if is_due(int(entry["epoch"]), settings.every, last):
        checks += group_checks(Scored.of(logits, rows, pool_rows, entry["class_mix"]), settings)
    return [{"kind": "check", "epoch": entry["epoch"], **check} for check in checks]


def saliency_check(epoch: int, share: Mapping[str, Any], settings: DiagnosticSettings) -> Record:
    """The check of what `saliency.annulus_share` measured: training made the network look where arcs are."""
    count, value, criterion = int(share["n"]), share["value"], _SALIENCY
    if count < settings.min_count:
        check = unmeasured("saliency", value, count, criterion, too_few(count, "positives", settings))
    else:
        check = measured("saliency", value, count, criterion, value > max(share["area"], share["untrained_high"]))
    return {"kind": "check", "epoch": epoch, **share, **check}


def no_saliency(epoch: int) -> Record:
    """The same where positives are lenses of the sky, of which nobody knows where their arcs are."""
    reason = "lenses of the sky have neither a known theta_E nor a copy without their arc"
    return {"kind": "check", "epoch": epoch, **unmeasured("saliency", None, 0, _SALIENCY, reason)}


def failed(checks: Sequence[Record]) -> list[Record]:
    """The checks that were measured and do not hold."""
    return [check for check in checks if check["passed"] is False]


def _losses(logits: Logits, entry: Entry, earlier: Sequence[Entry], settings: DiagnosticSettings) -> list[Record]:
    """Validation loss and AUC still improve, the gap to training is small, the AUC is high when it is due."""
    images = sum(len(values) for values in logits.values())
    epoch = int(entry["epoch"]) + 1
    gap, small = float(entry["val_loss_epoch_mix"]) - float(entry["train_loss"]), f"below {settings.loss_gap:g}"
    auc_now = float(entry["val_auc"])
    level = f"above {settings.auc:g} by epoch {settings.auc_epoch}"
    due = auc_now > settings.auc or epoch >= settings.auc_epoch
    return [
        _improves("val_loss", entry, earlier, -1, settings),
        measured("loss_gap", gap, images, small, gap < settings.loss_gap)
        if entry["losses_compare"]
        else unmeasured("loss_gap", gap, images, small, "training smooths labels or weighs rows, validation does not"),
        _improves("val_auc", entry, earlier, 1, settings),
        measured("val_auc", auc_now, images, level, auc_now > settings.auc)
        if due
        else unmeasured("val_auc", auc_now, images, level, f"due at epoch {settings.auc_epoch}"),
    ]


def _improves(name: str, entry: Entry, earlier: Sequence[Entry], sign: int, settings: DiagnosticSettings) -> Record:
    merits = [sign * float(past[name]) for past in (*earlier, entry)]
    since = len(merits) - 1 - int(np.argmax(merits))
    criterion = f"fewer than {settings.improves_within} epochs since the best one"
    return measured(f"{name}_improves", since, len(merits), criterion, since < settings.improves_within)


def _optimisation(entry: Entry, earlier: Sequence[Entry], settings: DiagnosticSettings) -> list[Record]:
    """Gradients neither explode nor vanish on the way to the first layers; the learning rate is the schedule's."""
    steps = int(entry["step"]) - (int(earlier[-1]["step"]) if earlier else 0)
    exploding = f"below {settings.gradient_norm:g} in every step"
    following = "the schedule's"
    vanishing = f"above {settings.early_gradient:g} of the backbone's largest"
    checks = []
    largest = entry.get("gradient_norm_max")
    if largest is None:
        checks.append(unmeasured("gradient_norm", None, 0, exploding, "gradients were not recorded"))
    else:
        checks.append(measured("gradient_norm", largest, steps, exploding, largest < settings.gradient_norm))
    rate, scheduled = entry.get("learning_rate"), entry.get("learning_rate_scheduled")
    if rate is None or scheduled is None:
        checks.append(unmeasured("learning_rate", rate, 0, following, "rates were not recorded"))
    else:
        same = abs(rate - scheduled) <= _SAME_RATE * abs(scheduled)
        checks.append({**measured("learning_rate", rate, 1, following, same), "scheduled": scheduled})
    depths = {name: norm for name, norm in entry.get("gradient_norms", {}).items() if name.startswith(_BACKBONE)}
    if not depths or not max(depths.values()) > 0:
        checks.append(unmeasured("early_gradient", None, 0, vanishing, "the backbone had no gradients"))
    else:
        ratio = next(iter(depths.values())) / max(depths.values())
        checks.append(measured("early_gradient", ratio, 1, vanishing, ratio > settings.early_gradient))
    return checks


def _accuracies(logits: Logits, settings: DiagnosticSettings) -> list[Record]:
    """Share of each kind on its side of p = 0.5: a kind that is always right has something to be told by."""
    checks = []
    for kind in (kind for kind in KINDS if kind in logits):
        name, count = f"accuracy_{kind}", len(logits[kind])
        if count < settings.min_count:
            checks.append(unmeasured(name, None, count, "below 1", too_few(count, "images", settings)))
            continue
        detected = logits[kind] >= 0
        accuracy = float((detected if kind == "positive" else ~detected).mean())
        checks.append(measured(name, accuracy, count, "below 1", accuracy < 1))
    return checks


def _depth(name: str) -> str:
    """`backbone.stages.2` of `backbone.stages.2.blocks.0.mlp.fc1.weight`; `head` of `head.3.bias`."""
    # torch.compile and DDP wrap a network in modules of their own.
    parts = [part for part in name.split(".") if part not in ("_orig_mod", "module")]
    if parts[0] != "backbone":
        return parts[0]
    return ".".join(parts[: 3 if parts[1] in _CONTAINERS else 2])
