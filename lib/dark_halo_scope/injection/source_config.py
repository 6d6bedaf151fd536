"""Settings of source galaxies: how a bank's image becomes a source, and which galaxies are fit for it."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings


class SourceBankSettings(Settings):
    """How a real galaxy image becomes a source.

    `psf: keep` leaves the HST PSF (0.1") in, a twelfth of the ground's; `deconvolve` replaces it by a Gaussian of
    `target_fwhm_arcsec`, and needs the bank's PSF files.
    """

    psf: Literal["keep", "deconvolve"] = "keep"
    target_fwhm_arcsec: float = Field(default=0.06, gt=0)
    threshold_sigma: float = Field(default=0.5, gt=0)  # of a pixel's noise, on the image smoothed by two pixels


class SourceCheckSettings(Settings):
    """All settings of `measure_sources`: how images become sources, and which galaxies are refused.

    Measured over catalogued half-light radius may be small: a faint galaxy's disc can drown in the noise. The radii of
    the earlier HDF5 bank hold a pedestal of clipped noise (median 1.08"), so that it needs a lower limit still.
    """

    bank: SourceBankSettings = SourceBankSettings()
    min_radius_ratio: float = Field(default=0.2, gt=0)
    max_radius_ratio: float = Field(default=2.0, gt=0)
    max_unusable_fraction: float = Field(default=0.05, ge=0, lt=1)
    split_seed: int = Field(default=42, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "SourceCheckSettings":
        if self.min_radius_ratio >= self.max_radius_ratio:
            raise ValueError("min_radius_ratio must be less than max_radius_ratio")
        return self
