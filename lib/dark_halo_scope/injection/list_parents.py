"""Which galaxies of the parent sample a dataset of them has, with nothing injected.

    parent.json, lenses.json -> manifest.json, `galaxies-{file}.parquet`

Those of the splits asked for, away from known and candidate lenses, all of them or as many as a hash of their names
draws. A file has whole bricks, as the parent sample's has.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.lens_positions import read_lens_positions
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.injection.parent_config import ParentStampSettings
from dark_halo_scope.injection.parents import parent_rows

MODULE = "dark_halo_scope.injection.list_parents"
KIND = "galaxies"

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `list_parent_galaxies`."""
    parser = argument_parser("List the galaxies of the parent sample that a dataset of them has.")
    parser.add_argument("--parent", type=Path, required=True, help="parent.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json, whose lenses are left out")
    parser.add_argument("--output", type=Path, required=True, help="manifest.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, ParentStampSettings)
    parent, lenses = load_manifest(args.parent, "parent"), load_manifest(args.lenses, "lenses")
    counts: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    columns: dict[str, str] = {}
    with attempt(args.output, KIND, MODULE, settings, [args.parent, args.lenses], args.data_root) as work:
        paths, positions = verified_paths(parent), read_lens_positions(lenses)
        with Progress(len(paths), "Listing parents (files)") as progress:
            for number, rows in enumerate(parent_rows(paths, positions, settings, counts)):
                progress.advance()
                if not rows.num_rows:
                    continue
                for item in pc.value_counts(rows["split"]).to_pylist():
                    splits[item["values"]] += item["counts"]
                columns = {field.name: str(field.type) for field in rows.schema}
                pq.write_table(rows, work.prefix / f"galaxies-{number:04d}.parquet", compression="zstd")
        if not splits:
            raise BadInputError(
                f"{args.parent} has no galaxy in the split {' or '.join(settings.splits)} that is no known lens; "
                "ask for other splits or select other parents."
            )
        work.publish(
            rows_in=counts["read"],
            rows_out=splits.total(),
            columns=columns,
            facts={
                "experiment_id": settings.experiment_id,
                "splits": dict(sorted(splits.items())),
                "split_seed": settings.split_seed,
                "left_out": {name: counts[name] for name in ("other_split", "near_lens", "not_drawn")},
            },
        )
    _logger.info("%d galaxies of %d parents", splits.total(), counts["read"])


if __name__ == "__main__":
    run(main)
