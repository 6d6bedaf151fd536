"""Packed splits: what training and evaluation read instead of stamps.

Shape legend: N pairs, M negatives that are no pair's control, 3 bands g, r, z, H rows, W columns. Pixels are
nanomaggies, float16. Row i of `rows.parquet` describes image i of every array of pairs, row i of
`negative_rows.parquet` image i of `negative.npy`; both are sorted by task_id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path

KIND = "packed"
SPLITS = ("train", "val", "test")
IMAGE_KINDS = ("positive", "control", "hard_negative")
NEGATIVE = "negative"
ROWS = "rows.parquet"
NEGATIVE_ROWS = "negative_rows.parquet"

Array = npt.NDArray[np.float16]


@dataclass(frozen=True)
class PackedSplit:
    """One split: read-only memory maps and the rows that describe them.

    positive, control, hard_negative: (N, 3, H, W) pairs, and `rows` (N).
    negative: (M, 3, H, W) unpaired controls and confusers, and `negative_rows` (M), whose `control_kind` says which.
    extra: further kinds of hard negatives of the pairs, by name.
    """

    positive: Array
    control: Array
    hard_negative: Array
    rows: pa.Table
    negative: Array
    negative_rows: pa.Table
    extra: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows.num_rows


def array_name(split: str, kind: str) -> str:
    """Object name of an array, such as `train/hard_negative.npy`."""
    return f"{split}/{kind}.npy"


def open_packed(manifest_path: Path, split: str) -> PackedSplit:
    """Open one split of packed images; every file's checksum is compared first.

    Raises:
        BadInputError: no such manifest or split.
        CorruptDataError: a file differs from its checksum, or the arrays do not belong together.
    """
    manifest = load_manifest(manifest_path, KIND)
    counts: dict[str, int] = manifest.facts.get("splits", {})
    if split not in counts:
        raise BadInputError(f"{manifest_path} has no split {split!r}; it has {', '.join(sorted(counts)) or 'none'}.")
    if "negatives" not in manifest.facts:
        raise BadInputError(f"{manifest_path} was packed before negatives had a place of their own; pack again.")
    pairs, negatives = counts[split], manifest.facts["negatives"][split]
    image = (len(manifest.facts["bands"]), manifest.facts["size"], manifest.facts["size"])
    arrays = {
        kind: mapped_array(manifest, array_name(split, kind), (pairs, *image)) for kind in manifest.facts["kinds"]
    }
    return PackedSplit(
        **{kind: arrays.pop(kind) for kind in IMAGE_KINDS},
        rows=aligned_rows(manifest, f"{split}/{ROWS}", pairs),
        negative=mapped_array(manifest, array_name(split, NEGATIVE), (negatives, *image)),
        negative_rows=aligned_rows(manifest, f"{split}/{NEGATIVE_ROWS}", negatives),
        extra={kind.removeprefix("hard_negative_"): array for kind, array in arrays.items()},
    )


def aligned_rows(manifest: Manifest, name: str, count: int) -> pa.Table:
    """The rows that describe an array of `count` images.

    Raises:
        BadInputError: the manifest has no such object.
        CorruptDataError: the file differs from its checksum or has another number of rows.
    """
    path = verified_path(manifest, name)
    rows = pq.read_table(path)
    if rows.num_rows != count:
        raise CorruptDataError(f"{path} has {rows.num_rows} rows where its arrays have {count}; pack again.")
    return rows


def mapped_array(manifest: Manifest, name: str, shape: tuple[int, ...]) -> Any:
    """A float16 array of a manifest as a read-only memory map.

    Raises:
        BadInputError: the manifest has no such object.
        CorruptDataError: the file differs from its checksum or from `shape`.
    """
    path = verified_path(manifest, name)
    # An empty file cannot be mapped.
    array = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    if array.shape != shape or array.dtype != np.float16:
        raise CorruptDataError(f"{path} holds {array.dtype} {array.shape}, not float16 {shape}; pack again.")
    return array
