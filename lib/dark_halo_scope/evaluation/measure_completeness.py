"""Measure the completeness of injections: completeness.json, its cells and a smooth surface as CSV.

Thresholds are chosen on validation scores, at fixed false positive rates of controls, as performance.json chooses those
of its operating points, and beside them p = 0.5; injections are those of the test split.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_paths, write_result
from dark_halo_scope.evaluation.completeness import (
    Injections,
    Sky,
    all_cells,
    bin_of,
    cell_rows,
    host_intervals,
    mean_entries,
    number,
    outside,
    sky_area,
)
from dark_halo_scope.evaluation.completeness_config import AXES, SURFACE_AXES, CellSettings, CompletenessSettings
from dark_halo_scope.evaluation.completeness_surface import Surface, fit_surface, problem
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.metrics import MIN_FALSE_POSITIVES, Rate, rate, tpr_at_fpr
from dark_halo_scope.evaluation.score_splits import LOGIT, Labelled, labelled, load_splits, subject
from dark_halo_scope.evaluation.score_table import POSITIVE, ScoreTable, galaxy_facts, read_scores
from dark_halo_scope.survey.conditions import read_conditions
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids

MODULE = "dark_halo_scope.evaluation.measure_completeness"

_HOST_MAGNITUDE = "rmag"
_WEIGHT = "sampling_weight"
_CONDITIONS = ("psfsize_r", "psfdepth_r")
_COLUMNS = (LOGIT, "theta_e_over_psf", _WEIGHT, *AXES)
#: Whose false positive rate sets thresholds, as in the operating points of performance.json: one rate in two files must
#: mean one threshold.
_NEGATIVES = ("control",)
#: Scores hold single precision: so many decimals bring back the edges of bins.
_DECIMALS = 6

NOTES = (
    "Intervals of cells, here and in completeness.csv, take every arc for independent. `host_interval` resamples host "
    "galaxies, of which `hosts` are in a cell: the wider of the two holds.",
)

_logger = logging.getLogger(__name__)


def injections_of(table: ScoreTable, host_magnitude: FloatArray | None) -> tuple[Injections, FloatArray]:
    """The positives of a score table, and their logits.

    Args:
        table: scores with the columns that completeness depends on; one that is absent is unknown everywhere.
        host_magnitude: of each row's host, where the scores do not have it.

    Raises:
        BadInputError: there are no positives, or a weight is unknown or negative.
    """
    chosen = table.kind == POSITIVE
    if not chosen.any():
        raise BadInputError("The test scores hold no positives; score a split that has injections.")
    known = dict(table.numbers)
    if _HOST_MAGNITUDE not in known and host_magnitude is not None:
        known[_HOST_MAGNITUDE] = host_magnitude.astype(np.float32)
    nothing = np.full(len(table), np.nan)
    axes = {name: np.round(known.get(name, nothing)[chosen].astype(float), _DECIMALS) for name in AXES}
    # Scores carry what a stored dataset calls theta_E; its true value is in x = theta_E / PSF.
    true = np.round(known.get("theta_e_over_psf", nothing)[chosen].astype(float) * axes["psfsize_r"], _DECIMALS)
    other = np.isfinite(true) & ~np.isclose(true, axes["theta_e_arcsec"], rtol=1e-4)
    axes["theta_e_arcsec"] = np.where(other, true, axes["theta_e_arcsec"])
    weight = known[_WEIGHT][chosen].astype(float) if _WEIGHT in known else np.ones(int(chosen.sum()))
    if not np.all(weight >= 0) or not weight.any():
        raise BadInputError("A sampling_weight of the injections is unknown or negative, or all are 0; inject again.")
    host = np.unique(table.host[chosen], return_inverse=True)[1]
    return Injections(axes, weight, host), table.numbers[LOGIT][chosen].astype(float)


def operating_points(val: Labelled, test: Labelled, settings: CompletenessSettings) -> list[dict[str, Any]]:
    """Thresholds on the logit: p = 0.5, and those that give a false positive rate on validation controls.

    `logit` is None where too few controls pass for the rate to be known.

    Args:
        val, test: positives and controls.
        settings: rates and confidence.

    Raises:
        BadInputError: val has no controls, or no positives.
    """
    if not val.negatives or not val.positives:
        raise BadInputError("The validation scores lack positives or controls; score a split that has both.")
    points: list[dict[str, Any]] = [{"name": "p=0.5", "fpr_target": None, "logit": 0.0, "status": "measured"}]
    for target in settings.fpr_targets:
        point = tpr_at_fpr(val.logit[val.label == 1], val.logit[val.label == 0], target, settings.confidence)
        passed = point.fpr.successes
        status = f"not measurable: {passed} of {val.negatives} controls of val pass, {MIN_FALSE_POSITIVES} are needed"
        points.append(
            {
                "name": f"FPR={target:g}",
                "fpr_target": target,
                "logit": point.threshold if point.measurable else None,
                "status": "measured" if point.measurable else status,
            }
        )
    for entry in points:
        threshold = entry["logit"]
        entry["score"] = None if threshold is None else float(expit(threshold))
        for split, sample in (("val", val), ("test", test)):
            alarms = None
            if threshold is not None and sample.negatives:
                logits = sample.logit[sample.label == 0]
                alarms = _rate_entry(rate(int((logits >= threshold).sum()), len(logits), settings.confidence))
            entry[f"{split}_fpr"] = alarms
    return points


def searched_sky(survey: SurveyDescription, parent: Manifest, edges: Mapping[str, Sequence[float]]) -> Sky:
    """Area by PSF and depth, in square degrees, of the bricks in which the parent sample has galaxies.

    It is the sky that a search covers, with or without coadds at hand: a brick without them counts as every other
    though no arc was injected there. What stands for it are injections in the same PSF and depth elsewhere.
    """
    ids: NDArray[np.int32] = np.empty(0, dtype=np.int32)
    for path in verified_paths(parent):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(500_000, columns=["ra", "dec"]):
                ids = np.union1d(ids, brickid_at(batch["ra"].to_numpy(), batch["dec"].to_numpy()))
    box = bricks_of_ids(ids)
    area = np.degrees(box.ra2 - box.ra1) * (np.sin(np.radians(box.dec2)) - np.sin(np.radians(box.dec1)))
    conditions = read_conditions(survey)
    row = conditions.rows_at(box.ra, box.dec)[1]
    # Row -1, no such brick, takes the last.
    observed = {name: np.append(conditions.values[name], np.nan)[row] for name in _CONDITIONS}
    return sky_area(observed, area, edges)


def measure(
    injections: Injections,
    logits: FloatArray,
    points: Sequence[Mapping[str, Any]],
    sky: Sky | None,
    settings: CellSettings,
    shared: float = 1.0,
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """completeness.json's numbers, rows of completeness.csv and rows of completeness_surface.csv.

    Args:
        injections: of the test split.
        logits: of each.
        points: thresholds; one without a logit has no numbers.
        sky: area by observing conditions, where a survey was given.
        settings: of the measurement.
        shared: injections that share a draw of lens and source, and say no more than one.
    """
    overall: dict[str, Any] = {}
    grids: dict[str, Any] = {}
    surfaces: dict[str, Any] = {}
    marginals: dict[str, dict[str, Any]] = {name: {} for name in AXES}
    cells: list[dict[str, Any]] = []
    surface_rows: list[dict[str, Any]] = []
    for place, point in enumerate(points):
        if point["logit"] is None:
            continue
        name, found = point["name"], logits >= point["logit"]
        rng = np.random.default_rng([settings.seed, place])
        confidence, edges = settings.confidence, settings.edges
        overall[name] = mean_entries(injections, found, edges, sky, confidence, settings.bootstraps, rng, shared)
        around = host_intervals(injections, found, edges, confidence, settings.bootstraps, rng)
        tables = all_cells(injections, found, edges)
        for table in tables:
            rows = cell_rows(table, edges, settings.min_cell, confidence, shared)
            cells += [{"threshold": name, **row} for row in rows]
            if len(table.axes) == 1:
                [axis] = table.axes
                marginals[axis][name] = [
                    number(row, axis) | {"host_interval": interval}
                    for row, interval in zip(rows, around[axis], strict=True)
                ]
        full, possible = tables[-1], int(np.prod([len(edges[axis]) - 1 for axis in AXES]))
        grids[name] = {
            "cells": possible,
            "empty": possible - len(full.n),
            "too_few": int((full.n < settings.min_cell * shared).sum()),
        }
        surfaces[name], rows = _surface(injections, found, settings, rng)
        surface_rows += [{"threshold": name, **row} for row in rows]
    result = {
        "injections": {"n": len(injections), "hosts": int(injections.host.max()) + 1},
        "not_in_cells": outside(injections, settings.edges),
        "overall": overall,
        "marginals": marginals,
        "full_grid": grids,
        "surface": surfaces,
    }
    return result, cells, surface_rows


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV with all digits; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def cell_columns() -> list[str]:
    """Of completeness.csv."""
    edges = [f"{name}_{end}" for name in AXES for end in ("low", "high")]
    counts = ["n", "k", "hosts", "value", "low", "high"]
    weighted = ["n_effective", "weighted_value", "weighted_low", "weighted_high", "flag"]
    return ["threshold", "axes", *edges, *counts, *weighted]


SURFACE_COLUMNS = ("threshold", "theta_e_arcsec", "z", "value", "low", "high", "sd", "n")


def _surface(
    injections: Injections, found: NDArray[np.bool_], settings: CellSettings, rng: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    edges = [settings.edges[name] for name in SURFACE_AXES]
    values = [injections.axes[name] for name in SURFACE_AXES]
    bins = [bin_of(axis, limits) for axis, limits in zip(values, edges, strict=True)]
    inside = (bins[0] >= 0) & (bins[1] >= 0)
    weight = injections.weight if settings.surface.weighted else np.ones(len(injections))
    inside &= weight > 0
    status = problem(found[inside], settings.surface)
    facts = {"n": int(inside.sum()), "status": status or "measured"}
    if status:
        return facts, []
    host = np.unique(injections.host[inside], return_inverse=True)[1]
    surface = fit_surface(
        values[0][inside],
        values[1][inside],
        found[inside],
        weight[inside],
        host,
        [(limits[0], limits[-1]) for limits in edges],
        settings.surface,
        settings.confidence,
        rng,
    )
    count = np.zeros([len(limits) - 1 for limits in edges], dtype=np.int64)
    np.add.at(count, (bins[0][inside], bins[1][inside]), 1)
    return facts, _surface_rows(surface, count, edges)


def _surface_rows(surface: Surface, count: NDArray[np.int64], edges: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """One row for each point; `n` injections lie in the cell of completeness.csv around it."""
    first, second = bin_of(surface.first, edges[0]), bin_of(surface.second, edges[1])
    return [
        {
            "theta_e_arcsec": float(surface.first[i]),
            "z": float(surface.second[j]),
            **{key: float(getattr(surface, key)[i, j]) for key in ("value", "low", "high", "sd")},
            "n": int(count[first[i], second[j]]),
        }
        for i in range(len(surface.first))
        for j in range(len(surface.second))
    ]


def _rate_entry(found: Rate) -> dict[str, Any]:
    interval = [found.interval.low, found.interval.high]
    return {"value": found.value, "k": found.successes, "n": found.trials, "interval": interval, "status": "measured"}


def main(argv: Sequence[str] | None = None) -> None:
    """Write completeness.json, completeness.csv and completeness_surface.csv."""
    parser = argument_parser("Measure the completeness of injections, by cell and as a smooth surface.")
    parser.add_argument("--val", required=True, type=Path, help="scores of the validation split (val.json)")
    parser.add_argument("--test", required=True, type=Path, help="scores of the test split (test.json)")
    parser.add_argument("--parent", type=Path, help="parent.json, for magnitudes of hosts and for the sky searched")
    parser.add_argument("--survey", type=Path, help="survey.json, for the area by observing conditions")
    parser.add_argument("--output", required=True, type=Path, help="completeness.json")
    parser.add_argument("--cells", required=True, type=Path, help="completeness.csv")
    parser.add_argument("--surface", required=True, type=Path, help="completeness_surface.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, CompletenessSettings)
    if arguments.survey and not arguments.parent:
        raise BadInputError("--survey needs --parent, which says where in the survey lenses are looked for; give both.")
    started = datetime.now(UTC)
    manifests = load_splits(arguments.val, arguments.test)
    val_table, test_table = (read_scores(manifest, numbers=_COLUMNS) for manifest in manifests)
    val, test = (labelled(table, _NEGATIVES) for table in (val_table, test_table))
    parent = load_manifest(arguments.parent, "parent") if arguments.parent else None
    magnitude = galaxy_facts(test_table, parent, [_HOST_MAGNITUDE])[_HOST_MAGNITUDE] if parent else None
    injections, logits = injections_of(test_table, magnitude)
    sky = searched_sky(load_survey(arguments.survey), parent, settings.edges) if arguments.survey and parent else None
    points = operating_points(val, test, settings)
    measured, cells, surface = measure(injections, logits, points, sky, settings)
    result = {
        **subject(manifests[1]),
        "settings": settings.model_dump(mode="json"),
        "weights": _WEIGHT if _WEIGHT in test_table.numbers else "none",
        "notes": list(NOTES),
        "operating_points": points,
        **measured,
    }
    inputs = [path for path in (arguments.val, arguments.test, arguments.parent, arguments.survey) if path]
    write_text(arguments.cells, csv_text(cells, cell_columns()))
    write_text(arguments.surface, csv_text(surface, SURFACE_COLUMNS))
    write_result(arguments.output, result, MODULE, settings, inputs, started)
    for point in points:
        if point["logit"] is None:
            _logger.warning("Completeness at %s is %s.", point["name"], point["status"])


if __name__ == "__main__":
    run(main)
