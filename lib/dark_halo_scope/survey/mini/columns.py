"""Columns of a DR10 sweep file, in order: https://www.legacysurvey.org/dr10/files/ (sweep catalogs)."""

import numpy as np

_RUNS = (
    ("i2", "RELEASE"),
    ("i4", "BRICKID"),
    ("S8", "BRICKNAME"),
    ("i4", "OBJID"),
    ("S3", "TYPE"),
    ("f8", "RA DEC"),
    ("f4", "RA_IVAR DEC_IVAR"),
    ("5f4", "DCHISQ"),
    (
        "f4",
        "EBV FLUX_G FLUX_R FLUX_I FLUX_Z FLUX_W1 FLUX_W2 FLUX_W3 FLUX_W4 FLUX_IVAR_G FLUX_IVAR_R FLUX_IVAR_I "
        "FLUX_IVAR_Z FLUX_IVAR_W1 FLUX_IVAR_W2 FLUX_IVAR_W3 FLUX_IVAR_W4 MW_TRANSMISSION_G MW_TRANSMISSION_R "
        "MW_TRANSMISSION_I MW_TRANSMISSION_Z MW_TRANSMISSION_W1 MW_TRANSMISSION_W2 MW_TRANSMISSION_W3 "
        "MW_TRANSMISSION_W4",
    ),
    ("i2", "NOBS_G NOBS_R NOBS_I NOBS_Z NOBS_W1 NOBS_W2 NOBS_W3 NOBS_W4"),
    (
        "f4",
        "RCHISQ_G RCHISQ_R RCHISQ_I RCHISQ_Z RCHISQ_W1 RCHISQ_W2 RCHISQ_W3 RCHISQ_W4 FRACFLUX_G FRACFLUX_R "
        "FRACFLUX_I FRACFLUX_Z FRACFLUX_W1 FRACFLUX_W2 FRACFLUX_W3 FRACFLUX_W4 FRACMASKED_G FRACMASKED_R "
        "FRACMASKED_I FRACMASKED_Z FRACIN_G FRACIN_R FRACIN_I FRACIN_Z",
    ),
    ("i2", "ANYMASK_G ANYMASK_R ANYMASK_I ANYMASK_Z ALLMASK_G ALLMASK_R ALLMASK_I ALLMASK_Z"),
    ("u1", "WISEMASK_W1 WISEMASK_W2"),
    (
        "f4",
        "PSFSIZE_G PSFSIZE_R PSFSIZE_I PSFSIZE_Z PSFDEPTH_G PSFDEPTH_R PSFDEPTH_I PSFDEPTH_Z GALDEPTH_G "
        "GALDEPTH_R GALDEPTH_I GALDEPTH_Z PSFDEPTH_W1 PSFDEPTH_W2",
    ),
    ("S8", "WISE_COADD_ID"),
    (
        "f4",
        "SHAPE_R SHAPE_R_IVAR SHAPE_E1 SHAPE_E1_IVAR SHAPE_E2 SHAPE_E2_IVAR FIBERFLUX_G FIBERFLUX_R "
        "FIBERFLUX_I FIBERFLUX_Z FIBERTOTFLUX_G FIBERTOTFLUX_R FIBERTOTFLUX_I FIBERTOTFLUX_Z",
    ),
    ("S2", "REF_CAT"),
    ("i8", "REF_ID"),
    (
        "f4",
        "REF_EPOCH GAIA_PHOT_G_MEAN_MAG GAIA_PHOT_G_MEAN_FLUX_OVER_ERROR GAIA_PHOT_BP_MEAN_MAG "
        "GAIA_PHOT_BP_MEAN_FLUX_OVER_ERROR GAIA_PHOT_RP_MEAN_MAG GAIA_PHOT_RP_MEAN_FLUX_OVER_ERROR "
        "GAIA_ASTROMETRIC_EXCESS_NOISE",
    ),
    ("?", "GAIA_DUPLICATED_SOURCE"),
    ("f4", "GAIA_PHOT_BP_RP_EXCESS_FACTOR GAIA_ASTROMETRIC_SIGMA5D_MAX"),
    ("u1", "GAIA_ASTROMETRIC_PARAMS_SOLVED"),
    ("f4", "PARALLAX PARALLAX_IVAR PMRA PMRA_IVAR PMDEC PMDEC_IVAR"),
    ("i4", "MASKBITS"),
    ("i2", "FITBITS"),
    ("f4", "SERSIC SERSIC_IVAR"),
)
"""Consecutive columns of one type: NumPy type code, names."""

SWEEP_DTYPE = np.dtype([(name, code) for code, names in _RUNS for name in names.split()])

PHOTOZ_DTYPE = np.dtype(
    [("RELEASE", "i2"), ("BRICKID", "i4"), ("OBJID", "i4")]
    + [
        (f"Z_PHOT_{name}{bands}", "f4")
        for bands in ("", "_I")
        for name in ("MEAN", "MEDIAN", "STD", "L68", "U68", "L95", "U95")
    ]
    + [("Z_SPEC", "f4"), ("SURVEY", "S16"), ("TRAINING", "?")]
)
"""Columns of a DR10 photo-z sweep, which has the rows of its sweep in the same order; -99 where there is no value."""
