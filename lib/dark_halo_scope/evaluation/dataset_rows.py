"""What is held of every row of a dataset of stamps: 95 bytes, in place of the kilobyte that its columns take."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLITS
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.pairs import column, host_numbers, theta_e_over_psf
from dark_halo_scope.images.codec import common_size
from dark_halo_scope.injection.schema import BLOB_COLUMNS, UNPAIRED, require_columns

REQUIRED = (
    *("task_id", "brickname", "ra", "dec", "split", "healpix_128", "cutout_ok", "cutout_reason", "is_control"),
    *("theta_e_arcsec", "psfsize_r", "source_id", "sampling_weight", "config_id", "replicate", "control_kind"),
    "stamp_size",
)
# What `control_kind` does not call unpaired: galaxies of a class of their own.
CONFUSERS = "confusers"
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class _Held:
    """Of each row, (N,).

    file, row: where it lies.
    task: hash of its task_id, by which samples are drawn and ordered whatever the files.
    brick, source, config, kind, reason: places in `names`; -1 where there is none.
    split: place in SPLITS, -1 of another.
    x: theta_E / psfsize_r.
    psf_bin, depth_bin: -1 where there is none.
    objid: -1 where there is none.
    """

    file: NDArray[np.int32]
    row: NDArray[np.int32]
    task: NDArray[np.uint64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    cell: NDArray[np.int64]
    x: NDArray[np.float64]
    usable: NDArray[np.bool_]
    control: NDArray[np.bool_]
    split: NDArray[np.int8]
    brick: NDArray[np.int32]
    source: NDArray[np.int32]
    config: NDArray[np.int32]
    kind: NDArray[np.int32]
    reason: NDArray[np.int32]
    replicate: NDArray[np.int32]
    psf_bin: NDArray[np.int16]
    depth_bin: NDArray[np.int16]
    objid: NDArray[np.int64]


@dataclass(frozen=True)
class DatasetRows(_Held):
    """Rows of a dataset.

    host: number of the host galaxy, (N,).
    names: column -> the strings that its codes mean.
    nulls: column -> share of nulls among usable positives.
    size: pixels of a stamp's side, 0 without usable rows.
    paths: the stamp files.
    """

    host: NDArray[np.intp]
    names: Mapping[str, tuple[str, ...]]
    nulls: Mapping[str, float]
    size: int
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def pair(self) -> NDArray[np.bool_]:
        """Usable rows with an arc."""
        return self.usable & ~self.control

    def is_named(self, name: str, values: Iterable[str]) -> NDArray[np.bool_]:
        """Rows whose column (`config`, ...) is one of the values."""
        wanted = [code for code, text in enumerate(self.names[name]) if text in set(values)]
        return np.isin(getattr(self, name), wanted)

    def negatives(self, group: str) -> NDArray[np.bool_]:
        """Rows of a group: UNPAIRED, an unpaired dataset's controls, or CONFUSERS, negatives of any class."""
        unpaired = (self.kind < 0) | self.is_named("kind", ["", UNPAIRED])
        return self.control & (unpaired if group == UNPAIRED else ~unpaired)

    def tally(self, name: str, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """Value of a column -> how many chosen rows have it, where any has; sorted."""
        codes = getattr(self, name)[chosen]
        found = np.bincount(codes[codes >= 0], minlength=len(self.names[name])).tolist()
        return {text: count for text, count in sorted(zip(self.names[name], found, strict=True)) if count}

    def numbers(self, name: str) -> NDArray[np.float64] | None:
        """A numeric column from the files, NaN where it is null; None where no file has it."""
        parts, known = [], False
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                if name in file.schema_arrow.names:
                    known = True
                    parts.append(column(file.read([name]), name))
                else:
                    parts.append(np.full(file.metadata.num_rows, np.nan))
        return np.concatenate(parts) if known else None


class _Codes:
    """Numbers for strings, as they come."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, values: pa.Array) -> NDArray[np.int32]:
        encoded = values.dictionary_encode()
        here = [self.known.setdefault(text, len(self.known)) for text in encoded.dictionary.to_pylist()]
        index = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return np.array([*here, -1], dtype=np.int32)[index]


_CODED = {
    "brick": "brickname",
    "source": "source_id",
    "config": "config_id",
    "kind": "control_kind",
    "reason": "cutout_reason",
    "split": "split",
}


def read_rows(paths: Sequence[Path]) -> DatasetRows:
    """Every row of the stamp files; their columns pass by in batches.

    Raises:
        BadInputError: no file, a column is missing, or stamps differ in size.
    """
    if not paths:
        raise BadInputError("The stamps' manifest names no Parquet file; inject again.")
    parts: dict[str, list[NDArray]] = {field.name: [] for field in fields(_Held)}
    codes = {name: _Codes() for name in _CODED}
    present: Counter[str] = Counter()
    positives, sizes = 0, set()
    for number, path in enumerate(paths):
        start = 0
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            require_columns(names, (*REQUIRED, *BLOB_COLUMNS), str(path))
            told = [name for name in names if not name.endswith("_npz")]
            for batch in file.iter_batches(_BATCH_ROWS, columns=told):
                held = _held(batch, number, start, codes)
                start += batch.num_rows
                for name, values in held.items():
                    parts[name].append(values)
                good = batch.filter(pa.array(held["usable"] & ~held["control"]))
                positives += good.num_rows
                present.update({name: good.num_rows - good[name].null_count for name in told})
                sizes.update(batch["stamp_size"].filter(pa.array(held["usable"])).unique().to_pylist())
    # Field by field, so that what is joined is held once.
    held = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    objid = held["objid"] if (held["objid"] >= 0).all() else None
    shares = {name: 1 - count / max(positives, 1) for name, count in sorted(present.items()) if positives}
    return DatasetRows(
        **held,
        host=host_numbers(held["brick"], objid, held["ra"], held["dec"]),
        names={name: tuple(code.known) for name, code in codes.items()},
        nulls={name: share for name, share in shares.items() if share > 0},
        size=common_size(sizes),
        paths=tuple(paths),
    )


def _held(batch: pa.RecordBatch, number: int, start: int, codes: Mapping[str, _Codes]) -> dict[str, NDArray]:
    rows = pa.Table.from_batches([batch])
    coded = {name: codes[name].of(batch[source]) for name, source in _CODED.items()}
    split = np.array([SPLITS.index(text) if text in SPLITS else -1 for text in codes["split"].known] + [-1], np.int8)
    return coded | {
        "file": np.full(len(batch), number, np.int32),
        "row": np.arange(start, start + len(batch), dtype=np.int32),
        "task": pd.util.hash_array(batch["task_id"].to_numpy(zero_copy_only=False)),
        "ra": column(rows, "ra"),
        "dec": column(rows, "dec"),
        "cell": column(rows, "healpix_128").astype(np.int64),
        "x": theta_e_over_psf(rows),
        "usable": column(rows, "cutout_ok") == 1,
        "control": column(rows, "is_control") == 1,
        "split": split[coded["split"]],
        "replicate": _whole(rows, "replicate", np.int32),
        "psf_bin": _whole(rows, "psf_bin", np.int16),
        "depth_bin": _whole(rows, "depth_bin", np.int16),
        "objid": _whole(rows, "objid", np.int64),
    }


def _whole(rows: pa.Table, name: str, dtype: type[np.signedinteger]) -> NDArray:
    """A column of integers >= 0, -1 where it is null or there is none."""
    if name not in rows.column_names:
        return np.full(rows.num_rows, -1, dtype)
    return pc.fill_null(rows[name], -1).to_numpy().astype(dtype)
