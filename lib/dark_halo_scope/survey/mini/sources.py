"""A bank of irregular galaxies in GalSim's real-galaxy format, as HST's COSMOS survey provides it.

Five files: the catalogue, its fits (`_fits`), images, PSF images (one HDU per galaxy), and the noise's correlation.
GalSim: RealGalaxyCatalog; Mandelbaum et al. 2012, MNRAS 420, 1518.
"""

from pathlib import Path

import fitsio
import galsim
import numpy as np
from numpy.typing import NDArray

CATALOGUE = "real_galaxy_catalog_mini.fits"
_FITS = "real_galaxy_catalog_mini_fits.fits"
_IMAGES = "real_galaxy_images_mini.fits"
_PSFS = "real_galaxy_PSF_images_mini.fits"
_NOISE = "acs_I_mini_noise_cf.fits"

PIXEL_SCALE = 0.03
ZERO_POINT = 25.94
"""AB magnitude of one count per second in F814W."""
_SIGMA = 2.6e-3
"""Noise per pixel, counts per second."""
_BRIGHTEST, _FAINTEST = 20.5, 25.0
_LARGEST = 300

CATALOGUE_DTYPE = np.dtype(
    [
        *(("IDENT", "i4"), ("RA", "f8"), ("DEC", "f8"), ("MAG", "f8"), ("BAND", "S5"), ("WEIGHT", "f8")),
        *(("GAL_FILENAME", "S32"), ("PSF_FILENAME", "S36"), ("GAL_HDU", "i4"), ("PSF_HDU", "i4")),
        *(("PIXEL_SCALE", "f8"), ("NOISE_MEAN", "f8"), ("NOISE_VARIANCE", "f8"), ("NOISE_FILENAME", "S26")),
        ("stamp_flux", "f8"),
    ]
)
FITS_DTYPE = np.dtype(
    [
        *(("IDENT", "i4"), ("mag_auto", "f8"), ("flux_radius", "f8"), ("zphot", "f8"), ("sersicfit", "f8", (8,))),
        *(("bulgefit", "f8", (16,)), ("fit_status", "i4", (5,)), ("fit_mad_s", "f8"), ("fit_mad_b", "f8")),
        *(("fit_dvc_btt", "f8"), ("use_bulgefit", "i4"), ("viable_sersic", "i4")),
        *(("hlr", "f8", (3,)), ("flux", "f8", (4,))),
    ]
)


def write_source_bank(directory: Path, seed: int, count: int) -> Path:
    """Draw `count` galaxies and write the bank; returns its catalogue.

    Magnitudes follow the F814W counts to 25, half-light radii their relation with magnitude in COSMOS.
    """
    directory.mkdir(parents=True, exist_ok=True)
    catalogue, fits = np.zeros(count, CATALOGUE_DTYPE), np.zeros(count, FITS_DTYPE)
    psf = galsim.Convolve([galsim.Airy(lam_over_diam=0.07), galsim.Gaussian(fwhm=0.055), galsim.Pixel(PIXEL_SCALE)])
    psf_image = psf.drawImage(nx=63, ny=63, scale=PIXEL_SCALE, method="no_pixel").array.astype(np.float32)
    with (
        fitsio.FITS(str(directory / _IMAGES), "rw", clobber=True) as images,
        fitsio.FITS(str(directory / _PSFS), "rw", clobber=True) as psfs,
    ):
        for i in range(count):
            rng = np.random.default_rng([seed, 2, i])
            mag = _magnitude(rng)
            hlr = float(np.clip(0.40 * 10 ** (-0.11 * (mag - 23.0)) * rng.lognormal(0, 0.35), 0.09, 1.1))
            image, size = _galaxy_image(rng, mag, hlr, psf)
            images.write(image)
            psfs.write(psf_image)
            for table in (catalogue, fits):
                table["IDENT"][i] = 100_001 + i
            row = catalogue[i : i + 1]
            row["RA"], row["DEC"] = 150.1 + rng.uniform(-0.7, 0.7), 2.2 + rng.uniform(-0.7, 0.7)
            row["MAG"], row["stamp_flux"], row["GAL_HDU"], row["PSF_HDU"] = mag, image.sum(), i, i
            fit = fits[i : i + 1]
            fit["mag_auto"], fit["flux_radius"] = mag, size / PIXEL_SCALE
            fit["zphot"] = np.clip(rng.normal(0.35 + 0.25 * (mag - 20.5), 0.3), 0.05, 3.5)
            fit["hlr"][0, 0], fit["flux"][0, 0] = size, image.sum()
    catalogue["BAND"], catalogue["WEIGHT"], catalogue["PIXEL_SCALE"] = b"F814W", 1.0, PIXEL_SCALE
    catalogue["GAL_FILENAME"], catalogue["PSF_FILENAME"] = _IMAGES.encode(), _PSFS.encode()
    catalogue["NOISE_VARIANCE"], catalogue["NOISE_FILENAME"] = _SIGMA**2, _NOISE.encode()
    fits["viable_sersic"] = 0
    for name, rows in ((CATALOGUE, catalogue), (_FITS, fits)):
        fitsio.write(str(directory / name), rows, clobber=True)
    correlation = np.zeros((49, 49))
    correlation[24, 24] = _SIGMA**2
    fitsio.write(str(directory / _NOISE), correlation, clobber=True)
    return directory / CATALOGUE


def _magnitude(rng: np.random.Generator) -> float:
    slope = 0.30
    low, high = 10 ** (slope * _BRIGHTEST), 10 ** (slope * _FAINTEST)
    return float(np.log10(low + rng.random() * (high - low)) / slope)


def _galaxy_image(
    rng: np.random.Generator, mag: float, hlr: float, psf: galsim.GSObject
) -> tuple[NDArray[np.float32], float]:
    """Image in counts per second with noise, and the half-light radius in arcsec of what was drawn, without the PSF."""
    flux = float(10 ** (0.4 * (ZERO_POINT - mag)))
    unscaled = _irregular(rng)
    galaxy = unscaled.dilate(hlr / _half_light_radius(unscaled)).withFlux(flux)
    side = int(np.clip(2 * np.ceil(4.5 * hlr / PIXEL_SCALE) + 30, 60, _LARGEST))
    image = galsim.Convolve([galaxy, psf]).drawImage(nx=side, ny=side, scale=PIXEL_SCALE, method="no_pixel").array
    noisy = image + rng.normal(0, _SIGMA, size=image.shape)
    return noisy.astype(np.float32), hlr


def _irregular(rng: np.random.Generator) -> galsim.GSObject:
    """A galaxy of about unit size that no Sersic profile describes: bulge, disc, arms or clumps, a companion."""
    q, angle = float(rng.uniform(0.35, 1.0)), rng.uniform(0, np.pi)
    clumps = int(rng.integers(5, 16))
    share = rng.uniform(0.15, 0.55)
    bulge = rng.uniform(0.0, 0.35) * (1 - share)
    parts = [
        galsim.Exponential(half_light_radius=1.0, flux=1 - share - bulge),
        galsim.Sersic(2.0, half_light_radius=0.25, flux=max(bulge, 1e-3)).shift(*rng.normal(0, 0.08, size=2)),
    ]
    weights = rng.lognormal(0, 0.9, size=clumps)
    weights *= share / weights.sum()
    spiral = rng.random() < 0.5
    wind, handed = rng.uniform(1.5, 4.0), rng.choice([-1, 1])
    lopsided = rng.normal(0, 0.3, size=2)
    for i, weight in enumerate(weights):
        radius = 0.4 + 1.5 * np.sqrt(rng.random())
        phase = np.pi * (i % 2) + handed * wind * radius + rng.normal(0, 0.15) if spiral else rng.uniform(0, 2 * np.pi)
        knot = galsim.Gaussian(half_light_radius=float(rng.uniform(0.07, 0.22)), flux=float(weight))
        parts.append(knot.shift(radius * np.cos(phase) + lopsided[0], radius * np.sin(phase) + lopsided[1]))
    galaxy = galsim.Sum(parts).shear(q=q, beta=angle * galsim.radians)
    if rng.random() < 0.25:
        distance, direction = rng.uniform(1.5, 3.0), rng.uniform(0, 2 * np.pi)
        companion = galsim.Exponential(half_light_radius=0.4, flux=float(rng.uniform(0.08, 0.3)))
        galaxy += companion.shift(distance * np.cos(direction), distance * np.sin(direction))
    return galaxy


def _half_light_radius(galaxy: galsim.GSObject) -> float:
    """Half-light radius about the centroid, measured on an image: sums of profiles have no analytic one."""
    image = galaxy.drawImage(nx=128, ny=128, scale=0.1, method="no_pixel")
    return float(image.calculateHLR(center=image.true_center + galaxy.centroid / image.scale))
