"""Rows of a dataset of real images: which lenses and negatives it has, and what a row says of them.

What lists them needs no more than this; what cuts them out takes the rows as they are.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.schema import BANDS
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

task_id and galaxy_id are one, `{brickname}_{objid}`, and ra, dec (degrees) those of that galaxy in the sweeps, of lenses
too: a cutout about a catalogue's own position would be off centre in one class only. is_control is 1 - label. tier: A
and B of lenses, N1 and N2 of negatives; control_kind: class of the confuser, else N1; both null for lenses where they
say nothing. sampling_prob and sampling_weight (1 / sampling_prob) are null for lenses, which nobody sampled. psfdepth:
5-sigma AB magnitudes, as in every dataset here and unlike the pool's inverse variances. psfsize, shape_r, separation,
theta_e: arcsec; theta_e is null unless known. Fluxes (nanomaggies) and magnitudes (AB) are as observed; gmag to w1mag
are those of the parent sample's names, null where the flux is not positive.

label, split, tier, sample_weight, galaxy_id, type, nobs_z_bin, healpix_128 and cutout_path are the plan's training
manifest. cutout_path is `{galaxy_id}.npz`, below the folder of its class where NPZ files exist; of pixels cut here it is
a name alone: they are in the stamps' row and at the place of packed arrays whose task_id is the galaxy_id.
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
