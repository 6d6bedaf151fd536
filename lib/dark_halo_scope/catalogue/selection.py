"""Who is a luminous red galaxy: the cuts of each `lrg_mode` as functions of arrays.

v1 to v5 use magnitudes as observed, the handoff's and DESI's cuts dereddened ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.units import magnitude

Columns = Mapping[str, NDArray]
"""Sweep columns by upper-case name, each (N,)."""

MAG_BANDS = ("G", "R", "Z", "W1")

SWEEP_COLUMNS = (
    "RELEASE",
    "BRICKID",
    "BRICKNAME",
    "OBJID",
    "TYPE",
    "RA",
    "DEC",
    "EBV",
    *(f"FLUX_{b}" for b in MAG_BANDS),
    *(f"FLUX_IVAR_{b}" for b in MAG_BANDS),
    *(f"MW_TRANSMISSION_{b}" for b in MAG_BANDS),
    *(f"NOBS_{b}" for b in "GRZ"),
    *(f"PSFSIZE_{b}" for b in "GRZ"),
    *(f"PSFDEPTH_{b}" for b in "GRZ"),
    "SHAPE_R",
    "SHAPE_E1",
    "SHAPE_E2",
    "SERSIC",
    "FIBERFLUX_Z",
    "FIBERTOTFLUX_Z",
    "GAIA_PHOT_G_MEAN_MAG",
    "MASKBITS",
)
"""What the parent sample reads of a sweep."""

CHECKED_COLUMNS = (
    "RA",
    "DEC",
    *(f"FLUX_{b}" for b in MAG_BANDS),
    *(f"MW_TRANSMISSION_{b}" for b in MAG_BANDS),
    "EBV",
    "SHAPE_R",
    "SHAPE_E1",
    "SHAPE_E2",
)
"""What `bad_row_reasons` looks at."""

BRIGHT, GALAXY, CLUSTER = 1, 12, 13
"""Bits of MASKBITS that DESI's dark-time targets avoid."""


@dataclass(frozen=True)
class VariantCut:
    """z < z_max, r - z > rz_min, z - W1 > zw1_min on observed magnitudes."""

    z_max: float
    rz_min: float
    zw1_min: float


VARIANTS: dict[str, VariantCut] = {
    "v1_pure_massive": VariantCut(20.0, 0.5, 1.6),
    "v2_baseline_dr10": VariantCut(20.4, 0.4, 1.6),
    "v3_color_relaxed": VariantCut(20.4, 0.4, 0.8),
    "v4_mag_relaxed": VariantCut(21.0, 0.4, 0.8),
    "v5_very_relaxed": VariantCut(21.5, 0.3, 0.8),
}

FLAGS = (*(f"is_{name}" for name in VARIANTS), "is_handoff", "is_desi_lrg")
"""Boolean columns of the parent sample, one per `lrg_mode`."""


def magnitudes(columns: Columns, dereddened: bool) -> dict[str, NDArray[np.float64]]:
    """AB magnitudes in g, r, z, W1; NaN where the flux is not positive. Dereddened: flux / MW_TRANSMISSION."""
    result = {}
    for band in MAG_BANDS:
        flux_N = np.asarray(columns[f"FLUX_{band}"], dtype=np.float64)
        if dereddened:
            flux_N = flux_N / np.asarray(columns[f"MW_TRANSMISSION_{band}"], dtype=np.float64)
        result[band] = magnitude(flux_N)
    return result


def is_extended(columns: Columns) -> NDArray[np.bool_]:
    """TYPE is a galaxy model: neither a point source nor a Gaia duplicate (DUP, which has no flux)."""
    return ~np.isin(np.char.strip(np.asarray(columns["TYPE"], dtype=str)), ("PSF", "DUP"))


def is_variant(name: str, columns: Columns) -> NDArray[np.bool_]:
    """Cut v1 to v5 of the earlier pipeline, on observed magnitudes, extended sources only. NaN fails."""
    cut, mag = VARIANTS[name], magnitudes(columns, dereddened=False)
    return (
        is_extended(columns)
        & (mag["Z"] < cut.z_max)
        & (mag["R"] - mag["Z"] > cut.rz_min)
        & (mag["Z"] - mag["W1"] > cut.zw1_min)
    )


def is_handoff(columns: Columns) -> NDArray[np.bool_]:
    """The project handoff's cuts, dereddened: z - W1 > 0.8 (r - z) - 0.6, 17 < z < 21, r < 23, extended, E(B-V) < 0.1.

    Its "good photometry" is read as measured fluxes in r, z and W1.
    """
    mag = magnitudes(columns, dereddened=True)
    measured_N = np.logical_and.reduce([np.asarray(columns[f"FLUX_IVAR_{b}"]) > 0 for b in ("R", "Z", "W1")])
    return (
        is_extended(columns)
        & measured_N
        & (mag["Z"] - mag["W1"] > 0.8 * (mag["R"] - mag["Z"]) - 0.6)
        & (mag["Z"] > 17.0)
        & (mag["Z"] < 21.0)
        & (mag["R"] < 23.0)
        & (np.asarray(columns["EBV"]) < 0.1)
    )


def is_desi_lrg(columns: Columns) -> NDArray[np.bool_]:
    """DESI main-survey LRG target in the south: Zhou et al. (2023, AJ 165, 58), section 2 and equation 1.

    Dereddened magnitudes, z fiber magnitude included: z - W1 > 0.8 (r - z) - 0.6; z_fiber < 21.6; g - W1 > 2.9 or
    r - W1 > 1.8; r - W1 > 1.8 (W1 - 17.14) and r - W1 > W1 - 16.33, or r - W1 > 3.3. Quality: measured r, z, W1, seen
    in g, r, z, no Gaia star brighter than G = 18, total z fiber magnitude > 17.5 as observed, outside masks around
    bright stars, large galaxies and globular clusters. It has no cut on TYPE.
    """
    mag = magnitudes(columns, dereddened=True)
    g, r, z, w1 = (mag[band] for band in MAG_BANDS)
    # A missing g may not cost a galaxy that is red in r - W1: faint limit of the flux, as in desitarget.
    g = np.where(np.isnan(g), 22.5 - 2.5 * np.log10(1e-7), g)
    fiber_flux_N = np.asarray(columns["FIBERFLUX_Z"], dtype=np.float64)
    z_fiber = magnitude(fiber_flux_N / np.asarray(columns["MW_TRANSMISSION_Z"], dtype=np.float64))
    total_flux_N = np.asarray(columns["FIBERTOTFLUX_Z"], dtype=np.float64)
    gaia_N = np.asarray(columns["GAIA_PHOT_G_MEAN_MAG"], dtype=np.float64)
    masked_N = (np.asarray(columns["MASKBITS"], dtype=np.int64) & (1 << BRIGHT | 1 << GALAXY | 1 << CLUSTER)) != 0
    measured_N = np.logical_and.reduce([np.asarray(columns[f"FLUX_IVAR_{b}"]) > 0 for b in ("R", "Z", "W1")])
    seen_N = np.logical_and.reduce([np.asarray(columns[f"NOBS_{b}"]) > 0 for b in "GRZ"])
    quality_N = (
        measured_N
        & seen_N
        & ~masked_N
        & ((gaia_N == 0) | (gaia_N > 18.0))
        & (total_flux_N < 10 ** (0.4 * (22.5 - 17.5)))
    )
    return (
        quality_N
        & (z - w1 > 0.8 * (r - z) - 0.6)
        & (z_fiber < 21.6)
        & ((g - w1 > 2.9) | (r - w1 > 1.8))
        & (((r - w1 > 1.8 * (w1 - 17.14)) & (r - w1 > w1 - 16.33)) | (r - w1 > 3.3))
    )


def lrg_flags(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """All of `FLAGS`, each (N,) bool."""
    flags = {f"is_{name}": is_variant(name, columns) for name in VARIANTS}
    return flags | {"is_handoff": is_handoff(columns), "is_desi_lrg": is_desi_lrg(columns)}


def is_fine(reason_N: NDArray[np.object_]) -> NDArray[np.bool_]:
    """(N,) whether a row has no reason, None, against it."""
    return reason_N == None  # noqa: E711 - elementwise


def mark_bad(reason_N: NDArray[np.object_], bad_N: Sequence[bool] | NDArray[np.bool_], reason: str) -> None:
    """Give a reason to bad rows that have none yet: the first one stands."""
    # Of an empty list numpy would make numbers.
    reason_N[np.asarray(bad_N, dtype=bool) & is_fine(reason_N)] = reason


def bad_row_reasons(columns: Columns) -> NDArray[np.object_]:
    """(N,) reason why a row is unusable, None where it is fine.

    Checked: finite coordinates in range, finite fluxes, MW_TRANSMISSION in (0, 1], finite shapes and E(B-V).
    """
    ra_N, dec_N = np.asarray(columns["RA"], dtype=np.float64), np.asarray(columns["DEC"], dtype=np.float64)
    reason_N = np.full(ra_N.shape, None, dtype=object)

    mark = partial(mark_bad, reason_N)
    mark(~(np.isfinite(ra_N) & np.isfinite(dec_N)), "position is not finite")
    mark((ra_N < 0.0) | (ra_N >= 360.0), "RA is outside [0, 360)")
    mark(np.abs(dec_N) > 90.0, "Dec is outside [-90, 90]")
    for band in MAG_BANDS:
        mark(~np.isfinite(columns[f"FLUX_{band}"]), f"FLUX_{band} is not finite")
    for band in MAG_BANDS:
        transmission_N = np.asarray(columns[f"MW_TRANSMISSION_{band}"], dtype=np.float64)
        mark(~((transmission_N > 0.0) & (transmission_N <= 1.0)), f"MW_TRANSMISSION_{band} is outside (0, 1]")
    for name in ("EBV", "SHAPE_R", "SHAPE_E1", "SHAPE_E2"):
        mark(~np.isfinite(columns[name]), f"{name} is not finite")
    return reason_N
