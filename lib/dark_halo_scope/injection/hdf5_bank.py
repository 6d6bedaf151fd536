"""The earlier pipeline's HDF5 source bank, such as `cosmos_bank_20k_gen5.h5`.

`images` (N, n, n) float32, each of sum 1; `meta/index` int64, the galaxy's name; `meta/hlr_arcsec`, `meta/clumpiness`;
attribute `src_pixscale_arcsec`. Its images are COSMOS galaxies drawn with a Gaussian PSF (0.10"), blurred by half a
pixel, their negatives then set to 0. Half of the noise is left, a pedestal under which most galaxies have less than
half of their image's light: `meta/hlr_arcsec` has the median 1.08". It is taken out here, and the radius measured anew.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.galaxy_images import (
    GalaxyImage,
    half_light_radius,
    isolate_in_unknown_noise,
    remove_clipped_noise,
)
from dark_halo_scope.injection.source_config import SourceBankSettings

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_SCALE = "src_pixscale_arcsec"
# A chunk may hold many galaxies; this keeps one of them unpacked.
_CHUNK_CACHE_BYTES = 32 * 2**20


class Hdf5Bank:
    """Reader of an HDF5 bank, one image at a time; see `sources.BankFile`."""

    format = "hdf5"

    def __init__(self, path: Path, settings: SourceBankSettings) -> None:
        """Read all but the images.

        Raises:
            BadInputError: it cannot be read, lacks a dataset, holds something else under its name, or points into
                another file; or the settings ask for PSFs, which it has not.
        """
        if settings.psf == "deconvolve":
            raise BadInputError(
                f"Source bank {path} holds no PSFs to deconvolve; set psf of the survey's sources: keep."
            )
        self.path = path
        self._settings = settings
        self._process = os.getpid()
        try:
            self._file = self._opened()
            self._images = self._dataset("images", 3, "f")
            idents = self._dataset("meta/index", 1, "iu")[:]
            radii = self._dataset("meta/hlr_arcsec", 1, "f")[:]
            scale = self._file.attrs.get(_SCALE, self._images.attrs.get(_SCALE))
        except (OSError, RuntimeError, KeyError) as error:
            raise BadInputError(
                f"Source bank {path} cannot be read ({error}): it is damaged or cut short; fetch it again."
            ) from error
        count = self._images.shape[0]
        if count == 0 or len(idents) != count or len(radii) != count:
            raise BadInputError(
                f"Source bank {path} holds {count} images, {len(idents)} names and {len(radii)} radii; "
                "it must have the same number of each, and some."
            )
        if scale is None or np.ndim(scale) or not (np.isfinite(scale) and scale > 0):
            raise BadInputError(f"Source bank {path} lacks the attribute {_SCALE} (arcsec, > 0).")
        self._pixel_scale = float(scale)
        self.idents = idents.astype(np.int64)
        self.magnitudes = np.full(count, np.nan)
        self.half_light_arcsec = np.where(radii > 0, radii, np.nan).astype(np.float64)
        self.file_names = [path.name] * count
        self.places = np.arange(count, dtype=np.int64)
        self.bands: list[str] = []  # it does not say

    def files(self) -> dict[str, Path]:
        """The bank itself."""
        return {self.path.name: self.path}

    def read(self, row: int) -> GalaxyImage:
        """See `sources.BankFile`."""
        if os.getpid() != self._process:
            # HDF5's state does not survive a fork.
            self._process, self._file = os.getpid(), self._opened()
            self._images = self._dataset("images", 3, "f")
        try:
            stored = np.asarray(self._images[row], dtype=np.float64)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"row {row} of images cannot be read ({error})") from error
        if not np.isfinite(stored).all():
            raise ValueError(f"row {row} of images is not an image of finite numbers")
        image = isolate_in_unknown_noise(remove_clipped_noise(stored), self._settings.threshold_sigma)
        radius = half_light_radius(image) * self._pixel_scale
        return GalaxyImage(image.astype(np.float32), self._pixel_scale, radius)

    def _opened(self) -> Any:
        import h5py

        return h5py.File(self.path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)

    def _dataset(self, name: str, dimensions: int, kinds: str) -> Any:
        """A dataset of this very file: links and external storage could name any file of the machine."""
        import h5py

        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            link = self._file.get(path, getlink=True)
            if link is None:
                raise BadInputError(f"Source bank {self.path} lacks {name}: it is no bank of galaxy images.")
            if not isinstance(link, h5py.HardLink):
                raise BadInputError(
                    f"Source bank {self.path} has a link in place of {path}; only its own data are read."
                )
        found = self._file[name]
        if not isinstance(found, h5py.Dataset) or found.ndim != dimensions or found.dtype.kind not in kinds:
            raise BadInputError(f"{name} of source bank {self.path} is not what such a bank holds there.")
        if found.external or found.is_virtual:
            raise BadInputError(f"{name} of source bank {self.path} lies in another file; only its own data are read.")
        return found
