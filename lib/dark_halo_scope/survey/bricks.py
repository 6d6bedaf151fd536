"""survey-bricks tables: which bricks exist and, in a release's own table, how deep and how sharp each is."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.fitsfile import native, open_fits
from dark_halo_scope.survey.names import checked_brickname

_NEEDED = ("BRICKNAME", "RA", "DEC")


def read_bricks(path: Path) -> pa.Table:
    """Read a survey-bricks file: every scalar column, upper-case, one row per brick.

    `survey-bricks.fits.gz` has the boxes (BRICKID, RA1, RA2, DEC1, DEC2, degrees); a release's own table, such as
    `survey-bricks-dr10-south.fits.gz`, has PSFSIZE_* (arcsec), PSFDEPTH_* and
    GALDEPTH_* (5-sigma AB magnitudes here), EBV and NEXP_*.

    Raises:
        CorruptDataError: truncated or not FITS.
        BadInputError: not a bricks table, or a brick twice.
    """
    with open_fits(path) as file:
        rows = file[1].read()
    columns = {name.upper(): rows[name] for name in rows.dtype.names if rows[name].ndim == 1}
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; it is not a survey-bricks file.")
    table = {name: native(values) for name, values in columns.items()}
    names = table["BRICKNAME"]
    for name in names:
        checked_brickname(str(name))
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise BadInputError(f"{path} lists brick {unique[counts > 1][0]} more than once; use the release's own file.")
    return pa.table({name: pa.array(values) for name, values in table.items()})


def read_blacklist(uri: str | None) -> tuple[str, ...]:
    """Brick names of a JSON list, or of the list under `bricks` in a JSON object; none for no file.

    Raises:
        BadInputError: the file holds something else.
    """
    if uri is None:
        return ()
    values = json.loads(storage.read_bytes(uri))
    names = values.get("bricks") if isinstance(values, dict) else values
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{uri} must hold a JSON list of brick names, or an object with one under `bricks`.")
    return tuple(names)
