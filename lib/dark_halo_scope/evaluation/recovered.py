"""Injections that the frozen finder has scored, as the selection function counts them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, verified_paths
from dark_halo_scope.evaluation.completeness import Injections
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.intervals import FloatArray

KIND = "recovery"

#: The split whose galaxies trained nothing and chose nothing.
SPLIT = "test"

_BATCH_ROWS = 200_000
#: Single precision on the way: so many decimals bring back the edges of bins.
_DECIMALS = 6
_TEXT = ("brickname", "task_id", "family", "split")


@dataclass(frozen=True)
class Recovered:
    """N injections of all families, and what the finder said.

    injections: values, weights and hosts.
    logit: of each, (N,).
    family: index into `families`, (N,).
    families: names, sorted.
    draw: number of the draw of lens and source that each came from, from 0, (N,): families share draws.
    """

    injections: Injections
    logit: FloatArray
    family: NDArray[np.integer]
    families: tuple[str, ...]
    draw: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.logit)

    @property
    def rows_per_draw(self) -> float:
        """How many families each draw went through, on average: so many rows say as much as one."""
        return len(self) / len(np.unique(self.draw))

    def of(self, family: str) -> "Recovered":
        """The injections of one family."""
        chosen = self.family == self.families.index(family)
        weight, axes = self.injections.weight[chosen], self.injections.axes
        host = np.unique(self.injections.host[chosen], return_inverse=True)[1]
        return Recovered(
            Injections({name: values[chosen] for name, values in axes.items()}, weight, host),
            self.logit[chosen],
            np.zeros(int(chosen.sum()), dtype=np.intp),
            (family,),
            self.draw[chosen],
        )


def read_recovered(manifest: Manifest) -> Recovered:
    """The rows of a recovery manifest that count for the selection function; rungs of the ladder alone do not.

    Raises:
        BadInputError: no row counts, or a host is not of the test split.
        CorruptDataError: a logit or weight is no usable number.
    """
    columns = [*_TEXT, "objid", "selection", "weight", "logit", *AXES]
    parts: list[pa.Table] = []
    for path in verified_paths(manifest):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                table = pa.Table.from_batches([batch])
                parts.append(table.filter(pc.field("selection")))
    if not sum(len(part) for part in parts):
        raise BadInputError(f"{manifest.uri} has no row that counts for the selection function; inject with a family.")
    table = pa.concat_tables(parts).combine_chunks()
    splits = sorted(set(pc.unique(table["split"]).to_pylist()), key=str)
    if splits != [SPLIT]:
        raise BadInputError(
            f"{manifest.uri} has hosts of the splits {', '.join(map(str, splits))}, and the finder may have learned "
            f"from all but {SPLIT}; inject into galaxies of {SPLIT} alone."
        )
    logit, weight = _numbers(table, "logit"), _numbers(table, "weight")
    if np.isnan(logit).any():
        raise CorruptDataError(f"{manifest.uri} has logits that are no numbers; run the recovery again.")
    if not np.all(weight >= 0) or not np.isfinite(weight).all() or not weight.any():
        raise CorruptDataError(f"{manifest.uri} has weights that are unknown or negative, or all 0; inject again.")
    names, family = np.unique(np.asarray(table["family"].to_pylist(), dtype=str), return_inverse=True)
    axes = {name: np.round(_numbers(table, name), _DECIMALS) for name in AXES}
    return Recovered(
        Injections(axes, weight, _hosts(table)),
        logit,
        family,
        tuple(str(name) for name in names),
        _codes(table["task_id"]),
    )


def found_by(recovered: Recovered, thresholds: Mapping[str, float]) -> dict[str, NDArray[np.bool_]]:
    """By threshold, (N,) whether each injection is found."""
    return {name: recovered.logit >= logit for name, logit in thresholds.items()}


def _numbers(table: pa.Table, name: str) -> FloatArray:
    return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _codes(values: pa.ChunkedArray) -> NDArray[np.int64]:
    encoded = values.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices, dtype=np.int64)


def _hosts(table: pa.Table) -> NDArray[np.intp]:
    """Number of each row's galaxy: brick and object id."""
    pair = np.stack([_codes(table["brickname"]), np.asarray(table["objid"], dtype=np.int64)])
    return np.unique(pair, axis=1, return_inverse=True)[1].ravel()
