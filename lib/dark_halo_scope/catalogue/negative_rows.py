"""Rows of the negative pool: which sweep rows are negatives, of which pool, and what is kept of them.

N1 stands for what a finder meets on the sky, N2 for what it confuses with lenses: the four classes of the real-image
track, `PROXIES` in `catalogue.confusers`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.catalogue.confusers import PROXIES, RULES, Rules, confuser_classes, in_pool, neighbours
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.negative_pool_config import NOBS_Z_BINS, NegativePoolSettings
from dark_halo_scope.catalogue.selection import CHECKED_COLUMNS, bad_row_reasons, is_fine
from dark_halo_scope.catalogue.splits import healpix_cell, near_other_split, split_of_cells
from dark_halo_scope.core.quarantine import REASON
from dark_halo_scope.survey.units import magnitude

N1, N2 = "N1", "N2"

PIPELINE_VERSION = "dark_halo_scope 1"
"""Raised when the same sweeps would give other rows."""

_BANDS = ("G", "R", "Z")
_FLUX_BANDS = (*_BANDS, "W1")

POOL_SWEEP_COLUMNS = tuple(
    dict.fromkeys(
        [
            *("BRICKNAME", "OBJID", "RA", "DEC", "TYPE", "MASKBITS", "FITBITS", "EBV", "SERSIC"),
            *("SHAPE_R", "SHAPE_E1", "SHAPE_E2"),
            *(f"FLUX_{band}" for band in _FLUX_BANDS),
            *(f"MW_TRANSMISSION_{band}" for band in _FLUX_BANDS),
            *(f"{name}_{band}" for name in ("NOBS", "PSFSIZE", "PSFDEPTH", "GALDEPTH") for band in _BANDS),
            *CHECKED_COLUMNS,
        ]
    )
)
"""What the pool reads of a sweep."""

_STRING, _F32, _F64, _I32, _I64 = pa.string(), pa.float32(), pa.float64(), pa.int32(), pa.int64()

POOL_SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", _STRING, nullable=False),
        pa.field("brickname", _STRING, nullable=False),
        pa.field("objid", _I32, nullable=False),
        pa.field("ra", _F64, nullable=False),
        pa.field("dec", _F64, nullable=False),
        pa.field("type", _STRING, nullable=False),
        pa.field("nobs_z", _I32, nullable=False),
        pa.field("nobs_z_bin", _STRING, nullable=False),
        pa.field("type_bin", _STRING, nullable=False),
        *(pa.field(f"flux_{band.lower()}", _F32) for band in _FLUX_BANDS),
        *(pa.field(f"mag_{band.lower()}", _F32) for band in _BANDS),
        *(pa.field(name, _F32) for name in ("g_minus_r", "r_minus_z", "z_minus_w1")),
        *(pa.field(f"{name}_{band.lower()}", _F32) for name in ("psfsize", "psfdepth", "galdepth") for band in _BANDS),
        pa.field("ebv", _F32, nullable=False),
        *(pa.field(f"mw_transmission_{band.lower()}", _F32, nullable=False) for band in _BANDS),
        *(pa.field(name, _F32, nullable=False) for name in ("shape_r", "shape_e1", "shape_e2")),
        pa.field("sersic", _F32),
        pa.field("maskbits", _I32, nullable=False),
        pa.field("fitbits", _I32, nullable=False),
        pa.field("healpix_64", _I64, nullable=False),
        pa.field("healpix_128", _I64, nullable=False),
        pa.field("split", _STRING, nullable=False),
        pa.field("pool", _STRING, nullable=False),
        pa.field("confuser_category", _STRING),
        pa.field("sweep_file", _STRING, nullable=False),
        pa.field("row_index", _I64, nullable=False),
        pa.field("pipeline_version", _STRING, nullable=False),
        pa.field("git_commit", _STRING),
        pa.field("extraction_timestamp", _STRING),
    ]
)
"""The 48 columns of the earlier pipeline's pool, by its names.

galaxy_id is `{brickname}_{objid}`. ra, dec: degrees. Fluxes: nanomaggies as observed; magnitudes and colours: AB, as
observed, null where a flux is not positive. psfsize: arcsec; psfdepth and galdepth: inverse variances, nanomaggy^-2,
as sweeps have them and not magnitudes as in the parent sample; all three null where there is no exposure. shape_r:
arcsec. healpix_64 and healpix_128: nested cells of the position, from which the split follows: the earlier pool's were
hashes of each object's own coordinates wherever healpy was absent, and are never read. confuser_category is null for
N1. git_commit and extraction_timestamp are null: equal inputs give equal bytes, and the manifest's provenance has both.
"""

UNITS = {
    **dict.fromkeys(("ra", "dec"), "deg"),
    **dict.fromkeys((f"flux_{band.lower()}" for band in _FLUX_BANDS), "nanomaggy"),
    **dict.fromkeys(
        (*(f"mag_{band.lower()}" for band in _BANDS), "g_minus_r", "r_minus_z", "z_minus_w1", "ebv"), "mag"
    ),
    **dict.fromkeys((*(f"psfsize_{band.lower()}" for band in _BANDS), "shape_r"), "arcsec"),
    **dict.fromkeys((f"{name}_{band.lower()}" for name in ("psfdepth", "galdepth") for band in _BANDS), "nanomaggy^-2"),
}
"""Unit of each column that has one."""

QUARANTINE_COLUMNS = ("sweep_file", "row_index", "galaxy_id", "brickname", "ra", "dec", REASON)

Columns = Mapping[str, NDArray]


@dataclass(frozen=True)
class PoolPart:
    """Outcome of rows of one sweep.

    Attributes:
        rows: `POOL_SCHEMA`, in file order.
        near_border: (N,) whether a row may have a partner in another split.
        bad: unusable rows, `QUARANTINE_COLUMNS`.
        counts: rows read, bad, outside_pool, near_lens.
    """

    rows: pa.Table
    near_border: NDArray[np.bool_]
    bad: pa.Table
    counts: Counter[str]


def pool_rules(settings: NegativePoolSettings) -> Rules:
    """Cuts of the pool's preset with the thresholds of the chosen classes of confusers."""
    thresholds = RULES[settings.confusers]
    return replace(
        RULES[settings.preset],
        dereddened=settings.dereddened,
        ring_types=thresholds.ring_types,
        edge_on_types=thresholds.edge_on_types,
        edge_on_ellipticity=thresholds.edge_on_ellipticity,
        edge_on_size=thresholds.edge_on_size,
        classes=PROXIES,
    )


def nobs_z_bins(nobs_z: ArrayLike) -> NDArray[np.str_]:
    """(N,) bin of each number of exposures in z, "" below one."""
    nobs_N = np.asarray(nobs_z)
    return np.array(["", *NOBS_Z_BINS])[np.searchsorted((1, 3, 6, 11), nobs_N, side="right")]


def select_negatives(
    sweep: pa.Table, name: str, first: int, lenses: LensPositions, settings: NegativePoolSettings
) -> PoolPart:
    """Negatives among rows of one sweep.

    Args:
        sweep: columns `POOL_SWEEP_COLUMNS`.
        name: of the file.
        first: number of the first of these rows in it.
        lenses: known and candidate lenses.
    """
    columns = {column: sweep[column].to_numpy(zero_copy_only=False) for column in POOL_SWEEP_COLUMNS}
    reason_N = bad_row_reasons(columns)
    fine_N = is_fine(reason_N)
    good_N, bad_N = np.flatnonzero(fine_N), np.flatnonzero(~fine_N)
    rules = pool_rules(settings)
    counts = Counter(read=sweep.num_rows, bad=len(bad_N))
    inside_N = in_pool({key: values[good_N] for key, values in columns.items()}, rules)
    counts["outside_pool"] = int(np.sum(~inside_N))
    number_N = good_N[inside_N]
    near_N = lenses.near(columns["RA"][number_N], columns["DEC"][number_N], settings.lens_radius_arcsec)
    counts["near_lens"] = int(near_N.sum())
    number_N = number_N[~near_N]
    kept = {key: values[number_N] for key, values in columns.items()}
    return PoolPart(
        rows=pool_rows(
            kept,
            name,
            first + number_N,
            confuser_classes(kept, rules, neighbours([], rules)),
            settings.split_seed,
        ),
        near_border=near_other_split(kept["RA"], kept["DEC"], settings.same_object_arcsec, settings.split_seed)
        if len(number_N)
        else np.empty(0, dtype=bool),
        bad=_bad_rows({key: columns[key][bad_N] for key in columns}, name, first + bad_N, reason_N[bad_N]),
        counts=counts,
    )


def pool_rows(
    row: Columns, sweep: str, number_N: NDArray[np.int64], kind_N: NDArray[np.str_], split_seed: int
) -> pa.Table:
    """Usable sweep rows with the pool's columns.

    Args:
        row: columns `POOL_SWEEP_COLUMNS`, each (N,).
        sweep: name of the file.
        number_N: their numbers in it.
        kind_N: class of confuser, "" for none.
        split_seed: see `split_of_cells`.
    """
    count = len(number_N)
    mag = {band: magnitude(row[f"FLUX_{band}"]) for band in _FLUX_BANDS}
    kinds = np.char.strip(row["TYPE"].astype(str))
    cell_N = healpix_cell(row["RA"], row["DEC"]) if count else np.empty(0, dtype=np.int64)
    values: dict[str, object] = {
        "galaxy_id": _galaxy_ids(row),
        "brickname": row["BRICKNAME"],
        "type": kinds,
        "type_bin": kinds,
        "nobs_z_bin": nobs_z_bins(row["NOBS_Z"]),
        "g_minus_r": mag["G"] - mag["R"],
        "r_minus_z": mag["R"] - mag["Z"],
        "z_minus_w1": mag["Z"] - mag["W1"],
        # Nested: a cell of nside 64 is four of nside 128.
        "healpix_64": cell_N >> 2,
        "healpix_128": cell_N,
        "split": split_of_cells(cell_N, split_seed),
        "pool": np.where(kind_N == "", N1, N2),
        "confuser_category": pa.array([str(kind) or None for kind in kind_N], _STRING),
        "sweep_file": np.full(count, sweep),
        "row_index": number_N,
        "pipeline_version": np.full(count, PIPELINE_VERSION),
        "git_commit": pa.nulls(count, _STRING),
        "extraction_timestamp": pa.nulls(count, _STRING),
    }
    for band in _BANDS:
        values[f"mag_{band.lower()}"] = mag[band]
        for name in ("PSFSIZE", "PSFDEPTH", "GALDEPTH"):
            measured_N = row[f"{name}_{band}"].astype(np.float32)
            values[f"{name.lower()}_{band.lower()}"] = np.where(measured_N > 0, measured_N, np.float32(np.nan))
    arrays = []
    for field in POOL_SCHEMA:
        value = values.get(field.name)
        arrays.append(_array(row[field.name.upper()] if value is None else value, field.type))
    return pa.table(arrays, schema=POOL_SCHEMA)


def _array(values: object, dtype: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_floating(dtype):
        floats = np.asarray(values, dtype=dtype.to_pandas_dtype())
        return pa.array(floats, dtype, from_pandas=True)  # NaN becomes null
    return pa.array(values, dtype) if pa.types.is_string(dtype) else pa.array(values).cast(dtype)


def _galaxy_ids(row: Columns) -> NDArray[np.str_]:
    names = np.char.add(row["BRICKNAME"].astype(str), "_")
    return np.char.add(names, row["OBJID"].astype(np.int64).astype(str))


def _bad_rows(row: Columns, sweep: str, number_N: NDArray[np.int64], reason_N: NDArray[np.object_]) -> pa.Table:
    """What can be said of rows that cannot be used."""
    return pa.table(
        {
            "sweep_file": pa.array([sweep] * len(number_N), _STRING),
            "row_index": pa.array(number_N, _I64),
            "galaxy_id": pa.array(_galaxy_ids(row), _STRING),
            "brickname": pa.array(row["BRICKNAME"], _STRING),
            "ra": pa.array(row["RA"], _F64),
            "dec": pa.array(row["DEC"], _F64),
            REASON: pa.array(reason_N, _STRING),
        }
    )
