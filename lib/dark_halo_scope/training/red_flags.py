"""Red flags and the plan's checkpoints: what was seen, what it means, and what was decided, as plain records.

Plan of 2026-02-05, sections 2.4 and "Checkpoints and Decision Gates"; calibration plan of 2026-02-10, section 6.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dark_halo_scope.training.config import RedFlagSettings

Record = dict[str, Any]

_ADVICE = {
    "core_auc": "the network uses the core: add centre degradation augmentation",
    "annulus_auc": "the network ignores arcs: increase the residual's sigma, check the preprocessing",
    "hard_negative_mean_p": "rings pass for arcs: increase the hard-negative ratio, verify the shuffle",
    "loss_gap": "validation and training loss diverge: use more data, augmentation or weight decay",
    "auc_drop": "validation AUC fell: lower the learning rate, look at the data of this epoch",
    "auc_stuck": "the network learns nothing: check labels, preprocessing and the learning rate",
    "auc_gap": "the network knows its training images by heart: use more data, augmentation or weight decay",
}

# Day 3 (mid-training): name, where it lies, how it compares, the plan's threshold.
_DAY_3 = (
    ("val_auc", ">", 0.80),
    ("core_auc", "<", 0.75),
    ("hard_negative_mean_p", "<", 0.20),
)
_DAY_5_HARD_NEGATIVE_FPR = 0.10


def gate_value(entry: Mapping[str, Any], gate: str) -> float | None:
    """The value of a gate measured in an epoch, None where it was not."""
    gates = (entry.get("gates") or {}).get("gates", {})
    return gates.get(gate, {}).get("value")


def red_flags(history: Sequence[Mapping[str, Any]], settings: RedFlagSettings) -> list[Record]:
    """Flags that the newest epoch of a history raises; `stops` says whether the configuration ends training for it."""
    entry = history[-1]
    epoch, auc = int(entry["epoch"]), float(entry["val_auc"])
    found: list[tuple[str, float, float]] = []
    if epoch >= settings.after_epoch:
        core, annulus = gate_value(entry, "G1"), gate_value(entry, "G3")
        hard = gate_value(entry, "G4")
        hard = entry["mean_p"].get("hard_negative", 0.0) if hard is None else hard
        if core is not None and core > settings.core_auc:
            found.append(("core_auc", core, settings.core_auc))
        if annulus is not None and annulus < settings.annulus_auc:
            found.append(("annulus_auc", annulus, settings.annulus_auc))
        if hard > settings.hard_negative_mean_p:
            found.append(("hard_negative_mean_p", hard, settings.hard_negative_mean_p))
    gap = float(entry["val_loss_epoch_mix"]) - float(entry["train_loss"])
    if entry["losses_compare"] and gap > settings.loss_gap:
        found.append(("loss_gap", gap, settings.loss_gap))
    best_before = max((float(earlier["val_auc"]) for earlier in history[:-1]), default=auc)
    if best_before - auc > settings.auc_drop:
        found.append(("auc_drop", best_before - auc, settings.auc_drop))
    recent = [float(earlier["val_auc"]) for earlier in history[-settings.stuck_epochs :]]
    if len(recent) == settings.stuck_epochs and all(abs(value - 0.5) < settings.auc_stuck for value in recent):
        found.append(("auc_stuck", auc, settings.auc_stuck))
    known_by_heart = float(entry.get("train_auc", auc)) - auc
    if known_by_heart > settings.auc_gap:
        found.append(("auc_gap", known_by_heart, settings.auc_gap))
    return [
        {
            "kind": "red flag",
            "name": name,
            "epoch": epoch,
            "value": value,
            "threshold": threshold,
            "advice": _ADVICE[name],
            "stops": name in settings.stop,
        }
        for name, value, threshold in found
    ]


def mid_training_checkpoint(history: Sequence[Mapping[str, Any]]) -> Record:
    """The plan's day-3 checkpoint, on the newest epoch: continue where all hold, else the plan's remedy."""
    entry = history[-1]
    hard = gate_value(entry, "G4")
    values = {
        "val_auc": entry["val_auc"],
        "core_auc": gate_value(entry, "G1"),
        "hard_negative_mean_p": entry["mean_p"]["hard_negative"] if hard is None else hard,
    }
    items = [_item(name, values[name], sign, threshold) for name, sign, threshold in _DAY_3]
    if all(item["met"] for item in items):
        decision = "continue"
    elif not _met(values["core_auc"], "<", 0.75) and values["core_auc"] is not None:
        decision = "continue if improving; core AUC stalls: add centre degradation augmentation"
    else:
        decision = "continue if improving"
    return {"kind": "checkpoint", "name": "day 3", "epoch": entry["epoch"], "items": items, "decision": decision}


def final_checkpoint(best: Mapping[str, Any], gates: Mapping[str, Any] | None) -> Record:
    """The plan's day-5 checkpoint, on the epoch that was kept and its validation gates.

    Recall of Tier-A anchors needs real lenses, which a training split does not hold: `evaluate_anchors` measures it.
    """
    verdict = None if gates is None else gates["verdict"]
    items = [
        {"name": "gates", "value": verdict, "threshold": "pass", "met": verdict == "pass"},
        _item("hard_negative_fpr_at_0.5", best["hard_negative_fpr_at_0.5"], "<", _DAY_5_HARD_NEGATIVE_FPR),
        {"name": "tier_a_recall", "value": None, "threshold": "> 0.4", "met": None, "see": "evaluate_anchors"},
    ]
    met = all(item["met"] for item in items if item["met"] is not None)
    decision = "proceed to the gates of the test split" if met else "iterate: see the remedies of the gates that failed"
    remedies = {} if gates is None else dict(gates["remedies"])
    return {
        "kind": "checkpoint",
        "name": "day 5",
        "epoch": best["epoch"],
        "items": items,
        "decision": decision,
        "remedies": remedies,
    }


def no_gates(epoch: int) -> Record:
    """In place of gates and of the two checkpoints that read them, where positives are lenses of the sky."""
    return {
        "kind": "skipped",
        "name": "validation gates",
        "epoch": epoch,
        "reason": "lenses of the sky have no controls to be compared with; validate_finder judges this finder",
    }


def _met(value: float | None, sign: str, threshold: float) -> bool:
    return value is not None and (value > threshold if sign == ">" else value < threshold)


def _item(name: str, value: float | None, sign: str, threshold: float) -> Record:
    return {"name": name, "value": value, "threshold": f"{sign} {threshold:g}", "met": _met(value, sign, threshold)}
