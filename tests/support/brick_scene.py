"""A brick of sky and manifest rows on it, small enough to write in a test."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA
from dark_halo_scope.injection.tasks import task_seed
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.names import products

BRICK = "0001p000"
SIDE = 300
SIGMA = {"g": 0.005, "r": 0.008, "z": 0.015}
PSFSIZE = {"g": 1.4, "r": 1.25, "z": 1.2}


def brick_wcs(side: int = SIDE, brick: str = BRICK) -> WCS:
    """North up, east left, about the centre of a brick on the equator: 0001p000 is at RA 0.125."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [int(brick[:4]) / 10 // 0.25 * 0.25 + 0.125, 0.0]
    wcs.wcs.crpix = [side / 2 + 0.5, side / 2 + 0.5]
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * 0.262 / 3600
    return wcs


def planes(side: int = SIDE, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise, weights, psfsize and clean masks of a brick, by product."""
    rng = np.random.default_rng(seed)
    result: dict[str, np.ndarray] = {}
    for band, sigma in SIGMA.items():
        result[f"image-{band}"] = rng.normal(0.0, sigma, (side, side)).astype(np.float32)
        result[f"invvar-{band}"] = np.full((side, side), sigma**-2, np.float32)
        result[f"psfsize-{band}"] = np.full((side, side), PSFSIZE[band], np.float32)
    result["maskbits"] = np.zeros((side, side), np.int32)
    return result


def write_brick(
    folder: Path, content: dict[str, np.ndarray], brick: str = BRICK, lossless: bool = True
) -> dict[str, Path]:
    """The brick's files; compressed without loss, tests can compare pixels, else as the survey does it."""
    header = brick_wcs(next(iter(content.values())).shape[0], brick).to_header()
    # astropy writes PC and CDELT; the survey's files have CD.
    for old in ("PC1_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(old, ignore_missing=True)
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -0.262 / 3600, 0.0, 0.0, 0.262 / 3600
    header["BRICKNAM"] = brick
    paths = {}
    for product in products():
        path = folder / brick / f"legacysurvey-{brick}-{product}.fits.fz"
        path.parent.mkdir(parents=True, exist_ok=True)
        data, survey_way = (
            content[product],
            {"compression_type": "RICE_1", "tile_shape": (100, 100), "quantize_method": 2},
        )
        how = {"compression_type": "GZIP_1", "quantize_level": 0.0} if lossless else survey_way
        hdu = fits.CompImageHDU(data, header, **how)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        paths[product] = path
    return paths


def open_brick(folder: Path, content: dict[str, np.ndarray] | None = None) -> BrickCoadds:
    return BrickCoadds(write_brick(folder, planes() if content is None else content), BRICK)


def row(x: float, y: float, **changes: Any) -> dict[str, Any]:
    """A manifest row of a host at pixel x, y of the brick; a Sersic arc with a visible flux."""
    wcs = brick_wcs(changes.pop("side", SIDE), changes.get("brickname", BRICK))
    ra, dec = (float(value) for value in wcs.all_pix2world(x, y, 0))
    number = changes.pop("number", 0)
    task = f"{number:064x}"
    values: dict[str, Any] = {
        "task_id": task,
        "experiment_id": "train_stamp64_bandsgrz_gridprior",
        "selection_set_id": "v3",
        "ranking_mode": "none",
        "selection_strategy": "healpix_split",
        "region_split": "train",
        "split": "train",
        "brickname": BRICK,
        "bandset": "grz",
        "config_id": "PRIOR",
        "region_id": 1,
        "stamp_size": 64,
        "replicate": 0,
        "is_control": 0,
        "ra": ra,
        "dec": dec,
        "theta_e_arcsec": 1.5,
        "src_dmag": 3.0,
        "src_reff_arcsec": 0.3,
        "src_e": 0.2,
        "shear": 0.03,
        "task_seed64": task_seed(task, 13),
        "src_x_arcsec": 0.25,
        "src_y_arcsec": -0.1,
        "src_phi_rad": 0.4,
        "shear_phi_rad": 1.0,
        "src_gr": 0.4,
        "src_rz": 0.5,
        "lens_e": 0.2,
        "lens_phi_rad": 0.7,
        "lens_model": "SIE",
        "pipeline_version": "dark_halo_scope",
        "ab_zp_nmgy": 22.5,
        **{f"psfsize_{band}": size for band, size in PSFSIZE.items()},
        "psf_bin": 0,
        "depth_bin": 0,
        **{f"{name}mag": 20.0 for name in ("g", "r", "z", "w1")},
        "galaxy_id": f"{BRICK}_{number}",
        "type": "DEV",
        "objid": number,
        "healpix_128": 77,
        "maskbits": 0,
        "release": 10000,
        "shape_r": 1.0,
        "shape_e1": 0.1,
        "shape_e2": 0.0,
        "dmag_mode": "unlensed",
        "source_mode": "sersic",
        "src_mag_r": 23.0,
        "src_n": 1.0,
        "caustic_radius_arcsec": 1.5,
        "sampling_weight": 1.0,
        **changes,
    }
    return {name: values.get(name) for name in MANIFEST_SCHEMA.names}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=MANIFEST_SCHEMA)
