"""Observing conditions by brick, looked up for any position: PSF sizes, depths, extinction and exposures."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.survey.bricks import read_bricks
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
    table = read_bricks(survey.verified(survey.files.brick_summary))
    order = np.argsort(np.asarray(table["BRICKNAME"].to_numpy(zero_copy_only=False)).astype(str))
    count = table.num_rows

    def column(name: str) -> NDArray[np.float64] | None:
        return table[name].to_numpy().astype(np.float64)[order] if name in table.column_names else None

    values = {}
    for name in CONDITIONS:
        found = column(name.upper())
        found = np.full(count, np.nan) if found is None else found
        # A size or depth of 0 stands for no exposure.
        values[name] = found if name == "ebv" else np.where(found > 0, found, np.nan)
    exposures = [found for band in BANDS if (found := column(f"NEXP_{band.upper()}")) is not None]
    return BrickConditions(
        name=np.asarray(table["BRICKNAME"].to_numpy(zero_copy_only=False)).astype(str)[order],
        values=values,
        exposed=np.all([found > 0 for found in exposures], axis=0) if exposures else np.ones(count, bool),
    )
