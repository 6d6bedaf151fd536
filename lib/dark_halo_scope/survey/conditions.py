"""Observing conditions by brick, looked up for any position: PSF sizes, depths, extinction and exposures.

Read with astropy, which every environment has: a list is scored where the network is, and fitsio has no wheels there.
"""

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.description import SurveyDescription
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids
from dark_halo_scope.survey.names import BANDS

CONDITIONS = (*(f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in BANDS), "ebv")
"""psfsize: arcsec, noise-equivalent-area FWHM; psfdepth: 5-sigma AB magnitude; ebv: E(B-V)."""


@dataclass(frozen=True)
class BrickConditions:
    """Bricks of a release, ordered by name (K).

    values: of `CONDITIONS`, by name; NaN where the release does not say, or where nothing was observed.
    exposed: whether g, r and z all have an exposure; true where the release does not say.
    """

    name: NDArray[np.str_]
    values: dict[str, NDArray[np.float64]]
    exposed: NDArray[np.bool_]

    def rows_at(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """Name of the brick that owns each position, and its row here; -1 where the release has no such brick.

        Args:
            ra, dec: (N,) degrees.
        """
        names = bricks_of_ids(brickid_at(np.atleast_1d(ra), np.atleast_1d(dec))).name
        row = np.searchsorted(self.name, names)
        row[row == len(self.name)] = 0
        known = self.name[row] == names if len(self.name) else np.zeros(len(names), bool)
        return names, np.where(known, row, -1)

    def at(self, ra: ArrayLike, dec: ArrayLike) -> pa.Table:
        """brickname, and each of `CONDITIONS` (null where unknown), at (N,) positions in degrees."""
        names, row = self.rows_at(ra, dec)
        columns: dict[str, pa.Array] = {"brickname": pa.array(names.tolist(), pa.string())}
        for name, values in self.values.items():
            # Row -1, no such brick, takes the last.
            found = np.append(values, np.nan)[row]
            columns[name] = pa.array(found, pa.float64(), mask=~np.isfinite(found))
        return pa.table(columns)


def read_conditions(survey: SurveyDescription) -> BrickConditions:
    """Conditions of every brick of the survey's release.

    Raises:
        CorruptDataError: the table of bricks is damaged.
        BadInputError: it is no such table.
    """
    return conditions_of_table(survey.verified(survey.files.brick_summary))


def conditions_of_table(path: Path) -> BrickConditions:
    """Conditions of every brick in a file such as `survey-bricks-dr10-south.fits.gz`; column names of any case.

    Raises:
        as `read_conditions` does.
    """
    table = _columns(path)
    if "BRICKNAME" not in table:
        raise BadInputError(f"{path} lacks the column BRICKNAME; it is not a survey-bricks file.")
    names = np.char.strip(table["BRICKNAME"].astype(str))
    order = np.argsort(names, kind="stable")
    if len(np.unique(names)) < len(names):
        raise BadInputError(f"{path} lists a brick more than once; use the release's own file.")

    def column(name: str) -> NDArray[np.float64] | None:
        return table[name].astype(np.float64)[order] if name in table else None

    values = {}
    for name in CONDITIONS:
        found = column(name.upper())
        found = np.full(len(names), np.nan) if found is None else found
        # A size or depth of 0 stands for no exposure; no reddening is a fact.
        known = np.isfinite(found) & ((found >= 0) if name == "ebv" else (found > 0))
        values[name] = np.where(known, found, np.nan)
    exposures = [found for band in BANDS if (found := column(f"NEXP_{band.upper()}")) is not None]
    return BrickConditions(
        name=names[order],
        values=values,
        exposed=np.all([found > 0 for found in exposures], axis=0) if exposures else np.ones(len(names), bool),
    )


def _columns(path: Path) -> dict[str, NDArray]:
    from astropy.io import fits

    try:
        # As a whole, so that gzip compares its checksum.
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        with fits.open(io.BytesIO(data)) as file:
            rows = file[1].data
            return {name.upper(): np.asarray(rows[name]) for name in rows.names}
    except (OSError, EOFError, ValueError, TypeError, IndexError, AttributeError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise CorruptDataError(f"{path} cannot be read as a table of bricks ({reason}); fetch it again.") from error
