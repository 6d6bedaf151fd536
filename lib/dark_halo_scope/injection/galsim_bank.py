"""Source banks in GalSim's RealGalaxyCatalog format (galsim/real.py).

A catalogue `real_galaxy_catalog*.fits` with IDENT, MAG, BAND, GAL_FILENAME, GAL_HDU, PSF_FILENAME, PSF_HDU, PIXEL_SCALE
(arcsec), NOISE_VARIANCE, beside the image and PSF files that it names. `<catalogue>_fits.fits`, where there is one,
holds what GalSim's COSMOSCatalog reads: `flux_radius`, SExtractor's half-light radius in pixels with HST's PSF in, and
`hlr`, those of parametric fits in arcsec without it, the Sersic one first.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.galaxy_images import FloatImage, GalaxyImage, half_light_radius, isolate, replace_psf
from dark_halo_scope.injection.source_config import SourceBankSettings

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
class _ImageFile:
    """A file of images: `bounds` are where each HDU starts, and where the last one ends, bytes.

    astropy finds HDU n by reading the n headers before it, and keeps 6 kB of each as long as the file is open.
    """

    path: Path
    bounds: npt.NDArray[np.int64]  # (HDUs + 1,)

    @classmethod
    def of(cls, path: Path) -> "_ImageFile":
        with fits.open(path, memmap=True) as hdus:
            places = [hdu.fileinfo() for hdu in hdus]
        end = places[-1]["datLoc"] + places[-1]["datSpan"]
        return cls(path, np.array([*(place["hdrLoc"] for place in places), end], np.int64))

    def plane(self, number: int) -> npt.NDArray[np.float64]:
        """The image of one HDU, counted from 0 as GalSim and astropy do.

        Raises:
            IndexError, OSError, TypeError, ValueError: there is none, or it is damaged.
        """
        if not 0 <= number < len(self.bounds) - 1:
            raise IndexError(f"it has {len(self.bounds) - 1}")
        with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as file:
            file.seek(self.bounds[number])
            content = file.read(self.bounds[number + 1] - self.bounds[number])
        hdu = (fits.ImageHDU if number else fits.PrimaryHDU).fromstring(content)
        if number and hdu.header["XTENSION"].strip() != "IMAGE":
            raise ValueError("it is a table")
        return np.array(hdu.data, dtype=np.float64)


class Folder(Protocol):
    """Where a catalogue's files lie."""

    def has(self, name: str) -> bool: ...

    def locate(self, name: str) -> Path: ...


class GalsimBank:
    """Reader of a catalogue; see `sources.BankFile`."""

    format = "galsim"

    def __init__(self, path: Path, settings: SourceBankSettings, folder: Folder) -> None:
        """Read the catalogue, and the radii of its `_fits` companion.

        Raises:
            BadInputError: it cannot be read, lacks a column, or names a file outside its folder.
        """
        self.path = path
        self._folder = folder
        self._settings = settings
        self._rows = _read_table(path, _COLUMNS)
        for name in ("GAL_FILENAME", "PSF_FILENAME"):
            for entry in np.unique(self._rows[name]):
                safe_name(str(entry), path)
        self._companion = f"{path.name.removesuffix('.gz').removesuffix('.fits')}_fits.fits"
        self.idents = self._rows["IDENT"].astype(np.int64)
        self.magnitudes = self._rows["MAG"].astype(np.float64)
        self.half_light_arcsec = self._catalogue_radii()
        self.file_names = [str(name).strip() for name in self._rows["GAL_FILENAME"]]
        self.places = self._rows["GAL_HDU"].astype(np.int64)
        self.bands = sorted({str(band).strip() for band in self._rows["BAND"]})
        self._files: dict[str, _ImageFile] = {}

    def files(self) -> dict[str, Path]:
        """Local path of every file that a source comes from, by name."""
        names = set(self.file_names)
        if self._settings.psf == "deconvolve":
            names |= {str(name).strip() for name in self._rows["PSF_FILENAME"]}
        if self._folder.has(self._companion):
            names.add(self._companion)
        return {self.path.name: self.path} | {name: self._folder.locate(name) for name in names}

    def read(self, row: int) -> GalaxyImage:
        """See `sources.BankFile`."""
        values: dict[str, Any] = {name: column[row] for name, column in self._rows.items()}
        image = self._plane(str(values["GAL_FILENAME"]), int(values["GAL_HDU"]))
        pixel_scale = float(values["PIXEL_SCALE"])
        if not (pixel_scale > 0 and values["NOISE_VARIANCE"] >= 0):
            raise ValueError("its PIXEL_SCALE or NOISE_VARIANCE is out of range")
        noise = float(np.sqrt(values["NOISE_VARIANCE"]))
        image, counts = isolate(image, noise, self._settings.threshold_sigma)
        if self._settings.psf == "deconvolve":
            psf = self._plane(str(values["PSF_FILENAME"]), int(values["PSF_HDU"]))
            image = replace_psf(image, psf, self._settings.target_fwhm_arcsec / pixel_scale, noise / counts)
            image /= image.sum()
        radius = half_light_radius(image) * pixel_scale
        return GalaxyImage(image.astype(np.float32), pixel_scale, radius)

    def _catalogue_radii(self) -> npt.NDArray[np.float64]:
        """Radii to compare with: SExtractor's where the PSF is kept, the Sersic fits' where it is taken out."""
        radii = np.full(len(self.idents), np.nan)
        if not self._folder.has(self._companion):
            return radii
        column = "flux_radius" if self._settings.psf == "keep" else "hlr"
        table = _read_table(self._folder.locate(self._companion), ("IDENT", column))
        values = table[column].reshape(len(table["IDENT"]), -1)[:, 0].astype(np.float64)
        by_ident = dict(zip(table["IDENT"].tolist(), values.tolist(), strict=True))
        radii[:] = [by_ident.get(ident, np.nan) for ident in self.idents.tolist()]
        if column == "flux_radius":
            radii *= self._rows["PIXEL_SCALE"]
        return np.where(radii > 0, radii, np.nan)

    def _plane(self, name: str, hdu: int) -> FloatImage:
        name = safe_name(name, self.path)
        try:
            if name not in self._files:
                self._files[name] = _ImageFile.of(self._folder.locate(name))
            plane = self._files[name].plane(hdu)
        except (OSError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"HDU {hdu} of {name} cannot be read ({error})") from error
        if plane.ndim != 2 or not np.isfinite(plane).all():
            raise ValueError(f"HDU {hdu} of {name} is not an image of finite numbers")
        return plane


def safe_name(name: str, where: Path) -> str:
    """A file name of the catalogue, if it stays in the catalogue's folder.

    Raises:
        BadInputError: a path, an absolute one, or `..`.
    """
    name = name.strip()
    if not name or Path(name).name != name or name in (".", ".."):
        raise BadInputError(f"Source catalogue {where} names the file {name!r}; only files beside it are read.")
    return name


def _read_table(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of the table in HDU 1, copied, in the machine's byte order."""
    try:
        with fits.open(path, memmap=True) as file:
            table = file[1].data
            missing = [name for name in names if name not in table.names]
            if missing:
                raise BadInputError(f"Source catalogue {path} lacks {', '.join(missing)}: it is no RealGalaxyCatalog.")
            columns = [np.asarray(table[name]) for name in names]
            return {
                name: column.astype(column.dtype.newbyteorder("=")) for name, column in zip(names, columns, strict=True)
            }
    except (OSError, IndexError, AttributeError, TypeError) as error:
        raise BadInputError(f"Source catalogue {path} cannot be read ({error}).") from error
