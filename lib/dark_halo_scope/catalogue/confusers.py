"""Which galaxies look like lenses and are none: rules on catalogue columns alone, for any pool of galaxies.

Four classes are the real-image track's proxies, first match wins: `ring_proxy` (a bulge so bright that a ring around
it is mistaken for an Einstein ring), `edge_on_proxy`, `blue_clumpy` and `large_galaxy`. Two more need a neighbour:

- `merger`: two galaxies 1-4 arcsec apart whose r fluxes differ by less than 4 : 1, the usual limit of a major merger,
  and whose g - r agree within 0.3 mag, as they do at one redshift and hardly by chance. At z = 0.5, 4 arcsec are
  24 kpc, within which most such pairs are bound. Nearer than 1 arcsec the survey's seeing does not part two galaxies.
- `companion`: a luminous red galaxy with exactly one source 1-4 arcsec away that is bluer by 0.4 mag in g - r and 0.5
  to 4 mag fainter in r: the place and the colour of an arc, without lensing. Two such sources are what an image and its
  counter-image look like, so that a galaxy with more than one is left out.

A class with a neighbour goes first: nearly every merger of ellipticals is bright and round, and would be a
`ring_proxy`. No rule can tell an unknown lens from a companion; whoever selects leaves out known and candidate lenses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dark_halo_scope.catalogue.config import ConfuserPreset
from dark_halo_scope.catalogue.crossmatch import chord, unit_vectors
from dark_halo_scope.catalogue.selection import MAG_BANDS, Columns, is_extended, is_variant, magnitudes

PROXIES = ("ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy")
COMPANY = ("merger", "companion")


@dataclass(frozen=True)
class Rules:
    """Cuts of a preset. Fluxes are r nanomaggies, sizes arcsec along the major axis, ellipticities (1-q)/(1+q).

    types: TYPE of every member of the pool.
    bad_maskbits: a galaxy with one of these bits is out.
    nobs: exposures in g, r, z that a galaxy must have.
    dec_range: degrees, exclusive; None: everywhere.
    dereddened: whether fluxes are corrected for MW_TRANSMISSION.
    without_z_flux: whether a galaxy without flux in z passes the cut z < 20.
    ring_types: type -> least Sersic index.
    classes: in the order in which they are tried.
    """

    types: tuple[str, ...]
    bad_maskbits: tuple[int, ...]
    nobs: tuple[int, int, int]
    dec_range: tuple[float, float] | None
    dereddened: bool
    without_z_flux: bool
    ring_types: Mapping[str, float]
    edge_on_types: tuple[str, ...]
    edge_on_ellipticity: float
    edge_on_size: float
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Neighbours:
    """Sources that a rule may ask for beside a galaxy, of a whole piece of sky: about 60 bytes for each.

    Attributes:
        tree: over the (M, 3) unit vectors of their positions.
        flux_r: (M,) float64, r nanomaggies as the rules take them.
        gr: (M,) float64, g - r.
        extended: (M,) bool, whether it is a galaxy.
    """

    tree: cKDTree
    flux_r: NDArray[np.float64]
    gr: NDArray[np.float64]
    extended: NDArray[np.bool_]


NEIGHBOUR_COLUMNS = (
    "TYPE",
    "RA",
    "DEC",
    *(f"FLUX_{band}" for band in MAG_BANDS),
    *(f"MW_TRANSMISSION_{band}" for band in MAG_BANDS),
)
"""What `neighbours` needs of a sweep."""

_EVERY_BIT = tuple(range(17))

RULES: Mapping[ConfuserPreset, Rules] = {
    # As the real-image track's configuration means it, with the two classes that need a neighbour. Exponential discs
    # belong to the pool: its edge-on rule names them.
    "intended": Rules(
        types=("SER", "DEV", "REX", "EXP"),
        bad_maskbits=(1, 5, 6, 7, 11, 12, 13),
        nobs=(3, 3, 3),
        dec_range=None,
        dereddened=True,
        without_z_flux=False,
        ring_types={"DEV": 0.0, "SER": 4.0},
        edge_on_types=("EXP", "SER", "DEV"),
        edge_on_ellipticity=0.5,
        edge_on_size=0.6,
        classes=(*COMPANY, *PROXIES),
    ),
    # As it ran in 2026: ellipticity and Sersic index never reached the rules, so that size stands for both.
    "executed": Rules(
        types=("SER", "DEV", "REX"),
        bad_maskbits=(1, 5, 6, 7, 11, 12, 13),
        nobs=(3, 3, 3),
        dec_range=(-18.0, 32.0),
        dereddened=False,
        without_z_flux=True,
        ring_types={"DEV": 0.0},
        edge_on_types=("SER", "DEV"),
        edge_on_ellipticity=0.0,
        edge_on_size=1.8,
        classes=PROXIES,
    ),
    # As the plan of the real-image track writes its pool: no mask bit at all, one exposure in g and r.
    "plan": Rules(
        types=("SER", "DEV", "REX"),
        bad_maskbits=_EVERY_BIT,
        nobs=(1, 1, 3),
        dec_range=None,
        dereddened=False,
        without_z_flux=True,
        ring_types={"DEV": 0.0, "SER": 4.0},
        edge_on_types=("EXP", "SER", "DEV"),
        edge_on_ellipticity=0.5,
        edge_on_size=0.6,
        classes=PROXIES,
    ),
}

_MAX_Z = 20.0
_RING_FLUX = 5.0
_BLUE_GR, _BLUE_R = 0.4, 20.5
_LARGE_SIZE, _LARGE_FLUX = 2.0, 3.0
_NEIGHBOUR_ARCSEC = (1.0, 4.0)
# No neighbour that a rule asks for is fainter: 4 mag below a galaxy of r = 20, and the survey is complete there.
_FAINTEST_NEIGHBOUR = 24.0
_MERGER_RATIO, _MERGER_COLOUR = 4.0, 0.3
_COMPANION_FAINTER = (0.5, 4.0)
_COMPANION_BLUER = 0.4


def in_pool(columns: Columns, rules: Rules) -> NDArray[np.bool_]:
    """(N,) whether a sweep row may be a negative at all: type, masks, exposures, z < 20, declination."""
    mag = magnitudes(columns, rules.dereddened)
    flux_z = np.asarray(columns["FLUX_Z"], dtype=np.float64)
    bits = sum(1 << bit for bit in rules.bad_maskbits)
    good = np.isin(_types(columns), rules.types) & ((np.asarray(columns["MASKBITS"], dtype=np.int64) & bits) == 0)
    for band, least in zip("GRZ", rules.nobs, strict=True):
        good &= np.asarray(columns[f"NOBS_{band}"]) >= least
    good &= (mag["Z"] < _MAX_Z) | (rules.without_z_flux & (flux_z <= 0))
    if rules.dec_range is not None:
        low, high = rules.dec_range
        good &= (np.asarray(columns["DEC"]) > low) & (np.asarray(columns["DEC"]) < high)
    return good


def neighbours(parts: Iterable[Columns], rules: Rules) -> Neighbours:
    """Neighbours among the rows of a piece of sky, given part by part; none where no class of the rules needs one.

    Args:
        parts: `NEIGHBOUR_COLUMNS`, each (N,); what is beyond them is not seen.
    """
    empty = np.empty(0)
    found: list[tuple[NDArray, ...]] = [(np.empty((0, 3)), empty, empty, np.empty(0, dtype=bool))]
    for columns in parts if set(rules.classes) & set(COMPANY) else ():
        mag = magnitudes(columns, rules.dereddened)
        near = mag["R"] < _FAINTEST_NEIGHBOUR
        xyz = unit_vectors(columns["RA"][near], columns["DEC"][near])
        gr = mag["G"] - mag["R"]
        found.append((xyz, _flux_r(columns, rules)[near], gr[near], is_extended(columns)[near]))
    xyz, flux_r, gr, extended = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return Neighbours(cKDTree(xyz), flux_r, gr, extended)


def confuser_classes(columns: Columns, rules: Rules, around: Neighbours) -> NDArray[np.str_]:
    """(N,) class of every sweep row: the first of `rules.classes` that fits, "" for the rest and outside the pool.

    Args:
        columns: rows of a piece of sky.
        around: `neighbours` of the whole piece, these rows too.
    """
    pool = in_pool(columns, rules)
    fits = _proxies(columns, rules)
    if set(rules.classes) & set(COMPANY):
        fits |= _company(columns, pool, rules, around)
    result = np.full(len(pool), "", dtype="<U16")
    for name in reversed(rules.classes):
        result[pool & fits[name]] = name
    return result


def _proxies(columns: Columns, rules: Rules) -> dict[str, NDArray[np.bool_]]:
    kind, mag = _types(columns), magnitudes(columns, rules.dereddened)
    size, sersic = (np.asarray(columns[name], dtype=np.float64) for name in ("SHAPE_R", "SERSIC"))
    e1, e2 = (np.asarray(columns[name], dtype=np.float64) for name in ("SHAPE_E1", "SHAPE_E2"))
    flux_r = _flux_r(columns, rules)
    ring = np.zeros(len(kind), dtype=bool)
    for name, least in rules.ring_types.items():
        ring |= (kind == name) & (sersic >= least)
    edge_on = np.isin(kind, rules.edge_on_types) & (np.hypot(e1, e2) >= rules.edge_on_ellipticity)
    return {
        "ring_proxy": ring & (flux_r >= _RING_FLUX),
        "edge_on_proxy": edge_on & (size >= rules.edge_on_size),
        "blue_clumpy": (mag["G"] - mag["R"] <= _BLUE_GR) & (mag["R"] <= _BLUE_R),
        "large_galaxy": (size >= _LARGE_SIZE) & (flux_r >= _LARGE_FLUX),
    }


def _company(
    columns: Columns, pool: NDArray[np.bool_], rules: Rules, around: Neighbours
) -> dict[str, NDArray[np.bool_]]:
    """Rows of the pool that have the neighbour which `merger` or `companion` asks for."""
    mag, flux_r = magnitudes(columns, rules.dereddened), _flux_r(columns, rules)
    gr, red = mag["G"] - mag["R"], is_variant("v3_color_relaxed", columns)
    one, other = _pairs(columns, pool, around)
    ratio = around.flux_r[other] / flux_r[one]
    comparable = around.extended[other] & (ratio >= 1 / _MERGER_RATIO) & (ratio <= _MERGER_RATIO)
    comparable &= np.abs(gr[one] - around.gr[other]) <= _MERGER_COLOUR
    fainter = -2.5 * np.log10(ratio)
    bluer = red[one] & (fainter >= _COMPANION_FAINTER[0]) & (fainter <= _COMPANION_FAINTER[1])
    bluer &= gr[one] - around.gr[other] >= _COMPANION_BLUER
    return {
        "merger": np.bincount(one[comparable], minlength=len(pool)) > 0,
        "companion": np.bincount(one[bluer], minlength=len(pool)) == 1,
    }


def _pairs(columns: Columns, of: NDArray[np.bool_], around: Neighbours) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(P,) row numbers and (P,) numbers of neighbours, of pairs at the separation that a neighbour has."""
    low, high = _NEIGHBOUR_ARCSEC
    first = np.flatnonzero(of)
    if not len(first) or not around.tree.n:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    xyz = unit_vectors(columns["RA"][first], columns["DEC"][first])
    found = cKDTree(xyz).sparse_distance_matrix(around.tree, chord(high), output_type="ndarray")
    one, other = found["i"], found["j"]
    # Not the row itself, which is among the neighbours, nor what is nearer than sources are parted.
    far = np.linalg.norm(xyz[one] - around.tree.data[other], axis=-1) >= chord(low)
    return first[one[far]], other[far]


def _flux_r(columns: Columns, rules: Rules) -> NDArray[np.float64]:
    """r nanomaggies, NaN where not positive: no ratio with it passes a cut."""
    flux = np.asarray(columns["FLUX_R"], dtype=np.float64)
    if rules.dereddened:
        flux = flux / np.asarray(columns["MW_TRANSMISSION_R"], dtype=np.float64)
    return np.where(flux > 0, flux, np.nan)


def _types(columns: Columns) -> NDArray[np.str_]:
    return np.char.strip(np.asarray(columns["TYPE"], dtype=str))
