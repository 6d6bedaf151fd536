"""Hosts of injection and recovery: galaxies of the test split, which no network has learnt from.

Hosts are the parent sample, the lens galaxies that a search looks at, or negatives of the pool, which stand for
everything that it looks at and have no photometric redshift.
"""

from collections import Counter
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest, verified_paths
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.injection.recovery_schema import HOST_SCHEMA
from dark_halo_scope.injection.tasks import hash_fraction
from dark_halo_scope.survey.units import depth_magnitude

SPLIT = "test"
PARENT, NEGATIVES = "parent", "negatives"

_BANDS = "grz"
_COMMON = ("brickname", "objid", "ra", "dec", "healpix_128", "split", "ebv", "shape_e1", "shape_e2")
_CONDITIONS = tuple(f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in _BANDS)
_MAGNITUDES = {PARENT: [f"{band}mag" for band in _BANDS], NEGATIVES: [f"mag_{band}" for band in _BANDS]}


def read_hosts(
    manifest: Manifest,
    lenses: LensPositions,
    bricks: Collection[str],
    settings: RecoverySettings,
    counts: Counter[str],
) -> pa.Table:
    """Hosts of the test split with known conditions, in bricks that there are coadds of, away from known lenses.

    One file is in memory at a time, with the hosts that are taken: at most `max_hosts`, by a hash of their names.

    Args:
        manifest: of the parent sample, or of negatives.
        lenses: known and candidate ones.
        bricks: whose coadds are at hand.
        settings: limits and seeds.
        counts: gets how many rows went where.

    Returns:
        `HOST_SCHEMA`, sorted by brick, then by declination, so that neighbours share tiles of the coadds.

    Raises:
        BadInputError: galaxies of another kind, a column is missing, a galaxy is listed twice, or no host is left.
        CorruptDataError: a row's cell or split is not that of its position.
    """
    if manifest.kind not in _MAGNITUDES:
        raise BadInputError(
            f"Hosts are taken from a manifest of {PARENT!r} or of {NEGATIVES!r}, and {manifest.uri} is one of "
            f"{manifest.kind!r}; give parent.json or negatives.json."
        )
    needed = [*_COMMON, *_CONDITIONS, *_MAGNITUDES[manifest.kind]]
    needed += ["z_phot"] if manifest.kind == PARENT else []
    missing = [name for name in needed if name not in manifest.columns]
    if missing:
        raise BadInputError(f"{manifest.uri} lacks the columns {', '.join(missing)}; make it again.")
    held, held_rank = HOST_SCHEMA.empty_table(), np.empty(0)
    for path in verified_paths(manifest):
        hosts = _usable(pq.read_table(path, columns=needed), manifest.kind, lenses, bricks, settings, counts)
        rank = _ranks(hosts, settings.seed)
        held, held_rank = pa.concat_tables([held, hosts]), np.concatenate([held_rank, rank])
        if settings.max_hosts is not None and len(held_rank) > settings.max_hosts:
            # Names break ties, so that the order of files changes nothing.
            order = np.lexsort((np.array(held["galaxy_id"].to_pylist(), dtype=str), held_rank))[: settings.max_hosts]
            counts["not_drawn"] += len(held_rank) - len(order)
            held, held_rank = held.take(pa.array(order)), held_rank[order]
    counts["taken"] = held.num_rows
    if not held.num_rows:
        raise BadInputError(
            f"{manifest.uri} has no host of the split {SPLIT} with known seeing and depth in a cached brick "
            f"({dict(counts)}); give coadds of the bricks that the hosts are in."
        )
    hosts = held.sort_by([(name, "ascending") for name in ("brickname", "dec", "ra", "galaxy_id")]).combine_chunks()
    if pc.count_distinct(hosts["galaxy_id"]).as_py() < hosts.num_rows:
        raise BadInputError(f"{manifest.uri} lists a galaxy twice; remove the duplicates.")
    return hosts


def _usable(
    table: pa.Table,
    kind: str,
    lenses: LensPositions,
    bricks: Collection[str],
    settings: RecoverySettings,
    counts: Counter[str],
) -> pa.Table:
    """The hosts of one file, as `HOST_SCHEMA`."""
    counts["read"] += table.num_rows
    unknown = pc.invert(pc.is_in(table["split"], pa.array(["train", "val", SPLIT])))
    if pc.any(unknown).as_py():
        raise CorruptDataError("A galaxy of the hosts' catalogue has no known split; make the catalogue again.")
    inside = table.filter(pc.equal(table["split"], SPLIT))
    counts["other_split"] += table.num_rows - inside.num_rows
    ra, dec = (inside[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
    if len(ra):
        cell = healpix_cell(ra, dec)
        wrong = (cell != inside["healpix_128"].to_numpy()) | (split_of_cells(cell, settings.split_seed) != SPLIT)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise CorruptDataError(
                f"{int(wrong.sum())} galaxies have a split {SPLIT} or a cell that is not their position's, the first "
                f"at RA {ra[first]}, Dec {dec[first]}; use the split_seed of the catalogue, or make it again."
            )
    reason = np.zeros(inside.num_rows, dtype="U32")

    def leave_out(where: NDArray[np.bool_], why: str) -> None:
        reason[where & (reason == "")] = why

    values = {name: _floats(inside, name) for name in (*_CONDITIONS, "ebv", "shape_e1", "shape_e2")}
    if kind == NEGATIVES:
        # Sweeps have inverse variances, survey-bricks and all that follows from them magnitudes.
        values |= {f"psfdepth_{band}": depth_magnitude(values[f"psfdepth_{band}"]) for band in _BANDS}
    positive = [np.isfinite(values[name]) & (values[name] > 0) for name in _CONDITIONS]
    shaped = [np.isfinite(values[name]) for name in ("ebv", "shape_e1", "shape_e2")]
    leave_out(lenses.near(ra, dec, settings.exclude_arcsec) if len(ra) else np.zeros(0, bool), "near_lens")
    leave_out(~np.all([*positive, *shaped], axis=0), "unknown_condition")
    leave_out(~np.isin(np.array(inside["brickname"].to_pylist(), dtype=str), sorted(bricks)), "brick_not_cached")
    counts.update(name for name in reason.tolist() if name)
    for band, name in zip(_BANDS, _MAGNITUDES[kind], strict=True):
        values[f"{band}mag"] = _floats(inside, name)
    values["z_phot"] = _floats(inside, "z_phot") if kind == PARENT else np.full(inside.num_rows, np.nan)
    names = zip(inside["brickname"].to_pylist(), inside["objid"].to_pylist(), strict=True)
    columns = {
        "galaxy_id": pa.array([f"{brick}_{objid}" for brick, objid in names], pa.string()),
        **{name: inside[name] for name in ("brickname", "objid", "healpix_128", "split", "ra", "dec")},
        **{name: pa.array(numbers, from_pandas=True) for name, numbers in values.items()},
    }
    kept = pa.array(reason == "")
    return (
        pa.table({field.name: columns[field.name].cast(field.type) for field in HOST_SCHEMA})
        .filter(kept)
        .cast(HOST_SCHEMA)
    )


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, nulls as NaN."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)


def _ranks(hosts: pa.Table, seed: int) -> NDArray[np.float64]:
    names = hosts["galaxy_id"].to_pylist()
    return np.array([hash_fraction(f"{name}|{seed}|recovery") for name in names], dtype=np.float64)
