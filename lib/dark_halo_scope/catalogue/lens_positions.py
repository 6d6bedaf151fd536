"""Where known and candidate lenses are, for leaving out the galaxies near them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.crossmatch import nearest
from dark_halo_scope.core.manifest import QUARANTINE_PREFIX, Manifest, object_list, verified_path, verified_paths

_LEFT_OUT = f"{QUARANTINE_PREFIX}lenses.parquet"


@dataclass(frozen=True)
class LensPositions:
    """(M,) float64 degrees, ICRS."""

    ra: npt.NDArray[np.float64]
    dec: npt.NDArray[np.float64]

    def near(self, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64], arcsec: float) -> npt.NDArray[np.bool_]:
        """(N,) whether a lens lies within `arcsec` of each position (degrees)."""
        return nearest(ra, dec, self.ra, self.dec, arcsec)[0] >= 0


def read_lens_positions(lenses: Manifest) -> LensPositions:
    """Positions of every row behind lenses.json that has one, those that are no entry of it included.

    A catalogue of clusters lists strong lenses too, and of some of them nothing else: what such a catalogue names is no
    lens to learn from, but no galaxy without one either. So rows that were left out count here as lenses do.

    Raises:
        CorruptDataError: a file differs from its checksum.
    """
    [path] = verified_paths(lenses)
    columns = ["ra", "dec"]
    tables = [pq.read_table(path, columns=columns)]
    if any(entry.name == _LEFT_OUT for entry in object_list(lenses)):
        tables.append(_with_position(pq.read_table(verified_path(lenses, _LEFT_OUT), columns=columns)))
    every = pa.concat_tables([table.cast(pa.schema([(name, pa.float64()) for name in columns])) for table in tables])
    return LensPositions(*(every[name].to_numpy() for name in columns))


def _with_position(table: pa.Table) -> pa.Table:
    # Comparisons with NaN and null are not true.
    ra, dec = table["ra"], table["dec"]
    fine = pc.and_(pc.and_(pc.greater_equal(ra, 0.0), pc.less(ra, 360.0)), pc.less_equal(pc.abs(dec), 90.0))
    return table.filter(fine)
