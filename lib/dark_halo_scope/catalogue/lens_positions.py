"""Where known and candidate lenses are, for leaving out the galaxies near them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.crossmatch import nearest
from dark_halo_scope.core.manifest import Manifest, verified_paths


@dataclass(frozen=True)
class LensPositions:
    """(M,) float64 degrees, ICRS."""

    ra: npt.NDArray[np.float64]
    dec: npt.NDArray[np.float64]

    def near(self, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64], arcsec: float) -> npt.NDArray[np.bool_]:
        """(N,) whether a lens lies within `arcsec` of each position (degrees)."""
        return nearest(ra, dec, self.ra, self.dec, arcsec)[0] >= 0


def read_lens_positions(lenses: Manifest) -> LensPositions:
    """Positions of all lenses behind lenses.json.

    Raises:
        CorruptDataError: the file differs from its checksum.
    """
    [path] = verified_paths(lenses)
    table = pq.read_table(path, columns=["ra", "dec"])
    return LensPositions(*(table[name].to_numpy().astype(np.float64) for name in ("ra", "dec")))
