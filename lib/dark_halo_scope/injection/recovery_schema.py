"""Rows of injection and recovery: one for each host, draw and rung; no stamp is kept."""

import pyarrow as pa

from dark_halo_scope.core.quarantine import REASON

KIND = "recovery"

_STRING, _I32, _I64, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float64()


def _fields(names: str, dtype: pa.DataType, nullable: bool) -> list[pa.Field]:
    return [pa.field(name, dtype, nullable) for name in names.split()]


#: What a host is known by and observed under. Depths are 5-sigma AB magnitudes; magnitudes are as observed.
HOST_SCHEMA = pa.schema(
    [
        *_fields("galaxy_id brickname", _STRING, False),
        *_fields("objid healpix_128", _I64, False),
        *_fields("split", _STRING, False),
        *_fields("ra dec", _F64, False),
        *_fields("z_phot", _F64, True),
        *_fields("psfsize_g psfsize_r psfsize_z psfdepth_g psfdepth_r psfdepth_z ebv", _F64, False),
        *_fields("gmag rmag zmag", _F64, True),
        *_fields("shape_e1 shape_e2", _F64, False),
    ]
)

#: What is drawn for a host: the same for all rungs of one draw. Angles are radians, lengths arcsec.
DRAW_SCHEMA = pa.schema(
    [
        *_fields("task_id", _STRING, False),
        *_fields("replicate", _I32, False),
        *_fields("task_seed64", _I64, False),
        *_fields("theta_e_arcsec lens_e lens_phi_rad shear shear_phi_rad", _F64, False),
        *_fields("src_mag_r src_gr src_rz src_reff_arcsec src_n src_e src_phi_rad", _F64, False),
        *_fields("src_x_arcsec src_y_arcsec beta_arcsec caustic_radius_arcsec weight", _F64, False),
    ]
)

#: What a rung makes of a draw. `lensed_mag_*` is null where no light falls into the stamp.
RUNG_SCHEMA = pa.schema(
    [
        *_fields("rung family", _STRING, False),
        pa.field("selection", pa.bool_(), nullable=False),
        *_fields("source_id", _STRING, True),
        *_fields("magnification arc_snr", _F64, False),
        *_fields("lensed_mag_g lensed_mag_r lensed_mag_z", _F64, True),
    ]
)

#: Rows before they are scored, with `logit` after.
INJECTION_SCHEMA = pa.schema([*DRAW_SCHEMA, *HOST_SCHEMA, *RUNG_SCHEMA])
RECOVERY_SCHEMA = INJECTION_SCHEMA.append(pa.field("logit", _F64, nullable=False))

#: What could not be injected, and why.
LEFT_OUT_SCHEMA = pa.schema(
    [
        *_fields("task_id galaxy_id brickname rung", _STRING, False),
        *_fields("replicate", _I32, False),
        *_fields("ra dec", _F64, False),
        *_fields(REASON, _STRING, False),
    ]
)
