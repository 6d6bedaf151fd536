"""Cutouts of a list of positions, as an artifact: cutouts.json over `images.npy` and `rows.parquet`.

Shape legend: N rows of the list, 3 bands g, r, z, H rows, W columns. Pixels are nanomaggies, float16. Row i of the
table describes image i; where `cutout_ok` is false, image i is zero and `cutout_reason` says why there is none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest
from dark_halo_scope.images.codec import BANDS
from dark_halo_scope.images.packed import aligned_rows, mapped_array

KIND = "cutouts"
IMAGES = "images.npy"
ROWS = "rows.parquet"

Array = npt.NDArray[np.float16]

#: What a row says of its cutout, after the columns of its list.
CUTOUT_FIELDS = (
    pa.field("cutout_row", pa.int64(), nullable=False),
    pa.field("cutout_ok", pa.bool_(), nullable=False),
    pa.field("cutout_reason", pa.string()),
    pa.field("cutout_url", pa.string()),
    # Most pixels without data (exactly 0) in a band.
    pa.field("cutout_zero_fraction", pa.float64()),
)

TOO_BRIGHT = "brighter than float16 holds"
_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Stored:
    """What becomes of one row of the list.

    image: (3, H, W) nanomaggies per pixel; None where there is no usable cutout, and then `reason` says why.
    url: what was asked for, None where nothing was.
    zero_fraction: most pixels without data in a band; None where there is no cutout.
    """

    image: npt.NDArray[np.float32] | None
    reason: str | None
    url: str | None
    zero_fraction: float | None


def write_cutouts(prefix: Path, rows: pa.Table, stored: Iterable[Stored], size: int) -> pa.Table:
    """Write images and rows below `prefix`, one image at a time.

    Args:
        rows: (N,) the list.
        stored: what becomes of each row, in the order of the list.
        size: H = W, pixels.

    Returns:
        the rows as written: those of the list with `CUTOUT_FIELDS`.

    Raises:
        BadInputError: the list already has one of these columns.
    """
    taken = [field.name for field in CUTOUT_FIELDS if field.name in rows.column_names]
    if taken:
        raise BadInputError(f"The list has columns named {', '.join(taken)}, which cutouts have too; rename them.")
    shape = (rows.num_rows, len(BANDS), size, size)
    path = prefix / IMAGES
    if rows.num_rows == 0:
        np.save(path, np.empty(shape, np.float16))
        images = None
    else:
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    facts: list[dict[str, Any]] = []
    for number, (_, item) in enumerate(zip(range(rows.num_rows), stored, strict=True)):
        reason = item.reason
        if item.image is not None and images is not None:
            if np.abs(item.image).max() > _MOST:
                reason = TOO_BRIGHT
            else:
                images[number] = item.image
        facts.append(
            {
                "cutout_row": number,
                "cutout_ok": reason is None,
                "cutout_reason": reason,
                "cutout_url": item.url,
                "cutout_zero_fraction": item.zero_fraction,
            }
        )
    if images is not None:
        images.flush()
    added = pa.Table.from_pylist(facts, schema=pa.schema(CUTOUT_FIELDS))
    for field in CUTOUT_FIELDS:
        rows = rows.append_column(field, added[field.name])
    pq.write_table(rows, prefix / ROWS, compression="zstd")
    return rows


def open_cutouts(path: Path) -> tuple[Array, pa.Table]:
    """All images of cutouts.json, (N, 3, H, W) as a read-only memory map, and their rows (N), failed ones included.

    Raises:
        BadInputError: no such manifest, or one of something else.
        CorruptDataError: a file differs from its checksum, or images and rows do not belong together.
    """
    manifest = load_manifest(path, KIND)
    return open_images(manifest), aligned_rows(manifest, ROWS, cutout_count(manifest))


def cutout_count(manifest: Manifest) -> int:
    """How many rows the list has, failed ones included."""
    return int(manifest.facts["rows"])


def open_images(manifest: Manifest) -> Array:
    """Images of cutouts, (N, 3, H, W), as a read-only memory map.

    Raises:
        CorruptDataError: the file differs from its checksum.
    """
    size = int(manifest.facts["size"])
    array: Array = mapped_array(manifest, IMAGES, (cutout_count(manifest), len(BANDS), size, size))
    return array
