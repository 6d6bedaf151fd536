"""Files as DR10.1 writes them: compressed coadds, sweeps and survey-bricks."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from dark_halo_scope.survey.grid import BrickBox
from dark_halo_scope.survey.names import PIXEL_SCALE, coadd_file

_TILE = (100, 100)
_QUANTUM = 1e-4
"""Step of legacypipe's image quantisation, nanomaggies: a thirtieth of the noise or less."""
_INVVAR_QUANTUM = 5e-4
"""Step of inverse variances, as a share of their median. legacypipe's step is a 16th of the map's noise, but these maps
are so smooth that this would store noise: three times the bytes for nothing."""


def brick_wcs(brick: BrickBox, pixels: int) -> WCS:
    """Tangent plane around the brick's centre, north up, east left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [float(brick.ra), float(brick.dec)]
    wcs.wcs.crpix = [pixels / 2 + 0.5, pixels / 2 + 0.5]
    wcs.wcs.cd = [[-PIXEL_SCALE / 3600, 0.0], [0.0, PIXEL_SCALE / 3600]]
    return wcs


def write_coadd(
    root: Path, brick: BrickBox, product: str, data: NDArray, extra: dict[str, NDArray] | None = None
) -> None:
    """Write one product of a brick below a coadd tree of DR10's layout.

    Images and inverse variances are quantised and Rice-compressed with exact zeros, psfsize and masks losslessly.

    Args:
        product: as in `names.products`.
        extra: further image extensions, by EXTNAME.
    """
    path = root / coadd_file(str(brick.name), product, "release")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = product.partition("-")[0]
    # A seed of the product's own: dithers repeat between builds, but not between the bands of one brick.
    seed = int.from_bytes(hashlib.sha256(f"{brick.name}{product}".encode()).digest()[:4], "big") % 10000 + 1
    options: dict[str, dict[str, Any]] = {
        "image": {"compress": "RICE", "qlevel": -_QUANTUM, "qmethod": "SUBTRACTIVE_DITHER_2", "dither_seed": seed},
        "invvar": {
            "compress": "RICE",
            "qlevel": -_step(data),
            "qmethod": "SUBTRACTIVE_DITHER_2",
            "dither_seed": seed,
        },
        "psfsize": {"compress": "GZIP", "qlevel": None},
        "maskbits": {"compress": "RICE"},
    }
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        # The first HDU stays empty: compressed images are extensions.
        file.write(None)
        file.write(data, header=_header(brick, product, data.shape[0]), tile_dims=_TILE, **options[kind])
        for name, values in (extra or {}).items():
            file.write(values, extname=name, compress="RICE", tile_dims=_TILE)


def write_table(path: Path, rows: NDArray, extname: str | None = None) -> None:
    """Write a structured array as the first extension; gzipped where the name ends in .gz, without a time in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    fitsio.write(str(plain), rows, extname=extname, clobber=True)
    if path.suffix == ".gz":
        with path.open("wb") as stream, gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:
            packed.write(plain.read_bytes())
        plain.unlink()


def bricks_table(bricks: BrickBox) -> NDArray:
    """survey-bricks rows."""
    dtype = [("BRICKNAME", "S8"), ("BRICKID", "i4"), ("BRICKQ", "i2"), ("BRICKROW", "i4"), ("BRICKCOL", "i4")]
    out = np.zeros(len(bricks.name), dtype=[*dtype, *((n, "f8") for n in ("RA", "DEC", "RA1", "RA2", "DEC1", "DEC2"))])
    for name, values in bricks._asdict().items():
        out["BRICKNAME" if name == "name" else name.upper()] = values
    out["BRICKQ"] = bricks.brickrow % 2 * 2 + bricks.brickcol % 2
    return out


def _header(brick: BrickBox, product: str, pixels: int) -> list[dict[str, object]]:
    kind, _, band = product.partition("-")
    cards: dict[str, object] = {
        "SURVEY": "DECaLS",
        "DRVERSIO": 10000,
        "BRICKNAM": str(brick.name),
        "BRICKID": int(brick.brickid),
        "RAMIN": float(brick.ra1),
        "RAMAX": float(brick.ra2),
        "DECMIN": float(brick.dec1),
        "DECMAX": float(brick.dec2),
        "BRICKRA": float(brick.ra),
        "BRICKDEC": float(brick.dec),
        "TELESCOP": "simulated",
        "IMTYPE": kind,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": float(brick.ra),
        "CRVAL2": float(brick.dec),
        "CRPIX1": pixels / 2 + 0.5,
        "CRPIX2": pixels / 2 + 0.5,
        "CD1_1": -PIXEL_SCALE / 3600,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": PIXEL_SCALE / 3600,
        "EQUINOX": 2000.0,
    }
    if band:
        cards |= {"FILTER": band, "MAGZERO": 22.5}
        cards["BUNIT"] = {"image": "nanomaggy", "invvar": "1/nanomaggy^2", "psfsize": "arcsec"}[kind]
    return [{"name": name, "value": value} for name, value in cards.items()]


def _step(invvar: NDArray) -> float:
    positive = invvar[invvar > 0]
    return _INVVAR_QUANTUM * float(np.median(positive)) if len(positive) else _INVVAR_QUANTUM
