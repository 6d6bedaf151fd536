"""Positives of the real-image finder: known and candidate lenses, each with its galaxy in the survey's sweeps.

    survey.json, lenses.json -> positives.json, `positives.parquet`, `quarantine/positives.parquet`

One Spark task reads one sweep file, some rows at a time, and keeps what lies near a lens; the few that do meet here, so
that a lens at the edge of a file finds its nearest galaxy whichever file that is in.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.census import failed, gate
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import POOL_SWEEP_COLUMNS, UNITS
from dark_halo_scope.catalogue.parent import local_file, table_bytes
from dark_halo_scope.catalogue.positive_config import TIERS, PositiveSettings
from dark_halo_scope.catalogue.positive_rows import (
    NEAR_SCHEMA,
    OUTSIDE,
    OUTSIDE_CUTS,
    POSITIVE_SCHEMA,
    Chosen,
    Matched,
    choose_lenses,
    galaxies_near,
    in_bricks,
    match,
)
from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths, write_object
from dark_halo_scope.core.quarantine import DIRECTORY, REASON, check_fraction
from dark_halo_scope.spark.collect import collect
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.bricks import read_bricks
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.sweeps import read_sweep

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.positives"
KIND = "positives"


def search_file(
    pair: tuple[str, str | None],
    survey: SurveyDescription,
    lenses: LensPositions,
    settings: PositiveSettings,
    pool: NegativePoolSettings,
) -> tuple[pa.Table, Counter[str]]:
    """`galaxies_near` of a sweep file and its photo-z, some rows at a time; runs in a Spark task."""
    sweep, photoz = pair
    found, counts, first = [NEAR_SCHEMA.empty_table()], Counter[str](), 0
    with local_file(survey, sweep) as path, local_file(survey, photoz) as redshifts:
        assert path is not None
        name = sweep.rpartition("/")[2]
        for rows in read_sweep(path, POOL_SWEEP_COLUMNS, redshifts, survey.releases):
            near, read = galaxies_near(rows, name, first, lenses, settings, pool)
            found.append(near)
            counts.update(read)
            first += rows.num_rows
    return pa.concat_tables(found), counts


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `match_positives`."""
    parser = argument_parser("Match lenses with the galaxies of a survey's sweeps.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json")
    parser.add_argument("--pool-settings", default="{}", help="of the negatives, for their cuts, as JSON or a path")
    parser.add_argument("--output", type=Path, required=True, help="positives.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, PositiveSettings)
    pool = load_settings(args.pool_settings, NegativePoolSettings, "--pool-settings")
    cuts = pool.model_dump(mode="json", include={"preset", "dereddened"}) if settings.same_cuts_as_negatives else None
    survey = load_survey(args.survey)
    every = pa.concat_tables(pq.read_table(path) for path in verified_paths(load_manifest(args.lenses, "lenses")))
    chosen = choose_lenses(every, settings)
    positions = LensPositions(chosen.lenses["ra"].to_numpy(), chosen.lenses["dec"].to_numpy())
    used = {"positives": settings.model_dump(mode="json"), "negatives_cuts": cuts}
    bricks = read_bricks(survey.verified(survey.files.brick_summary))["BRICKNAME"].to_pylist()
    with (
        attempt(args.output, KIND, MODULE, used, [args.survey, args.lenses], args.data_root) as work,
        spark_session(args.spark_master, "match_positives") as spark,
    ):
        search = partial(search_file, survey=survey, lenses=positions, settings=settings, pool=pool)
        parts = collect(spark, survey.sweep_pairs(), search, "Matching lenses (sweep files)")
        counts = sum((read for _, read in parts), Counter[str]())
        check_fraction(counts["read"], counts["bad"], settings.max_bad, f"The selection of {args.output}")
        galaxies = pa.concat_tables([NEAR_SCHEMA.empty_table(), *(near for near, _ in parts)])
        found = match(chosen.lenses, galaxies, in_bricks(chosen.lenses, bricks), settings)
        if not found.rows.num_rows:
            raise BadInputError(
                f"None of the {chosen.lenses.num_rows} lenses chosen of {every.num_rows} has a galaxy within "
                f"{settings.radius_arcsec:g} arcsec in this survey and passes the cuts; look at desi_named, types, "
                "dec_range and same_cuts_as_negatives of `positives`."
            )
        others = pa.concat_tables([chosen.left_out, found.unmatched])
        objects = [write_object(work.uri, "positives.parquet", table_bytes(found.rows))]
        if others.num_rows:
            objects.append(write_object(work.uri, f"{DIRECTORY}/positives.parquet", table_bytes(others)))
        work.publish(
            rows_in=every.num_rows,
            rows_out=found.rows.num_rows,
            rows_quarantined=others.num_rows,
            columns={field.name: str(field.type) for field in POSITIVE_SCHEMA},
            facts={
                "settings": settings.model_dump(mode="json"),
                "negatives_cuts": cuts,
                "rows_read": counts["read"],
                "bad_rows": counts["bad"],
                "units": {**UNITS, **dict.fromkeys(("pos_ra", "pos_dec"), "deg"), "separation_arcsec": "arcsec"},
                **positive_facts(chosen, found, settings),
            },
            objects=sorted(objects, key=lambda entry: entry.name),
        )
    logger.info("%d positives of %d lenses", found.rows.num_rows, every.num_rows)


def positive_facts(chosen: Chosen, found: Matched, settings: PositiveSettings) -> dict[str, Any]:
    """What the manifest says of the positives: where lenses went, tiers, splits, and a gate, which stops nothing."""
    rows, reasons = found.rows, _counts(found.unmatched[REASON])
    covered = chosen.lenses.num_rows - reasons.get(OUTSIDE, 0)
    tiers, splits = (np.array(rows[name].to_pylist(), dtype=str) for name in ("tier", "split"))
    # Of lenses that have a galaxy, whether or not it is among the negatives' kind.
    matched = rows.num_rows + reasons.get(OUTSIDE_CUTS, 0)
    gates = {"match_share": gate(matched / max(covered, 1), covered, settings.min_match_share)}
    return {
        "not_chosen": _counts(chosen.left_out[REASON]),
        "chosen": chosen.lenses.num_rows,
        "in_footprint": covered,
        "unmatched": reasons,
        "ties": found.ties,
        "tiers": {tier: int(np.sum(tiers == tier)) for tier in TIERS},
        "splits": {
            split: {tier: int(np.sum((splits == split) & (tiers == tier))) for tier in TIERS} for split in SPLITS
        },
        "discovery": _counts(rows["discovery"]),
        "types": _counts(rows["type"]),
        "nobs_z_bins": _counts(rows["nobs_z_bin"]),
        "gates": gates,
        "failed": failed(gates),
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted((item["values"], item["counts"]) for item in pc.value_counts(column).to_pylist()))


if __name__ == "__main__":
    run(main)
