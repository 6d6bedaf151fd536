"""Packed splits: what training and evaluation read instead of stamps.

Shape legend: N pairs, M negatives that are no pair's control, 3 bands g, r, z, H rows, W columns. Pixels are
nanomaggies, float16. Row i of `rows.parquet` describes image i of every array of pairs, row i of
`negative_rows.parquet` image i of `negative.npy`; both are sorted by task_id. Lenses of the sky have neither a control
nor hard negatives: of them there is `positive.npy` alone (`has_pairs`).
"""

from collections.abc import Iterator, Mapping, Sequence
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
    pairs: False where no positive has a control or a hard negative; then these arrays are (0, 3, H, W).
    """

    positive: Array
    control: Array
    hard_negative: Array
    rows: pa.Table
    negative: Array
    negative_rows: pa.Table
    extra: Mapping[str, Array] = field(default_factory=dict)
    pairs: bool = True

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
    check_split(manifest, split)
    arrays = {kind: open_images(manifest, split, kind) for kind in manifest.facts["kinds"]}
    nothing = arrays[IMAGE_KINDS[0]][:0]
    return PackedSplit(
        **{kind: arrays.pop(kind, nothing) for kind in IMAGE_KINDS},
        rows=aligned_rows(manifest, f"{split}/{ROWS}", image_count(manifest, split, IMAGE_KINDS[0])),
        negative=open_images(manifest, split, NEGATIVE),
        negative_rows=aligned_rows(manifest, f"{split}/{NEGATIVE_ROWS}", image_count(manifest, split, NEGATIVE)),
        extra={kind.removeprefix("hard_negative_"): array for kind, array in arrays.items()},
        pairs=has_pairs(manifest),
    )


def has_pairs(manifest: Manifest) -> bool:
    """Whether the positives of packed images have controls and hard negatives of their own."""
    return "control" in manifest.facts["kinds"]


@dataclass(frozen=True)
class ImageBatch:
    """Images of one kind that lie together in their array, and the rows that describe them.

    first: place of the first in the array.
    images: (B, 3, H, W) nanomaggies per pixel, float16.
    """

    kind: str
    first: int
    images: Array
    rows: pa.Table


def check_split(manifest: Manifest, split: str) -> None:
    """Refuse a split that there is not.

    Raises:
        BadInputError: packed images have no such split, or are of an older layout.
    """
    counts: dict[str, int] = manifest.facts.get("splits", {})
    if split not in counts:
        raise BadInputError(f"{manifest.uri} has no split {split!r}; it has {', '.join(sorted(counts)) or 'none'}.")
    if "negatives" not in manifest.facts:
        raise BadInputError(f"{manifest.uri} was packed before negatives had a place of their own; pack again.")


def image_count(manifest: Manifest, split: str, kind: str) -> int:
    """How many images of a kind a split has."""
    return int(manifest.facts["negatives" if kind == NEGATIVE else "splits"][split])


def image_batches(manifest: Manifest, split: str, kinds: Sequence[str], batch: int) -> Iterator[ImageBatch]:
    """All images of some kinds, at most `batch` at a time; neither images nor rows are in memory as a whole.

    Raises:
        BadInputError: no such split or kind.
        CorruptDataError: a file differs from its checksum, or images and rows do not belong together.
    """
    check_split(manifest, split)
    for kind in kinds:
        count = image_count(manifest, split, kind)
        images = open_images(manifest, split, kind)
        path = verified_path(manifest, f"{split}/{NEGATIVE_ROWS if kind == NEGATIVE else ROWS}")
        first = 0
        with pq.ParquetFile(path) as file:
            _check_rows(path, file.metadata.num_rows, count)
            for rows in file.iter_batches(batch):
                yield ImageBatch(kind, first, images[first : first + len(rows)], pa.Table.from_batches([rows]))
                first += len(rows)


def open_images(manifest: Manifest, split: str, kind: str) -> Array:
    """One array of a split, (N, 3, H, W), as a read-only memory map.

    Raises:
        BadInputError: packed images have no such kind.
        CorruptDataError: see `mapped_array`.
    """
    if kind not in (*manifest.facts["kinds"], NEGATIVE):
        raise BadInputError(
            f"{manifest.uri} has no images of the kind {kind!r}; it has {', '.join(manifest.facts['kinds'])} and "
            f"{NEGATIVE}."
        )
    image = (len(manifest.facts["bands"]), manifest.facts["size"], manifest.facts["size"])
    array: Array = mapped_array(manifest, array_name(split, kind), (image_count(manifest, split, kind), *image))
    return array


def aligned_rows(manifest: Manifest, name: str, count: int) -> pa.Table:
    """The rows that describe an array of `count` images.

    Raises:
        BadInputError: the manifest has no such object.
        CorruptDataError: the file differs from its checksum or has another number of rows.
    """
    path = verified_path(manifest, name)
    rows = pq.read_table(path)
    _check_rows(path, rows.num_rows, count)
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


def _check_rows(path: Path, rows: int, count: int) -> None:
    if rows != count:
        raise CorruptDataError(f"{path} has {rows} rows where its arrays have {count}; pack again.")
