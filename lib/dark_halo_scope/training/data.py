"""Packed images as batches of tensors on the device, as a plan of the sampler asks for them."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.pairs import Pairs, column, theta_e_over_psf
from dark_halo_scope.images.preprocess_config import LEARNED_SOURCES
from dark_halo_scope.images.samplers import (
    CONTROL,
    HARD_NEGATIVE,
    KINDS,
    NEGATIVE,
    PAIR_KINDS,
    POSITIVE,
    BatchPlan,
    SelectionSettings,
    Strata,
    check_draw,
)
from dark_halo_scope.models.predict import meta_array
from dark_halo_scope.training.config import LossSettings, TrainSettings

#: Share of a GPU's free memory that a split may take; the rest is the network's.
RESIDENT_SHARE = 0.4

_COPY_BYTES = 1 << 28  # of a split at a time to the GPU, so that the CPU holds no second copy

Rows = NDArray[np.int64]


class TrainingSplit(Pairs, Protocol):
    """Pairs that may bring further hard negatives, and a pool of negatives (M, 3, H, W) that belong to no pair.

    `pairs` is False for lenses of the sky, which have neither controls nor hard negatives: those arrays are empty then.
    """

    @property
    def pairs(self) -> bool: ...

    @property
    def extra(self) -> Mapping[str, NDArray[np.floating]]: ...

    @property
    def negative(self) -> NDArray[np.floating]: ...

    @property
    def negative_rows(self) -> pa.Table: ...


class MinedImages(Protocol):
    """Mined hard negatives: images (M, 3, H, W) in nanomaggies per pixel, and their rows."""

    @property
    def images(self) -> NDArray[np.floating]: ...

    @property
    def rows(self) -> pa.Table: ...


@dataclass(frozen=True)
class Batch:
    """A batch on the device, or a rank's part of it.

    images (B, 3, H, W) float32 in nanomaggies per pixel; controls (B, 3, H, W), each pair image's own control and a
    negative of the pool itself, where they were asked for; meta (B, M); labels (B,), 1 for lenses; targets (B,), labels
    smoothed by tier; weights (B,) of the loss; total: images of the whole batch over all ranks; pairs: P, where the
    first K * P images are K kinds of the same P pairs, kind after kind.
    """

    images: torch.Tensor
    controls: torch.Tensor | None
    meta: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    total: int
    pairs: int


@dataclass(frozen=True)
class _Run:
    """Images of a batch that lie in one array: their rows there and their places in the batch."""

    array: int
    rows: Rows
    places: slice | Rows


@dataclass(frozen=True)
class HostBatch:
    """A batch before it is on the device: pixels as they are packed, pinned for a GPU; none where it has them all."""

    plan: BatchPlan
    runs: tuple[_Run, ...]
    images: torch.Tensor | None
    controls: torch.Tensor | None
    values: tuple[torch.Tensor, ...]


class TrainingData:
    """One split as training uses it, read from its memory maps batch by batch, or held on the GPU where it fits.

    pairs_N, pool_M: rows that an epoch's plan draws from; `pool_M` repeats mined negatives. rows, pool_rows: what
    packed rows say of pairs and pool, selected or not. paired: whether positives have controls and hard negatives, or
    are images of the sky. variants: hard negatives of each pair. strata: of all rows, where batches are stratified.
    meta_NM: metadata of all pairs and pool images that training uses, each once.
    """

    def __init__(
        self,
        split: TrainingSplit,
        settings: TrainSettings,
        device: torch.device,
        mined: MinedImages | None = None,
        controls: bool = False,
        name: str = "training",
    ) -> None:
        """Check a split and put it where batches are made.

        Args:
            split: packed images.
            settings: of the stage; its selection, sampler, metadata columns and loss are used.
            device: where batches go.
            mined: hard negatives of an earlier generation, part of the pool.
            controls: whether batches hold the controls beside the images.
            name: of the split, for messages.

        Raises:
            BadInputError: nothing left to train on, arrays that do not belong together, a column that is missing, or
                unusable values in it.
        """
        self.device = device
        self.rows = split.rows
        self._controls = controls
        self.paired = split.pairs
        _check_unpaired(split, settings, controls, name)
        hard = (split.hard_negative, *(split.extra[name] for name in sorted(split.extra)))
        pairs = (split.positive, split.control, *hard)
        present = pairs if self.paired else pairs[:1]
        _check_lengths({f"array {index}": len(array) for index, array in enumerate(present)}, split.rows)
        self.variants = len(hard)
        pool: tuple[NDArray[np.floating], ...] = ()
        self.pool_rows = split.rows.slice(0, 0)
        if settings.sampler.uses_pool:
            pool = (split.negative, *(() if mined is None else (mined.images,)))
            tables = [split.negative_rows, *(() if mined is None else (mined.rows,))]
            for array, table in zip(pool, tables, strict=True):
                _check_lengths({"negative": len(array)}, table)
            self.pool_rows = pa.concat_tables(tables, promote_options="permissive")
        elif mined is not None:
            raise BadInputError(
                "Mined hard negatives were given and the sampler uses no pool; set sampler.negative_prob, or draw: "
                "images."
            )
        self._arrays = tuple(np.asarray(array) for array in (*pairs, *pool))
        self._pool_array = len(pairs)
        self._pool_starts = np.concatenate([[0], np.cumsum([len(array) for array in pool])]).astype(np.int64)
        _check_images(self._arrays)
        self._dtype = torch.from_numpy(self._arrays[0][:0].copy()).dtype
        selection = settings.selection
        self._draws_images = settings.sampler.draw == "images"
        self.pairs_N = select_pairs(split.rows, selection)
        self.pool_M = self._select_pool(selection, settings.sampler.mined_repeat)
        check_draw(settings.sampler, len(self.pairs_N), len(self.pool_M), name)
        self.strata = self._strata(settings.sampler.stratify)
        self._columns = settings.model.meta_columns
        self._set_values(settings.loss)
        self._resident = self._to_gpu() if device.type == "cuda" else None

    def __len__(self) -> int:
        """How many pairs training uses."""
        return len(self.pairs_N)

    @property
    def size(self) -> int:
        """Pixels along a stamp's side."""
        return int(self._arrays[0].shape[-1])

    @property
    def resident(self) -> bool:
        """Whether the whole split is on the GPU."""
        return self._resident is not None

    def images(self, kind: str, row_N: Rows) -> NDArray[np.float32]:
        """Images (N, 3, H, W) of one kind by row, on the CPU; hard negatives are those that gates are measured on."""
        plan = _plan_of(KINDS.index(kind), row_N)
        out = np.empty((len(row_N), *self._arrays[0].shape[1:]), np.float32)
        for run in self._runs(plan):
            out[run.places] = self._arrays[run.array][run.rows]
        return out

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of images that the split has, in the order of KINDS."""
        return (*(PAIR_KINDS if self.paired else PAIR_KINDS[:1]), *(KINDS[NEGATIVE:] if len(self.pool_M) else ()))

    def sky_images(self, count: int, batch: int = 256) -> Iterator[NDArray[np.float32]]:
        """At most `count` images (N, 3, H, W) of positives and pool, spread evenly over both together, in parts."""
        used = np.concatenate([self.pairs_N, self.rows.num_rows + np.unique(self.pool_M)])
        chosen = spread(used, count)
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            of_pool = part >= self.rows.num_rows
            for kind, rows in (("positive", part[~of_pool]), ("negative", part[of_pool] - self.rows.num_rows)):
                if len(rows):
                    yield self.images(kind, rows)

    def names(self, plan: BatchPlan) -> list[str]:
        """What names a plan's pairs, then its negatives, in a message: task ids, or rows where rows have none."""
        names = []
        paired = plan.kind_B != NEGATIVE
        for rows, chosen, what in ((self.rows, paired, "row"), (self.pool_rows, ~paired, "negative")):
            unique = np.unique(plan.row_B[chosen])
            if "task_id" in rows.column_names:
                names += [str(value) for value in rows.column("task_id").take(pa.array(unique)).to_pylist()]
            else:
                names += [f"{what} {row}" for row in unique]
        return names

    def not_finite(self, plan: BatchPlan) -> list[str]:
        """What names the images of a plan with a pixel that is not finite as packed: kind, then id or row."""
        broken_B = np.empty(len(plan), bool)
        for run in self._runs(plan):
            broken_B[run.places] = ~np.isfinite(self._arrays[run.array][run.rows]).all((1, 2, 3))
        named = []
        for index, kind in enumerate(KINDS):
            rows = np.unique(plan.row_B[broken_B & (plan.kind_B == index)])
            named += [f"{kind} {name}" for name in self.names(_plan_of(index, rows))]
        return named

    def labels_and_meta(self) -> tuple[NDArray[np.float32], pa.Table]:
        """Labels (L,) and rows (L) as an epoch pairs them, for a guard against columns that know the label.

        Pairs have the same metadata with and without their arc, so that they cannot give it away; positives and a pool
        can.
        """
        pairs = self.rows.take(pa.array(self.pairs_N))
        pool = self.pool_rows.take(pa.array(np.unique(self.pool_M)))
        tables = [pairs, pool] if self._draws_images else [pairs, pairs, pool]
        labels = np.zeros(sum(table.num_rows for table in tables), np.float32)
        labels[: len(self.pairs_N)] = 1
        return labels, pa.concat_tables(tables, promote_options="permissive")

    def batch(self, plan: BatchPlan) -> Batch:
        """A plan's images on the device.

        Raises:
            BadInputError: a row that does not exist.
        """
        return self.to_device(self.host_batch(plan))

    def host_batch(self, plan: BatchPlan) -> HostBatch:
        """A plan's images as they are packed, in the CPU's memory.

        Raises:
            BadInputError: a row that does not exist.
        """
        runs = self._runs(plan)
        images = controls = None
        if self._resident is None:
            images = self._gather(len(plan), runs)
            controls = self._gather(len(plan), self._runs(_own_controls(plan))) if self._controls else None
        of_pool = plan.kind_B == NEGATIVE
        place_B = plan.row_B + np.where(of_pool, self.rows.num_rows, 0)
        label_B = (plan.kind_B == POSITIVE).astype(np.float32)
        smoothing_B = self._smoothing[place_B] * (of_pool | (label_B == 1))
        values = (
            self._meta[place_B],
            label_B,
            label_B + smoothing_B * (1 - 2 * label_B),
            plan.weight_B if self._weight is None else plan.weight_B * self._weight[place_B],
        )
        return HostBatch(plan, runs, images, controls, tuple(self._pinned(value) for value in values))

    def to_device(self, host: HostBatch) -> Batch:
        """A gathered batch on the device, in the current stream's order."""
        if host.images is None:
            images = self._gather_resident(len(host.plan), host.runs)
            own = self._runs(_own_controls(host.plan)) if self._controls else None
            controls = None if own is None else self._gather_resident(len(host.plan), own)
        else:
            # Halves travel and are widened there.
            images = host.images.to(self.device, non_blocking=True).float()
            controls = None if host.controls is None else host.controls.to(self.device, non_blocking=True).float()
        meta, labels, targets, weights = (value.to(self.device, non_blocking=True) for value in host.values)
        return Batch(images, controls, meta, labels, targets, weights, host.plan.total, host.plan.pairs)

    def _select_pool(self, selection: SelectionSettings, mined_repeat: int) -> Rows:
        if len(self._pool_starts) == 1:
            return np.empty(0, np.int64)
        rows, packed = self.pool_rows, int(self._pool_starts[1])
        good = _outside_bricks(rows, selection)
        if selection.negatives is not None:
            _require(rows, ("control_kind",), "selection.negatives")
            kinds = pc.is_in(rows.column("control_kind").cast(pa.string()), pa.array(selection.negatives, pa.string()))
            good[:packed] &= np.asarray(kinds)[:packed]
        if self._draws_images and rows.num_rows > packed:
            # Where pairs are shown, a host without its arc is a control like theirs. Where they are not, no other
            # galaxy is in both classes, and these few would teach the noise of their pixels, as confusers would.
            hosts = _places(self.rows.take(pa.array(self.pairs_N)))
            good[packed:] &= ~np.isin(_places(rows.slice(packed)), hosts)
        chosen = np.flatnonzero(good)
        # The copies of one image lie a whole round apart, so that a batch seldom holds two of them.
        return np.concatenate([chosen[chosen < packed], np.tile(chosen[chosen >= packed], mined_repeat)])

    def _strata(self, columns: Sequence[str]) -> Strata | None:
        """The stratum of each row: its values of the columns together, a missing value being one too."""
        if not columns:
            return None
        for table in (self.rows, self.pool_rows):
            _require(table, tuple(columns), "sampler.stratify")
        texts = [np.concatenate([_texts(table, name) for table in (self.rows, self.pool_rows)]) for name in columns]
        codes = np.stack([np.unique(text, return_inverse=True)[1] for text in texts], axis=1)
        stratum = np.unique(codes, axis=0, return_inverse=True)[1].ravel().astype(np.int64)
        return Strata(stratum[: self.rows.num_rows], stratum[self.rows.num_rows :])

    def _set_values(self, loss: LossSettings) -> None:
        """What each image brings beside its pixels, by row: pairs first, then the pool."""
        pool = np.unique(self.pool_M)
        used = np.concatenate([self.pairs_N, self.rows.num_rows + pool])
        count = self.rows.num_rows + self.pool_rows.num_rows
        tables = [self.rows.take(pa.array(self.pairs_N)), self.pool_rows.take(pa.array(pool))]
        parts = [meta_array(table, self._columns) for table in tables if table.num_rows]
        self.meta_NM = np.concatenate(parts)
        self._meta = np.full((count, len(self._columns)), np.nan, np.float32)
        self._meta[used] = self.meta_NM
        self._smoothing = np.zeros(count, np.float32)
        self._weight: NDArray[np.float32] | None = None
        tables = [table for table in tables if table.num_rows]
        if loss.label_smoothing:
            self._smoothing[used] = np.concatenate([_smoothing(table, loss.label_smoothing) for table in tables])
        if loss.weight_column is not None:
            self._weight = np.full(count, np.nan, np.float32)
            self._weight[used] = np.concatenate([_weights(table, loss.weight_column) for table in tables])

    def _runs(self, plan: BatchPlan) -> tuple[_Run, ...]:
        """The plan by array, each row checked: taking clips an index and a GPU may read past an array, and neither may
        put a neighbour in a row's place."""
        array_B = np.where(plan.kind_B == HARD_NEGATIVE, HARD_NEGATIVE + plan.variant_B, plan.kind_B).astype(np.int64)
        row_B, count_B = plan.row_B, np.full(len(plan), self.rows.num_rows)
        of_pool = plan.kind_B == NEGATIVE
        if of_pool.any():
            part_B = (np.searchsorted(self._pool_starts, row_B, side="right") - 1).clip(0, len(self._pool_starts) - 2)
            array_B = np.where(of_pool, self._pool_array + part_B, array_B)
            row_B = np.where(of_pool, row_B - self._pool_starts[part_B], row_B)
            count_B = np.where(of_pool, np.diff(self._pool_starts)[part_B], count_B)
        if not self.paired:
            count_B = np.where(np.isin(plan.kind_B, (CONTROL, HARD_NEGATIVE)), 0, count_B)
        wrong = np.flatnonzero((row_B < 0) | (row_B >= count_B) | (plan.variant_B >= self.variants))
        if len(wrong):
            kind, row = KINDS[plan.kind_B[wrong[0]]], plan.row_B[wrong[0]]
            raise BadInputError(
                f"Row {row} of kind {kind} was asked for, which the split does not have; plan from its own rows."
            )
        runs = []
        for array in np.unique(array_B).tolist():
            places = np.flatnonzero(array_B == array)
            first, last = int(places[0]), int(places[-1])
            together = last - first + 1 == len(places)
            runs.append(_Run(array, row_B[places], slice(first, last + 1) if together else places))
        return tuple(runs)

    def _gather(self, count: int, runs: Sequence[_Run]) -> torch.Tensor:
        # A pinned block goes back to torch's cache when its copy is done: two or three serve an epoch.
        buffer = torch.empty(
            (count, *self._arrays[0].shape[1:]), dtype=self._dtype, pin_memory=self.device.type == "cuda"
        )
        out = buffer.numpy()
        for run in runs:
            array = self._arrays[run.array]
            if isinstance(run.places, slice):
                # `clip` writes straight into the buffer where `raise` makes a copy; rows were checked.
                np.take(array, run.rows, axis=0, out=out[run.places], mode="clip")
            else:
                out[run.places] = array[run.rows]
        return buffer

    def _to_gpu(self) -> tuple[torch.Tensor, ...] | None:
        """All arrays on the GPU, or None where they do not fit."""
        if sum(array.nbytes for array in self._arrays) >= RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            return None
        return tuple(_copied(array, self.device) for array in self._arrays)

    def _gather_resident(self, count: int, runs: Sequence[_Run]) -> torch.Tensor:
        assert self._resident is not None
        out = torch.empty((count, *self._arrays[0].shape[1:]), dtype=torch.float32, device=self.device)
        for run in runs:
            rows = self._pinned(run.rows).to(self.device, non_blocking=True)
            if isinstance(run.places, slice):
                out[run.places] = self._resident[run.array][rows]
            else:
                places = self._pinned(run.places).to(self.device, non_blocking=True)
                out[places] = self._resident[run.array][rows].float()
        return out

    def _pinned(self, values: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def prefetch(
    data: TrainingData, plans: Sequence[BatchPlan], workers: int = 1, depth: int = 2
) -> Generator[Batch, None, None]:
    """The plans' batches in their order, made in threads while the caller computes.

    A batch that cannot be made raises when its turn comes. On a GPU batches are copied in a stream of their own, beside
    the network's work. The threads end with the iterator.

    Args:
        data: where images come from.
        plans: what batches show.
        workers: threads; 0: batches are made when they are asked for.
        depth: batches that are made ahead.
    """
    if workers == 0:
        yield from (data.batch(plan) for plan in plans)
        return
    stream = torch.cuda.Stream(data.device) if data.device.type == "cuda" else None

    def make(plan: BatchPlan) -> tuple[Batch, torch.cuda.Event | None]:
        if stream is None:
            return data.batch(plan), None
        with torch.cuda.stream(stream):
            return data.batch(plan), stream.record_event()

    waiting: deque[Future[tuple[Batch, torch.cuda.Event | None]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        ahead = iter(plans)
        for plan in ahead:
            waiting.append(pool.submit(make, plan))
            if len(waiting) <= depth:
                continue
            yield _arrived(*waiting.popleft().result())
        while waiting:
            yield _arrived(*waiting.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _arrived(batch: Batch, event: torch.cuda.Event | None) -> Batch:
    """Make the current stream wait for a batch, and keep its memory until that stream is done with it."""
    if event is not None:
        current = torch.cuda.current_stream(batch.images.device)
        current.wait_event(event)
        for field in fields(batch):
            value = getattr(batch, field.name)
            if isinstance(value, torch.Tensor):
                value.record_stream(current)
    return batch


def select_pairs(rows: pa.Table, selection: SelectionSettings) -> Rows:
    """Rows of the pairs that a stage trains on; a pair without the number that is asked for is left out.

    Raises:
        BadInputError: a column is missing.
    """
    good = _outside_bricks(rows, selection)
    if selection.min_theta_over_psf is not None:
        _require(rows, ("theta_e_arcsec", "psfsize_r"), "selection.min_theta_over_psf")
        good &= theta_e_over_psf(rows) >= selection.min_theta_over_psf
    if selection.min_arc_snr_maxpix is not None:
        _require(rows, ("arc_snr_maxpix",), "selection.min_arc_snr_maxpix")
        good &= column(rows, "arc_snr_maxpix") >= selection.min_arc_snr_maxpix
    return np.flatnonzero(good).astype(np.int64)


def spread(row_N: Rows, count: int | None) -> Rows:
    """At most `count` of the rows, evenly over all of them; all where there is no limit."""
    if count is None or count >= len(row_N):
        return row_N
    return row_N[np.linspace(0, len(row_N) - 1, count).round().astype(np.int64)]


def _outside_bricks(rows: pa.Table, selection: SelectionSettings) -> NDArray[np.bool_]:
    if not selection.exclude_bricks:
        return np.ones(rows.num_rows, dtype=bool)
    _require(rows, ("brickname",), "selection.exclude_bricks")
    excluded = pc.is_in(rows.column("brickname").cast(pa.string()), pa.array(selection.exclude_bricks, pa.string()))
    return ~np.asarray(excluded)


def _check_unpaired(split: TrainingSplit, settings: TrainSettings, controls: bool, name: str) -> None:
    """Refuse to draw from lenses of the sky what only injected arcs have."""
    if split.pairs:
        return
    curriculum = settings.sampler.curriculum
    asked = {
        "sampler.draw: pairs": settings.sampler.draw == "pairs",
        "a share of hard negatives above 0 in sampler.curriculum": max(
            curriculum.start_hard_negative_prob, curriculum.end_hard_negative_prob
        )
        > 0,
        f"preprocessing.control_source: {settings.preprocessing.control_source}": controls
        or settings.preprocessing.control_source in LEARNED_SOURCES,
        "validation.gates_every": settings.validation.gates_every is not None,
    }
    wrong = [setting for setting, given in asked.items() if given]
    if wrong:
        raise BadInputError(
            f"The positives of the {name} split are images of the sky, which have neither controls nor hard negatives, "
            f"and {' and '.join(wrong)} needs them; train on pairs, or set sampler.draw: images, its curriculum's "
            "shares to 0, validation.gates_every: null and no such control source."
        )


def _texts(rows: pa.Table, name: str) -> NDArray[np.str_]:
    values = rows.column(name).cast(pa.string())
    return np.array(pc.fill_null(values, "").to_pylist(), dtype=str)


def _places(rows: pa.Table) -> NDArray[np.int64]:
    """(N,) what is equal for galaxies at one position, to six decimals of a degree (4 mas) as task ids have it."""
    _require(rows, ("ra", "dec"), "hard_negatives_of with sampler.draw: images")
    ra, dec = (np.rint(column(rows, name) * 1e6).astype(np.int64) for name in ("ra", "dec"))
    return ra * 400_000_000 + dec


def _smoothing(rows: pa.Table, by_tier: Mapping[str, float]) -> NDArray[np.float32]:
    """(N,) how far a row's target lies from its label; 0 for tiers that are not named."""
    _require(rows, ("tier",), "loss.label_smoothing")
    return np.array([by_tier.get(tier, 0.0) for tier in rows.column("tier").to_pylist()], np.float32)


def _weights(rows: pa.Table, name: str) -> NDArray[np.float32]:
    """(N,) weights of rows in the loss."""
    _require(rows, (name,), "loss.weight_column")
    values = column(rows, name)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise BadInputError(
            f"{len(bad)} rows (first: row {bad[0]}) have a {name} that is not finite or negative; correct the column."
        )
    return values.astype(np.float32)


def _require(rows: pa.Table, names: tuple[str, ...], setting: str) -> None:
    missing = [name for name in names if name not in rows.column_names]
    if missing:
        raise BadInputError(
            f"{setting} needs the column {', '.join(missing)}, which the packed rows lack; pack images with it, or "
            "leave the setting out."
        )


def _check_lengths(lengths: Mapping[str, int], rows: pa.Table) -> None:
    if set(lengths.values()) != {rows.num_rows}:
        counted = dict(lengths) | {"rows": rows.num_rows}
        raise BadInputError(f"A packed split must hold as many images of each kind as rows: {counted}; pack it again.")


def _check_images(arrays: Sequence[NDArray[np.floating]]) -> None:
    shapes = {(array.dtype.name, *array.shape[1:]) for array in arrays}
    if len(shapes) != 1:
        raise BadInputError(f"The images of a packed split differ in type or shape: {sorted(shapes)}; pack it again.")


def _plan_of(kind: int, row_N: Rows) -> BatchPlan:
    count = len(row_N)
    none = np.zeros(count, np.int8)
    return BatchPlan(np.full(count, kind, np.int8), row_N, none, np.ones(count, np.float32), 0, count)


def _own_controls(plan: BatchPlan) -> BatchPlan:
    """The plan with each pair image's own control in its place; an image of the pool is its own."""
    kind_B = np.where(plan.kind_B == NEGATIVE, NEGATIVE, CONTROL).astype(np.int8)
    return BatchPlan(kind_B, plan.row_B, np.zeros_like(plan.variant_B), plan.weight_B, plan.pairs, plan.total)


def _copied(array: NDArray[np.floating], device: torch.device) -> torch.Tensor:
    out = torch.empty(array.shape, dtype=torch.from_numpy(array[:0].copy()).dtype, device=device)
    step = max(1, _COPY_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        out[start : start + step] = torch.from_numpy(np.array(array[start : start + step]))
    return out
