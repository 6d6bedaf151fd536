"""Rows of a dataset of real images: which lenses and negatives it has, and what a row says of them.

What lists them needs no more than this; what cuts them out takes the rows as they are.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.brick_parts import parts_of
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.schema import BANDS
from dark_halo_scope.survey.names import checked_brickname
from dark_halo_scope.survey.units import depth_magnitude

POSITIVE, NEGATIVE = 1, 0
"""`label` of lenses and of galaxies that are none."""

POSITIVES_SET, NEGATIVES_SET = "real_positives", "real_negatives"
"""`selection_set_id` of the two classes."""

_STRING, _I32, _I64, _F32, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64()


def _fields(names: str, dtype: pa.DataType, nullable: bool = True) -> list[pa.Field]:
    return [pa.field(name, dtype, nullable) for name in names.split()]


REAL_SCHEMA = pa.schema(
    [
        # As all manifests of stamps have them.
        *_fields("task_id galaxy_id experiment_id selection_set_id ranking_mode selection_strategy", _STRING, False),
        *_fields("region_split split brickname bandset config_id lens_model pipeline_version", _STRING, False),
        *_fields("region_id stamp_size replicate is_control", _I32, False),
        *_fields("objid healpix_128", _I64, False),
        *_fields("ra dec ab_zp_nmgy", _F64, False),
        # What a finder is trained on and judged by.
        *_fields("label", _I64, False),
        *_fields("tier cutout_path", _STRING, False),
        *_fields("sample_weight", _F64, False),
        *_fields("pool confuser_category control_kind", _STRING),
        *_fields("sampling_prob sampling_weight", _F64),
        # What is known of the lens.
        *_fields("name discovery refs grading tier_gen5_prime", _STRING),
        *_fields("theta_e_arcsec zlens separation_arcsec z_phot", _F64),
        # What a sweep says of the galaxy.
        *_fields("type type_bin nobs_z_bin", _STRING, False),
        *_fields("nobs_z", _I32, False),
        *_fields("maskbits", _I32, False),
        *_fields("psfsize_g psfsize_r psfsize_z psfdepth_g psfdepth_r psfdepth_z ebv", _F64),
        *_fields("gmag rmag zmag w1mag", _F64),
        *_fields("flux_g flux_r flux_z flux_w1 mag_g mag_r mag_z g_minus_r r_minus_z z_minus_w1", _F32),
        *_fields("shape_r shape_e1 shape_e2 sersic", _F32),
    ]
)
"""Columns of a row: from the manifest to stamps, packed rows and scores.

task_id and galaxy_id are one, `{brickname}_{objid}`. ra, dec (degrees) are that galaxy's in the sweeps, of lenses too:
cutouts about a catalogue's own positions would be off centre in one class only. is_control is 1 - label. tier: A and B
of lenses, N1 and N2 of negatives. control_kind: class of a confuser, else N1; null for lenses, like pool and
confuser_category, and like sampling_prob and sampling_weight (its inverse), because nobody sampled them. psfdepth:
5-sigma AB magnitudes, as in every dataset here and unlike the pool's inverse variances. psfsize, shape_r, separation,
theta_e: arcsec; theta_e is null unless known. Fluxes (nanomaggies) and magnitudes (AB) are as observed, null where a
flux is not positive; gmag to w1mag are the same by the names that other datasets have.

label, split, tier, sample_weight, galaxy_id, type, nobs_z_bin, healpix_128 and cutout_path are the plan's training
manifest. cutout_path is `{galaxy_id}.npz`, below the folder of its class where NPZ files exist. Of pixels cut here it
is a name alone: they are in the stamps' row, and at the place of packed arrays, whose task_id is the galaxy_id.
"""


def positive_rows(positives: pa.Table, settings: RealImageSettings) -> pa.Table:
    """Rows of lenses.

    Args:
        positives: columns `POSITIVE_SCHEMA`.
    """
    count = positives.num_rows
    values = {
        "label": [POSITIVE] * count,
        "is_control": [0] * count,
        "selection_set_id": [POSITIVES_SET] * count,
        "config_id": ["POSITIVE"] * count,
        "lens_model": ["REAL"] * count,
        "tier": positives["tier"],
        "sample_weight": positives["sample_weight"],
        "refs": [" | ".join(refs) for refs in positives["refs"].to_pylist()],
        "pool": pa.nulls(count, _STRING),
    }
    same = ("name", "discovery", "grading", "tier_gen5_prime", "theta_e_arcsec", "zlens", "separation_arcsec", "z_phot")
    return _rows(positives, values | {name: positives[name] for name in same}, settings)


def negative_rows(negatives: pa.Table, settings: RealImageSettings) -> pa.Table:
    """Rows of galaxies that are no lenses.

    Args:
        negatives: columns of the stratified sample.
    """
    count = negatives.num_rows
    prob = negatives["sampling_prob"]
    values = {
        "label": [NEGATIVE] * count,
        "is_control": [1] * count,
        "selection_set_id": [NEGATIVES_SET] * count,
        "config_id": negatives["pool"],
        "lens_model": ["CONTROL"] * count,
        "tier": negatives["pool"],
        "sample_weight": [1.0] * count,
        "pool": negatives["pool"],
        "confuser_category": negatives["confuser_category"],
        "control_kind": pc.coalesce(negatives["confuser_category"], negatives["pool"]),
        "sampling_prob": prob,
        "sampling_weight": pc.divide(1.0, prob),
    }
    return _rows(negatives, values, settings)


def _rows(galaxies: pa.Table, values: Mapping[str, Any], settings: RealImageSettings) -> pa.Table:
    """Rows of one class: what the class says (`values`), and what is the same for both."""
    count = galaxies.num_rows
    constants = {
        "experiment_id": settings.experiment_id,
        "ranking_mode": "none",
        "selection_strategy": "healpix_split",
        "bandset": BANDS,
        "pipeline_version": "dark_halo_scope",
        "stamp_size": settings.size,
        "replicate": 0,
        "ab_zp_nmgy": 22.5,
    }
    columns: dict[str, Any] = {name: [value] * count for name, value in constants.items()}
    columns |= {
        "task_id": galaxies["galaxy_id"],
        "region_split": galaxies["split"],
        "region_id": galaxies["healpix_128"],
        "cutout_path": pc.binary_join_element_wise(galaxies["galaxy_id"], ".npz", ""),
    }
    for band in BANDS:
        depth_N = depth_magnitude(galaxies[f"psfdepth_{band}"].to_numpy())
        columns[f"psfdepth_{band}"] = pa.array(depth_N, _F64, from_pandas=True)  # NaN becomes null
        columns[f"{band}mag"] = galaxies[f"mag_{band}"]
    columns["w1mag"] = pc.subtract(galaxies["mag_z"], galaxies["z_minus_w1"])
    columns |= values
    known = set(galaxies.column_names)
    arrays = []
    for field in REAL_SCHEMA:
        value = columns.get(field.name, galaxies[field.name] if field.name in known else pa.nulls(count, field.type))
        value = value if isinstance(value, pa.Array | pa.ChunkedArray) else pa.array(value)
        arrays.append(value.cast(field.type))
    return pa.table(arrays, schema=REAL_SCHEMA)


def listed_files(
    positives: pa.Table, negative_paths: Iterable[Path], settings: RealImageSettings, counts: Counter[str]
) -> Iterator[pa.Table]:
    """Rows of the dataset, whole bricks to a table and few tables to each file of negatives, with the positives of its
    bricks; then positives of bricks without negatives.

    Args:
        positives: columns `POSITIVE_SCHEMA`.
        negative_paths: files of the stratified sample, each of whole bricks; one at a time is held.
        settings: of the dataset.
        counts: gets how many rows went where.

    Raises:
        BadInputError: a galaxy is a positive and a negative, is there twice, or its name is none.
    """
    lenses = LensPositions(positives["ra"].to_numpy(), positives["dec"].to_numpy())
    rest = _inside(positive_rows(positives, settings), settings, counts)
    counts["positives_read"] += positives.num_rows
    known = pa.array(sorted(positives["galaxy_id"].to_pylist()), pa.string())
    if len(known) != pc.count_distinct(known).as_py():
        raise BadInputError("The positives hold a galaxy twice; match them again.")
    for path in negative_paths:
        sample = pq.read_table(path)
        counts["negatives_read"] += sample.num_rows
        both = sample.filter(pc.is_in(sample["galaxy_id"], known))["galaxy_id"].to_pylist()
        if both:
            raise BadInputError(
                f"{path} has {len(both)} galaxies that are positives too, the first is {min(both)}; build the pool of "
                "negatives from the same lenses."
            )
        near_N = lenses.near(sample["ra"].to_numpy(), sample["dec"].to_numpy(), settings.exclude_arcsec)
        counts["negatives_near_positive"] += int(near_N.sum())
        rows = _inside(negative_rows(sample.filter(pa.array(~near_N)), settings), settings, counts)
        here = pc.is_in(rest["brickname"], pc.unique(rows["brickname"]).cast(_STRING))
        yield from _in_files(pa.concat_tables([rest.filter(here), rows]), settings)
        rest = rest.filter(pc.invert(here))
    yield from _in_files(rest, settings)


def _inside(rows: pa.Table, settings: RealImageSettings, counts: Counter[str]) -> pa.Table:
    """Rows of the splits asked for."""
    for name in pc.unique(rows["brickname"]).to_pylist():
        checked_brickname(name)
    inside = rows.filter(pc.is_in(rows["split"], pa.array(settings.splits, _STRING)))
    counts["other_split"] += rows.num_rows - inside.num_rows
    return inside


def _in_files(rows: pa.Table, settings: RealImageSettings) -> Iterator[pa.Table]:
    """Rows in order, in tables of whole bricks that are full once they have `rows_per_file` rows."""
    if pc.count_distinct(rows["task_id"]).as_py() < rows.num_rows:
        raise BadInputError("The sample of negatives holds a galaxy twice; sample it again.")
    rows = rows.sort_by([("brickname", "ascending"), ("objid", "ascending")])
    for bricks in parts_of(rows["brickname"].to_pylist(), settings.rows_per_file):
        yield rows.filter(pc.is_in(rows["brickname"], pa.array(bricks, _STRING)))
