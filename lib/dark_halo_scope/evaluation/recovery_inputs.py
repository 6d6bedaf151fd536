"""What injection and recovery, and the ladder, read: hosts, their coadds and sources."""

import argparse
import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa

from dark_halo_scope.catalogue.lens_positions import read_lens_positions
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.injection.recovery import known_bricks, usable_sources
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.injection.recovery_hosts import read_hosts
from dark_halo_scope.injection.recovery_work import RecoveryJob
from dark_halo_scope.survey.description import load_survey

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name these inputs."""
    parser.add_argument("--survey", required=True, type=Path, help="survey.json, whose file `sources` is the bank")
    parser.add_argument("--hosts", required=True, type=Path, help="parent.json, or negatives.json of the pool")
    parser.add_argument("--lenses", required=True, type=Path, help="lenses.json: galaxies near them are no hosts")
    parser.add_argument("--coadds", required=True, type=Path, help="coadds.json; hosts in other bricks are left out")
    parser.add_argument("--sources", required=True, type=Path, help="sources.json of the survey's source bank")


def input_files(arguments: argparse.Namespace) -> list[Path]:
    """The files that these options name."""
    return [arguments.survey, arguments.hosts, arguments.lenses, arguments.coadds, arguments.sources]


def hosts_and_job(
    arguments: argparse.Namespace, settings: RecoverySettings, stamp_size: int, counts: Counter[str]
) -> tuple[pa.Table, RecoveryJob]:
    """Hosts as `read_hosts` has them, and what is injected into them.

    Args:
        arguments: with the options of `add_arguments`.
        settings: what is injected.
        stamp_size: pixels.
        counts: gets how many galaxies went where.

    Raises:
        BadInputError, CorruptDataError: as `read_hosts` and `usable_sources`.
    """
    coadds = load_manifest(arguments.coadds, "coadds")
    lenses = read_lens_positions(load_manifest(arguments.lenses, "lenses"))
    hosts = read_hosts(load_manifest(arguments.hosts), lenses, known_bricks(coadds), settings, counts)
    _logger.info("%d hosts: %s", hosts.num_rows, dict(sorted(counts.items())))
    idents = usable_sources(arguments.sources, settings)
    sources, survey = load_manifest(arguments.sources, "sources"), load_survey(arguments.survey)
    return hosts, RecoveryJob(coadds, sources, survey, idents, settings, stamp_size)
