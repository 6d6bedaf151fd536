"""How the sky was observed at a position: PSF sizes, depths and extinction of the brick that owns it.

Read with astropy, which every environment has: predictions also run where fitsio has no wheels.
"""

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.description import SurveyDescription
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids
from dark_halo_scope.survey.names import BANDS

CONDITIONS = (*(f"psfsize_{band}" for band in BANDS), *(f"psfdepth_{band}" for band in BANDS), "ebv")
"""psfsize in arcsec, psfdepth in 5-sigma AB magnitudes, ebv in magnitudes; each the brick's own."""


@dataclass(frozen=True)
class BrickConditions:
    """Bricks of a survey and their conditions.

    name: (B,) brick names, sorted.
    values: condition -> (B,) float64, NaN where the brick has none; conditions that the table lacks are absent.
    """

    name: NDArray[np.str_]
    values: dict[str, NDArray[np.float64]]

    def row(self, brickname: ArrayLike) -> NDArray[np.intp]:
        """(N,) place of each brick in the table, -1 where the survey has no such brick."""
        wanted_N = np.asarray(brickname, dtype=str)
        if not len(self.name):
            return np.full(wanted_N.shape, -1, dtype=np.intp)
        place_N = np.minimum(np.searchsorted(self.name, wanted_N), len(self.name) - 1)
        return np.where(self.name[place_N] == wanted_N, place_N, -1)

    def of(self, condition: str, brickname: ArrayLike) -> NDArray[np.float64]:
        """(N,) the condition in each brick, NaN where it is unknown."""
        row_N = self.row(brickname)
        known_B = self.values.get(condition)
        if known_B is None or not len(known_B):
            return np.full(row_N.shape, np.nan)
        return np.where(row_N >= 0, known_B[row_N], np.nan)


def bricknames_at(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.str_]:
    """Name of the brick that owns each position (degrees), whether or not a survey has it."""
    return bricks_of_ids(brickid_at(ra, dec)).name


def read_brick_conditions(survey: SurveyDescription) -> BrickConditions:
    """Conditions of all bricks of a survey, from the release's own survey-bricks table.

    Raises:
        BadInputError: the table has no brick names.
        CorruptDataError: it cannot be read.
        StorageError: it cannot be fetched.
    """
    return conditions_of_table(survey.verified(survey.files.brick_summary))


def conditions_of_table(path: Path) -> BrickConditions:
    """Conditions of all bricks in a file such as `survey-bricks-dr10-south.fits.gz`; column names of any case.

    Raises:
        as `read_brick_conditions` does.
    """
    from astropy.io import fits

    try:
        # As a whole, so that gzip compares its checksum.
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        with fits.open(io.BytesIO(data)) as file:
            rows = file[1].data
            columns = {name.upper(): np.asarray(rows[name]) for name in rows.names}
    except (OSError, EOFError, ValueError, TypeError, IndexError, AttributeError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise CorruptDataError(
            f"{path} cannot be read as a table of bricks ({reason}); fetch the file again."
        ) from error
    if "BRICKNAME" not in columns:
        raise BadInputError(f"{path} lacks the column BRICKNAME; it is not a survey-bricks file.")
    name_B = np.char.strip(columns["BRICKNAME"].astype(str))
    order_B = np.argsort(name_B, kind="stable")
    found = {}
    for condition in CONDITIONS:
        if condition.upper() in columns:
            value_B = columns[condition.upper()].astype(np.float64)[order_B]
            # A band without exposures has 0 there; no reddening is a fact.
            least_B = value_B >= 0 if condition == "ebv" else value_B > 0
            found[condition] = np.where(np.isfinite(value_B) & least_B, value_B, np.nan)
    return BrickConditions(name_B[order_B], found)
