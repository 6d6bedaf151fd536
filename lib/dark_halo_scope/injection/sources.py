"""Real galaxies as lensed sources, from a bank in GalSim's RealGalaxyCatalog format.

The format (GalSim, galsim/real.py): a catalogue `real_galaxy_catalog*.fits` with IDENT, MAG, BAND, GAL_FILENAME,
GAL_HDU, PSF_FILENAME, PSF_HDU, PIXEL_SCALE (arcsec), NOISE_VARIANCE, beside the image and PSF files that it names.
COSMOS 23.5 and 25.2, AEGIS and the embedded survey's own bank come in it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.stamp_config import SourceBankSettings

_FWHM_TO_SIGMA = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
_COLUMNS = (
    "IDENT",
    "MAG",
    "BAND",
    "GAL_FILENAME",
    "GAL_HDU",
    "PSF_FILENAME",
    "PSF_HDU",
    "PIXEL_SCALE",
    "NOISE_VARIANCE",
)


@dataclass(frozen=True)
class GalaxyImage:
    """One galaxy: its image sums to 1 and is centred on its light's centroid, to half a pixel.

    `half_light_radius` is measured here: the circle about the centroid that holds half the light.
    """

    ident: int
    image: npt.NDArray[np.float32]  # (n, n)
    pixel_scale: float  # arcsec
    half_light_radius: float  # arcsec
    magnitude: float  # the catalogue's


class SourceBank:
    """Galaxies by IDENT; an image is read when it is first asked for, and the latest ones are kept."""

    def __init__(
        self, catalogue: Path, settings: SourceBankSettings, locate: Callable[[str], Path] | None = None
    ) -> None:
        """Read the catalogue.

        Args:
            catalogue: local path.
            settings: how images become sources.
            locate: from the name of an image file to its (checked) local path; None looks beside the catalogue.

        Raises:
            BadInputError: no such file, a missing column, a repeated IDENT, a file name that leaves the folder.
        """
        self._locate = locate or (lambda name: catalogue.parent / name)
        self._settings = settings
        self._rows = _read_catalogue(catalogue)
        self._catalogue = catalogue
        self._index = {int(ident): row for row, ident in enumerate(self._rows["IDENT"])}
        if len(self._index) != len(self):
            raise BadInputError(f"Source catalogue {catalogue} repeats an IDENT; remove the duplicates.")
        self._cache: OrderedDict[int, GalaxyImage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows["IDENT"])

    @property
    def idents(self) -> npt.NDArray[np.int64]:
        """All IDENTs, in the catalogue's order."""
        return self._rows["IDENT"].astype(np.int64)

    def galaxy(self, ident: int) -> GalaxyImage:
        """The galaxy of this IDENT.

        Raises:
            BadInputError: unknown IDENT, unreadable image, or no light above the noise.
        """
        if ident in self._cache:
            self._cache.move_to_end(ident)
            return self._cache[ident]
        if ident not in self._index:
            raise BadInputError(f"Source {ident} is not in {self._catalogue}; the manifest was made from another bank.")
        galaxy = self._read({name: column[self._index[ident]] for name, column in self._rows.items()})
        self._cache[ident] = galaxy
        if len(self._cache) > self._settings.cache_images:
            self._cache.popitem(last=False)
        return galaxy

    def _read(self, row: dict[str, Any]) -> GalaxyImage:
        image = self._plane(str(row["GAL_FILENAME"]), int(row["GAL_HDU"]))
        pixel_scale = float(row["PIXEL_SCALE"])
        noise = float(np.sqrt(row["NOISE_VARIANCE"]))
        flux = image.sum()
        try:
            image = isolate(image, noise, self._settings.threshold_sigma)
        except ValueError as error:
            raise BadInputError(f"Source {row['IDENT']} of {self._catalogue}: {error}.") from error
        if self._settings.psf == "deconvolve":
            psf = self._plane(str(row["PSF_FILENAME"]), int(row["PSF_HDU"]))
            image = replace_psf(image, psf, self._settings.target_fwhm_arcsec / pixel_scale, noise / flux)
            image /= image.sum()
        radius = half_light_radius(image) * pixel_scale
        return GalaxyImage(int(row["IDENT"]), image.astype(np.float32), pixel_scale, radius, float(row["MAG"]))

    def _plane(self, name: str, hdu: int) -> npt.NDArray[np.float64]:
        path = self._locate(safe_name(name, self._catalogue))
        try:
            # GalSim's HDU numbers count from 0, as astropy's do.
            with fits.open(path, memmap=True) as file:
                plane = np.asarray(file[hdu].data, dtype=np.float64)
        except (OSError, IndexError, TypeError) as error:
            raise BadInputError(
                f"Source catalogue {self._catalogue} names HDU {hdu} of {name}, which cannot be read ({error})."
            ) from error
        if plane.ndim != 2 or not np.isfinite(plane).all():
            raise BadInputError(f"HDU {hdu} of {path} is not an image of finite numbers.")
        return plane


def open_bank(path: Path, settings: SourceBankSettings, locate: Callable[[str], Path] | None = None) -> SourceBank:
    """Open the bank at `path`: its catalogue, or the folder that holds exactly one. For `locate` see `SourceBank`.

    Raises:
        BadInputError: none or several catalogues, or one that cannot be read.
    """
    if path.is_dir():
        # `*_fits.fits` beside a catalogue holds GalSim's parametric fits, not images.
        found = sorted(p for p in path.glob("*catalog*.fits") if not p.name.endswith(("_fits.fits", "_selection.fits")))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise BadInputError(
                f"{path} must hold one source catalogue (*catalog*.fits); found {names}: name the file."
            )
        path = found[0]
    return SourceBank(path, settings, locate)


def safe_name(name: str, where: Path) -> str:
    """A file name of the catalogue, if it stays in the catalogue's folder.

    Raises:
        BadInputError: a path, an absolute one, or `..`.
    """
    name = name.strip()
    if not name or Path(name).name != name or name in (".", ".."):
        raise BadInputError(f"Source catalogue {where} names the file {name!r}; only files beside it are read.")
    return name


def isolate(image: npt.NDArray[np.float64], noise: float, threshold_sigma: float) -> npt.NDArray[np.float64]:
    """Cut one galaxy out of its postage stamp: (ny, nx) counts -> (n, n), sum 1, centroid in the middle.

    Everything outside the galaxy's footprint is zero. Keeping the stamp's noise instead, with its negative half
    clipped, gives a pedestal that moved the earlier bank's half-light radii to 1.1". Pixels inside keep their sign. The
    format's stamps have no sky, and bright galaxies reach their stamp's edge, so that no background is fitted.

    Args:
        image: postage stamp of one galaxy.
        noise: standard deviation of its pixels.
        threshold_sigma: the footprint is where the image smoothed by two pixels exceeds this many times `noise`.

    Raises:
        ValueError: nothing exceeds the threshold.
    """
    smooth = ndimage.gaussian_filter(image, 2.0, mode="constant")
    labels, count = ndimage.label(smooth > threshold_sigma * noise)
    if count == 0:
        raise ValueError("no light above the noise")
    flux = ndimage.sum_labels(image, labels, np.arange(1, count + 1))
    footprint = ndimage.binary_dilation(labels == 1 + int(np.argmax(flux)), iterations=3)
    image = np.where(footprint, image, 0.0)
    total = image.sum()
    if not total > 0:
        raise ValueError("no light above the noise")
    y, x = (float((grid * image).sum() / total) for grid in np.indices(image.shape))
    rows, columns = np.nonzero(footprint)
    cy, cx = round(y), round(x)
    # An empty border one pixel wide lets an interpolating reader fall to zero by itself.
    half = 1 + int(max(rows.max() - cy, cy - rows.min(), columns.max() - cx, cx - columns.min()))
    padded = np.pad(image, half)
    return padded[cy : cy + 2 * half + 1, cx : cx + 2 * half + 1] / total


def half_light_radius(image: npt.NDArray[np.floating]) -> float:
    """Radius in pixels of the circle about the light's centroid that holds half of it."""
    image = np.asarray(image, dtype=np.float64)
    total = image.sum()
    y, x = np.indices(image.shape)
    cy, cx = (y * image).sum() / total, (x * image).sum() / total
    radius = np.hypot(y - cy, x - cx).ravel()
    order = np.argsort(radius, kind="stable")
    # Area pi r^2 instead of the pixel count makes the curve smooth where a circle holds few pixels.
    cumulative = np.cumsum(image.ravel()[order]) / total
    inside = int(np.searchsorted(cumulative, 0.5))
    low = cumulative[inside - 1] if inside else 0.0
    pixels = inside + (0.5 - low) / max(cumulative[inside] - low, np.finfo(float).tiny)
    return float(np.sqrt(pixels / np.pi))


def replace_psf(
    image: npt.NDArray[np.float64], psf: npt.NDArray[np.float64], target_fwhm: float, noise: float
) -> npt.NDArray[np.float64]:
    """Deconvolve `image` by `psf` and convolve it with a Gaussian of `target_fwhm` pixels (Wiener filter).

    The filter takes the galaxy's power as flat, its flux squared, against white noise: K = noise^2 npix / flux^2.
    """
    shape = [int(2 ** np.ceil(np.log2(n + m))) for n, m in zip(image.shape, psf.shape, strict=True)]
    # The PSF's centroid goes to the origin by a phase, so that the galaxy does not move.
    total = psf.sum()
    cy, cx = (float((grid * psf).sum() / total) for grid in np.indices(psf.shape))
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    transfer = np.fft.rfft2(psf / total, s=shape) * np.exp(2j * np.pi * (fy * cy + fx * cx))
    target = np.exp(-2.0 * (np.pi * target_fwhm * _FWHM_TO_SIGMA) ** 2 * (fy**2 + fx**2))
    wiener = noise**2 * image.size / max(image.sum(), noise) ** 2
    spectrum = np.fft.rfft2(image, s=shape) * target * np.conj(transfer) / (np.abs(transfer) ** 2 + wiener)
    sharpened = np.fft.irfft2(spectrum, s=shape)[: image.shape[0], : image.shape[1]]
    return sharpened * (1.0 + wiener)


def _read_catalogue(path: Path) -> dict[str, np.ndarray]:
    try:
        with fits.open(path, memmap=True) as file:
            table = file[1].data
            missing = [name for name in _COLUMNS if name not in table.names]
            if missing:
                raise BadInputError(f"Source catalogue {path} lacks {', '.join(missing)}: it is no RealGalaxyCatalog.")
            columns = [np.asarray(table[name]) for name in _COLUMNS]
    except (OSError, IndexError, AttributeError) as error:
        raise BadInputError(f"Source catalogue {path} cannot be read ({error}).") from error
    rows = {name: column.astype(column.dtype.newbyteorder("=")) for name, column in zip(_COLUMNS, columns, strict=True)}
    for name in ("GAL_FILENAME", "PSF_FILENAME"):
        for entry in np.unique(rows[name]):
            safe_name(str(entry), path)
    return rows
