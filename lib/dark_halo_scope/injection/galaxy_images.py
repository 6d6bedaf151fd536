"""From a galaxy's postage stamp to the image of a source: isolated, centred, of unit flux, its size measured.

Pure functions of arrays; images are (ny, nx), radii and widths in pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import ndtr, ndtri

FloatImage = npt.NDArray[np.float64]

_FWHM_TO_SIGMA = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))

# Footprints are found on images smoothed by this many pixels, which leaves this share of white noise's scatter.
_SMOOTHING = 2.0
_WHITE_NOISE_LEFT = 1.0 / (2.0 * np.sqrt(np.pi) * _SMOOTHING)

# How smooth an image is taken to be where clipped noise is corrected for: less, and noise is taken for signal.
_PEDESTAL_SMOOTHING = 4.0

# Smoothings that find a faint disc's outskirts as well.
_SCALES = (2.0, 4.0, 8.0)


@dataclass(frozen=True)
class GalaxyImage:
    """One galaxy: its image sums to 1 and is centred on its light's centroid, to half a pixel.

    `half_light_radius` is measured: the circle about the centroid that holds half the light.
    """

    image: npt.NDArray[np.float32]  # (n, n)
    pixel_scale: float  # arcsec
    half_light_radius: float  # arcsec


def isolate(image: FloatImage, noise: float, threshold_sigma: float) -> tuple[FloatImage, float]:
    """Cut one galaxy out of its postage stamp: (ny, nx) counts -> (n, n), sum 1, centroid in the middle; its counts.

    Everything outside the galaxy's footprint is zero. Keeping the stamp's noise instead, with its negative half
    clipped, gives a pedestal that moved the earlier bank's half-light radii to 1.1". Pixels inside keep their sign. The
    stamps have no sky, and bright galaxies reach their stamp's edge, so that no background is fitted.

    Args:
        image: postage stamp of one galaxy.
        noise: standard deviation of its pixels.
        threshold_sigma: the footprint is where the image smoothed by two pixels exceeds this many times `noise`.

    Returns:
        The galaxy's image, and the counts in its footprint, by which it was divided.

    Raises:
        ValueError: nothing exceeds the threshold.
    """
    smooth = ndimage.gaussian_filter(image, _SMOOTHING, mode="constant")
    return _cut_out(image, smooth > threshold_sigma * noise)


def isolate_in_unknown_noise(image: FloatImage, threshold_sigma: float) -> FloatImage:
    """Like `isolate`, where the noise is correlated and only the corners tell how much there is.

    The footprint is where the image smoothed by 2, 4 or 8 pixels exceeds what the corners scatter at that smoothing,
    the limit being the same for white noise: a galaxy whose image is mostly noise keeps its outskirts.

    Raises:
        ValueError: nothing exceeds the threshold.
    """
    corners = _corners(image.shape)
    above = np.zeros(image.shape, dtype=bool)
    for scale in _SCALES:
        smooth = ndimage.gaussian_filter(image, scale, mode="reflect")
        quiet = smooth[corners]
        # A neighbour, or the galaxy's own wings in two corners, widen no median deviation.
        scatter = np.median(np.abs(quiet - np.median(quiet))) / ndtri(0.75)
        above |= smooth > threshold_sigma / _WHITE_NOISE_LEFT * scatter
    return _cut_out(image, above)[0]


def _cut_out(image: FloatImage, above: npt.NDArray[np.bool_]) -> tuple[FloatImage, float]:
    """The brightest of the connected pieces of `above`, and three pixels around it; see `isolate`."""
    labels, count = ndimage.label(above)
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
    return padded[cy : cy + 2 * half + 1, cx : cx + 2 * half + 1] / total, float(total)


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


def replace_psf(image: FloatImage, psf: FloatImage, target_fwhm: float, noise: float) -> FloatImage:
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


def remove_clipped_noise(image: FloatImage) -> FloatImage:
    """Take the pedestal out of a stamp whose noise lost its negative half; unchanged where the corners hold no noise.

    Where a signal s meets noise of scatter sigma and negatives become 0, the mean is s Phi(s/sigma) + sigma
    phi(s/sigma): 0.4 sigma too much where there is nothing, no excess where s >> sigma. The excess is taken off pixel
    by pixel, s from the image smoothed by four pixels.

    Returns:
        (ny, nx) image whose mean is the signal's.
    """
    sigma = clipped_noise(image[_corners(image.shape)])
    if sigma == 0.0:
        return image
    smooth = ndimage.gaussian_filter(image, _PEDESTAL_SMOOTHING, mode="reflect") / sigma
    signal = np.interp(smooth, _CLIPPED_MEANS, _SIGNALS)
    return image - sigma * np.where(smooth > _CLIPPED_MEANS[-1], 0.0, _clipped_mean(signal) - signal)


def clipped_noise(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation of Gaussian noise from samples whose negatives were set to 0.

    Clipping leaves the positive quantiles as they were: a line through them, q(p) = mean + sigma ndtri(p), has the
    slope sigma. Light in the brightest tenth of the samples has no say. 0 where fewer than a fifth are positive.
    """
    low = max(0.5, float(np.mean(values <= 0.0))) + 0.03
    if low > 0.8:
        return 0.0
    share = np.linspace(low, 0.9, 16)
    slope, _ = np.polyfit(ndtri(share), np.quantile(values, share), 1)
    return max(float(slope), 0.0)


def _corners(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Pixels outside the stamp's inscribed ellipse."""
    y, x = (np.abs(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape)
    return y[:, None] ** 2 + x**2 > 1.0


def _clipped_mean(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of max(signal + n, 0) for n of unit variance."""
    return signal * ndtr(signal) + np.exp(-0.5 * signal**2) / np.sqrt(2.0 * np.pi)


# Six sigma above zero the excess is gone; where noise makes the smoothed image darker than sky, s is negative.
_SIGNALS = np.linspace(-2.0, 6.0, 801)
_CLIPPED_MEANS = _clipped_mean(_SIGNALS)
