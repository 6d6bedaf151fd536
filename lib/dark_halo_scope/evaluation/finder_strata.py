"""What a finder does under different conditions: by PSF, depth, exposures and type of the galaxy."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dark_halo_scope.evaluation.finder_images import UNKNOWN, FinderImages, Mask
from dark_halo_scope.evaluation.finder_rates import Cuts, auc_entry, rates, survey_rates
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.validation_config import ValidationSettings

#: Exposures in z, as the plan's strata have them; those of an integer are apart by halves.
_NOBS_Z_EDGES = (2.5, 5.5, 10.5)


def measure_strata(test: FinderImages, cuts: Cuts, settings: ValidationSettings) -> dict[str, list[dict[str, Any]]]:
    """By condition, its strata in order: `name`, counts, recall, FPR (of the sample and of the survey) and AUC.

    Both classes are restricted to the stratum. A stratum without images stays, so that what was not tested shows.
    """
    chosen = {name: cuts[name] for name in settings.strata_at if name in cuts}
    return {
        condition: [_stratum(test, name, rows, chosen, settings) for name, rows in parts]
        for condition, parts in conditions(test, settings).items()
    }


def conditions(images: FinderImages, settings: ValidationSettings) -> dict[str, list[tuple[str, Mask]]]:
    """By condition, the name and the (N,) images of each stratum. Conditions that nothing is known of have none."""
    everything = np.ones(len(images), bool)
    found = {
        "psfsize_r": _bins(images.numbers.get("psfsize_r"), settings.psfsize_edges),
        "psfdepth_r": _bins(images.numbers.get("psfdepth_r"), settings.psfdepth_edges),
    }
    for condition, column in (("nobs_z", "nobs_z_bin"), ("type", "type")):
        names = images.values(column, everything) if column in images.texts else []
        found[condition] = [(name, images.is_text(column, name)) for name in names]
    if not found["nobs_z"]:
        found["nobs_z"] = _bins(images.numbers.get("nobs_z"), _NOBS_Z_EDGES)
    return found


def _bins(values: FloatArray | None, edges: Sequence[float]) -> list[tuple[str, Mask]]:
    return [] if values is None else list(_bin_masks(values, edges))


def _bin_masks(values: FloatArray, edges: Sequence[float]) -> Iterator[tuple[str, Mask]]:
    yield f"below {edges[0]:g}", values < edges[0]
    for low, high in pairwise(edges):
        yield f"[{low:g},{high:g})", (values >= low) & (values < high)
    yield f"{edges[-1]:g} and above", values >= edges[-1]
    if np.isnan(values).any():
        yield UNKNOWN, np.isnan(values)


def _stratum(test: FinderImages, name: str, rows: Mask, cuts: Cuts, settings: ValidationSettings) -> dict[str, Any]:
    positive, negative = rows & test.positive, rows & ~test.positive
    tier_a = positive & test.is_text("tier", "A")
    return {
        "name": name,
        "positives": int(positive.sum()),
        "negatives": int(negative.sum()),
        "recall": rates(test, positive, cuts, settings.confidence),
        "recall_tier_a": rates(test, tier_a, cuts, settings.confidence),
        "fpr": rates(test, negative, cuts, settings.confidence),
        "survey_fpr": survey_rates(test, negative, cuts, settings.confidence),
        "auc": auc_entry(test.logit[positive], test.logit[negative], settings.confidence, settings.min_stratum),
    }
