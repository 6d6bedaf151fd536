"""The gates of the plan's table, measured on the negative pool as it is stored; they record and never stop anything.

    negative_pool.json, lenses.json -> negative_pool_gates.json

Everything is counted again from the rows, nothing taken from the manifest: cells and splits follow from positions, and
what does not agree with them is counted, as is every negative near a lens. The pool is a census, so its shares have no
interval.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.census import failed, gate, share_gate
from dark_halo_scope.catalogue.lens_positions import LensPositions, read_lens_positions
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolGateSettings, NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import N1, N2
from dark_halo_scope.catalogue.splits import SPLITS, healpix_cell, split_of_cells
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.config import validate
from dark_halo_scope.core.manifest import load_manifest, verified_paths, write_result

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.catalogue.measure_negative_pool"

CRITICAL = (
    "galaxy_id",
    "brickname",
    "objid",
    "ra",
    "dec",
    "type",
    "nobs_z",
    "nobs_z_bin",
    "type_bin",
    "healpix_128",
    "split",
    "pool",
)
"""Columns in which nothing may be null."""

_READ_ROWS = 500_000
_NONE = -1


def read_pool(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """Rows of pool files some at a time: what the gates look at."""
    columns = [*CRITICAL, "confuser_category"]
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(_READ_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def measure_pool(
    parts: Iterable[pa.Table],
    lenses: LensPositions,
    settings: NegativePoolGateSettings,
    pool: NegativePoolSettings,
) -> dict[str, Any]:
    """Gates of a pool of negatives.

    Args:
        parts: rows, columns `CRITICAL` and confuser_category. Memory: 8 bytes for each row, and one part.
        lenses: known and candidate lenses.
        settings: limits.
        pool: how it was built: how near a lens may be, and the seed of the splits.

    Returns:
        `gates`: by name, each value, n (rows it is of), interval (None, see above), status, threshold [low, high] and
        whether it passed; `failed`: names of the gates that did not pass; `counts` of each class, split, type and bin.
    """
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("pool", "split", "type_bin", "nobs_z_bin", "confuser_category")
    }
    wrong: Counter[str] = Counter()
    bricks: dict[str, int] = {}
    keys = [np.empty(0, dtype=np.int64)]
    for part in parts:
        for name, counter in counts.items():
            counter.update({item["values"]: item["counts"] for item in pc.value_counts(part[name]).to_pylist()})
        wrong["nulls"] += sum(part[name].null_count for name in CRITICAL)
        keys.append(_galaxy_keys(part, bricks))
        placed = part.filter(_on_the_sky(part))
        wrong["cells"] += len(part) - len(placed)
        ra_N, dec_N = (placed[name].to_numpy() for name in ("ra", "dec"))
        if len(ra_N):
            cell_N = healpix_cell(ra_N, dec_N)
            wrong["cells"] += int(np.sum(placed["healpix_128"].fill_null(_NONE).to_numpy() != cell_N))
            expected = pa.array(split_of_cells(cell_N, pool.split_seed))
            wrong["splits"] += len(placed) - int(pc.sum(pc.equal(placed["split"], expected)).as_py() or 0)
            wrong["near_lens"] += int(np.sum(lenses.near(ra_N, dec_N, pool.lens_radius_arcsec)))
    rows = sum(len(key_N) for key_N in keys)
    duplicates = rows - len(np.unique(np.concatenate(keys)))
    types = len([name for name in counts["type_bin"] if name is not None])
    gates = {
        "rows": gate(rows, rows, settings.min_rows),
        "duplicates": gate(duplicates, rows, 0, 0),
        "n1_share": share_gate(counts["pool"][N1], rows, settings.n1_share),
        "n2_share": share_gate(counts["pool"][N2], rows, settings.n2_share),
        **{
            f"{split}_share": share_gate(counts["split"][split], rows, getattr(settings, f"{split}_share"))
            for split in SPLITS
        },
        "types": gate(types, rows, settings.min_types),
        "nulls": gate(wrong["nulls"], rows, 0, 0),
        "cells_not_of_their_position": gate(wrong["cells"], rows, 0, 0),
        "splits_not_of_their_cell": gate(wrong["splits"], rows, 0, 0),
        "near_lens": gate(wrong["near_lens"], rows, 0, 0),
    }
    return {
        "gates": gates,
        "failed": failed(gates),
        "counts": {
            name: {str(value): counter[value] for value in sorted(counter, key=str) if value is not None}
            for name, counter in counts.items()
        },
    }


def _on_the_sky(part: pa.Table) -> pa.ChunkedArray:
    ra, dec = part["ra"], part["dec"]
    in_range = pc.and_(pc.greater_equal(ra, 0.0), pc.less(ra, 360.0))
    return pc.fill_null(pc.and_(in_range, pc.less_equal(pc.abs(dec), 90.0)), False)


def _galaxy_keys(part: pa.Table, bricks: dict[str, int]) -> NDArray[np.int64]:
    """(N,) number of each galaxy, equal for equal (brickname, objid); `bricks` numbers the names met so far."""
    names = part["brickname"].combine_chunks().dictionary_encode()
    number_K = np.array([bricks.setdefault(str(name), len(bricks)) for name in names.dictionary.to_pylist()], np.int64)
    index_N = names.indices.fill_null(0).to_numpy()
    brick_N = number_K[index_N] if len(number_K) else np.zeros(len(part), np.int64)
    return (brick_N << 32) | part["objid"].combine_chunks().fill_null(_NONE).to_numpy().astype(np.int64) & 0xFFFFFFFF


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `measure_negative_pool`."""
    parser = argument_parser("Measure the gates of the negative pool.")
    parser.add_argument("--pool", type=Path, required=True, help="negative_pool.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json")
    parser.add_argument("--output", type=Path, required=True, help="negative_pool_gates.json")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, NegativePoolGateSettings)
    started = datetime.now(UTC)
    pool, lenses = load_manifest(args.pool, "negative_pool"), read_lens_positions(load_manifest(args.lenses, "lenses"))
    built = validate(NegativePoolSettings, pool.facts["settings"], str(args.pool))
    result = measure_pool(read_pool(verified_paths(pool)), lenses, settings, built)
    write_result(args.output, result, MODULE, settings, [args.pool, args.lenses], started)
    for name in result["failed"]:
        one = result["gates"][name]
        logger.warning("%s is %s, outside %s", name, one["value"], one["threshold"])
    logger.info("%d of %d gates pass", len(result["gates"]) - len(result["failed"]), len(result["gates"]))


if __name__ == "__main__":
    run(main)
