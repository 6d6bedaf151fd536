"""What a dataset of stamps is made of, and whether it may be trained on: pure functions of its rows and images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import close_pairs, separation
from dark_halo_scope.catalogue.splits import SPLITS, TRAIN_BELOW, VAL_BELOW, healpix_cell, split_of_cells
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.hybrids import Geometry
from dark_halo_scope.evaluation.pairs import column, stratum_masks, theta_e_over_psf
from dark_halo_scope.injection.schema import UNPAIRED

# Columns whose distribution is reported, split by split.
_DISTRIBUTIONS = (
    *("theta_e_arcsec", "arc_snr", "arc_snr_maxpix", "magnification", "expected_arc_radius", "src_reff_arcsec"),
    *("src_mag_r", "lensed_mag_g", "lensed_mag_r", "lensed_mag_z", "psfsize_r", "psfdepth_r", "bad_pixel_frac"),
    *("wise_brightmask_frac", "sampling_weight", "z_phot"),
)
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_EXAMPLES = 5
# What `control_kind` does not call unpaired: galaxies of a class of their own.
CONFUSERS = "confusers"
# `config_id` of a host whose parameters come from the prior, not from a cell of a grid.
_NO_CELL = "PRIOR"
_SHARES = {"train": TRAIN_BELOW, "val": VAL_BELOW - TRAIN_BELOW, "test": 1 - VAL_BELOW}


def usable_rows(rows: pa.Table) -> NDArray[np.bool_]:
    """Rows whose cutout succeeded."""
    return column(rows, "cutout_ok") == 1


def counts(rows: pa.Table, settings: DatasetCheckSettings) -> dict[str, Any]:
    """Rows, usable rows, hosts, cells, controls, confusers by class and pairs per stratum of x, split by split.

    x = theta_E / psfsize_r; controls are those of an unpaired dataset.
    """
    kind = _text(rows, "control_kind")
    group = negative_kinds(rows)
    usable = usable_rows(rows)
    control = column(rows, "is_control") == 1
    split = _text(rows, "split")
    pair = usable & ~control
    x = theta_e_over_psf(rows)
    hosts = _hosts(rows)
    result: dict[str, Any] = {}
    for name in SPLITS:
        here = split == name
        strata = stratum_masks(x[here & pair], settings.strata)
        result[name] = {
            "rows": int(here.sum()),
            "usable": int((here & usable).sum()),
            "pairs": int((here & pair).sum()),
            "controls": int((here & usable & (group == UNPAIRED)).sum()),
            "confusers": _tally(kind[here & usable & (group == CONFUSERS)]),
            "hosts": len(set(hosts[here & usable].tolist())),
            "cells": len(np.unique(column(rows, "healpix_128")[here & usable])),
            "strata": {stratum: int(mask.sum()) for stratum, mask in strata.items()},
        }
    return result


def failures(rows: pa.Table) -> dict[str, int]:
    """Reason -> number of failed cutouts."""
    reasons = [reason or "unknown" for reason in rows.filter(pa.array(~usable_rows(rows)))["cutout_reason"].to_pylist()]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def distributions(rows: pa.Table) -> dict[str, Any]:
    """Split -> column -> {n, missing, percentiles} over usable pairs, and the same weighted by sampling_weight.

    The weighted magnitudes are the prior's; the plain ones are the sample's, where a target arc_snr reweighted it.
    """
    pair = usable_rows(rows) & (column(rows, "is_control") != 1)
    split = _text(rows, "split")
    result: dict[str, Any] = {}
    for name in SPLITS:
        chosen = rows.filter(pa.array(pair & (split == name)))
        weights = np.nan_to_num(column(chosen, "sampling_weight"))
        result[name] = {
            column_name: distribution(column(chosen, column_name), weights)
            for column_name in _DISTRIBUTIONS
            if column_name in rows.column_names
        }
    return result


def split_integrity(rows: pa.Table, settings: DatasetCheckSettings) -> dict[str, Any]:
    """Whether anything is on both sides of a split: cells, hosts, sources, or one object under two names.

    Returns:
        Counts that must be 0, a few examples, pairs of hosts within `pair_radius_arcsec` (neighbours may be that close
        where cells meet), and `split_proportions` measured over hosts.
    """
    split = _text(rows, "split")
    ra, dec, cells = (column(rows, name) for name in ("ra", "dec", "healpix_128"))
    cell = cells.astype(np.int64)
    hosts = _hosts(rows)
    first = np.unique(hosts, return_index=True)[1]
    pairs = close_pairs(ra[first], dec[first], settings.pair_radius_arcsec)
    host_split = split[first]
    close = pairs[host_split[pairs[:, 0]] != host_split[pairs[:, 1]]]
    one, other = first[close[:, 0]], first[close[:, 1]]
    leaks = close[separation(ra[one], dec[one], ra[other], dec[other]) <= settings.same_object_arcsec]
    wrong_cell = cell != healpix_cell(ra, dec)
    return {
        "cells_in_two_splits": _in_two_splits(cell, split),
        "hosts_in_two_splits": _in_two_splits(hosts, split),
        "sources_in_two_splits": _in_two_splits(*_named(_text(rows, "source_id"), split)),
        "rows_of_another_cell": int(wrong_cell.sum()),
        "rows_of_another_split": int((split != split_of_cells(cell)).sum()),
        "rows_of_no_known_split": int((~np.isin(split, SPLITS)).sum()),
        "objects_in_two_splits": len(leaks),
        "close_pairs_across_splits": len(close),
        "objects_examples": [
            {"hosts": [hosts[first[i]], hosts[first[j]]], "splits": [str(host_split[i]), str(host_split[j])]}
            for i, j in leaks[:_EXAMPLES].tolist()
        ],
        "split_proportions": {name: float(np.mean(host_split == name)) for name in SPLITS},
        "cell_proportions": cell_proportions(cell, split),
    }


def cell_proportions(cell: NDArray[np.int64], split: NDArray[np.str_]) -> dict[str, Any]:
    """Number of HEALPix cells and each split's share of them; 70, 15 and 15% are shares of sky, whatever limits a
    dataset sets to its hosts."""
    unique, first = np.unique(cell, return_index=True)
    shares = {name: float(np.mean(split[first] == name)) if len(unique) else 0.0 for name in SPLITS}
    return {"cells": len(unique), **shares}


def negative_kinds(rows: pa.Table) -> NDArray[np.str_]:
    """(N,) `unpaired` for controls of an unpaired dataset, `confusers` for negatives of any class, "" for positives."""
    control = column(rows, "is_control") == 1
    kind = _text(rows, "control_kind")
    return np.where(control, np.where(np.isin(kind, ("", UNPAIRED)), UNPAIRED, CONFUSERS), "")


def duplicates(rows: pa.Table) -> int:
    """Usable rows that repeat an earlier one's brick, position, configuration and replicate; packing drops them."""
    usable = rows.filter(pa.array(usable_rows(rows)))
    identity = usable.select(["brickname", "ra", "dec", "config_id", "replicate"]).to_pandas()
    return int(identity.duplicated().sum())


def null_shares(rows: pa.Table) -> dict[str, float]:
    """Column -> share of nulls among usable positives, where there are any: what a column lacks is said."""
    positives = rows.filter(pa.array(usable_rows(rows) & (column(rows, "is_control") != 1)))
    shares = {name: positives[name].null_count / max(positives.num_rows, 1) for name in positives.column_names}
    return {name: share for name, share in sorted(shares.items()) if share > 0}


def balance(rows: pa.Table) -> dict[str, Any]:
    """Whether classes and grid cells are even in every stratum of a split's observing conditions.

    Returns:
        split -> stratum (`psf0 depth3`, of the manifest's bins) -> positives and unpaired controls (hosts), the grid's
        cells that positives have, and how often the rarest and the most frequent of them occur.
    """
    if not {"psf_bin", "depth_bin"} <= set(rows.column_names):
        return {}
    split, config, group = _text(rows, "split"), _text(rows, "config_id"), negative_kinds(rows)
    psf_bin, depth_bin = column(rows, "psf_bin"), column(rows, "depth_bin")
    first = (column(rows, "replicate") == 0) & np.isfinite(psf_bin) & np.isfinite(depth_bin)
    result: dict[str, Any] = {name: {} for name in SPLITS}
    keys = np.stack([psf_bin, depth_bin], axis=1)
    for psf, depth in np.unique(keys[first], axis=0).astype(int).tolist():
        here = first & (psf_bin == psf) & (depth_bin == depth)
        for name in SPLITS:
            positives = here & (split == name) & (group == "")
            cells = _tally(config[positives & (config != _NO_CELL)])
            result[name][f"psf{psf} depth{depth}"] = {
                "positives": int(positives.sum()),
                "controls": int((here & (split == name) & (group == UNPAIRED)).sum()),
                "cells": len(cells),
                "rarest": min(cells.values(), default=0),
                "most_frequent": max(cells.values(), default=0),
            }
    return result


def arc_fluxes(arcs: NDArray[np.floating], where: Geometry) -> NDArray[np.float64]:
    """(N, 3) flux in g, r, z of arcs (N, 3, H, W), positives less their controls, within their annuli."""
    return (arcs * where.annulus[:, None]).sum(axis=(2, 3), dtype=np.float64)


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


def warnings(report: Mapping[str, Any], settings: DatasetCheckSettings) -> list[str]:
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


def _text(rows: pa.Table, name: str) -> NDArray[np.str_]:
    return pc.fill_null(rows[name], "").to_numpy(zero_copy_only=False).astype(str)


def _hosts(rows: pa.Table) -> NDArray[np.str_]:
    """A name for each row's host: brick and object id, or the position where there is none."""
    if "objid" in rows.column_names and rows["objid"].null_count == 0:
        parts: Sequence[list[Any]] = [rows["brickname"].to_pylist(), rows["objid"].to_pylist()]
    else:
        parts = [np.round(column(rows, name), 6).tolist() for name in ("ra", "dec")]
    return np.array([f"{one}_{other}" for one, other in zip(*parts, strict=True)])


def _tally(values: NDArray[np.str_]) -> dict[str, int]:
    names, found = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), found.tolist(), strict=True))


def _named(keys: NDArray[np.str_], split: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    return keys[keys != ""], split[keys != ""]


def _in_two_splits(keys: NDArray, split: NDArray[np.str_]) -> int:
    """How many keys occur in more than one split."""
    unique, index = np.unique(keys, return_inverse=True)
    seen = np.zeros((len(unique), len(SPLITS) + 1), dtype=bool)
    place = {name: number for number, name in enumerate(SPLITS)}
    seen[index, [place.get(name, len(SPLITS)) for name in split.tolist()]] = True
    return int((seen.sum(axis=1) > 1).sum())
