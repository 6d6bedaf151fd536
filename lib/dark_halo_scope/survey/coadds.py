"""Pixels of one brick: cutouts that decompress only the tiles they touch, and the way from sky to pixel.

Images are nanomaggies per pixel, inverse variances 1/nanomaggy^2 per pixel, psfsize arcsec (a noise-equivalent-area
FWHM). Pixel coordinates are zero-based: x is the column, y the row, whole numbers are pixel centres.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.names import BANDS, products


class Cutout(NamedTuple):
    """A square of one brick, bands in the order asked for (B)."""

    image: NDArray[np.float32]
    """(B, N, N) nanomaggies per pixel."""
    invvar: NDArray[np.float32]
    """(B, N, N) 1/nanomaggy^2; 0 where there is no data."""
    psfsize: NDArray[np.float32]
    """(B,) arcsec at the target; 0 where no exposure covers it."""
    maskbits: NDArray[np.int32]
    """(N, N), the bits of MASKBITS."""
    x0: int
    """Column of the brick that is column 0 here."""
    y0: int
    """Row of the brick that is row 0 here."""


class BrickCoadds:
    """Open coadds of one brick; a context manager, and cheap to keep open for many cutouts.

    Args:
        paths: file of each product (`names.products`), already verified by whoever provides it.
        brickname: checked against the header, so that a file under a wrong name is refused.

    Raises:
        CorruptDataError: a file is missing, is of another brick, or differs in shape or WCS from the others.
    """

    def __init__(self, paths: Mapping[str, Path], brickname: str, bands: tuple[str, ...] = BANDS) -> None:
        missing = [product for product in products(bands) if product not in paths]
        if missing:
            raise CorruptDataError(f"Brick {brickname} lacks {', '.join(missing)}; cache its coadds again.")
        self.brickname = brickname
        self.bands = bands
        self._loaded: dict[str, NDArray] = {}
        self._stack = ExitStack()
        try:
            self._hdus = {product: self._open(paths[product]) for product in products(bands)}
            first = self._hdus[f"image-{bands[0]}"]
            self.shape: tuple[int, int] = first.shape
            self.wcs = WCS(first.header)
            for product, hdu in self._hdus.items():
                if hdu.shape != self.shape or not _same_wcs(hdu.header, first.header):
                    raise CorruptDataError(
                        f"{paths[product]} has another shape or WCS than image-{bands[0]}; fetch the brick again."
                    )
        except BaseException:
            self._stack.close()
            raise

    def cutout(self, x: float, y: float, size: int) -> Cutout:
        """The `size` pixels square whose centre is nearest to (x, y).

        The centre of an even square lies between pixels, so the target lies within half a pixel of it:
        at column x - x0 and row y - y0.

        Raises:
            BadInputError: the square does not fit into the brick.
            CorruptDataError: a tile does not decompress.
        """
        x0, y0 = (int(np.floor(c - (size - 1) / 2 + 0.5)) for c in (x, y))
        height, width = self.shape
        if min(x0, y0) < 0 or x0 + size > width or y0 + size > height:
            raise BadInputError(
                f"A {size} pixel stamp at ({x:.1f}, {y:.1f}) does not fit into brick {self.brickname}, "
                f"{width} x {height} pixels; take it from a brick that holds all of it."
            )
        rows, columns = slice(y0, y0 + size), slice(x0, x0 + size)
        row, column = (min(max(int(np.floor(c + 0.5)), 0), n - 1) for c, n in ((y, height), (x, width)))
        at_target = slice(row, row + 1), slice(column, column + 1)
        return Cutout(
            image=np.stack([self._read(f"image-{b}", rows, columns) for b in self.bands]).astype(
                np.float32, copy=False
            ),
            invvar=np.stack([self._read(f"invvar-{b}", rows, columns) for b in self.bands]).astype(
                np.float32, copy=False
            ),
            psfsize=np.array([self._read(f"psfsize-{b}", *at_target)[0, 0] for b in self.bands], dtype=np.float32),
            maskbits=self._read("maskbits", rows, columns).astype(np.int32),
            x0=x0,
            y0=y0,
        )

    def load(self) -> None:
        """Decompress every product whole, 40 bytes a pixel: cheaper than sections where they overlap all over."""
        everything = slice(None)
        self._loaded = {product: self._read(product, everything, everything) for product in self._hdus}

    def sky_to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Zero-based pixel coordinates of positions in degrees."""
        x, y = self.wcs.all_world2pix(np.asarray(ra, np.float64), np.asarray(dec, np.float64), 0)
        return np.asarray(x), np.asarray(y)

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions in degrees of zero-based pixel coordinates."""
        ra, dec = self.wcs.all_pix2world(np.asarray(x, np.float64), np.asarray(y, np.float64), 0)
        return np.asarray(ra), np.asarray(dec)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: Path) -> fits.CompImageHDU:
        try:
            hdu = self._stack.enter_context(fits.open(path))[1]
            stored = hdu.header.get("BRICKNAM", self.brickname)
        except (OSError, IndexError, TypeError) as error:
            raise CorruptDataError(f"{path} is not a compressed image in FITS ({error}); fetch it again.") from error
        if stored.strip() != self.brickname:
            raise CorruptDataError(f"{path} is of brick {stored.strip()}, not {self.brickname}; fetch it again.")
        return hdu

    def _read(self, product: str, rows: slice, columns: slice) -> NDArray:
        if product in self._loaded:
            return self._loaded[product][rows, columns]
        try:
            values = self._hdus[product].section[rows, columns]
        except Exception as error:  # whatever a decompressor raises on damaged tiles
            raise CorruptDataError(
                f"{product} of brick {self.brickname} does not decompress ({error}); fetch it again."
            ) from error
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def _same_wcs(one: fits.Header, other: fits.Header) -> bool:
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    return all(abs(one[key] - other[key]) < 1e-9 for key in keys if key in one and key in other)
