"""FITS files that are whole: every header says how long its data are, and the file is that long."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.errors import CorruptDataError

if TYPE_CHECKING:
    import fitsio

_CHUNK = 1 << 20


@contextmanager
def open_fits(path: Path) -> Iterator["fitsio.FITS"]:
    """Open a FITS file for reading with fitsio, once it is known to be whole.

    Raises:
        CorruptDataError: missing, not FITS, or shorter than its headers say (also where the part wanted is intact).
    """
    # Not above: the GH200 environment for training has no fitsio, and its preflight only reads descriptions.
    import fitsio

    try:
        with fitsio.FITS(str(path)) as file:
            if path.suffix == ".gz":
                _read_to_the_end(path)
            else:
                _check_length(path, file)
            yield file
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CorruptDataError(f"{path} cannot be read as FITS ({reason}); fetch the file again.") from error


def native(column: NDArray) -> NDArray:
    """A FITS column in this machine's byte order; strings decoded and stripped of their padding."""
    if column.dtype.kind == "S":
        column = np.char.decode(column, "ascii")
    if column.dtype.kind == "U":
        return np.char.strip(column)
    return column.astype(column.dtype.newbyteorder("="), copy=False)


def _check_length(path: Path, file: "fitsio.FITS") -> None:
    needed = max(hdu.get_offsets()["data_end"] for hdu in file)
    size = path.stat().st_size
    if size < needed:
        raise CorruptDataError(f"{path} is truncated: {size} bytes of {needed}; fetch the file again.")


def _read_to_the_end(path: Path) -> None:
    """Let gzip check its own length and CRC, which a partial read never reaches."""
    try:
        with gzip.open(path) as stream:
            while stream.read(_CHUNK):
                pass
    except (EOFError, zlib.error) as error:
        raise CorruptDataError(f"{path} is truncated or damaged ({error}); fetch the file again.") from error
