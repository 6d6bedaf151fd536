"""Rows of positives: which lenses are taken, which galaxy of the sweeps each is, and what is kept of both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dark_halo_scope.catalogue.confusers import in_pool
from dark_halo_scope.catalogue.crossmatch import chord, separation, unit_vectors
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings
from dark_halo_scope.catalogue.negative_rows import POOL_SCHEMA, POOL_SWEEP_COLUMNS, pool_rows, pool_rules
from dark_halo_scope.catalogue.positive_config import PositiveSettings
from dark_halo_scope.catalogue.selection import bad_row_reasons, is_extended, is_fine, mark_bad
from dark_halo_scope.catalogue.splits import leaking_pairs
from dark_halo_scope.core.quarantine import REASON
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids
from dark_halo_scope.survey.sweeps import PHOTO_Z

_STRING, _F32, _F64, _I32 = pa.string(), pa.float32(), pa.float64(), pa.int32()

GALAXY_SCHEMA = pa.schema(
    [
        # A lens is in neither pool.
        *(field.with_nullable(True) if field.name == "pool" else field for field in POOL_SCHEMA),
        pa.field("z_phot", _F32),
        pa.field("z_phot_std", _F32),
    ]
)
"""What is kept of a galaxy near a lens: the pool's columns, pool and confuser_category null, and photo-z."""

_IN_POOL = "in_pool"

NEAR_SCHEMA = GALAXY_SCHEMA.append(pa.field(_IN_POOL, pa.bool_(), nullable=False))
"""The same, and whether the galaxy would pass the cuts of the pool of negatives."""

POSITIVE_SCHEMA = pa.schema(
    [
        *GALAXY_SCHEMA,
        pa.field("name", _STRING, nullable=False),
        pa.field("names", pa.list_(_STRING), nullable=False),
        pa.field("pos_ra", _F64, nullable=False),
        pa.field("pos_dec", _F64, nullable=False),
        pa.field("separation_arcsec", _F64, nullable=False),
        pa.field("lens_type", _STRING, nullable=False),
        pa.field("grading", _STRING, nullable=False),
        pa.field("tier", _STRING, nullable=False),
        pa.field("sample_weight", _F64, nullable=False),
        pa.field("tier_gen5_prime", _STRING),
        pa.field("zlens", _F64),
        pa.field("zlens_is_certain", pa.bool_(), nullable=False),
        pa.field("theta_e_arcsec", _F64),
        pa.field("discovery", _STRING, nullable=False),
        pa.field("refs", pa.list_(_STRING), nullable=False),
        pa.field("is_desi_named", pa.bool_(), nullable=False),
        pa.field("n_merged", _I32, nullable=False),
    ]
)
"""Columns of a positive.

Those of the pool are the matched galaxy's, ra and dec included (degrees, float64), and so are cell and split: stored
splits of the earlier positives came from a hash of text that differs from process to process, and cells were in two.
pos_ra, pos_dec: where the catalogue has the lens. tier: A confident, B probable, which is a grade and not spectroscopy.
discovery: how the lens was found; recall on what machine learning found in this survey is circular.
"""

UNMATCHED_COLUMNS = ("name", "ra", "dec", "grading", "discovery", REASON)

OUTSIDE = "outside the footprint"
NO_GALAXY = "no galaxy within the radius"
SHARED = "its galaxy is nearer to another lens"
OUTSIDE_CUTS = "outside the negatives' cuts"
ACROSS = "within reach of a positive of another split"

_TIE_ARCSEC = 1e-6  # separations that differ by less are equal: positions have ten digits


@dataclass(frozen=True)
class Chosen:
    """Lenses that are taken, and of the others the reason, each as `UNMATCHED_COLUMNS`."""

    lenses: pa.Table
    left_out: pa.Table


@dataclass(frozen=True)
class Matched:
    """Outcome of the crossmatch.

    Attributes:
        rows: `POSITIVE_SCHEMA`, ordered by brick and objid.
        unmatched: lenses without a row, `UNMATCHED_COLUMNS`.
        ties: lenses with two galaxies equally near, of which the first by galaxy_id is taken.
    """

    rows: pa.Table
    unmatched: pa.Table
    ties: int


def choose_lenses(lenses: pa.Table, settings: PositiveSettings) -> Chosen:
    """Lenses of lenses.json that the settings take; the first reason against one stands."""
    reason_N = np.full(lenses.num_rows, None, dtype=object)
    leave_out = partial(mark_bad, reason_N)
    leave_out([kind not in settings.types for kind in lenses["type"].to_pylist()], "another type of deflector")
    if settings.desi_named:
        leave_out([not named for named in lenses["is_desi_named"].to_pylist()], "no DESI in its names")
    if settings.discovery is not None:
        methods = settings.discovery
        leave_out([found not in methods for found in lenses["discovery"].to_pylist()], "found by another method")
    if settings.exclude_refs:
        marks = settings.exclude_refs
        leave_out(
            [any(mark in ref for ref in refs for mark in marks) for refs in lenses["refs"].to_pylist()],
            "listed by an excluded reference",
        )
    if settings.dec_range is not None:
        dec_N, (low, high) = lenses["dec"].to_numpy(), settings.dec_range
        leave_out((dec_N <= low) | (dec_N >= high), "outside the declinations of the negatives")
    return Chosen(lenses.filter(pa.array(is_fine(reason_N))), _with_reasons(lenses, reason_N))


def galaxies_near(
    sweep: pa.Table,
    name: str,
    first: int,
    lenses: LensPositions,
    settings: PositiveSettings,
    pool: NegativePoolSettings,
) -> tuple[pa.Table, Counter[str]]:
    """Galaxies among rows of one sweep that lie within the radius of some lens.

    Args:
        sweep: columns `POOL_SWEEP_COLUMNS`, and `PHOTO_Z` where there are photometric redshifts.
        name: of the file.
        first: number of the first of these rows in it.
        lenses: that are to be matched.
        pool: of the negatives, for their cuts.

    Returns:
        `NEAR_SCHEMA`; rows that were read and bad.
    """
    columns = {column: sweep[column].to_numpy(zero_copy_only=False) for column in POOL_SWEEP_COLUMNS}
    good_N = np.flatnonzero(is_fine(bad_row_reasons(columns)))
    counts = Counter(read=sweep.num_rows, bad=sweep.num_rows - len(good_N))
    good_N = good_N[is_extended({"TYPE": columns["TYPE"][good_N]})]
    number_N = good_N[lenses.near(columns["RA"][good_N], columns["DEC"][good_N], settings.radius_arcsec)]
    kept = {column: values[number_N] for column, values in columns.items()}
    rows = pool_rows(kept, name, first + number_N, np.full(len(number_N), ""), settings.split_seed)
    rows = rows.set_column(rows.schema.get_field_index("pool"), "pool", pa.nulls(rows.num_rows, _STRING))
    for column, source in zip(("z_phot", "z_phot_std"), PHOTO_Z, strict=True):
        known = source in sweep.column_names
        values = sweep[source].take(pa.array(number_N)).cast(_F32) if known else pa.nulls(len(number_N), _F32)
        rows = rows.append_column(column, values)
    rows = rows.append_column(_IN_POOL, pa.array(in_pool(kept, pool_rules(pool)), pa.bool_()))
    return rows.cast(NEAR_SCHEMA), counts


def match(lenses: pa.Table, galaxies: pa.Table, covered_N: NDArray[np.bool_], settings: PositiveSettings) -> Matched:
    """The nearest galaxy of each lens; of two lenses with one galaxy, the nearer keeps it.

    Args:
        lenses: N rows of lenses.json.
        galaxies: `NEAR_SCHEMA`, from all sweeps; one that two files hold counts once.
        covered_N: (N,) whether the lens lies in the footprint.
    """
    galaxies = galaxies.sort_by([(name, "ascending") for name in ("galaxy_id", "sweep_file", "row_index")])
    names = galaxies["galaxy_id"].to_numpy(zero_copy_only=False).astype(str)
    galaxies = galaxies.take(pa.array(np.unique(names, return_index=True)[1]))
    lens_P, galaxy_P, arcsec_P = _pairs(lenses, galaxies, settings.radius_arcsec)
    # The nearest galaxy first, then by galaxy_id, in which order the galaxies are.
    order_P = np.lexsort((galaxy_P, np.round(arcsec_P / _TIE_ARCSEC), lens_P))
    lens_P, galaxy_P, arcsec_P = lens_P[order_P], galaxy_P[order_P], arcsec_P[order_P]
    lens_M, first_M = np.unique(lens_P, return_index=True)
    second_M = np.minimum(first_M + 1, max(len(lens_P) - 1, 0))
    tied_M = (second_M > first_M) & (lens_P[second_M] == lens_M)
    tied_M &= arcsec_P[second_M] - arcsec_P[first_M] < _TIE_ARCSEC
    galaxy_M, arcsec_M = galaxy_P[first_M], arcsec_P[first_M]

    # Nearest first, a confident lens before a probable one, then as lenses are ordered: by position and name.
    probable_M = np.array(lenses["grading"].to_pylist(), dtype=str)[lens_M] != "confident"
    order_M = np.lexsort((lens_M, probable_M, np.round(arcsec_M / _TIE_ARCSEC)))
    kept_M = order_M[np.unique(galaxy_M[order_M], return_index=True)[1]]

    reason_N = np.where(covered_N, NO_GALAXY, OUTSIDE).astype(object)
    reason_N[lens_M] = SHARED
    reason_N[lens_M[kept_M]] = None
    if settings.same_cuts_as_negatives:
        # After the match: a lens is no other galaxy because its own is not fit.
        inside_K = galaxies[_IN_POOL].to_numpy()[galaxy_M[kept_M]]
        reason_N[lens_M[kept_M[~inside_K]]] = OUTSIDE_CUTS
        kept_M = kept_M[inside_K]
    found = galaxies.take(pa.array(galaxy_M[kept_M]))
    ra_K, dec_K = found["ra"].to_numpy(), found["dec"].to_numpy()
    leaks_P2 = leaking_pairs(ra_K, dec_K, np.array(found["split"].to_pylist()), settings.same_object_arcsec)
    across_K = np.isin(np.arange(len(kept_M)), leaks_P2)
    reason_N[lens_M[kept_M[across_K]]] = ACROSS
    kept_M = kept_M[~across_K]
    rows = _positive_rows(
        lenses.take(pa.array(lens_M[kept_M])), galaxies.take(pa.array(galaxy_M[kept_M])), arcsec_M[kept_M], settings
    )
    rows = rows.sort_by([("brickname", "ascending"), ("objid", "ascending")])
    return Matched(rows, _with_reasons(lenses, reason_N), int(tied_M.sum()))


def in_bricks(lenses: pa.Table, bricknames: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether the brick that owns a lens's position is one of these."""
    if not lenses.num_rows:
        return np.empty(0, dtype=bool)
    owner_N = bricks_of_ids(brickid_at(lenses["ra"].to_numpy(), lenses["dec"].to_numpy())).name
    return np.isin(owner_N, np.array(bricknames, dtype=str))


def _pairs(
    lenses: pa.Table, galaxies: pa.Table, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row numbers of lens and galaxy, and separation in arcsec, of all pairs within `radius` arcsec."""
    if not lenses.num_rows or not galaxies.num_rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    ra_N, dec_N = lenses["ra"].to_numpy(), lenses["dec"].to_numpy()
    ra_M, dec_M = galaxies["ra"].to_numpy(), galaxies["dec"].to_numpy()
    tree = cKDTree(unit_vectors(ra_M, dec_M))
    # An array of lists, whatever scipy's stubs say.
    near: Any = tree.query_ball_point(unit_vectors(ra_N, dec_N), chord(radius))
    lens_P = np.repeat(np.arange(len(near)), [len(found) for found in near])
    galaxy_P = np.array([number for found in near for number in found], dtype=np.int64)
    return lens_P, galaxy_P, separation(ra_N[lens_P], dec_N[lens_P], ra_M[galaxy_P], dec_M[galaxy_P])


def _positive_rows(
    lenses: pa.Table, galaxies: pa.Table, arcsec_N: NDArray[np.float64], settings: PositiveSettings
) -> pa.Table:
    renamed = {"pos_ra": "ra", "pos_dec": "dec", "lens_type": "type", "tier": "tier_grade"}
    weights = [settings.tier_weights[tier] for tier in lenses["tier_grade"].to_pylist()]
    own = {"separation_arcsec": pa.array(arcsec_N, _F64), "sample_weight": pa.array(weights, _F64)}
    arrays = []
    for field in POSITIVE_SCHEMA:
        if field.name in own:
            arrays.append(own[field.name])
        elif field.name in GALAXY_SCHEMA.names:
            arrays.append(galaxies[field.name])
        else:
            arrays.append(lenses[renamed.get(field.name, field.name)].cast(field.type))
    return pa.table(arrays, schema=POSITIVE_SCHEMA)


def _with_reasons(lenses: pa.Table, reason_N: NDArray[np.object_]) -> pa.Table:
    table = lenses.select([name for name in UNMATCHED_COLUMNS if name != REASON])
    table = table.append_column(REASON, pa.array(reason_N, _STRING))
    return table.filter(pc.is_valid(table[REASON]))
