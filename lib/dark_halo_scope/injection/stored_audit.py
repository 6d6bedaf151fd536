"""Stored arcs beside the same arcs rendered here from the rows' own parameters: does a row say what its pixels show?

Only Sersic sources can be rendered again. Two readings of theta_e_arcsec compete: the product average, and theta_E
sqrt(q), which the earlier SIE's missing factor left behind. Positions are compared by cross-correlation in r, so that
a kernel that was centred wrongly shows as a shift of whole pixels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.schema import BANDS
from dark_halo_scope.injection.stored_config import AuditSettings
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Kind, Psf
from dark_halo_scope.lensing.render import convolve_and_sample, render_fine
from dark_halo_scope.lensing.sources import SersicSource

CONVENTIONS = ("lacks_sqrt_q", "product_average")
_NEEDED = (
    *("theta_e_arcsec", "lens_e", "lens_phi_rad", "shear", "shear_phi_rad", "src_x_arcsec", "src_y_arcsec"),
    *("src_reff_arcsec", "src_e", "src_phi_rad", "psf_fwhm_used_r"),
)
# Rounder lenses do not tell the conventions apart: theta_E differs by less than a tenth.
_ELONGATED = 0.8
_PERCENTILES = (5, 50, 95)
# Median of stored arc_snr over the same measured: masks and weights differ a little between releases, units by far.
_RATIOS = (0.5, 2.0)


def true_theta_e(theta_e: float, lens_e: float | None, lens_model: str | None, convention: str) -> float | None:
    """The product-average Einstein radius (arcsec) of a stored one; None where the ellipticity is not known.

    A spherical lens (SIS) needs no correction.
    """
    if convention == "product_average" or lens_model == "SIS":
        return theta_e
    return None if lens_e is None else theta_e / math.sqrt((1.0 - lens_e) / (1.0 + lens_e))


def audit_row(
    row: Mapping[str, Any],
    arc_BHW: NDArray[np.float32],
    centre: tuple[float, float],
    psf: Kind,
    settings: AuditSettings,
    pixel_scale: float,
) -> dict[str, float] | None:
    """One stored arc against its rendering; None where the row lacks a parameter or the arc has no light.

    Args:
        row: stored columns.
        arc_BHW: positive - control, nanomaggies per pixel.
        centre: x, y of the host in the stamp's frame, arcsec.
        psf: profile of the variant.

    Returns:
        `q`; for each convention the largest normalised cross-correlation, and the shift (pixels, x and y) at which it
        has it; `flux_ratio`, pixels over total_injected_flux_r, where the row has one.
    """
    arc_HW = arc_BHW[BANDS.index("r")].astype(np.float64)
    values = [row.get(name) for name in _NEEDED]
    if any(value is None or not math.isfinite(value) for value in values) or not np.any(arc_HW):
        return None
    theta_e, lens_e, phi, shear, shear_phi, x, y, r_e, e, source_phi, fwhm = (float(value) for value in values)  # type: ignore[arg-type]
    if not (r_e > 0 and fwhm > 0 and theta_e > 0):
        return None
    q = (1.0 - lens_e) / (1.0 + lens_e)
    source = SersicSource(centre[0] + x, centre[1] + y, r_e, settings.sersic_n, (1.0 - e) / (1.0 + e), source_phi)
    result = {"q": q}
    for convention in CONVENTIONS:
        true = true_theta_e(theta_e, lens_e, row.get("lens_model"), convention)
        g1, g2 = shear * math.cos(2.0 * shear_phi), shear * math.sin(2.0 * shear_phi)
        lens = Lens(true or 0.0, q, phi, g1, g2, *centre)
        model_HW = convolve_and_sample(render_fine(lens, source, arc_HW.shape[-1], pixel_scale), Psf(psf, fwhm))
        correlation, dx, dy = cross_correlate(arc_HW, model_HW)
        result |= {convention: correlation, f"{convention}_dx": dx, f"{convention}_dy": dy}
    total = row.get("total_injected_flux_r")
    if total is not None and total > 0:
        result["flux_ratio"] = float(arc_HW.sum() / total)
    return result


def cross_correlate(image_HW: NDArray[np.float64], model_HW: NDArray[np.float64]) -> tuple[float, float, float]:
    """Largest normalised correlation of two images over all shifts, and that shift (x, y) of the first, pixels.

    Images are padded with zeros, so that nothing wraps around; the maximum is refined by a parabola along each axis.
    """
    shape = [2 * length for length in image_HW.shape]
    spectra = (scipy.fft.rfft2(image_HW, shape), scipy.fft.rfft2(model_HW, shape))
    values = scipy.fft.fftshift(scipy.fft.irfft2(spectra[0] * np.conj(spectra[1]), shape))
    peak = tuple(int(index) for index in np.unravel_index(np.argmax(values), values.shape))
    norm = math.sqrt(float((image_HW**2).sum() * (model_HW**2).sum()))
    refined = [
        index - length / 2 + _vertex(values, peak, axis)
        for axis, (index, length) in enumerate(zip(peak, shape, strict=True))
    ]
    return (float(values[peak]) / norm if norm > 0 else 0.0), refined[1], refined[0]


def summarise(audits: Sequence[Mapping[str, float]], configured: str) -> dict[str, Any]:
    """What the audited rows say together.

    Returns:
        Number of rows, the convention that fits elongated lenses better (None where there are none), its share of
        them, percentiles of correlation, shift and flux ratio under it, and `median_shift_pixels`, the length of the
        median shift.
    """
    if not audits:
        return {"rows": 0}
    elongated = [audit for audit in audits if audit["q"] < _ELONGATED]
    lacking = [audit["lacks_sqrt_q"] > audit["product_average"] for audit in elongated]
    share = float(np.mean(lacking)) if lacking else None
    fits = None if share is None else CONVENTIONS[0] if share > 0.5 else CONVENTIONS[1]
    best = fits or configured
    dx, dy = (np.array([audit[f"{best}_{axis}"] for audit in audits]) for axis in ("dx", "dy"))
    ratios = [audit["flux_ratio"] for audit in audits if "flux_ratio" in audit]
    return {
        "rows": len(audits),
        "elongated_lenses": len(elongated),
        "convention_that_fits": fits,
        "share_lacks_sqrt_q": share,
        "correlation": _percentiles([audit[best] for audit in audits]),
        "shift_x_pixels": _percentiles(dx),
        "shift_y_pixels": _percentiles(dy),
        "median_shift_pixels": float(math.hypot(np.median(dx), np.median(dy))),
        "flux_ratio": _percentiles(ratios) if ratios else None,
    }


def check_audit(summary: Mapping[str, Any], settings: AuditSettings, where: str) -> str | None:
    """A warning where the stored arcs of Sersic sources are displaced or none could be rendered; else None.

    Args:
        summary: of `summarise`, and `looked_at`, the number of positives that were to be rendered.
        settings: with `rows` above 0.
        where: the stored data.

    Raises:
        BadInputError: they are, or none could, and `on_failure` is `refuse`.
    """
    if summary["rows"] == 0:
        sentence = (
            f"No arc of {where} could be rendered again from its parameters ({summary['looked_at']} were looked at), "
            "so nobody knows whether arcs lie where the rows say"
        )
        remedy = "look for nulls in lens_*, src_* and psf_fwhm_used_r and for coadds that are missing"
    elif summary["median_shift_pixels"] > settings.max_shift_pixels:
        sentence = (
            f"The arcs of {where} lie {summary['median_shift_pixels']:.1f} pixels (median of {summary['rows']}) from "
            f"where their parameters put them, more than {settings.max_shift_pixels:g}: they were convolved with a "
            "kernel that was not centred"
        )
        remedy = "inject them again"
    else:
        return None
    if settings.on_failure == "refuse":
        raise BadInputError(f"{sentence}; {remedy}, or set stored.audit.on_failure: flag to take them as they are.")
    return f"{sentence}."


def ratio_summary(ratios: Sequence[float]) -> dict[str, float]:
    """Number and percentiles of stored arc_snr over the same measured from the pixels."""
    return {"rows": len(ratios)} | (_percentiles(ratios) if len(ratios) else {})


def check_ratio(summary: Mapping[str, float], where: str) -> str | None:
    """A warning where stored arc_snr is in another unit than the pixels, by `ratio_summary`; else None."""
    low, high = _RATIOS
    if summary["rows"] == 0 or low <= summary["p50"] <= high:
        return None
    return (
        f"Stored arc_snr of {where} is {summary['p50']:.3g} times (median of {summary['rows']}) what the pixels give, "
        "so cuts on arc_snr_maxpix do not mean what they did; its weights or its flux were in another unit."
    )


def _vertex(values: NDArray[np.float64], peak: tuple[int, ...], axis: int) -> float:
    """Offset of the parabola's maximum through the peak and its two neighbours, within half a pixel."""
    index = peak[axis]
    if not 0 < index < values.shape[axis] - 1:
        return 0.0
    before, here, after = (
        float(values[tuple(i + step * (k == axis) for k, i in enumerate(peak))]) for step in (-1, 0, 1)
    )
    curvature = before - 2.0 * here + after
    return 0.0 if curvature >= 0 else float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5))


def _percentiles(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    found = np.percentile(np.asarray(values, dtype=np.float64), _PERCENTILES)
    return {f"p{percentile:02d}": float(value) for percentile, value in zip(_PERCENTILES, found, strict=True)}
