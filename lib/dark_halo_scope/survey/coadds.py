"""Pixels of one brick: cutouts that decompress only the tiles they touch, and the way from sky to pixel.

Images are nanomaggies per pixel, inverse variances 1/nanomaggy^2 per pixel, psfsize arcsec (a noise-equivalent-area
FWHM). Pixel coordinates are zero-based: x is the column, y the row, whole numbers are pixel centres.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.survey.names import BANDS, products

# It opens and reads in a quarter of astropy's time, with the same bits; it has no aarch64 wheels, so astropy stands in.
fitsio: ModuleType | None = None
with suppress(ImportError):
    fitsio = import_module("fitsio")

TILE = 100
"""Side of the tiles that the survey compresses its images in, pixels."""

# Decompressed tiles that are kept: two rows of tiles of a survey brick in seven products are half of it, 20 MB.
_TILES_KEPT = 1024
_WCS_KEYS = [f"{name}{axis}" for name in ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT") for axis in (1, 2)]
_WCS_KEYS += [f"{name}{i}_{j}" for name in ("CD", "PC") for i in (1, 2) for j in (1, 2)]
_WCS_KEYS += ["LONPOLE", "LATPOLE", "RADESYS", "EQUINOX"]


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

    Cutouts that follow one another in the order of `place` decompress each tile once, in bounded memory.

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
        self._tiles: OrderedDict[tuple[str, int, int], NDArray] = OrderedDict()
        self._stack = ExitStack()
        try:
            self._planes = {product: self._open(paths[product]) for product in products(bands)}
            first = self._planes[f"image-{bands[0]}"]
            self.shape: tuple[int, int] = first.shape
            # Cards as they stand: a number written anew may lose its last digit.
            self.wcs = WCS(fits.Header([first.header.cards[key] for key in _WCS_KEYS if key in first.header]))
            for product, plane in self._planes.items():
                if plane.shape != self.shape or not _same_wcs(plane.header, first.header):
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

    def place(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
        """Rank of a position's tile, row by row: the order in which targets share tiles."""
        i, j = (np.floor(np.asarray(c, np.float64) / TILE).astype(np.int64) for c in (y, x))
        return i * (self.shape[1] // TILE + 2) + j

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

    def _open(self, path: Path) -> "_Plane":
        try:
            plane: _Plane = _AstropyPlane(path) if fitsio is None else _FitsioPlane(path)
            self._stack.callback(plane.close)
            stored = str(plane.header.get("BRICKNAM", self.brickname))
        except (OSError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise CorruptDataError(
                f"{path} is not a compressed image in FITS ({' '.join(str(error).split())}); fetch it again."
            ) from error
        if stored.strip() != self.brickname:
            raise CorruptDataError(f"{path} is of brick {stored.strip()}, not {self.brickname}; fetch it again.")
        return plane

    def _read(self, product: str, rows: slice, columns: slice) -> NDArray:
        """A part of a product, put together from whole tiles, so that neighbours decompress each of them once."""
        parts = [
            [
                self._tile(product, i, j)[_within(rows, i), _within(columns, j)]
                for j in range(columns.start // TILE, (columns.stop - 1) // TILE + 1)
            ]
            for i in range(rows.start // TILE, (rows.stop - 1) // TILE + 1)
        ]
        if len(parts) == len(parts[0]) == 1:
            return parts[0][0]
        return np.concatenate([np.concatenate(line, axis=1) for line in parts])

    def _tile(self, product: str, i: int, j: int) -> NDArray:
        key = (product, i, j)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        height, width = self.shape
        rows, columns = slice(i * TILE, min((i + 1) * TILE, height)), slice(j * TILE, min((j + 1) * TILE, width))
        try:
            values = self._planes[product].read(rows, columns)
        except Exception as error:  # whatever a decompressor raises on damaged tiles
            raise CorruptDataError(
                f"{product} of brick {self.brickname} does not decompress ({error}); fetch it again."
            ) from error
        self._tiles[key] = values
        if len(self._tiles) > _TILES_KEPT:
            self._tiles.popitem(last=False)
        return values


class _Plane(Protocol):
    """One open file: the compressed image in its first extension."""

    shape: tuple[int, int]
    header: fits.Header

    def read(self, rows: slice, columns: slice) -> NDArray: ...

    def close(self) -> None: ...


class _FitsioPlane:
    def __init__(self, path: Path) -> None:
        self._file: Any = fitsio.FITS(str(path))  # type: ignore[union-attr]
        try:
            self._hdu = self._file[1]
            height, width = self._hdu.get_dims()
            self.shape = int(height), int(width)
            offsets = self._hdu.get_offsets()
            with path.open("rb") as stream:
                stream.seek(offsets["header_start"])
                text = stream.read(offsets["data_start"] - offsets["header_start"])
            # Parsed card by card when asked for, where fitsio and astropy's images go through all of them.
            self.header = fits.Header.fromstring(text)
        except BaseException:
            self._file.close()
            raise

    def read(self, rows: slice, columns: slice) -> NDArray:
        return self._hdu[rows, columns]

    def close(self) -> None:
        self._file.close()


class _AstropyPlane:
    def __init__(self, path: Path) -> None:
        self._file = fits.open(path)
        try:
            self._hdu = self._file[1]
            self.shape = self._hdu.shape
            self.header = self._hdu.header
        except BaseException:
            self._file.close()
            raise

    def read(self, rows: slice, columns: slice) -> NDArray:
        values = self._hdu.section[rows, columns]
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        self._file.close()


def _within(part: slice, tile: int) -> slice:
    """The piece of `part` that lies in a tile, counted from the tile's first pixel."""
    return slice(max(part.start - tile * TILE, 0), min(part.stop - tile * TILE, TILE))


def _same_wcs(one: fits.Header, other: fits.Header) -> bool:
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    return all(abs(one[key] - other[key]) < 1e-9 for key in keys if key in one and key in other)
