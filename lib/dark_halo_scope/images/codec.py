"""Stamps from blobs: what phase 4c and `inject_stamps` wrote, read so that untrusted bytes cannot hurt.

A blob is an NPZ of `image_g`, `image_r`, `image_z`, each (size, size) float32 nanomaggies per pixel, of the earlier
pipeline sometimes in a gzip wrapper; or, of a real image, an NPZ of one `cutout` (size, size, 3). Writers and readers
are those of `injection.schema` and `injection.cutout_npz`.
"""

from collections.abc import Collection

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.npz import NpzError, npz_names
from dark_halo_scope.injection.cutout_npz import CUTOUT
from dark_halo_scope.injection.schema import BANDS, array_name, decode_stamp, encode_stamp

__all__ = ["BANDS", "NpzError", "common_size", "decode_stamp", "encode_stamp", "stamp_bands"]


def stamp_bands(blob: bytes) -> str:
    """Bands that a blob holds, in g, r, z order, from the zip directory alone.

    Raises:
        NpzError: not an NPZ archive.
    """
    names = npz_names(blob)
    if CUTOUT in names:
        return BANDS
    return "".join(band for band in BANDS if array_name(band) in names)


def common_size(sizes: Collection[int]) -> int:
    """The one size of stamps that shall share an array; 0 where there is none.

    Raises:
        BadInputError: there are several.
    """
    if len(sizes) > 1:
        raise BadInputError(f"Stamps of sizes {sorted(sizes)} cannot share an array; inject them with one stamp_size.")
    return int(next(iter(sizes), 0))
