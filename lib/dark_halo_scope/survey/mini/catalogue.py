"""Sweep and photo-z rows of one brick: what Tractor and the photo-z code would have measured of the drawn objects."""

from collections.abc import Sequence

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from dark_halo_scope.survey.grid import BrickBox
from dark_halo_scope.survey.mini.columns import PHOTOZ_DTYPE, SWEEP_DTYPE
from dark_halo_scope.survey.mini.conditions import ALLMASK, Conditions
from dark_halo_scope.survey.mini.populations import EXTINCTION
from dark_halo_scope.survey.mini.profiles import SkyObject
from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE
from dark_halo_scope.survey.units import depth_inverse_variance, magnitude, noise_equivalent_area

RELEASE = 10000
_DETECTION = 6.0
"""Signal-to-noise in the best band from which an object is catalogued."""
_WISE_DEPTH = {"W1": 3.3, "W2": 0.85, "W3": 1.5e-3, "W4": 2.5e-5}
"""Inverse variance of a point source's flux in unWISE, 1/nanomaggy^2."""
_FIBER = 0.75
"""Radius of a DESI fibre, arcsec, in FIBERFLUX, at 1 arcsec seeing."""


def measure(
    rng: np.random.Generator,
    objects: Sequence[SkyObject],
    conditions: Conditions,
    variance: NDArray[np.float64],
    maskbits: NDArray[np.int32],
    wcs: WCS,
    brick: BrickBox,
) -> tuple[NDArray, NDArray, list[SkyObject]]:
    """Catalogue a brick.

    Args:
        variance: (3, H, W) nanomaggy^2 per pixel; infinite where masked.
        brick: scalars.

    Returns:
        sweep rows, photo-z rows, and the objects they are of: those inside the image and bright enough.
    """
    height, width = maskbits.shape
    inside = [o for o in objects if 0 <= o.x < width - 0.5 and 0 <= o.y < height - 0.5]
    column = np.array([round(o.x) for o in inside], dtype=np.int64)
    row = np.array([round(o.y) for o in inside], dtype=np.int64)
    true = np.array([o.flux for o in inside]).reshape(-1, 3)
    r_e = np.array([o.r_e for o in inside])
    area = noise_equivalent_area(conditions.psfsize, PIXEL_SCALE)[None, :] + (
        4 * np.pi * (r_e / PIXEL_SCALE / 1.6) ** 2
    ).reshape(-1, 1)
    with np.errstate(divide="ignore"):
        flux_ivar = 1.0 / (variance[:, row, column].T * area)
    detected = np.max(true * np.sqrt(flux_ivar), axis=1, initial=0) > _DETECTION
    kept = [o for o, keep in zip(inside, detected, strict=True) if keep]
    n, true, flux_ivar, row, column = len(kept), true[detected], flux_ivar[detected], row[detected], column[detected]

    out = np.zeros(n, dtype=SWEEP_DTYPE)
    snr = np.max(true * np.sqrt(flux_ivar), axis=1, initial=0)
    x, y = np.array([o.x for o in kept]), np.array([o.y for o in kept])
    error = np.minimum(0.5 * conditions.psfsize[1] / np.maximum(snr, 1.0), 0.15)
    dx, dy = rng.normal(0, 1, size=(2, n)) * error / PIXEL_SCALE
    out["RA"], out["DEC"] = wcs.all_pix2world(x + dx, y + dy, 0)
    out["RA_IVAR"] = out["DEC_IVAR"] = (3600.0 / np.maximum(error, 1e-3)) ** 2
    out["RELEASE"], out["BRICKID"], out["BRICKNAME"] = RELEASE, brick.brickid, str(brick.name)
    out["OBJID"] = np.arange(n)
    out["EBV"] = np.clip(conditions.ebv + rng.normal(0, 0.0008, size=n), 0.001, None)
    out["MASKBITS"] = maskbits[row, column]
    for band, a in EXTINCTION.items():
        out[f"MW_TRANSMISSION_{band.upper()}"] = 10 ** (-0.4 * a * out["EBV"])
    _fill_shapes(rng, out, kept, snr)
    _fill_fluxes(rng, out, kept, true, flux_ivar)
    _fill_conditions(out, conditions, variance, row, column)
    _fill_fit_quality(rng, out, snr)
    _fill_gaia(rng, out)
    return out, _photoz(rng, out, kept, snr), kept


def _fill_shapes(rng: np.random.Generator, out: NDArray, kept: Sequence[SkyObject], snr: NDArray[np.float64]) -> None:
    """TYPE and shapes. SHAPE_R is Tractor's half-light radius along the major axis; PA = phi - 90 deg, north up."""
    for i, o in enumerate(kept):
        out["TYPE"][i] = kind = _model(rng, o, float(snr[i]))
        if kind == b"PSF":
            continue
        scatter = min(3.0 / snr[i], 0.3)
        q = 1.0 if kind == b"REX" else float(np.clip(o.q * rng.lognormal(0, 0.4 * scatter), 0.08, 1.0))
        size = o.r_e * rng.lognormal(0, scatter)
        out["SHAPE_R"][i] = size / np.sqrt(q)
        out["SHAPE_R_IVAR"][i] = 1.0 / (scatter * size + 1e-3) ** 2
        out["SERSIC"][i] = {b"DEV": 4.0, b"SER": float(np.clip(o.n * rng.lognormal(0, scatter), 0.5, 6.0))}.get(
            kind, 1.0
        )
        if kind == b"SER":
            out["SERSIC_IVAR"][i] = 1.0 / (scatter * o.n + 1e-3) ** 2
        if kind != b"REX":
            ellipticity, angle = (1 - q) / (1 + q), o.phi - np.pi / 2 + rng.normal(0, 0.3 * scatter)
            out["SHAPE_E1"][i], out["SHAPE_E2"][i] = ellipticity * np.cos(2 * angle), ellipticity * np.sin(2 * angle)
            out["SHAPE_E1_IVAR"][i] = out["SHAPE_E2_IVAR"][i] = 1.0 / (scatter + 1e-3) ** 2


def _model(rng: np.random.Generator, o: SkyObject, snr: float) -> bytes:
    """The simplest model that Tractor's penalised fit would settle on."""
    if o.kind == "star" or (o.r_e < 0.15 and snr < 40):
        return b"PSF"
    if snr < 18:
        return b"REX"
    if o.n < 1.6 and not (snr > 120 and rng.random() < 0.4):
        return b"REX" if o.q > 0.85 and o.r_e < 0.6 else b"EXP"
    return b"SER" if snr > 45 and rng.random() < 0.55 else b"DEV"


def _fill_fluxes(
    rng: np.random.Generator,
    out: NDArray,
    kept: Sequence[SkyObject],
    true: NDArray[np.float64],
    ivar: NDArray[np.float64],
) -> None:
    measured = true * rng.normal(1.0, 0.008, size=true.shape)
    noise = rng.normal(size=true.shape)
    with np.errstate(divide="ignore"):
        measured += np.where(ivar > 0, noise / np.sqrt(ivar), -measured)
    flux = dict(zip(BANDS, measured.T, strict=True))
    flux_ivar = dict(zip(BANDS, ivar.T, strict=True))
    # No i-band images are drawn; the catalogue has what lies between r and z, as bricks without i exposures do not.
    flux["i"], flux_ivar["i"] = np.zeros(len(kept)), np.zeros(len(kept))
    w1 = np.array([o.w1 for o in kept])
    for band, share in (("W1", 1.0), ("W2", 0.6), ("W3", 0.4), ("W4", 0.4)):
        depth = _WISE_DEPTH[band]
        flux[band], flux_ivar[band] = (
            w1 * share + rng.normal(size=len(kept)) / np.sqrt(depth),
            np.full(len(kept), depth),
        )
    size = np.array([o.r_e for o in kept])
    fiber = 1.0 - np.exp(-(_FIBER**2) / (2 * (0.42**2 + (size / 1.25) ** 2)))
    for band, values in flux.items():
        out[f"FLUX_{band.upper()}"] = values
        out[f"FLUX_IVAR_{band.upper()}"] = flux_ivar[band]
        if not band.startswith("W"):
            out[f"FIBERFLUX_{band.upper()}"] = values * fiber
            out[f"FIBERTOTFLUX_{band.upper()}"] = values * fiber * (1 + rng.exponential(0.02, size=len(kept)))


def _fill_conditions(
    out: NDArray,
    conditions: Conditions,
    variance: NDArray[np.float64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
) -> None:
    for band, name in enumerate(BANDS):
        upper = name.upper()
        nexp = conditions.nexp[band, row, column]
        usable = np.isfinite(variance[band, row, column])
        full = conditions.nexp[band].max()
        depth = float(depth_inverse_variance(conditions.psfdepth[band])) * nexp / max(int(full), 1)
        out[f"NOBS_{upper}"] = nexp
        out[f"PSFSIZE_{upper}"] = np.where(nexp > 0, conditions.psfsize[band], 0.0)
        out[f"PSFDEPTH_{upper}"] = depth
        # A galaxy of 0.45 arcsec spreads over more pixels than a star.
        out[f"GALDEPTH_{upper}"] = depth / (1 + (1.35 * 0.45 / conditions.psfsize[band] * 2) ** 2)
        out[f"FRACIN_{upper}"] = np.where(usable, 0.99, 0.0)
        out[f"ANYMASK_{upper}"] = np.where(usable, 0, 1)
        out[f"ALLMASK_{upper}"] = ((out["MASKBITS"] & int(ALLMASK[band])) != 0).astype(np.int16)
        out[f"FRACMASKED_{upper}"] = np.where(usable, 0.01, 1.0)
    for wise, exposures in {"W1": 160, "W2": 155, "W3": 20, "W4": 20}.items():
        out[f"NOBS_{wise}"] = exposures
    out["PSFDEPTH_W1"], out["PSFDEPTH_W2"] = 5.2, 1.3
    out["WISEMASK_W1"] = (out["MASKBITS"] >> 8) & 1
    out["WISEMASK_W2"] = (out["MASKBITS"] >> 9) & 1


def _fill_fit_quality(rng: np.random.Generator, out: NDArray, snr: NDArray[np.float64]) -> None:
    n = len(out)
    for band in (*"GRZ", "W1", "W2", "W3", "W4"):
        out[f"RCHISQ_{band}"] = rng.normal(1.0, 0.06, size=n).clip(0.6) + (snr / 900) ** 1.5
        out[f"FRACFLUX_{band}"] = rng.exponential(0.03 if len(band) == 1 else 0.25, size=n)
    # Improvement of chi^2 by PSF, REX, DEV, EXP, SER: the model chosen is the best, those it excludes stay 0.
    base = snr**2
    order = {b"PSF": 0, b"REX": 1, b"DEV": 2, b"EXP": 3, b"SER": 4}
    for i, kind in enumerate(out["TYPE"]):
        chosen = order[bytes(kind)]
        values = base[i] * np.array([0.93, 0.97, 0.985, 0.985, 0.99])
        values[chosen] = base[i]
        out["DCHISQ"][i] = np.where(np.arange(5) <= max(chosen, 1 if chosen == 0 else 3), values, 0)
    out["WISE_COADD_ID"] = out["BRICKNAME"]


def _fill_gaia(rng: np.random.Generator, out: NDArray) -> None:
    """Bright point sources are Gaia stars; all else has empty Gaia columns, as in the real files."""
    g = magnitude(np.maximum(out["FLUX_R"], 1e-3)) + 0.1
    gaia = (out["TYPE"] == b"PSF") & (g < 20.5)
    n = int(gaia.sum())
    out["REF_CAT"][gaia] = b"GE"
    out["REF_ID"][gaia] = rng.integers(10**17, 6 * 10**18, size=n)
    out["REF_EPOCH"][gaia] = 2016.0
    out["GAIA_PHOT_G_MEAN_MAG"][gaia] = g[gaia]
    out["GAIA_PHOT_BP_MEAN_MAG"][gaia], out["GAIA_PHOT_RP_MEAN_MAG"][gaia] = g[gaia] + 0.5, g[gaia] - 0.6
    for name in ("G", "BP", "RP"):
        out[f"GAIA_PHOT_{name}_MEAN_FLUX_OVER_ERROR"][gaia] = 10 ** (-0.4 * (g[gaia] - 21)) * 60
    out["GAIA_ASTROMETRIC_PARAMS_SOLVED"][gaia] = 31
    out["PARALLAX"][gaia], out["PARALLAX_IVAR"][gaia] = rng.exponential(0.7, size=n), 25.0
    for axis in ("PMRA", "PMDEC"):
        out[axis][gaia], out[f"{axis}_IVAR"][gaia] = rng.normal(0, 6, size=n), 25.0


def _photoz(rng: np.random.Generator, sweep: NDArray, kept: Sequence[SkyObject], snr: NDArray[np.float64]) -> NDArray:
    out = np.zeros(len(sweep), dtype=PHOTOZ_DTYPE)
    for name in ("RELEASE", "BRICKID", "OBJID"):
        out[name] = sweep[name]
    true = np.array([o.redshift for o in kept])
    red = np.array([o.kind in ("lrg", "lens", "merger") for o in kept])
    std = np.where(red, 0.018, 0.06) * (1 + true) * (1 + 6.0 / np.maximum(snr, 6.0))
    median = np.clip(true + rng.normal(0, 1, size=len(out)) * std, 0.01, None)
    for bands in ("", "_I"):
        out[f"Z_PHOT_MEDIAN{bands}"], out[f"Z_PHOT_STD{bands}"] = median, std
        out[f"Z_PHOT_MEAN{bands}"] = median + 0.1 * std
        for width, sigmas in (("68", 1.0), ("95", 2.0)):
            out[f"Z_PHOT_L{width}{bands}"] = np.clip(median - sigmas * std, 0.0, None)
            out[f"Z_PHOT_U{width}{bands}"] = median + sigmas * std
    spectrum = red & (rng.random(len(out)) < 0.15)
    out["Z_SPEC"] = np.where(spectrum, true, -99.0)
    out["SURVEY"][spectrum] = b"SDSS"
    out["TRAINING"] = spectrum
    uncovered = (sweep["NOBS_G"] == 0) | (sweep["NOBS_R"] == 0) | (sweep["NOBS_Z"] == 0)
    for name in out.dtype.names or ():
        if name.startswith("Z_PHOT"):
            out[name][uncovered] = -99.0
    return out
