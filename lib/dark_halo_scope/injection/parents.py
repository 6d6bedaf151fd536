"""Galaxies of the parent sample as rows of a dataset: which are taken. One file of parents is in memory at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.injection.galaxy_rows import HOST_COLUMNS, control_rows, draw_ranks
from dark_halo_scope.injection.parent_config import ParentStampSettings

SELECTION_SET = "parent"
# `control_kind` of a galaxy of the parent sample of which nothing else is known.
PARENT = "parent"

_COLUMNS = (*HOST_COLUMNS, "release")


@dataclass(frozen=True)
class Share:
    """What a split's draw takes: galaxies whose rank is at most this, each standing for `weight` of them."""

    rank: float
    weight: float


def candidates(path: Path, lenses: LensPositions, settings: ParentStampSettings, counts: Counter[str]) -> pa.Table:
    """Parents of one file that lie in the splits asked for and near no lens.

    Args:
        path: a file of the parent sample.
        lenses: known and candidate ones.
        settings: splits and the radius about lenses.
        counts: gets how many rows were read, of another split, and near a lens.

    Raises:
        CorruptDataError: a row's split is not that of its position.
    """
    table = pq.read_table(path, columns=list(_COLUMNS))
    counts["read"] += table.num_rows
    inside = table.filter(pc.is_in(table["split"], pa.array(settings.splits, pa.string())))
    counts["other_split"] += table.num_rows - inside.num_rows
    ra, dec = inside["ra"].to_numpy(), inside["dec"].to_numpy()
    if len(ra):
        due = split_of_cells(healpix_cell(ra, dec), settings.split_seed)
        wrong = np.flatnonzero(due != np.array(inside["split"].to_pylist()))
        if len(wrong):
            raise CorruptDataError(
                f"{path} has {len(wrong)} galaxies in a split that is not their cell's, the first at RA "
                f"{ra[wrong[0]]}, Dec {dec[wrong[0]]}; use the split_seed of the parent sample, or select it again."
            )
    near = lenses.near(ra, dec, settings.exclude_arcsec)
    counts["near_lens"] += int(near.sum())
    return inside.filter(pa.array(~near))


def shares(paths: Sequence[Path], lenses: LensPositions, settings: ParentStampSettings) -> dict[str, Share]:
    """What the draw takes of each split; of all galaxies only ranks are held, and no more than the limit."""
    found: Counter[str] = Counter()
    lowest = {split: np.empty(0) for split in settings.max_galaxies}
    for path in paths if lowest else ():
        table = candidates(path, lenses, settings, Counter())
        for split, held in lowest.items():
            of_split = table.filter(pc.equal(table["split"], split))
            found[split] += of_split.num_rows
            both = np.concatenate([held, draw_ranks(of_split, settings.seed)])
            limit = settings.max_galaxies[split]
            lowest[split] = np.partition(both, limit - 1)[:limit] if len(both) > limit else both
    result: dict[str, Share] = dict.fromkeys(settings.splits, Share(np.inf, 1.0))
    for split, ranks in lowest.items():
        if len(ranks):
            result[split] = Share(float(ranks.max()), found[split] / len(ranks))
    return result


def parent_rows(
    paths: Sequence[Path], lenses: LensPositions, settings: ParentStampSettings, counts: Counter[str]
) -> Iterator[pa.Table]:
    """Rows as an injection manifest has them for controls, one table per file of the parent sample.

    Which galaxies are drawn depends on their names alone. `sampling_weight` is the number of the split's candidates for
    each one drawn.

    Args:
        paths: files of the parent sample.
        lenses: known and candidate ones.
        settings: of the dataset.
        counts: gets how many rows went where.

    Raises:
        CorruptDataError: see `candidates`.
    """
    taken = shares(paths, lenses, settings)
    for path in paths:
        table = candidates(path, lenses, settings, counts)
        splits = np.array(table["split"].to_pylist(), dtype=str)
        weight = np.array([taken[split].weight for split in splits.tolist()], dtype=np.float64)
        drawn = np.ones(len(splits), dtype=bool)
        if settings.max_galaxies:
            most = np.array([taken[split].rank for split in splits.tolist()], dtype=np.float64)
            drawn = draw_ranks(table, settings.seed) <= most
        counts["not_drawn"] += int(np.sum(~drawn))
        table = table.append_column("sampling_weight", pa.array(weight)).filter(pa.array(drawn))
        kinds = pa.chunked_array([pa.array([PARENT] * table.num_rows, pa.string())])
        rows = control_rows(table, kinds, SELECTION_SET, settings.experiment_id, settings.stamp_size)
        yield rows.sort_by([(name, "ascending") for name in ("brickname", "objid", "task_id")])
