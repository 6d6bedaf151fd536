"""Made-up negative pools: rows with the pool's columns, and a manifest of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import N1, N2, POOL_SCHEMA, nobs_z_bins
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.manifest import attempt

TYPES = ("SER", "DEV", "REX")
PER_BRICK = 400


def pool_table(count: int, seed: int = 0, n2_share: float = 0.25, first_brick: int = 0) -> pa.Table:
    """As many negatives, `PER_BRICK` to a brick, in the strata that a pool with at least three exposures has.

    Args:
        first_brick: number of the first brick: parts of one pool need different ones.
    """
    rng = np.random.default_rng(seed)
    brick = first_brick + np.arange(count) // PER_BRICK
    names = np.array(
        [f"{number % 3600:04d}{'pm'[number // 3600 % 2]}{number // 7200:03d}" for number in range(brick.max() + 1)]
    )
    nobs = rng.choice([3, 4, 5, 6, 8, 10, 11, 14], count, p=[0.3, 0.25, 0.14, 0.1, 0.08, 0.07, 0.03, 0.03])
    kinds = rng.choice(TYPES, count, p=[0.3, 0.2, 0.5])
    confuser = rng.random(count) < n2_share
    ra, dec = rng.uniform(0, 360, count), rng.uniform(-18, 32, count)
    cells = healpix_cell(ra, dec)
    objids = np.arange(count) % PER_BRICK
    values: dict[str, object] = {
        "galaxy_id": np.char.add(np.char.add(names[brick], "_"), objids.astype(str)),
        "brickname": names[brick],
        "objid": objids,
        "ra": ra,
        "dec": dec,
        "type": kinds,
        "type_bin": kinds,
        "nobs_z": nobs,
        "nobs_z_bin": nobs_z_bins(nobs),
        "healpix_64": cells >> 2,
        "healpix_128": cells,
        "split": split_of_cells(cells),
        "pool": np.where(confuser, N2, N1),
        "confuser_category": pa.array(np.where(confuser, "ring_proxy", ""), mask=~confuser),
        "row_index": np.arange(count),
    }
    arrays = []
    for field in POOL_SCHEMA:
        value = values.get(field.name)
        if value is None and pa.types.is_string(field.type):
            value = pa.nulls(count, field.type) if field.nullable else ["made up"] * count
        elif value is None:
            value = rng.uniform(15, 25, count)
            value = value.astype(field.type.to_pandas_dtype())
        arrays.append(value if isinstance(value, pa.Array) else pa.array(value).cast(field.type))
    return pa.table(arrays, schema=POOL_SCHEMA)


def write_pool(output: Path, parts: Sequence[pa.Table]) -> Path:
    """A pool's manifest at `output`, one file for each part."""
    with attempt(output, "negative_pool", "dark_halo_scope.catalogue.negative_pool", {}, []) as work:
        for number, part in enumerate(parts):
            pq.write_table(part, work.prefix / f"negatives-{number:04d}.parquet", compression="zstd")
        facts = {"settings": NegativePoolSettings().model_dump(mode="json")}
        work.publish(rows_out=sum(part.num_rows for part in parts), facts=facts)
    return output
