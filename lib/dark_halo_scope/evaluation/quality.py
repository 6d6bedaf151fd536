"""What a dataset of stamps is made of, and whether it may be trained on: pure functions of its rows and images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dark_halo_scope.catalogue.crossmatch import close_pairs, separation
from dark_halo_scope.catalogue.splits import SPLITS, healpix_cell, split_of_cells
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.pairs import column, stratum_masks, theta_e_over_psf

# Columns whose distribution is reported, split by split.
_DISTRIBUTIONS = (
    *("theta_e_arcsec", "arc_snr", "arc_snr_maxpix", "magnification", "expected_arc_radius", "src_reff_arcsec"),
    *("src_mag_r", "lensed_mag_g", "lensed_mag_r", "lensed_mag_z", "psfsize_r", "psfdepth_r", "bad_pixel_frac"),
    *("wise_brightmask_frac", "sampling_weight", "z_phot"),
)
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_EXAMPLES = 5


def usable_rows(rows: pa.Table) -> NDArray[np.bool_]:
    """Rows whose cutout succeeded."""
    return column(rows, "cutout_ok") == 1


def counts(rows: pa.Table, settings: DatasetCheckSettings) -> dict[str, Any]:
    """Rows, usable rows, hosts, cells, controls and pairs per stratum of x = theta_E / psfsize_r, split by split."""
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
            "controls": int((here & usable & control).sum()),
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
    }


def refusals(report: Mapping[str, Any], settings: DatasetCheckSettings) -> list[str]:
    """Why the dataset may not be trained on: one sentence each; none accepts it.

    Args:
        report: with `counts`, `failed_fraction`, `split_integrity` and `pixels`.
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


def _named(keys: NDArray[np.str_], split: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    return keys[keys != ""], split[keys != ""]


def _in_two_splits(keys: NDArray, split: NDArray[np.str_]) -> int:
    """How many keys occur in more than one split."""
    unique, index = np.unique(keys, return_inverse=True)
    seen = np.zeros((len(unique), len(SPLITS) + 1), dtype=bool)
    place = {name: number for number, name in enumerate(SPLITS)}
    seen[index, [place.get(name, len(SPLITS)) for name in split.tolist()]] = True
    return int((seen.sum(axis=1) > 1).sum())
