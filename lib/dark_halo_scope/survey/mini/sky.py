"""Where the embedded survey's bricks lie: real bricks of the DR10 footprint, scattered over a few sweep tiles."""

import hashlib

import healpy
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.survey.config import MiniSettings
from dark_halo_scope.survey.grid import BrickBox, brick_at

TILE = 5
"""Side of a sweep file's box, degrees."""
_NSIDE = 128
_SPLIT_SEED = 42
_MIN_LATITUDE = 25.0
_DECLINATIONS = range(-20, 30, TILE)
_ATTEMPTS = 1000


def choose_bricks(settings: MiniSettings) -> BrickBox:
    """Bricks of the survey in order of their ids, drawn again until every split has enough HEALPix cells.

    Raises:
        ConfigError: no draw has them; ask for more bricks or fewer cells.
    """
    tiles = _footprint_tiles()
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([settings.seed, attempt])
        chosen = tiles[rng.choice(len(tiles), size=min(settings.sweep_tiles, len(tiles)), replace=False)]
        corner = chosen[np.arange(4 * settings.bricks) % len(chosen)]
        # Centres, not corners: a brick at the edge of a tile would belong to two sweep files.
        positions = corner + rng.uniform(0.3, TILE - 0.3, size=corner.shape)
        boxes = brick_at(positions[:, 0], positions[:, 1])
        _, first = np.unique(boxes.brickid, return_index=True)
        if len(first) < settings.bricks:
            continue
        keep = np.sort(first)[: settings.bricks]
        keep = keep[np.argsort(boxes.brickid[keep])]
        bricks = boxes.take(keep)
        cells = healpy.ang2pix(_NSIDE, bricks.ra, bricks.dec, nest=True, lonlat=True)
        if min(cells_per_split(cells).values()) >= settings.min_cells_per_split:
            return bricks
    raise ConfigError(
        f"No {settings.bricks} bricks give every split {settings.min_cells_per_split} HEALPix cells; raise bricks "
        "in the settings of the embedded survey, or lower min_cells_per_split."
    )


def cells_per_split(cells: NDArray[np.integer]) -> dict[str, int]:
    """Number of distinct nside=128 nested cells in train, val and test.

    The rule is that of the catalogue stage, which comes later: u = first 4 bytes of sha256("{cell}_42") / 2^32,
    train below 0.70, val below 0.85.
    """
    counts = {"train": 0, "val": 0, "test": 0}
    for cell in np.unique(cells).tolist():
        u_cell = int.from_bytes(hashlib.sha256(f"{cell}_{_SPLIT_SEED}".encode()).digest()[:4], "big") / 2**32
        counts["train" if u_cell < 0.70 else "val" if u_cell < 0.85 else "test"] += 1
    return counts


def sweep_name(ra: float, dec: float) -> str:
    """Name, without suffix, of the sweep file that holds a position, such as sweep-000m005-005p000."""
    ra1, dec1 = int(ra // TILE) * TILE, int(dec // TILE) * TILE

    def corner(r: int, d: int) -> str:
        return f"{r:03d}{'m' if d < 0 else 'p'}{abs(d):03d}"

    return f"sweep-{corner(ra1, dec1)}-{corner(ra1 + TILE, dec1 + TILE)}"


def _footprint_tiles() -> NDArray[np.float64]:
    """Lower corners (RA, DEC) of the sweep tiles in DR10's declinations, away from the Galactic plane."""
    corners = np.array([(ra, dec) for dec in _DECLINATIONS for ra in range(0, 360, TILE)], dtype=np.float64)
    centre = SkyCoord(corners[:, 0] + TILE / 2, corners[:, 1] + TILE / 2, unit=u.deg)
    return corners[np.abs(centre.galactic.b.deg) > _MIN_LATITUDE]
