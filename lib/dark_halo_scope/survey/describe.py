"""Says which survey the results are of: builds the embedded one, or records where an existing one lies (no network)."""

import os
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.survey.config import SurveySettings
from dark_halo_scope.survey.description import KIND

MODULE = "dark_halo_scope.survey.describe"


def describe(settings: SurveySettings, output: Path, processes: int, data_root: str | None = None) -> None:
    """Write the survey's manifest at `output`, and an embedded survey's files beside it or below `data_root`."""
    with attempt(output, KIND, MODULE, settings, [], data_root) as work:
        files = settings.files
        if settings.embedded is not None:
            # GalSim and lenstronomy are needed for this alone.
            from dark_halo_scope.survey.mini.build import build_survey

            files = build_survey(settings.embedded, work.prefix, processes)
        assert files is not None  # the settings have one or the other
        work.publish(
            facts={
                "name": settings.name,
                "release": settings.release,
                "region": settings.region,
                "coadd_layout": settings.coadd_layout,
                "files": files.model_dump(),
                "embedded": settings.embedded is not None,
            }
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="survey.json")
    parser.add_argument("--data-root", help="where an embedded survey's files go (default: beside the output)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="that draw bricks at once")
    arguments = parser.parse_args(argv)
    describe(
        load_settings(arguments.settings, SurveySettings), arguments.output, arguments.processes, arguments.data_root
    )


if __name__ == "__main__":
    run(main)
