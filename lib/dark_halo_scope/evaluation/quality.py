"""What a dataset of stamps is made of, and whether it may be trained on: pure functions of its rows and images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import close_pairs, separation
from dark_halo_scope.catalogue.splits import SPLITS, TRAIN_BELOW, VAL_BELOW, healpix_cell, split_of_cells
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.dataset_rows import CONFUSERS, DatasetRows
from dark_halo_scope.evaluation.pairs import stratum_masks
from dark_halo_scope.injection.schema import UNPAIRED

# Columns whose distribution is reported, split by split.
_DISTRIBUTIONS = (
    *(
        "theta_e_arcsec",
        "theta_e_arcsec_true",
        "arc_snr",
        "arc_snr_maxpix",
        "magnification",
        "expected_arc_radius",
        "src_reff_arcsec",
    ),
    *("src_mag_r", "lensed_mag_g", "lensed_mag_r", "lensed_mag_z", "psfsize_r", "psfdepth_r", "bad_pixel_frac"),
    *("wise_brightmask_frac", "sampling_weight", "z_phot"),
)
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_EXAMPLES = 5
# `config_id` of a host whose parameters come from the prior, not from a cell of a grid.
_NO_CELL = "PRIOR"
_SHARES = {"train": TRAIN_BELOW, "val": VAL_BELOW - TRAIN_BELOW, "test": 1 - VAL_BELOW}


def counts(rows: DatasetRows, settings: DatasetCheckSettings) -> dict[str, Any]:
    """Rows, usable rows, hosts, cells, controls, confusers by class and pairs per stratum of x, split by split.

    x = theta_E / psfsize_r; controls are those of an unpaired dataset.
    """
    unpaired, confusers = rows.negatives(UNPAIRED), rows.negatives(CONFUSERS)
    result: dict[str, Any] = {}
    for number, name in enumerate(SPLITS):
        here = rows.split == number
        usable = here & rows.usable
        strata = stratum_masks(rows.x[here & rows.pair], settings.strata)
        result[name] = {
            "rows": int(here.sum()),
            "usable": int(usable.sum()),
            "pairs": int((here & rows.pair).sum()),
            "controls": int((usable & unpaired).sum()),
            "confusers": rows.tally("kind", usable & confusers),
            "hosts": len(np.unique(rows.host[usable])),
            "cells": len(np.unique(rows.cell[usable])),
            "strata": {stratum: int(mask.sum()) for stratum, mask in strata.items()},
        }
    return result


def failures(rows: DatasetRows) -> dict[str, int]:
    """Reason -> number of failed cutouts."""
    found = rows.tally("reason", ~rows.usable)
    unknown = int((~rows.usable).sum()) - sum(found.values()) + found.pop("", 0)
    return found | ({"unknown": unknown} if unknown else {})


def distributions(rows: DatasetRows) -> dict[str, Any]:
    """Split -> column -> {n, missing, percentiles} over usable pairs, and the same weighted by sampling_weight.

    The weighted magnitudes are the prior's; the plain ones are the sample's, where a target arc_snr reweighted it.
    One column at a time is in memory.
    """
    weights = rows.numbers("sampling_weight")
    assert weights is not None, "read_rows asks for the column"
    weights = np.nan_to_num(weights)
    chosen = {name: rows.pair & (rows.split == number) for number, name in enumerate(SPLITS)}
    result: dict[str, Any] = {name: {} for name in SPLITS}
    for column_name in _DISTRIBUTIONS:
        values = rows.numbers(column_name)
        if values is not None:
            for name, mask in chosen.items():
                result[name][column_name] = distribution(values[mask], weights[mask])
    return result


def split_integrity(rows: DatasetRows, settings: DatasetCheckSettings, split_seed: int) -> dict[str, Any]:
    """Whether anything is on both sides of a split: cells, hosts, sources, or one object under two names.

    Args:
        rows: of the dataset.
        settings: of the check.
        split_seed: of the hash that gave cells their splits.

    Returns:
        Counts that must be 0, a few examples, pairs of hosts within `pair_radius_arcsec` (neighbours may be that close
        where cells meet), and `split_proportions` measured over hosts.
    """
    split, ra, dec = rows.split, rows.ra, rows.dec
    first = np.unique(rows.host, return_index=True)[1]
    pairs = close_pairs(ra[first], dec[first], settings.pair_radius_arcsec)
    host_split = split[first]
    close = pairs[host_split[pairs[:, 0]] != host_split[pairs[:, 1]]]
    one, other = first[close[:, 0]], first[close[:, 1]]
    leaks = close[separation(ra[one], dec[one], ra[other], dec[other]) <= settings.same_object_arcsec]
    unique, cells_first, cell = np.unique(rows.cell, return_index=True, return_inverse=True)
    places = {name: number for number, name in enumerate(SPLITS)}
    due = np.array([places[name] for name in split_of_cells(unique, split_seed).tolist()], dtype=split.dtype)
    known = rows.source >= 0
    return {
        "cells_in_two_splits": _in_two_splits(cell, split),
        "hosts_in_two_splits": _in_two_splits(rows.host, split),
        "sources_in_two_splits": _in_two_splits(rows.source[known], split[known]),
        "rows_of_another_cell": int((rows.cell != healpix_cell(ra, dec)).sum()),
        "rows_of_another_split": int((split != due[cell]).sum()),
        "rows_of_no_known_split": int((split < 0).sum()),
        "objects_in_two_splits": len(leaks),
        "close_pairs_across_splits": len(close),
        "objects_examples": [
            {"hosts": [_named(rows, index) for index in pair], "splits": [_split_name(split[index]) for index in pair]}
            for pair in first[leaks[:_EXAMPLES]].tolist()
        ],
        "split_proportions": {name: float(np.mean(host_split == number)) for name, number in places.items()},
        # 70, 15 and 15% are shares of sky, whatever limits a dataset sets to its hosts.
        "cell_proportions": {
            "cells": len(unique),
            **{
                name: float(np.mean(split[cells_first] == number)) if len(unique) else 0.0
                for name, number in places.items()
            },
        },
    }


def duplicates(rows: DatasetRows) -> int:
    """Usable rows that repeat an earlier one's brick, position, configuration and replicate; packing drops them.

    Of a negative its place alone counts, because its replicates are one image.
    """
    usable, control = rows.usable, rows.control[rows.usable]
    identity = {"brick": rows.brick[usable], "ra": rows.ra[usable], "dec": rows.dec[usable]}
    identity["config"] = np.where(control, -2, rows.config[usable])
    identity["replicate"] = np.where(control, 0, rows.replicate[usable])
    return int(pd.DataFrame(identity).duplicated().sum())


def balance(rows: DatasetRows) -> dict[str, Any]:
    """Whether classes and grid cells are even in every stratum of a split's observing conditions.

    Returns:
        split -> stratum (`psf0 depth3`, of the manifest's bins) -> positives and unpaired controls (hosts), how many of
        the grid's cells its positives have, and how often the rarest and the most frequent cell of the whole dataset
        occur in it.
    """
    first = (rows.replicate == 0) & (rows.psf_bin >= 0) & (rows.depth_bin >= 0)
    unpaired, gridded = rows.negatives(UNPAIRED), ~rows.control & ~rows.is_named("config", [_NO_CELL])
    cells = np.unique(rows.config[first & gridded])
    result: dict[str, Any] = {name: {} for name in SPLITS}
    for psf, depth in np.unique(np.stack([rows.psf_bin, rows.depth_bin], axis=1)[first], axis=0).tolist():
        here = first & (rows.psf_bin == psf) & (rows.depth_bin == depth)
        for number, name in enumerate(SPLITS):
            of_split = here & (rows.split == number)
            # A cell that never occurs here counts 0.
            found = np.bincount(np.searchsorted(cells, rows.config[of_split & gridded]), minlength=len(cells))
            result[name][f"psf{psf} depth{depth}"] = {
                "positives": int((of_split & ~rows.control).sum()),
                "controls": int((of_split & unpaired).sum()),
                "cells": int((found > 0).sum()),
                "rarest": int(found.min(initial=len(rows))) if len(cells) else 0,
                "most_frequent": int(found.max(initial=0)),
            }
    return result


def arc_fluxes(arcs: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 3) flux in g, r, z of arcs (N, 3, H, W), positives less their controls.

    Of the whole stamps: an annulus would lose more of an arc where seeing is worse, and give constant colours the
    scatter of the bands' PSFs.
    """
    return arcs.sum(axis=(2, 3), dtype=np.float64)


def arc_colours(fluxes: NDArray[np.float64], least_scatter: float) -> dict[str, Any]:
    """Colours of the brighter half of arcs, measured in pixels.

    Args:
        fluxes: (N, 3) nanomaggies in g, r, z.
        least_scatter: mag below which arcs are said to have one colour.

    Returns:
        n, and for g - r and r - z the median, the scatter (1.4826 times the median absolute deviation), and whether
        all arcs have one colour: a network would learn that colour in place of the arc.
    """
    bright = fluxes[(fluxes > 0).all(axis=1)]
    bright = bright[bright[:, 1] >= np.median(bright[:, 1])] if len(bright) else bright
    result: dict[str, Any] = {"n": len(bright)}
    if len(bright):
        magnitudes = -2.5 * np.log10(bright)
        for number, name in enumerate(("g_minus_r", "r_minus_z")):
            colour = magnitudes[:, number] - magnitudes[:, number + 1]
            scatter = 1.4826 * float(np.median(np.abs(colour - np.median(colour))))
            result[name] = {"median": float(np.median(colour)), "scatter": scatter, "constant": scatter < least_scatter}
    return result


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What a user should know of a dataset that nothing else refuses: one sentence each.

    Args:
        report: with `shortcuts`, `duplicates`, `nulls` and `balance`.
    """
    result = []
    colours = report["shortcuts"].get("arc_colours", {})
    for name, text in (("g_minus_r", "g - r"), ("r_minus_z", "r - z")):
        if name in colours and colours[name]["constant"]:
            result.append(
                f"All arcs have one colour, {text} = {colours[name]['median']:.3f} with a scatter of "
                f"{colours[name]['scatter']:.3f} mag, which a network can learn in place of arcs"
            )
    if report["duplicates"]:
        result.append(f"{report['duplicates']} rows repeat others, and packing leaves them out")
    empty = [name for name, share in report["nulls"].items() if share == 1 and name in _DISTRIBUTIONS]
    if empty:
        result.append(f"No positive has a value in {', '.join(empty)}")
    uneven = [
        f"{split} {stratum}"
        for split, strata in report["balance"].items()
        for stratum, found in strata.items()
        if found["most_frequent"] - found["rarest"] > 1
    ]
    if uneven:
        result.append(f"Grid cells occur unevenly in {len(uneven)} strata, the first is {uneven[0]}")
    return result


def refusals(report: Mapping[str, Any], settings: DatasetCheckSettings) -> list[str]:
    """Why the dataset may not be trained on: one sentence each; none accepts it.

    Args:
        report: with `counts`, `failed_fraction`, `split_integrity`, `pixels` and `shortcuts`.
    """
    reasons = []
    leaks = report["split_integrity"]
    texts = {
        "cells_in_two_splits": "HEALPix cells lie in more than one split",
        "hosts_in_two_splits": "hosts lie in more than one split",
        "sources_in_two_splits": "source galaxies lie in more than one split",
        "rows_of_another_cell": "rows carry a HEALPix cell that is not their position's",
        "rows_of_another_split": "rows are in a split that is not their cell's",
        "rows_of_no_known_split": "rows are in no known split",
        "objects_in_two_splits": f"hosts of one split lie within {settings.same_object_arcsec:g} arcsec of another's",
    }
    if settings.shared_sources == "report":
        del texts["sources_in_two_splits"]
    reasons += [f"{leaks[key]} {text}" for key, text in texts.items() if leaks[key]]
    pixels = report["pixels"]
    reasons += [
        f"{count} of {pixels['rows_decoded']} decoded rows have a {kind} stamp that is {problem}"
        for kind, problems in pixels["bad"].items()
        for problem, count in problems.items()
        if count
    ]
    if report["failed_fraction"] > settings.max_failed_fraction:
        reasons.append(
            f"{report['failed_fraction']:.1%} of the cutouts failed, more than {settings.max_failed_fraction:.1%}"
        )
    proportions = leaks["cell_proportions"]
    for name, share in _SHARES.items():
        spread = np.sqrt(share * (1 - share) / max(proportions["cells"], 1))
        if abs(proportions[name] - share) > settings.split_tolerance + 3 * spread:
            reasons.append(
                f"split {name} has {proportions[name]:.0%} of the {proportions['cells']} HEALPix cells, not {share:.0%}"
            )
    metadata = report["shortcuts"].get("auc", {}).get(UNPAIRED, {}).get("metadata", {})
    for model, auc in metadata.items():
        if isinstance(auc, dict) and auc["interval"][0] > settings.max_metadata_auc:
            reasons.append(
                f"seeing, depth and extinction alone tell positives from unpaired controls, AUC {auc['value']:.2f} "
                f"({auc['interval'][0]:.2f}-{auc['interval'][1]:.2f}, {model}), more than {settings.max_metadata_auc:g}"
            )
    for name in SPLITS:
        usable = report["counts"][name]["usable"]
        if usable < settings.min_rows_per_split:
            reasons.append(f"split {name} has {usable} usable rows, fewer than {settings.min_rows_per_split}")
    return reasons


def distribution(values: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, Any]:
    """Number, missing values and percentiles of values (N,), NaN where missing, and the percentiles weighted (N,)."""
    known = np.isfinite(values)
    result: dict[str, Any] = {"n": int(known.sum()), "missing": int((~known).sum())}
    values, weights = values[known], weights[known]
    if len(values):
        names = [f"p{percentile:02d}" for percentile in _PERCENTILES]
        result |= dict(zip(names, np.percentile(values, _PERCENTILES).tolist(), strict=True))
        if weights.sum() > 0:
            order = np.argsort(values, kind="stable")
            cumulative = np.cumsum(weights[order]) / weights.sum()
            places = np.minimum(np.searchsorted(cumulative, np.array(_PERCENTILES) / 100 - 1e-12), len(values) - 1)
            result["weighted"] = dict(zip(names, values[order][places].tolist(), strict=True))
    return result


def _named(rows: DatasetRows, index: int) -> str:
    return f"{rows.names['brick'][rows.brick[index]]} at RA {rows.ra[index]:.6f}, Dec {rows.dec[index]:.6f}"


def _split_name(code: int) -> str:
    return SPLITS[code] if code >= 0 else "unknown"


def _in_two_splits(keys: NDArray[np.integer], split: NDArray[np.integer]) -> int:
    """How many keys occur in more than one split; what is in no known split is in one of its own."""
    both = np.unique(np.stack([keys.astype(np.int64), split.astype(np.int64)], axis=1), axis=0)
    return int((np.unique(both[:, 0], return_counts=True)[1] > 1).sum())
