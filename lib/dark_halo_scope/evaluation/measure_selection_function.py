"""Measure the selection function of a frozen finder: selection_function.json, .parquet and .fits.

Beside them are the cells and the smooth surface of all families as CSV, in the layout of completeness.csv and
completeness_surface.csv, which the figure is drawn from.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import sha256_file, write_text
from dark_halo_scope.core.manifest import Manifest, load_manifest, write_result
from dark_halo_scope.evaluation.completeness import Sky
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.freeze import Frozen, FrozenChangedError, check_measured_with, require_frozen
from dark_halo_scope.evaluation.measure_completeness import (
    SURFACE_COLUMNS,
    cell_columns,
    csv_text,
    measure,
    searched_sky,
)
from dark_halo_scope.evaluation.recovered import KIND, Recovered, found_by, read_recovered
from dark_halo_scope.evaluation.selection_config import SelectionFunctionSettings
from dark_halo_scope.evaluation.selection_export import write_fits, write_parquet
from dark_halo_scope.evaluation.selection_function import ALL, tabulate
from dark_halo_scope.survey.description import load_survey

MODULE = "dark_halo_scope.evaluation.measure_selection_function"

_logger = logging.getLogger(__name__)


def chosen_thresholds(frozen: Frozen, names: Sequence[str] | None) -> dict[str, float]:
    """Logits of the card's thresholds, by name; those that could not be had are left out.

    Raises:
        BadInputError: the card has no threshold, or not one of the names.
    """
    if names is None:
        chosen = dict(frozen.thresholds)
    else:
        chosen = {name: frozen.threshold(name) for name in names if name not in frozen.unmeasured}
    if not chosen:
        raise BadInputError(f"{frozen.generation} was frozen without any threshold that is asked for; freeze it again.")
    return chosen


def check_recovery(frozen: Frozen, recovery: Manifest, path: Path) -> None:
    """Refuse injections that another finder scored, or the same one with other preprocessing or thresholds.

    Raises:
        FrozenChangedError: they were measured with another card, or scored with other weights.
    """
    check_measured_with(frozen, recovery.facts, path)
    scored = recovery.facts.get("model_sha256")
    if scored != frozen.weights_sha256:
        raise FrozenChangedError(
            f"{path} was scored with the weights {str(scored)[:16]}, and {frozen.generation} is frozen with "
            f"{frozen.weights_sha256[:16]}; run the recovery again."
        )


def systematics(measured: Mapping[str, Mapping[str, Any]], families: Sequence[str]) -> dict[str, Any]:
    """Completeness of all families, of each, and their envelope, by threshold, for each way of averaging.

    Args:
        measured: `overall` of `all` and of each family.
        families: their names.
    """
    result: dict[str, Any] = {}
    for threshold, means in measured[ALL].items():
        result[threshold] = {}
        for name, whole in means.items():
            of = {family: measured[family][threshold][name] for family in families}
            ends = [entry["interval"] for entry in of.values() if entry["interval"] is not None]
            values = [entry["value"] for entry in of.values() if entry["value"] is not None]
            result[threshold][name] = {
                **whole,
                "families": {family: entry["value"] for family, entry in of.items()},
                "systematic": [min(values), max(values)] if values else None,
                "envelope": [min(low for low, _ in ends), max(high for _, high in ends)] if ends else None,
            }
    return result


def measure_all(
    recovered: Recovered,
    thresholds: Mapping[str, float],
    sky: Sky | None,
    settings: SelectionFunctionSettings,
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Numbers of selection_function.json, cells of all families as rows, and surfaces of all and of each.

    Args:
        recovered: injections of all families.
        thresholds: logits by name.
        sky: area by observing conditions, where a survey was given.
        settings: of the measurement.
    """
    points = [{"name": name, "logit": logit} for name, logit in thresholds.items()]
    shared = recovered.rows_per_draw
    whole, cells, surface = measure(recovered.injections, recovered.logit, points, sky, settings, shared)
    apart = {}
    surfaces = [{"family": ALL, **row} for row in surface]
    for family in recovered.families:
        part = recovered.of(family)
        apart[family], _, rows = measure(part.injections, part.logit, points, sky, settings)
        surfaces += [{"family": family, **row} for row in rows]
    overall = {ALL: whole["overall"], **{name: part["overall"] for name, part in apart.items()}}
    result = {
        "injections": whole["injections"] | {"rows_per_draw": shared},
        "overall": systematics(overall, recovered.families),
        **{key: whole[key] for key in ("not_in_cells", "marginals", "full_grid", "surface")},
        "families": apart,
    }
    return result, cells, surfaces


def main(argv: Sequence[str] | None = None) -> None:
    """Write the selection function in all its forms."""
    parser = argument_parser("Measure the selection function of a frozen finder from recovered injections.")
    parser.add_argument("--recovery", required=True, type=Path, help="recovery.json: injections and their logits")
    parser.add_argument("--frozen", required=True, type=Path, help="frozen.json: the card of the finder")
    parser.add_argument("--model", required=True, type=Path, help="best.json of the finder, compared with the card")
    parser.add_argument("--parent", type=Path, help="parent.json, for the sky searched")
    parser.add_argument("--survey", type=Path, help="survey.json, for the area by observing conditions")
    parser.add_argument("--output", required=True, type=Path, help="selection_function.json")
    parser.add_argument("--parquet", required=True, type=Path, help="selection_function.parquet")
    parser.add_argument("--fits", required=True, type=Path, help="selection_function.fits")
    parser.add_argument("--cells", required=True, type=Path, help="selection_cells.csv")
    parser.add_argument("--surface", required=True, type=Path, help="selection_surface.csv")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, SelectionFunctionSettings)
    if bool(arguments.survey) != bool(arguments.parent):
        raise BadInputError("The sky searched needs both --survey and --parent; give both or neither.")
    started = datetime.now(UTC)
    frozen = require_frozen(arguments.frozen, arguments.model)
    recovery = load_manifest(arguments.recovery, KIND)
    check_recovery(frozen, recovery, arguments.recovery)
    thresholds = chosen_thresholds(frozen, settings.thresholds)
    recovered = read_recovered(recovery)
    found = found_by(recovered, thresholds)
    sky = None
    if arguments.survey:
        parent = load_manifest(arguments.parent, "parent")
        sky = searched_sky(load_survey(arguments.survey), parent, settings.edges)
    columns = tabulate(recovered, found, settings.edges, sky, settings.min_cell, settings.confidence)
    measured, cells, surfaces = measure_all(recovered, thresholds, sky, settings)
    about = {"generation": frozen.generation, "model_sha256": frozen.weights_sha256, "frozen_sha256": frozen.sha256}
    facts = about | {
        "thresholds": thresholds,
        "families": list(recovered.families),
        "edges": {name: list(settings.edges[name]) for name in AXES},
        "min_cell": settings.min_cell,
        "confidence": settings.confidence,
        "rows_per_draw": recovered.rows_per_draw,
        "injections": len(recovered),
        "hosts": measured["injections"]["hosts"],
    }
    write_parquet(arguments.parquet, columns, facts)
    write_fits(arguments.fits, columns, _columns_of(surfaces), facts)
    write_text(arguments.cells, csv_text(cells, cell_columns()))
    of_all = [{key: row[key] for key in SURFACE_COLUMNS} for row in surfaces if row["family"] == ALL]
    write_text(arguments.surface, csv_text(of_all, SURFACE_COLUMNS))
    result = {
        **about,
        "settings": settings.model_dump(mode="json"),
        "thresholds": {
            **{name: {"logit": logit, "status": "measured"} for name, logit in thresholds.items()},
            **{name: {"logit": None, "status": why} for name, why in frozen.unmeasured.items()},
        },
        "area_deg2": None if sky is None else float(sky.area.sum()),
        **measured,
        "rows": len(columns["n"]),
        "files": {
            path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in (arguments.parquet, arguments.fits)
        },
    }
    given = (arguments.recovery, arguments.frozen, arguments.model, arguments.parent, arguments.survey)
    write_result(arguments.output, result, MODULE, settings, [path for path in given if path], started)
    for name, why in frozen.unmeasured.items():
        _logger.warning("There is no selection function at %s: %s.", name, why)


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


if __name__ == "__main__":
    run(main)
