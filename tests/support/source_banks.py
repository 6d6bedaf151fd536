"""Source banks on disk, and sources.json by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from scipy import ndimage

from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.injection.galaxy_images import GalaxyImage, half_light_radius
from dark_halo_scope.injection.measure_sources import KIND, MODULE, ROWS, judged
from dark_halo_scope.injection.source_config import SourceCheckSettings


def gaussian(size: int, sigma: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """A round Gaussian of unit flux, x and y pixels off the middle."""
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def exponential(size: int, half_light: float, axis_ratio: float = 0.7, phi: float = 0.5) -> np.ndarray:
    """An exponential disc of unit flux; `half_light` is the product average of its axes, pixels."""
    axis = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(axis, axis)
    u, v = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    image = np.exp(-1.67835 * np.hypot(u * np.sqrt(axis_ratio), v / np.sqrt(axis_ratio)) / half_light)
    return image / image.sum()


def write_galsim_bank(folder: Path, images: list[np.ndarray], psf: np.ndarray | None = None, **changes: object) -> Path:
    """A bank in GalSim's format, IDENTs from 100 on; `changes` replaces columns, and IDENT says how many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(images[0].astype(np.float32)), *map(fits.ImageHDU, images[1:])]).writeto(
        folder / "images.fits"
    )
    if psf is not None:
        fits.PrimaryHDU(psf).writeto(folder / "psfs.fits")
    idents = np.asarray(changes.get("IDENT", np.arange(len(images)) + 100))
    count = len(idents)
    values: dict[str, object] = {
        "IDENT": idents,
        "MAG": np.full(count, 22.5),
        "BAND": np.array(["F814W"] * count),
        "GAL_FILENAME": np.array(["images.fits"] * count),
        "GAL_HDU": np.arange(count),
        "PSF_FILENAME": np.array(["psfs.fits"] * count),
        "PSF_HDU": np.zeros(count, int),
        "PIXEL_SCALE": np.full(count, 0.03),
        "NOISE_VARIANCE": np.full(count, 1e-6),
        **changes,
    }
    path = folder / "real_galaxy_catalog.fits"
    fits.BinTableHDU(np.rec.fromarrays(list(values.values()), names=list(values))).writeto(path)
    return path


def earlier_image(light: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What the earlier pipeline stored of a galaxy: noise added, blurred by half a pixel, negatives cut, sum 1."""
    seen = ndimage.gaussian_filter(light + rng.normal(0.0, noise, light.shape), 0.5, mode="wrap")
    seen = np.clip(seen, 0.0, None)
    return (seen / seen.sum()).astype(np.float32)


def write_hdf5_bank(path: Path, images: Sequence[np.ndarray], /, **changes: Any) -> Path:
    """A bank as the earlier pipeline wrote it, galaxies named 7, 17, 27, ...; `changes` replaces datasets.

    A change of None leaves a dataset (or, as `scale`, the attribute) out.
    """
    stack = np.asarray(images, dtype=np.float32)
    values: dict[str, Any] = {
        "images": stack,
        "meta/index": 10 * np.arange(len(stack), dtype=np.int64) + 7,
        # Measured on the image as it is, pedestal and all.
        "meta/hlr_arcsec": np.array([0.03 * half_light_radius(image) for image in stack], np.float32),
        "meta/clumpiness": np.zeros(len(stack), np.float32),
        "scale": 0.03,
        **changes,
    }
    scale = values.pop("scale")
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                file[name] = value
        if scale is not None:
            file.attrs["src_pixscale_arcsec"] = scale
    return path


class NamedGalaxies:
    """A bank file of which only the names are known; see `sources.BankFile`."""

    format = "galsim"
    path = Path("real_galaxy_catalog.fits")

    def __init__(self, idents: Sequence[int]) -> None:
        self.idents = np.array(idents, dtype=np.int64)
        self.magnitudes = np.full(len(idents), 23.0)
        self.half_light_arcsec = np.full(len(idents), np.nan)
        self.file_names = ["g.fits"] * len(idents)
        self.places = np.arange(len(idents))
        self.bands = ["F814W"]

    def read(self, row: int) -> GalaxyImage:
        raise ValueError(f"row {row} has no image")

    def files(self) -> dict[str, Path]:
        return {}


def write_sources(
    output: Path, idents: Sequence[int], unusable: Sequence[int] = (), settings: SourceCheckSettings | None = None
) -> Path:
    """A sources.json of galaxies of 0.3", whatever bank they are of."""
    settings = settings or SourceCheckSettings()
    reasons = dict.fromkeys(unusable, "no light above the noise")
    measured = [
        (row, None if ident in reasons else 0.3, reasons.get(ident)) for row, ident in enumerate(map(int, idents))
    ]
    with attempt(output, KIND, MODULE, settings, []) as work:
        pq.write_table(judged(NamedGalaxies(idents), measured, settings), work.prefix / ROWS)
        work.publish(rows_out=len(idents), facts={"settings": settings.model_dump(mode="json")})
    return output
