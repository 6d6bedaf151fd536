"""Injections whose hosts look like the galaxies of known lenses: photometry of both alike, and nearest neighbours.

Shape legend: N stamps, B bands g, r, z, H rows, W columns; L lenses, I injections, V variables. Pixels are nanomaggies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.arc_light import find_galaxy
from dark_halo_scope.evaluation.realism_config import MatchSettings
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import magnitude

FloatArray = NDArray[np.float64]

#: What a pair beyond the caliper costs: more than any number of pairs within, so that it is taken only if it must be.
_BEYOND = 1e6


def host_photometry(
    images_NBHW: NDArray[np.floating], centre_N2: FloatArray, settings: MatchSettings
) -> dict[str, FloatArray]:
    """Magnitude, colours and concentration of the galaxies in the middle of stamps.

    Catalogues know hosts of injections without their arc and lenses with theirs, so both are measured here, with arc,
    in an aperture that most arcs lie outside of.

    Args:
        images_NBHW: stamps in g, r, z.
        centre_N2: where each galaxy should be, x and y in arcsec from the stamp's centre.
        settings: aperture, sky and recentring.

    Returns:
        mag_r, colour_gr, colour_rz (AB mag) and concentration, each (N,); NaN where a flux is not positive or a pixel
        is not finite.

    Raises:
        BadInputError: the stamps are too small to have any sky.
    """
    rows, columns = images_NBHW.shape[-2:]
    if min(rows, columns) * PIXEL_SCALE / 2 <= settings.sky_arcsec:
        raise BadInputError(
            f"Stamps of {rows} x {columns} pixels have no sky beyond {settings.sky_arcsec:g} arcsec; lower sky_arcsec "
            "in the settings of realism."
        )
    x = (np.arange(columns) - (columns - 1) / 2) * PIXEL_SCALE
    y = (np.arange(rows) - (rows - 1) / 2) * PIXEL_SCALE
    fluxes = np.full((len(images_NBHW), 4), np.nan)
    for index, (stamp, centre) in enumerate(zip(images_NBHW, centre_N2, strict=True)):
        if not np.isfinite(stamp).all():
            continue
        at = find_galaxy(stamp[2], centre, settings.recentre_arcsec)
        radius = np.hypot(x[None, :] - at[0], y[:, None] - at[1])
        light = stamp.astype(np.float64) - np.median(stamp[:, radius >= settings.sky_arcsec], axis=1)[:, None, None]
        fluxes[index, :3] = light[:, radius < settings.aperture_arcsec].sum(axis=1)
        fluxes[index, 3] = light[1, radius < settings.inner_arcsec].sum()
    g, r, z = (magnitude(fluxes[:, band]) for band in range(3))
    inner = np.where(np.isfinite(r), fluxes[:, 3], np.nan)
    return {
        "mag_r": r,
        "colour_gr": g - r,
        "colour_rz": r - z,
        "concentration": inner / np.where(np.isfinite(r), fluxes[:, 1], 1.0),
    }


@dataclass(frozen=True)
class Match:
    """Which injection was matched to which lens.

    lens, first: (M,) places of the lenses matched and of their injections, each used once.
    second: (M,) places of other injections matched to the same lenses; -1 where there is none within the caliper.
    distance: (M,) of the first, in standard deviations.
    """

    lens: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    distance: FloatArray


def match_hosts(lenses_LV: FloatArray, injections_IV: FloatArray, caliper: float) -> Match:
    """The assignment of injections to lenses, without replacement, that has the least total distance.

    Distances are Euclidean, each variable in units of its standard deviation, the root mean square of the two classes'
    own. A lens farther than `caliper` from all that is left has no match. Then the same again with the injections that
    are left, for a second sample of hosts matched in the same way.

    Args:
        lenses_LV, injections_IV: variables; rows with a value that is not finite are not matched.
        caliper: largest distance of a pair.
    """
    lens, injection = (np.flatnonzero(np.isfinite(values).all(axis=1)) for values in (lenses_LV, injections_IV))
    nothing = np.empty(0, dtype=np.intp)
    if len(lens) < 2 or len(injection) < 2:  # no standard deviation
        return Match(nothing, nothing, nothing, np.empty(0))
    a, b = lenses_LV[lens], injections_IV[injection]
    scale = pooled_deviation(a, b)
    distance = cdist(a / scale, b / scale)
    first = _assigned(distance, caliper)
    matched = np.flatnonzero(first >= 0)
    left = np.setdiff1d(np.arange(len(injection)), first[matched])
    again = _assigned(distance[np.ix_(matched, left)], caliper)
    second = np.full(len(matched), -1, dtype=np.intp)
    if len(left):
        second = np.where(again >= 0, injection[left[again]], -1)
    return Match(lens[matched], injection[first[matched]], second, distance[matched, first[matched]])


def pooled_deviation(first: FloatArray, second: FloatArray) -> FloatArray:
    """(V,) root mean square of two samples' standard deviations; 1 for what never varies."""
    deviation = np.sqrt((np.var(first, axis=0) + np.var(second, axis=0)) / 2)
    return np.where(deviation > 0, deviation, 1.0)


def match_quality(
    lenses: Mapping[str, FloatArray], injections: Mapping[str, FloatArray], match: Match
) -> dict[str, dict[str, float | None]]:
    """How alike the classes are, variable by variable, before and after matching.

    Returns:
        variable -> mean of the lenses matched, of all injections and of those matched, and the standardised mean
        difference (lenses less injections, in `pooled_deviation`s of all) before and after; None where unknown.
    """
    result = {}
    for name, values in lenses.items():
        before = [sample[np.isfinite(sample)] for sample in (values, injections[name])]
        after = [values[match.lens], injections[name][match.first]]
        known = min(len(sample) for sample in (*before, *after)) > 1
        scale = float(pooled_deviation(*(sample[:, None] for sample in before))[0]) if known else float("nan")
        numbers = {
            "lenses": _mean(after[0]),
            "injections": _mean(before[1]),
            "matched": _mean(after[1]),
            "difference_before": (_mean(before[0]) - _mean(before[1])) / scale,
            "difference_after": (_mean(after[0]) - _mean(after[1])) / scale,
        }
        result[name] = {key: value if np.isfinite(value) else None for key, value in numbers.items()}
    return result


def _mean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _assigned(distance: FloatArray, caliper: float) -> NDArray[np.intp]:
    """(L,) column of each row, -1 where none is left within the caliper."""
    result = np.full(len(distance), -1, dtype=np.intp)
    rows, columns = linear_sum_assignment(np.where(distance <= caliper, distance, _BEYOND))
    near = distance[rows, columns] <= caliper
    result[rows[near]] = columns[near]
    return result
