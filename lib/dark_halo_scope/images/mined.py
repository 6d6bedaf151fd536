"""Mined hard negatives: galaxies without a lens that a generation took for lenses, for a later generation's pool.

hard_negatives.json names `negative.npy`, (M, 3, H, W) float16 nanomaggies, and `negative_rows.parquet`, whose
row i says of image i what its packed row said, with control_kind `hard_mined` and the `logit` and `score`; the highest
comes first. None at all is a valid answer.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.images.packed import Array, aligned_rows, mapped_array

KIND = "hard_negatives"
IMAGES = "negative.npy"
ROWS = "negative_rows.parquet"
HARD_MINED = "hard_mined"


@dataclass(frozen=True)
class MinedNegatives:
    """Read-only memory map (M, 3, H, W) of nanomaggies per pixel, and the M rows that describe it."""

    images: Array
    rows: pa.Table

    def __len__(self) -> int:
        return self.rows.num_rows


def open_mined(manifest_path: Path) -> MinedNegatives:
    """Open mined hard negatives; every file's checksum is compared first.

    Raises:
        BadInputError: no such manifest, or one of another kind.
        CorruptDataError: a file differs from its checksum, or images and rows do not belong together.
    """
    manifest = load_manifest(manifest_path, KIND)
    count, size = manifest.rows_out, manifest.facts.get("size")
    if count is None or size is None:
        raise CorruptDataError(f"{manifest_path} does not say how many images it has, and of which size; mine again.")
    return MinedNegatives(
        images=mapped_array(manifest, IMAGES, (count, len(manifest.facts["bands"]), size, size)),
        rows=aligned_rows(manifest, ROWS, count),
    )
