"""Packed pairs as batches of tensors on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.pairs import Pairs
from dark_halo_scope.images.samplers import CLASSES, ClassMix
from dark_halo_scope.models.predict import meta_array

#: Share of a GPU's free memory that a split may take; the rest is the network's.
RESIDENT_SHARE = 0.4

EXTRA = "hard_negative_"  # before the names of further hard negatives


class PairedImages(Pairs, Protocol):
    """Pairs that may bring further hard negatives, each an array like the first."""

    @property
    def extra(self) -> Mapping[str, NDArray[np.floating]]: ...


@dataclass(frozen=True)
class Batch:
    """A batch on the device.

    images (B, 3, H, W) in nanomaggies per pixel; meta (B, M); labels (B,), 1 for lenses; weights (B,) of the loss;
    rows (B,), where in the split each image comes from.
    """

    images: torch.Tensor
    meta: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    rows: NDArray[np.int64]


class PairedData:
    """One split, read from its memory maps batch by batch, or held on the GPU where it fits."""

    def __init__(self, split: PairedImages, meta_columns: tuple[str, ...], device: torch.device) -> None:
        """Check a split and put it where batches are made.

        Raises:
            BadInputError: no pairs, arrays and rows of different lengths, or unusable metadata.
        """
        self.arrays: dict[str, NDArray[np.floating]] = {kind: getattr(split, kind) for kind in CLASSES}
        # Further hard negatives of the same pairs, beside the one that gates are measured on.
        self._extra = tuple(EXTRA + name for name in sorted(split.extra))
        self.arrays |= {EXTRA + name: split.extra[name] for name in split.extra}
        lengths = {kind: len(array) for kind, array in self.arrays.items()} | {"rows": split.rows.num_rows}
        if len(set(lengths.values())) != 1 or not split.rows.num_rows:
            raise BadInputError(f"A packed split must hold as many images of each kind as rows, and some: {lengths}.")
        shapes = {array.shape[1:] for array in self.arrays.values()}
        if len(shapes) != 1:
            raise BadInputError(f"The kinds of a packed split have different shapes: {sorted(shapes)}; pack it again.")
        self.rows = split.rows
        self.device = device
        self.meta_NM = meta_array(split.rows, meta_columns)
        self._meta = torch.from_numpy(self.meta_NM).float().to(device)
        self._resident: dict[str, torch.Tensor] | None = None
        if device.type == "cuda":
            needed = sum(array.nbytes for array in self.arrays.values())
            if needed < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
                self._resident = {
                    kind: torch.from_numpy(np.array(array)).to(device) for kind, array in self.arrays.items()
                }

    def __len__(self) -> int:
        return self.rows.num_rows

    @property
    def size(self) -> int:
        """Pixels along a stamp's side."""
        return int(self.arrays[CLASSES[0]].shape[-1])

    @property
    def hard_negatives(self) -> int:
        """How many hard negatives each pair has."""
        return 1 + len(self._extra)

    def images(self, kind: str, rows_P: NDArray[np.int64]) -> torch.Tensor:
        """Images (P, 3, H, W) float32 of one kind on the device, for increasing row numbers."""
        if self._resident is not None:
            return self._resident[kind][torch.from_numpy(rows_P).to(self.device)].float()
        batch = torch.from_numpy(np.asarray(self.arrays[kind][rows_P]))
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True).float()

    def hard_negative_images(self, rows_P: NDArray[np.int64], variant_P: NDArray[np.int64] | None) -> torch.Tensor:
        """Images (P, 3, H, W) of hard negatives chosen by number; None and 0: the one that gates are measured on."""
        if variant_P is None:
            return self.images(CLASSES[2], rows_P)
        kinds = (CLASSES[2], *self._extra)
        parts = [self.images(kind, rows_P[variant_P == index]) for index, kind in enumerate(kinds)]
        back = np.argsort(np.argsort(variant_P, kind="stable"), kind="stable")
        return torch.cat(parts)[torch.from_numpy(back).to(self.device)]

    def task_ids(self, rows_P: NDArray[np.int64]) -> list[str]:
        """What names the pairs in a message: their task ids, or row numbers where rows have none."""
        unique = np.unique(rows_P)
        if "task_id" not in self.rows.column_names:
            return [f"row {row}" for row in unique]
        return [str(value) for value in self.rows.column("task_id").take(pa.array(unique)).to_pylist()]

    def batch_all(self, rows_P: NDArray[np.int64], mix: ClassMix, variant_P: NDArray[np.int64] | None = None) -> Batch:
        """All images of each pair, kind after kind, weighted so that a kind weighs what its probability says.

        A kind of probability 0 is left out: it would cost time and enter the statistics of batch normalisation.
        """
        shown = [index for index, probability in enumerate(mix) if probability > 0]
        parts = [
            self.hard_negative_images(rows_P, variant_P) if index == 2 else self.images(CLASSES[index], rows_P)
            for index in shown
        ]
        x_B3HW = torch.cat(parts)
        class_B = torch.tensor(shown, device=self.device).repeat_interleave(len(rows_P))
        weights = torch.tensor(mix, dtype=torch.float32, device=self.device) * len(shown)
        row_B = np.tile(rows_P, len(shown))
        meta_BM = self._meta[torch.from_numpy(row_B).to(self.device)]
        return Batch(x_B3HW, meta_BM, (class_B == 0).float(), weights[class_B], row_B)

    def batch_one(
        self, rows_P: NDArray[np.int64], class_P: NDArray[np.int64], variant_P: NDArray[np.int64] | None = None
    ) -> Batch:
        """One image of each pair, of the class drawn for it."""
        order = np.argsort(class_P, kind="stable")
        row_B, classes = rows_P[order], class_P[order]
        parts = [self.images(kind, row_B[classes == index]) for index, kind in enumerate(CLASSES[:2])]
        hard = class_P == 2
        parts.append(self.hard_negative_images(rows_P[hard], None if variant_P is None else variant_P[hard]))
        labels_B = torch.from_numpy((classes == 0).astype(np.float32)).to(self.device)
        meta_BM = self._meta[torch.from_numpy(row_B).to(self.device)]
        return Batch(torch.cat(parts), meta_BM, labels_B, torch.ones_like(labels_B), row_B)
