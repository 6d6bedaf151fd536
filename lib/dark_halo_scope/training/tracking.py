"""Where a run can be watched: TensorBoard, Weights & Biases, or nowhere.

A tracker's files are for people: no rule and no other code reads them. They lie outside of results, and a resumed run
appends to them without repeating a step. Which it is does not belong to a run's settings: who watches it another way
trains nothing again. Weights & Biases is offline unless WANDB_MODE says otherwise, and takes project and key from its
own variables too (WANDB_PROJECT, WANDB_API_KEY).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from dark_halo_scope.core.files import make_directory, read_json, write_json

Kind = Literal["tensorboard", "wandb", "none"]
TRACKERS: tuple[Kind, ...] = get_args(Kind)

#: In a tracker's folder: the last step logged of each curve.
LAST_STEPS = "last_steps.json"

_PROJECT = "dark_halo_scope"

Scalars = Mapping[str, float]


class _Backend(Protocol):
    """What takes the points."""

    def write(self, step: int, values: Scalars) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """Curves of one run, by name: numbers against steps of the optimiser."""

    def __init__(self, backend: _Backend | None, folder: Path | None) -> None:
        self._backend = backend
        self._marker = None if folder is None else folder / LAST_STEPS
        self._last: dict[str, int] = {}
        if self._marker is not None and self._marker.is_file():
            self._last = {str(name): int(step) for name, step in read_json(self._marker).items()}

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a point to each named curve; nested mappings become `outer/inner`, and what is no number is left out.

        A curve that already has this step or a later one gets nothing: an interrupted run logged it.
        """
        if self._backend is None or self._marker is None:
            return
        new = {name: value for name, value in flat_numbers(values).items() if step > self._last.get(name, -1)}
        if not new:
            return
        # The marker first: of a run that is killed between the two a point is missing, never there twice.
        self._last |= dict.fromkeys(new, step)
        write_json(self._marker, self._last)
        self._backend.write(step, new)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def open_tracker(kind: Kind, folder: Path | None, name: str) -> Tracker:
    """The tracker of one run.

    Args:
        kind: one of TRACKERS.
        folder: of this run alone, the same when it is resumed; None: nothing is tracked.
        name: what the run is called where it is shown.

    Raises:
        StorageError: the folder cannot be made.
    """
    if folder is None or kind == "none":
        return Tracker(None, None)
    make_directory(folder)
    if kind == "wandb":
        return Tracker(_WandB(folder, name), folder)
    return Tracker(_TensorBoard(folder), folder)


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested mappings by `outer/inner` name, true as 1; anything else is left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float):
            found[f"{prefix}{name}"] = float(value)
    return found


class _TensorBoard:
    """Event files, which `tensorboard --logdir` shows together."""

    def __init__(self, folder: Path) -> None:
        # Takes longer to import than all else here.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Scalars) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases, its id the folder's name; an offline run that is resumed has several parts."""

    def __init__(self, folder: Path, name: str) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=name,
            id=folder.name,
            resume="allow" if mode == "online" else None,
            mode="offline" if mode is None else None,  # None: what the variable says
            dir=str(folder),
            # Only numbers are wanted: neither code nor console nor what else it finds on the machine.
            settings=wandb.Settings(
                console="off", save_code=False, disable_git=True, disable_code=True, x_disable_stats=True, silent=True
            ),
        )

    def write(self, step: int, values: Scalars) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
