"""Images of lensed sources: light on a fine grid, then the PSF, then the stamp's pixels.

The fine image exists before any PSF because hard negatives shuffle its light: render once, convolve twice.

    fine = render_fine(lens, source)                  # unit unlensed flux
    positive = convolve_bands(fine, psfs, fluxes)     # (B, H, W) nanomaggy per pixel
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import array_api_compat
import numpy as np
import numpy.typing as npt
import scipy.fft

from dark_halo_scope.lensing import compiled, sersic, sources
from dark_halo_scope.lensing.arrays import Array, constants
from dark_halo_scope.lensing.deflection import to_source_plane
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Psf, transfer_table
from dark_halo_scope.lensing.sources import ImageSource, SersicSource, Source

PIXEL_SCALE = 0.262  # arcsec; the survey's coadds
STAMP_SIZE = 64
OVERSAMPLING = 4

# Error per tree cell in units of the unlensed flux; tests/lensing and tests/bench show what it buys.
_TOLERANCE = 3e-4
# The tree starts from cells of at most this many native pixels, and ends this many levels below fine pixels.
_ROOT_PIXELS = 4
_LEVELS_BELOW = 6
# Directions per quadrant at which a singular lens's deflection is tabulated: 1e-8 of it at any axis ratio in use.
_TABLE_LENGTH = 64
# A PSF that passes less than this at the stamp's Nyquist frequency is well sampled by the stamp's pixels.
_NEGLIGIBLE_TRANSFER = 3e-4


@dataclass(frozen=True, eq=False)
class FineImage:
    """Light of an arc before any PSF.

    Attributes:
        values: (size * oversampling, the same) flux in each fine pixel; the unlensed source has flux 1, so that the
            sum is the magnification inside the stamp.
        oversampling: fine pixels along a stamp's pixel.
        pixel_scale: of the stamp, arcsec.
    """

    values: npt.NDArray[np.float64]
    oversampling: int
    pixel_scale: float

    @property
    def size(self) -> int:
        """Stamp pixels along one axis."""
        return self.values.shape[0] // self.oversampling

    @property
    def flux(self) -> float:
        """Flux inside the stamp in units of the unlensed flux: the extended source's magnification."""
        return float(self.values.sum())


def fine_grid(size: int, oversampling: int, pixel_scale: float) -> npt.NDArray[np.float64]:
    """(size * oversampling,) positions of fine pixel centres along one axis, arcsec, symmetric about 0."""
    length = size * oversampling
    return (np.arange(length, dtype=np.float64) - (length - 1) / 2.0) * (pixel_scale / oversampling)


def render_fine(
    lens: Lens,
    source: Source,
    size: int = STAMP_SIZE,
    pixel_scale: float = PIXEL_SCALE,
    oversampling: int = OVERSAMPLING,
    tolerance: float = _TOLERANCE,
    levels_below: int = _LEVELS_BELOW,
) -> FineImage:
    """Lens `source` and integrate its light over fine pixels, adaptively (compiled).

    Args:
        size: stamp's side, pixels.
        pixel_scale: arcsec.
        oversampling: fine pixels per pixel, a power of two.
        tolerance: error allowed per cell of the tree, in units of the unlensed flux.
        levels_below: halvings of a fine pixel that the tree may make; with tolerance 0 it makes them all.

    Returns:
        The light before the PSF, of a source whose unlensed flux is 1. Never renormalised: its sum is the
        magnification inside the stamp.

    Raises:
        ValueError: oversampling is not a power of two, or size or pixel_scale not positive.
    """
    if size < 1 or not pixel_scale > 0 or oversampling < 1 or oversampling & (oversampling - 1):
        raise ValueError(
            f"A stamp has size >= 1, pixel_scale > 0 and an oversampling of a power of two; "
            f"not {size}, {pixel_scale}, {oversampling}."
        )
    out = np.zeros((size * oversampling, size * oversampling))
    root_pixels = math.gcd(size, _ROOT_PIXELS)
    fine_level = (root_pixels * oversampling).bit_length() - 1
    cos, sin = math.cos(lens.phi), math.sin(lens.phi)
    f = math.sqrt(max((1.0 - lens.q) * (1.0 + lens.q), 1e-18))
    strength = lens.theta_e * math.sqrt(lens.q)
    turn = np.array([[cos, -sin], [sin, cos]])  # lens frame -> stamp frame
    unsheared = np.array([[1.0 - lens.g1, -lens.g2], [-lens.g2, 1.0 + lens.g1]])
    matrix = source.matrix()
    to_source = matrix @ unsheared @ turn
    deflected = matrix @ turn
    offset = matrix @ np.array([lens.x - source.x, lens.y - source.y])
    table = np.empty((_TABLE_LENGTH + 1, 4))
    compiled.tabulate(table, strength / f, f, lens.q**2, strength)
    arguments = (
        out,
        size // root_pixels,
        fine_level,
        fine_level + levels_below,
        pixel_scale / oversampling,
        tolerance,
        np.array([strength / f, f, lens.q**2, lens.core, strength]),
        table,
        to_source,
        deflected,
        offset,
        cos,
        sin,
        lens.x,
        lens.y,
    )
    if isinstance(source, SersicSource):
        peak = sersic.central_brightness(source.r_e, source.n)
        compiled.trace_sersic(*arguments, sersic.b_n(source.n), 0.5 / source.n, peak)
    else:
        image = source.brightness_image()
        block = 8
        compiled.trace_image(*arguments, image, compiled.block_maxima(image, block), float(block))
    return FineImage(out, oversampling, pixel_scale)


def render_fine_uniform(
    lens: Lens,
    source: Source,
    like: Array,
    size: int = STAMP_SIZE,
    pixel_scale: float = PIXEL_SCALE,
    oversampling: int = OVERSAMPLING,
    subdivisions: int = 4,
) -> Array:
    """The same integral by brute force, on the array library, dtype and device of `like`.

    Every fine pixel is cut into subdivisions^2 equal cells of 2 x 2 Gauss points. Differentiable where the library is.

    Returns:
        (size * oversampling, the same) flux in each fine pixel.
    """
    xp = array_api_compat.array_namespace(like)
    pixel = pixel_scale / oversampling
    (axis,) = constants(like, fine_grid(size, oversampling, pixel_scale))
    cell = pixel / subdivisions
    middles = [((k + 0.5) / subdivisions - 0.5) * pixel for k in range(subdivisions)]
    nodes = [middle + sign * cell * 0.5 / math.sqrt(3.0) for middle in middles for sign in (-1, 1)]
    total = xp.zeros((axis.shape[0], axis.shape[0]), dtype=axis.dtype, device=array_api_compat.device(axis))
    for dy in nodes:
        y = xp.broadcast_to(axis[:, None] + dy, total.shape)
        for dx in nodes:
            x = xp.broadcast_to(axis[None, :] + dx, total.shape)
            total = total + sources.brightness(source, *to_source_plane(lens, x, y))
    return total * (pixel / len(nodes)) ** 2


@dataclass(frozen=True, eq=False)
class FineSpectrum:
    """Fourier transform of a fine image, spread onto a grid once or twice as fine as the stamp's pixels.

    Attributes:
        values: (M, M // 2 + 1), half-plane; the origin is the first stamp pixel's centre.
        correction: (M // 2,) factor along each axis that undoes the spreading and the fine pixels' size.
        size, padded: of the stamp, and of the periodic square around it, pixels.
        pixel_scale: of the stamp, arcsec.
        positive: no fine pixel is negative.
    """

    values: npt.NDArray[np.complex128]
    correction: npt.NDArray[np.float64]
    size: int
    padded: int
    pixel_scale: float
    positive: bool


@lru_cache(maxsize=64)
def _padded(size: int) -> int:
    """Side of the periodic square, stamp pixels: room for the PSF's wings, even, and fast to transform."""
    length = size + max(size // 2, 16)
    while scipy.fft.next_fast_len(length, real=True) != length or length % 2:
        length += 1
    return length


@lru_cache(maxsize=64)
def _splines(
    size: int, oversampling: int, factor: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How to spread fine pixels onto a grid of `factor` points per stamp pixel, and the correction for it.

    A cubic B-spline (Hockney & Eastwood 1988, section 5) keeps what the grid aliases below 1e-3 of what the PSF
    passes; its transform is sinc^4, and a fine pixel's, whose light is integrated, is sinc.

    Returns:
        First grid point (N,) and the weights (N, 4) of the four from there on, for each fine pixel along an axis;
        factor for each frequency, (M // 2,).
    """
    position = (np.arange(size * oversampling) - (oversampling - 1) / 2.0) * factor / oversampling
    floor = np.floor(position)
    t = position - floor
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6.0
    length = _padded(size) * factor
    frequency = np.arange(length // 2) / length
    correction = 1.0 / (np.sinc(frequency) ** 4 * np.sinc(frequency * factor / oversampling))
    first = floor.astype(np.int64) - 1
    for array in (first, weights, correction):
        array.flags.writeable = False
    return first, weights, correction


def _grid_factor(psfs: Sequence[Psf], oversampling: int, pixel_scale: float) -> int:
    """1 where the stamp's own pixels sample every PSF well enough, else 2."""
    nyquist = math.pi / pixel_scale
    passed = max(_transferred(psf, nyquist) for psf in psfs)
    return 1 if passed < _NEGLIGIBLE_TRANSFER or oversampling == 1 else 2


def _transferred(psf: Psf, wavenumber: float) -> float:
    """A PSF's tabulated transfer function at one wavenumber, rad/arcsec."""
    table, step = transfer_table(psf.kind, psf.beta)
    return float(table[min(int(wavenumber * psf.scale / step), table.size - 1)])


def fine_spectrum(fine: FineImage, psfs: Sequence[Psf]) -> FineSpectrum:
    """Transform `fine` once for all the PSFs that it will be convolved with."""
    padded = _padded(fine.size)
    factor = _grid_factor(psfs, fine.oversampling, fine.pixel_scale)
    first, weights, correction = _splines(fine.size, fine.oversampling, factor)
    grid = np.zeros((padded * factor, padded * factor))
    positive = compiled.spread(grid, fine.values, first, weights)
    return FineSpectrum(scipy.fft.rfft2(grid), correction, fine.size, padded, fine.pixel_scale, bool(positive))


def sample(spectrum: FineSpectrum, psfs: Sequence[Psf]) -> npt.NDArray[np.float64]:
    """(B, H, W) images after each PSF: value at pixel centres times the pixel's area.

    The square around the stamp is periodic: a PSF is never cut off, and keeps its whole flux.
    """
    native = np.zeros((len(psfs), spectrum.padded, spectrum.padded // 2 + 1), dtype=np.complex128)
    wave_step = 2.0 * math.pi / (spectrum.padded * spectrum.pixel_scale)
    for plane, psf in zip(native, psfs, strict=True):
        table, step = transfer_table(psf.kind, psf.beta)
        compiled.filter_and_fold(plane, spectrum.values, table, wave_step * psf.scale / step, spectrum.correction)
    along_y = scipy.fft.ifft(native, axis=1, overwrite_x=True)[:, : spectrum.size]
    images = scipy.fft.irfft(along_y, n=spectrum.padded, axis=2)[:, :, : spectrum.size]
    # Light and PSF are positive, so what lies below zero is rounding, whose square root shot noise would take.
    return np.maximum(images, 0.0) if spectrum.positive else np.ascontiguousarray(images)


def convolve_and_sample(fine: FineImage, psf: Psf) -> npt.NDArray[np.float64]:
    """(H, W) image of `fine` after `psf`, in units of the unlensed flux; see `sample`."""
    return sample(fine_spectrum(fine, [psf]), [psf])[0]


def convolve_bands(
    fine: FineImage, psfs: Sequence[Psf], fluxes: Sequence[float] | npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """(B, H, W) nanomaggy per pixel of `fine` in each band, for its PSF and unlensed flux (nanomaggies)."""
    if len(psfs) != len(fluxes):
        raise ValueError(f"Each band has one PSF and one flux; got {len(psfs)} and {len(fluxes)}.")
    bands = sample(fine_spectrum(fine, psfs), psfs)
    return (bands * np.asarray(fluxes, np.float64)[:, None, None]).astype(np.float32)


def render_arc(
    lens: Lens,
    source: Source,
    psfs: Sequence[Psf],
    fluxes: Sequence[float] | npt.NDArray[np.floating],
    size: int = STAMP_SIZE,
    pixel_scale: float = PIXEL_SCALE,
) -> npt.NDArray[np.float32]:
    """(B, H, W) nanomaggy per pixel of a lensed source of these unlensed fluxes (nanomaggies), one per PSF."""
    return convolve_bands(render_fine(lens, source, size, pixel_scale), psfs, fluxes)


__all__ = [
    "FineImage",
    "FineSpectrum",
    "ImageSource",
    "Lens",
    "Psf",
    "SersicSource",
    "convolve_and_sample",
    "convolve_bands",
    "fine_grid",
    "fine_spectrum",
    "render_arc",
    "render_fine",
    "render_fine_uniform",
    "sample",
]
