"""Measure the realism ladder: ladder.json, the probe and the recall of injections at each step towards real lenses."""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import load_manifest, write_result
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.freeze import check_measured_with, require_frozen
from dark_halo_scope.evaluation.ladder_config import LadderSettings
from dark_halo_scope.evaluation.recovery_inputs import add_arguments, hosts_and_job, input_files
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.injection.recovery import cut_bare, units
from dark_halo_scope.injection.recovery_config import RUNGS, RecoverySettings
from dark_halo_scope.injection.recovery_hosts import SPLIT
from dark_halo_scope.injection.recovery_schema import KIND
from dark_halo_scope.injection.recovery_work import render_units
from dark_halo_scope.survey.cache_coadds import load_brick

MODULE = "dark_halo_scope.evaluation.measure_ladder"

_logger = logging.getLogger(__name__)


def ladder_injections(recovery: RecoverySettings, settings: LadderSettings) -> RecoverySettings:
    """What the ladder injects: every rung, one draw for each of its hosts, else as recovery does."""
    changed = {"rungs": RUNGS, "replicates": 1, "max_hosts": settings.max_hosts}
    return RecoverySettings.model_validate(recovery.model_dump() | changed)


def main(argv: Sequence[str] | None = None) -> None:
    """Write ladder.json."""
    parser = argument_parser("Probe real lenses against injections, rung by rung, with a frozen finder.")
    parser.add_argument("--frozen", required=True, type=Path, help="frozen.json, the finder's card")
    parser.add_argument("--model", required=True, type=Path, help="best.json")
    parser.add_argument("--recovery", required=True, type=Path, help="recovery.json: the ladder injects as it did")
    parser.add_argument("--packed", required=True, type=Path, help="packed.json whose test positives are real lenses")
    add_arguments(parser)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--workers", type=int, default=0, help="processes that render; 0 renders in this one")
    parser.add_argument("--output", required=True, type=Path, help="ladder.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, LadderSettings)
    started = datetime.now(UTC)
    frozen = require_frozen(arguments.frozen, arguments.model)
    recovery = load_manifest(arguments.recovery, KIND)
    check_measured_with(frozen, recovery.facts, arguments.recovery)

    from dark_halo_scope.evaluation.features import feature_extractor
    from dark_halo_scope.evaluation.frozen_behaviour import check_behaviour
    from dark_halo_scope.evaluation.ladder import Seen, measure_ladder, show
    from dark_halo_scope.evaluation.measure_realism import usable_lenses
    from dark_halo_scope.models.deploy import open_finder

    finder = open_finder(arguments.model, arguments.device, arguments.threads)
    check_behaviour(frozen, finder.predictor())
    injected = ladder_injections(RecoverySettings.model_validate(recovery.facts["settings"]), settings)
    counts: Counter[str] = Counter()
    hosts, job = hosts_and_job(arguments, injected, finder.preprocess.size, counts)

    split = open_packed(arguments.packed, SPLIT)
    kept, excluded = usable_lenses(split.positive, split.rows, finder.model.settings.meta_columns)
    if len(kept) > settings.max_lenses:
        excluded["not drawn"] = len(kept) - settings.max_lenses
        kept = np.sort(np.random.default_rng(settings.seed).choice(kept, settings.max_lenses, replace=False))
    tables = [hosts.slice(*unit) for unit in units(hosts, injected)]
    rendered = list(render_units(tables, job, arguments.workers))
    rows = pa.concat_tables([unit.rows for unit in rendered])
    images = np.concatenate([unit.images for unit in rendered])
    bare, places = cut_bare(
        hosts, lambda brick: load_brick(job.coadds, brick), finder.preprocess.size, injected.quality
    )
    with Progress(len(kept) + len(images) + len(bare), "Taking features (images)") as progress:
        extract = feature_extractor(finder.model, finder.preprocess, finder.device, injected.batch, progress.advance)
        lenses = show(extract, split.positive[kept], split.rows.take(pa.array(kept)), settings.match)
        without = show(extract, bare, hosts.take(pa.array(places)), settings.match)
        seen: dict[str, Seen] = {}
        for rung in RUNGS:
            of_rung = pc.equal(rows["rung"], rung)
            seen[rung] = show(extract, images[of_rung.to_numpy()], rows.filter(of_rung), settings.match)
    result = {
        "generation": frozen.generation,
        "split": SPLIT,
        "model_sha256": frozen.weights_sha256,
        "frozen_sha256": frozen.sha256,
        "thresholds": dict(frozen.thresholds),
        "settings": settings.model_dump(mode="json"),
        "lenses": {"listed": len(split), "probed": len(kept), "excluded": excluded},
        "hosts": dict(sorted(counts.items())),
        **measure_ladder(lenses, seen, without, frozen.thresholds, settings),
    }
    inputs = [arguments.frozen, arguments.model, arguments.recovery, arguments.packed, *input_files(arguments)]
    write_result(arguments.output, result, MODULE, settings, inputs, started)
    for rung in result["rungs"]:
        _logger.info(
            "%d %s: probe %s (%s)", rung["number"], rung["rung"], rung["probe"]["value"], rung["probe"]["status"]
        )


if __name__ == "__main__":
    run(main)
