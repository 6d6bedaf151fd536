"""What a host becomes, from its rank among the hosts of its stratum: a control, a cell of the grid, or the prior.

A stratum is split x psf_bin x depth_bin, and ranks follow a hash of the galaxy, so that hosts of successive ranks are
as good as drawn at random. Choices go by rank and not by a hash of each galaxy, because independent hashes leave a
stratum with too many controls or none of a cell, and a classifier may then learn PSF or depth instead of arcs. A share
`f` of ranks is taken where floor(rank f + phase) steps up: within one of n f among any n successive ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import floor

from dark_halo_scope.injection.config import GridName, ManifestSettings
from dark_halo_scope.injection.grids import GRIDS, GridPoint
from dark_halo_scope.injection.tasks import hash_fraction

# Phases are multiples of this power of two: exact in rank x share + phase, so that a share of 1 takes every rank.
_PHASE_STEPS = 2**20


@dataclass(frozen=True)
class Stratum:
    """Where hosts look alike: the same split, and the same quartiles of PSF width and depth."""

    split: str
    psf_bin: int
    depth_bin: int


@dataclass(frozen=True)
class Assignment:
    """What a host is in all its replicates. `point` is None for controls and for parameters from the prior."""

    is_control: bool
    point: GridPoint | None


def assign(stratum: Stratum, rank: int, settings: ManifestSettings) -> Assignment:
    """What the host of this rank becomes.

    Args:
        stratum: the host's.
        rank: from 0, within the stratum.
        settings: of the manifest.
    """
    controls = 0.0 if settings.controls == "paired" else settings.control_fraction
    phases = _phases(stratum, settings.seed)
    if _taken(rank, controls, phases["control"]):
        return Assignment(True, None)
    positive = rank - _taken_before(rank, controls, phases["control"])
    if settings.grid is None or not _taken(positive, settings.grid_fraction, phases["grid"]):
        return Assignment(False, None)
    cells = cell_order(settings.grid, settings.seed)
    # Strata start at different cells, so that small ones together cover a grid too.
    place = int(phases["cell"] * len(cells)) + _taken_before(positive, settings.grid_fraction, phases["grid"])
    return Assignment(False, cells[place % len(cells)])


@lru_cache
def cell_order(grid: GridName, seed: int) -> tuple[GridPoint, ...]:
    """Every cell of a grid once, so that any run of cells, also past the end, holds each theta_E equally often.

    To within one, that is: Einstein radii take turns, and the cells of each come in an order of their own that a hash
    of the seed shuffles.
    """
    cells: dict[float, list[GridPoint]] = {}
    for point in sorted(GRIDS[grid].points(), key=lambda point: hash_fraction(f"{point.config_id}|{seed}|grid")):
        cells.setdefault(point.theta_e, []).append(point)
    return tuple(point for turn in zip(*cells.values(), strict=True) for point in turn)


def _taken_before(rank: int, share: float, phase: float) -> int:
    return floor(rank * share + phase)


def _taken(rank: int, share: float, phase: float) -> bool:
    return _taken_before(rank + 1, share, phase) > _taken_before(rank, share, phase)


@lru_cache(maxsize=1024)
def _phases(stratum: Stratum, seed: int) -> Mapping[str, float]:
    """Where each choice starts in a stratum, in [0, 1): rounding has no preferred side over all strata."""
    name = f"{stratum.split}|{stratum.psf_bin}|{stratum.depth_bin}|{seed}"
    return {
        choice: floor(hash_fraction(f"{name}|{choice}") * _PHASE_STEPS) / _PHASE_STEPS
        for choice in ("control", "grid", "cell")
    }
