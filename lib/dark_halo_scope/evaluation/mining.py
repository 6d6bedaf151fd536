"""Hard negatives among scored galaxies: which are taken, best first, with memory for the taken ones and one batch."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, verified_path
from dark_halo_scope.evaluation.mining_config import MiningSettings
from dark_halo_scope.images.mined import HARD_MINED, IMAGES, ROWS
from dark_halo_scope.images.packed import NEGATIVE, NEGATIVE_ROWS, open_images

#: Mined galaxies are trained on, so they come from nowhere else.
SPLIT = "train"

_READ = ("task_id", "ra", "dec", "split", "kind", "label", "packed_row", "logit", "score")
_IMAGES_AT_ONCE = 1024
_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Winners:
    """Galaxies that were taken.

    rows: task_id, packed_row, logit, score; by logit, highest first, then task_id.
    counts: how many scores were read, and why others were not taken.
    """

    rows: pa.Table
    counts: dict[str, int]


def winners(
    paths: Sequence[Path],
    lenses: LensPositions,
    settings: MiningSettings,
    advance: Callable[[int], None] = lambda count: None,
) -> Winners:
    """The galaxies with the highest logits among images that are in no pair.

    Logits decide, because scores near 1 are equal where logits are not; of equal logits the lowest task_id. A galaxy
    that was scored more than once (its position is the same to 4 mas) counts with its highest logit.

    Args:
        paths: files of scores.
        lenses: known and candidate ones.
        settings: how many, from which score on, and how far from lenses.
        advance: told how many scores were read.

    Raises:
        BadInputError: a file lacks a column, or a score is not of the training split.
        CorruptDataError: a galaxy that would be taken does not lie in a training cell, or is labelled a lens.
    """
    counts: Counter[str] = Counter(scored=0, of_pairs=0, below_min_score=0, near_lens=0)
    held: pa.Table | None = None
    for path in paths:
        with pq.ParquetFile(path) as file:
            missing = [name for name in _READ if name not in file.schema_arrow.names]
            if missing:
                raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; score the galaxies again.")
            for batch in file.iter_batches(settings.batch_rows, columns=list(_READ)):
                found = _eligible(pa.Table.from_batches([batch]), path, lenses, settings, counts)
                held = _best(found if held is None else pa.concat_tables([held, found]), settings.top_k)
                advance(batch.num_rows)
    if held is None:
        raise BadInputError("The scores' manifest names no Parquet file; score the galaxies again.")
    return Winners(held.select(["task_id", "packed_row", "logit", "score"]), dict(counts))


def _eligible(
    table: pa.Table, path: Path, lenses: LensPositions, settings: MiningSettings, counts: Counter[str]
) -> pa.Table:
    counts["scored"] += table.num_rows
    others = sorted(set(pc.unique(table["split"]).to_pylist()) - {SPLIT}, key=str)
    if others:
        raise BadInputError(f"{path} has scores of the split {others[0]}; only galaxies of training cells are mined.")
    negatives = table.filter(pc.equal(table["kind"], NEGATIVE))
    counts["of_pairs"] += table.num_rows - negatives.num_rows
    high = negatives.filter(pc.greater_equal(negatives["score"], settings.min_score))
    counts["below_min_score"] += negatives.num_rows - high.num_rows
    ra, dec = (high[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
    if len(ra):
        strangers = np.flatnonzero(split_of_cells(healpix_cell(ra, dec), settings.split_seed) != SPLIT)
        if len(strangers):
            raise CorruptDataError(
                f"{path} has {len(strangers)} galaxies that do not lie in a training cell, the first is "
                f"{high['task_id'][int(strangers[0])]}; select the parent sample again."
            )
        if pc.any(pc.not_equal(high["label"], 0)).as_py():
            raise CorruptDataError(f"{path} has negatives that are labelled lenses; score the galaxies again.")
    near = lenses.near(ra, dec, settings.exclude_arcsec)
    counts["near_lens"] += int(near.sum())
    return high.filter(pa.array(~near)).select(["task_id", "ra", "dec", "packed_row", "logit", "score"])


def _best(table: pa.Table, most: int) -> pa.Table:
    """The first `most` galaxies by logit, each once."""
    ordered = table.sort_by([("logit", "descending"), ("task_id", "ascending")])
    # Six decimals of a degree (4 mas), as task ids have them.
    place = pd.DataFrame({name: np.rint(ordered[name].to_numpy() * 1e6) for name in ("ra", "dec")})
    return ordered.filter(pa.array(~place.duplicated().to_numpy())).slice(0, most).combine_chunks()


def write_images(packed: Manifest, places: NDArray[np.int64], target: Path) -> None:
    """Copy images of the training split's negatives, (M, 3, H, W), to one array.

    Args:
        packed: manifest of the galaxies.
        places: (M,) their places in the packed array.
        target: an `.npy` file.
    """
    images = open_images(packed, SPLIT, NEGATIVE)
    shape = (len(places), *images.shape[1:])
    if not len(places):
        np.save(target, np.empty(shape, np.float16))
        return
    copied = np.lib.format.open_memmap(target, "w+", np.float16, shape)
    # In the order in which the packed array has them, so that a disk is read forwards.
    order = np.argsort(places, kind="stable")
    for start in range(0, len(order), _IMAGES_AT_ONCE):
        here = order[start : start + _IMAGES_AT_ONCE]
        copied[here] = images[places[here]]
    copied.flush()


def mined_rows(packed: Manifest, taken: pa.Table) -> pa.Table:
    """What the packed rows say of the galaxies taken, in their order.

    Returns:
        The packed columns with is_control = 1 (int8) and control_kind = `hard_mined`; added are `mined_from`, what that
        was before, `logit` and `score`.

    Raises:
        CorruptDataError: a packed row is not the one that was scored.
    """
    places = taken["packed_row"].to_numpy()
    order = np.argsort(places, kind="stable")
    parts, first = [], 0
    with pq.ParquetFile(verified_path(packed, f"{SPLIT}/{NEGATIVE_ROWS}")) as file:
        parts.append(file.schema_arrow.empty_table())
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            low, high = np.searchsorted(places[order], [first, first + batch.num_rows])
            parts.append(pa.Table.from_batches([batch.take(pa.array(places[order[low:high]] - first))]))
            first += batch.num_rows
    found = pa.concat_tables(parts)
    if found.num_rows != len(places):
        raise CorruptDataError(f"{packed.uri} has fewer galaxies than were scored; score them again.")
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    rows = found.take(pa.array(back))
    if not rows["task_id"].equals(taken["task_id"]):
        raise CorruptDataError(f"The galaxies in {packed.uri} are not those that were scored; score them again.")
    count = rows.num_rows
    changed = {
        "is_control": pa.array(np.ones(count, np.int8)),
        "control_kind": pa.array([HARD_MINED] * count, pa.string()),
    }
    added = {"mined_from": rows["control_kind"], "logit": taken["logit"], "score": taken["score"]}
    for name, values in changed.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    for name, values in added.items():
        rows = rows.append_column(name, values)
    return rows


def write_mined(packed: Manifest, taken: pa.Table, prefix: Path) -> pa.Schema:
    """Write the images and rows of the galaxies taken below `prefix`; returns the rows' schema.

    Raises:
        CorruptDataError: see `mined_rows`.
    """
    rows = mined_rows(packed, taken)
    write_images(packed, taken["packed_row"].to_numpy(), prefix / IMAGES)
    pq.write_table(rows, prefix / ROWS, compression="zstd")
    return rows.schema
