"""Which real images a dataset has: lenses, and galaxies that are none.

    positives.json, negatives.json -> manifest.json, `galaxies-{file}.parquet`

The rows are the plan's training manifest too: label, split, tier, sample_weight and cutout_path are among their
columns, `REAL_SCHEMA`. A file has whole bricks, lenses and negatives of a brick together, so that its coadds are opened
once, and few rows (`rows_per_file`), because one task cuts it out.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLITS, assert_disjoint
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import track
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_rows import NEGATIVE, POSITIVE, REAL_SCHEMA, listed_files

MODULE = "dark_halo_scope.injection.list_real_images"
KIND = "galaxies"

_PLACES = ["ra", "dec", "healpix_128", "split", "galaxy_id", "label", "tier"]

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `list_real_images`."""
    parser = argument_parser("List the lenses and negatives that a dataset of real images has.")
    parser.add_argument("--positives", type=Path, required=True, help="positives.json")
    parser.add_argument("--negatives", type=Path, required=True, help="negatives.json")
    parser.add_argument("--output", type=Path, required=True, help="manifest.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, RealImageSettings)
    inputs = [args.positives, args.negatives]
    positives, negatives = load_manifest(inputs[0], "positives"), load_manifest(inputs[1], "negatives")
    counts: Counter[str] = Counter()
    places = [REAL_SCHEMA.empty_table().select(_PLACES)]
    with attempt(args.output, KIND, MODULE, settings, inputs, args.data_root) as work:
        lenses = pa.concat_tables(pq.read_table(path) for path in verified_paths(positives))
        paths = track(verified_paths(negatives), "Listing negatives (files)")
        for number, rows in enumerate(listed_files(lenses, paths, settings, counts)):
            places.append(rows.select(_PLACES))
            pq.write_table(rows, work.prefix / f"galaxies-{number:04d}.parquet", compression="zstd")
        listed = pa.concat_tables(places)
        splits = _strings(listed, "split")
        _check(listed, splits, settings)
        work.publish(
            rows_in=counts["positives_read"] + counts["negatives_read"],
            rows_out=listed.num_rows,
            columns={field.name: str(field.type) for field in REAL_SCHEMA},
            facts={
                "experiment_id": settings.experiment_id,
                "settings": settings.model_dump(mode="json"),
                "path": settings.path,
                "size": settings.size,
                "split_seed": settings.split_seed,
                "splits": {split: int(np.sum(splits == split)) for split in SPLITS if split in settings.splits},
                "left_out": {name: counts[name] for name in ("other_split", "negatives_near_positive")},
                **composition(listed),
            },
        )
    _logger.info("%d real images, %d of them lenses", listed.num_rows, int(np.sum(_labels(listed) == POSITIVE)))


def composition(listed: pa.Table) -> dict[str, Any]:
    """Tiers in each split, and which share of each class the splits have: cells are few where the survey is small.

    Args:
        listed: columns label, split and tier.
    """
    labels, splits, tiers = _labels(listed), _strings(listed, "split"), _strings(listed, "tier")
    found = Counter(zip(splits.tolist(), tiers.tolist(), strict=True))
    shares = {}
    for name, label in (("positive", POSITIVE), ("negative", NEGATIVE)):
        of_class = splits[labels == label]
        shares[name] = {split: float(np.mean(of_class == split)) if len(of_class) else None for split in SPLITS}
    return {
        "tiers": {
            split: {tier: found[split, tier] for tier in ("A", "B", "N1", "N2")}
            for split in SPLITS
            if split in set(splits.tolist())
        },
        "split_shares": shares,
    }


def _check(listed: pa.Table, splits: NDArray[np.str_], settings: RealImageSettings) -> None:
    labels = _labels(listed)
    for name, label in (("lens", POSITIVE), ("negative", NEGATIVE)):
        if not np.any(labels == label):
            raise BadInputError(
                f"No {name} is left in the split {' or '.join(settings.splits)}; ask for other splits, or match and "
                "sample again."
            )
    ids = _strings(listed, "galaxy_id")
    if len(np.unique(ids)) < len(ids):
        raise BadInputError("A galaxy is in two files of the sample of negatives; sample it again.")
    ra, dec, cells = (listed[name].to_numpy() for name in ("ra", "dec", "healpix_128"))
    assert_disjoint(ra, dec, cells, splits, settings.same_object_arcsec, settings.split_seed)


def _labels(listed: pa.Table) -> NDArray[np.int64]:
    return listed["label"].to_numpy()


def _strings(listed: pa.Table, name: str) -> NDArray[np.str_]:
    return listed[name].to_numpy(zero_copy_only=False).astype(str)


if __name__ == "__main__":
    run(main)
