"""Completeness of a frozen finder for lenses with given properties, from selection_function.parquet.

    from dark_halo_scope.evaluation.completeness_lookup import load_selection_function
    C = load_selection_function("selection_function.parquet")
    found = C(theta_e=[0.8, 1.2, 2.0], z=[0.3, 0.5, 0.7])
    print(found.value, found.low, found.high, found.flag)

Properties that are not given are averaged over, as the injections have them. Nothing here imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.completeness import MIN_SKY_CELL, bin_of
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.selection_export import read_parquet
from dark_halo_scope.evaluation.selection_function import ALL, Share, effective, envelope, share_of

#: The threshold that is meant where none is named.
_USUAL = "p0.5"

_SKY = ("psfsize_r", "psfdepth_r")
#: Share of the sky's area below which a mean over the sky is of a part of it.
_WHOLE_SKY = 0.95
_SUMS = ("n", "k", "weight", "weight_found", "weight_squared")


@dataclass(frozen=True)
class Completeness:
    """Completeness of lenses, in the shape of the properties that were asked for.

    value: share found; NaN where `flag` is `outside` or `empty`.
    low, high: its statistical interval.
    family_low, family_high: lowest and highest of the source families.
    envelope_low, envelope_high: of the families' intervals: what is unknown of sources, and statistics, together.
    n: injections that say so, of all families asked for.
    area_covered: share of the survey's area within the edges of PSF and depth that value and envelope speak for: where
        injections are too few, sky counts for nothing. NaN where there is no value, and with over='injections'.
    flag: empty text; `part of the sky`: area_covered is below 0.95; `too few` injections; `empty`: none there;
        `outside`: beyond the edges, or NaN.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    family_low: FloatArray
    family_high: FloatArray
    envelope_low: FloatArray
    envelope_high: FloatArray
    n: NDArray[np.int64]
    area_covered: FloatArray
    flag: NDArray[np.str_]


class SelectionFunction:
    """C of a frozen finder, a function of arrays of lens properties.

    facts: generation, thresholds by name, families, edges, confidence and checksums.
    """

    def __init__(self, columns: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        self.facts = facts
        self._edges: dict[str, Sequence[float]] = facts["edges"]
        # The last place along an axis is of what is unknown or beyond its edges.
        self._shape = tuple(len(self._edges[name]) for name in AXES)
        places = [_place(columns[f"{name}_low"], self._edges[name]) for name in AXES]
        cell = np.ravel_multi_index(tuple(places), self._shape)
        self._sums: dict[tuple[str, str], dict[str, FloatArray]] = {}
        for threshold in facts["thresholds"]:
            for family in facts["families"]:
                chosen = (columns["threshold"] == threshold) & (columns["family"] == family)
                self._sums[threshold, family] = {
                    name: _scatter(columns[name][chosen], cell[chosen], self._shape) for name in _SUMS
                }
        self._area = self._sky_area(columns, places)

    def __call__(
        self,
        *,
        theta_e: ArrayLike | None = None,
        z: ArrayLike | None = None,
        psfsize: ArrayLike | None = None,
        psfdepth: ArrayLike | None = None,
        rmag: ArrayLike | None = None,
        lensed_mag: ArrayLike | None = None,
        threshold: str | None = None,
        family: str = ALL,
        weights: Literal["prior", "none"] = "prior",
        over: Literal["injections", "sky"] = "injections",
    ) -> Completeness:
        """Completeness in the cells that hold the given properties.

        Args:
            theta_e: Einstein radius in arcsec; this and the others are arrays that broadcast, or None: averaged over.
            z: redshift of the host.
            psfsize: FWHM in r in arcsec (noise-equivalent area).
            psfdepth: 5-sigma depth in r, AB.
            rmag: magnitude of the host in r, AB.
            lensed_mag: magnitude of the source's images together in r, AB.
            threshold: its name; None is `p0.5` where there is one, else the first of `facts["thresholds"]`.
            family: of sources, or `all`.
            weights: `prior`: what is averaged over counts as the prior has it; `none`: as it was injected.
            over: `sky`: PSF and depth count as the survey has them, where neither is asked for.

        Raises:
            BadInputError: there is no such threshold or family, or the survey's area is not known or not applicable.
        """
        given = dict(zip(AXES, (theta_e, z, psfsize, psfdepth, rmag, lensed_mag), strict=True))
        asked = [name for name in AXES if given[name] is not None]
        values = np.broadcast_arrays(*(np.asarray(given[name], dtype=float) for name in asked)) if asked else []
        shape = values[0].shape if asked else ()
        bins = [
            bin_of(np.atleast_1d(axis).ravel(), self._edges[name]) for name, axis in zip(asked, values, strict=True)
        ]
        inside = np.all([place >= 0 for place in bins], axis=0) if asked else np.ones(1, dtype=bool)
        where = tuple(np.maximum(place, 0) for place in bins)
        name = self._threshold(threshold)
        families = self._families(family)
        if over == "sky" and (self._area is None or set(_SKY) & set(asked)):
            reason = "PSF or depth is given" if set(_SKY) & set(asked) else "this file knows no area of a survey"
            raise BadInputError(f"A mean over the sky cannot be had: {reason}; ask with over='injections'.")
        parts = [self._share([each], name, asked, where, weights, over) for each in families]
        whole, n, covered = self._share(families, name, asked, where, weights, over)
        around = envelope([part for part, _, _ in parts])
        # Families that have no value here are in no envelope.
        covered = np.fmin.reduce([covered, *(area for _, _, area in parts)])
        too_few = n < self.facts["min_cell"] * (self.facts["rows_per_draw"] if len(families) > 1 else 1.0)
        reasons = {
            "outside": ~inside,
            "empty": np.isnan(whole.value),
            "part of the sky": covered < _WHOLE_SKY,
            "too few": too_few,
        }
        flag = np.select(list(reasons.values()), list(reasons), "")

        def shaped(column: FloatArray) -> FloatArray:
            return np.where(inside, column, np.nan).reshape(shape)

        return Completeness(
            value=shaped(whole.value),
            low=shaped(whole.low),
            high=shaped(whole.high),
            family_low=shaped(around["family_low"]),
            family_high=shaped(around["family_high"]),
            envelope_low=shaped(around["envelope_low"]),
            envelope_high=shaped(around["envelope_high"]),
            n=np.where(inside, n, 0).astype(np.int64).reshape(shape),
            area_covered=shaped(covered),
            flag=flag.reshape(shape),
        )

    def _share(
        self,
        families: Sequence[str],
        threshold: str,
        asked: Sequence[str],
        where: tuple[NDArray[np.intp], ...],
        weights: str,
        over: str,
    ) -> tuple[Share, FloatArray, FloatArray]:
        """The share found in each cell asked for, how many injections it is of, and of how much of the sky's area."""
        kept = [*asked, *(_SKY if over == "sky" else ())]
        dropped = tuple(place for place, name in enumerate(AXES) if name not in kept)
        sums = {
            key: np.sum([self._sums[threshold, each][key] for each in families], axis=0).sum(axis=dropped)
            for key in _SUMS
        }
        # Axes stand in the order of AXES; cells asked for come first, then PSF and depth.
        order = [name for name in AXES if name in kept]
        sums = {key: np.transpose(part, [order.index(name) for name in kept]) for key, part in sums.items()}
        at = {key: part[where] if where else part[None] for key, part in sums.items()}
        shared = self.facts["rows_per_draw"] if len(families) > 1 else 1.0
        if weights == "prior":
            found, total = at["weight_found"], at["weight"]
            worth = effective(at["weight"], at["weight_squared"]) / shared
        else:
            found, total, worth = at["k"], at["n"], at["n"] / shared
        if over == "sky":
            assert self._area is not None
            return self._over_sky(found, total, worth, at["n"], self._area)
        return share_of(found, total, worth, self.facts["confidence"]), at["n"], np.full(at["n"].shape, np.nan)

    def _over_sky(
        self, found: FloatArray, total: FloatArray, worth: FloatArray, n: FloatArray, area: FloatArray
    ) -> tuple[Share, FloatArray, FloatArray]:
        """Post-stratified by the survey's area; strata of fewer than MIN_SKY_CELL injections cannot speak for theirs.

        The variance is that of independent strata, their shares drawn towards one half by one trial, and the interval
        is Clopper-Pearson's of as many trials as have that variance.
        """
        inner = (slice(None), slice(0, area.shape[0]), slice(0, area.shape[1]))
        found, total, worth, n = (part[inner] for part in (found, total, worth, n))
        usable = (n >= MIN_SKY_CELL) & (total > 0) & (area > 0)
        weight = np.where(usable, area, 0.0)
        whole = weight.sum(axis=(1, 2), keepdims=True)
        weight = np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 0)
        share = np.divide(found, total, out=np.zeros_like(total), where=total > 0)
        value = (weight * share).sum(axis=(1, 2))
        drawn = (share * worth + 0.5) / (worth + 1)
        spread = np.divide(drawn * (1 - drawn), worth, out=np.zeros_like(worth), where=worth > 0)
        variance = (weight**2 * spread).sum(axis=(1, 2))
        known = variance > 0
        mean = (weight * drawn).sum(axis=(1, 2))
        trials = np.divide(mean * (1 - mean), variance, out=np.zeros_like(variance), where=known)
        kept = known.astype(float)
        covered = np.where(known, whole.ravel() / area.sum(), np.nan)
        share_of_sky = share_of(value * kept, kept, trials, self.facts["confidence"])
        return share_of_sky, (n * usable).sum(axis=(1, 2)), covered

    def _threshold(self, name: str | None) -> str:
        names = list(self.facts["thresholds"])
        if name is not None and name not in names:
            raise BadInputError(f"There is no threshold {name!r} here; there are: {', '.join(names)}.")
        usual = _USUAL if _USUAL in names else names[0]
        return usual if name is None else name

    def _families(self, name: str) -> list[str]:
        families: list[str] = self.facts["families"]
        if name != ALL and name not in families:
            raise BadInputError(f"There is no family {name!r} here; there are: {', '.join([ALL, *families])}.")
        return families if name == ALL else [name]

    def _sky_area(self, columns: dict[str, NDArray[Any]], places: Sequence[NDArray[np.intp]]) -> FloatArray | None:
        """(PSF bins, depth bins) area; None where the file has none."""
        known = np.isfinite(columns["sky_area_deg2"])
        if not known.any():
            return None
        psf, depth = (places[AXES.index(name)][known] for name in _SKY)
        area = np.zeros([len(self._edges[name]) - 1 for name in _SKY])
        area[psf, depth] = columns["sky_area_deg2"][known]
        return area


def load_selection_function(path: str | Path) -> SelectionFunction:
    """The selection function in a Parquet file that `measure_selection_function` wrote.

    Raises:
        BadInputError, CorruptDataError: as `selection_export.read_parquet`.
    """
    return SelectionFunction(*read_parquet(Path(path)))


def _place(low: FloatArray, edges: Sequence[float]) -> NDArray[np.intp]:
    """Bin whose lower edge this is; the number of bins where there is none."""
    return np.where(np.isnan(low), len(edges) - 1, np.searchsorted(edges, low)).astype(np.intp)


def _scatter(values: NDArray[Any], cell: NDArray[np.intp], shape: tuple[int, ...]) -> FloatArray:
    sums = np.bincount(cell, weights=values.astype(float), minlength=int(np.prod(shape)))
    return np.asarray(sums, dtype=float).reshape(shape)
