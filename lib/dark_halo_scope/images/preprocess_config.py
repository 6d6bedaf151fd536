"""Settings of preprocessing and augmentation on the device."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import ConfigError

#: Where the control channels of a paired network come from; see images.control_sources.
ControlSourceName = Literal[
    "azimuthal_median_self",
    "rot180_self",
    "duplicate_self",
    "matched_lrg",
    "median_lrg_template",
    "paired_oracle",
]
CONTROL_SOURCES: tuple[ControlSourceName, ...] = get_args(ControlSourceName)
#: Not computable of an image on the sky, hence never deployed.
DIAGNOSTIC_SOURCES: tuple[ControlSourceName, ...] = ("paired_oracle",)
#: Made of other galaxies, those without arcs of training's pairs.
LEARNED_SOURCES: tuple[ControlSourceName, ...] = ("matched_lrg", "median_lrg_template")
#: Sources whose control stands in the middle of the stamp: a galaxy that was shifted away from there has another one.
CENTRED_SOURCES: tuple[ControlSourceName, ...] = (
    "azimuthal_median_self",
    "rot180_self",
    "matched_lrg",
    "median_lrg_template",
)


class PreprocessSettings(Settings):
    """How a stamp in nanomaggies becomes the channels a network sees: three bands, their residuals, a control's bands.

    The defaults are the Gen5-Prime plan's: median and MAD of the outer annulus, clip at 10 noise units, residual
    against a Gaussian of sigma 3 pixels. The annulus is that of a `reference_size` stamp and scales with the stamp, so
    that it stays outside of galaxies on larger ones; the residual's sigma belongs to the PSF and does not.

    `normalisation: training_set` is the other one of the plan for real images: mean and standard deviation of each band
    over training's pixels take the place of each stamp's own, and travel with the weights. The annulus then tells noise
    to augmentation alone.
    """

    normalisation: Literal["robust", "training_set"] = Field(
        default="robust",
        description="robust: median and MAD of each stamp's outer annulus; training_set: mean and standard deviation "
        "of each band over the training images",
    )
    statistics_images: int = Field(
        default=10_000, ge=2, description="training_set: images they are measured on, spread evenly over all"
    )
    reference_size: int = Field(default=64, ge=16)
    annulus_inner_pix: float = Field(default=16.0, ge=0)  # 0: the whole stamp, which absorbs the arc
    annulus_outer_pix: float | None = Field(default=None, gt=0)  # None: to the corners, as the plan
    subtract_median: bool = True
    stretch: Literal["clip", "asinh", "none"] = "clip"
    clip_low: float = -10.0
    clip_high: float = 10.0
    asinh_softening: float = Field(default=1.0, gt=0)  # in noise units, or in training's standard deviations
    residual: bool = True
    # `stretched`: the plan's; a bright core has compressed an arc before the residual is taken. `linear`: the residual
    # is taken in noise units and then stretched, so that the arc on a bright host keeps its contrast.
    residual_of: Literal["stretched", "linear"] = "stretched"
    residual_sigma_pix: float = Field(default=3.0, gt=0)
    residual_truncate: float = Field(default=3.0, gt=0)
    control_source: ControlSourceName | None = Field(
        default=None, description="what the control channels show, with the stamp's background and scale; null: none"
    )
    library_size: int = Field(
        default=256, ge=1, description="training controls kept for matched_lrg and median_lrg_template"
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if self.clip_low >= self.clip_high:
            raise ValueError(f"clip_low {self.clip_low} must be below clip_high {self.clip_high}")
        if self.annulus_outer_pix is not None and self.annulus_outer_pix <= self.annulus_inner_pix:
            raise ValueError("annulus_outer_pix must be larger than annulus_inner_pix")
        if self.normalisation == "training_set" and (self.control_source is not None or not self.subtract_median):
            raise ValueError(
                "normalisation: training_set subtracts training's mean and knows no control channels; set "
                "subtract_median to true and control_source to null"
            )
        return self

    @property
    def channels(self) -> int:
        """Number of channels made of three bands: the stamp's, its residual's, its control's."""
        return 3 * (1 + self.residual + (self.control_source is not None))

    @property
    def deployable(self) -> bool:
        """Whether the channels can be made of an image on the sky."""
        return self.control_source not in DIAGNOSTIC_SOURCES


PRESETS: dict[str, PreprocessSettings] = {
    # Plan of 2026-02-05: r >= 16 pixels, clip +-10.
    "gen5_prime": PreprocessSettings(),
    # The same statistics with a logarithmic-like stretch: a lens galaxy's core, hundreds of noise units high, keeps its
    # shape, and with it an arc at small radius.
    "gen5_prime_asinh": PreprocessSettings(stretch="asinh"),
    "gen5_prime_linear_residual": PreprocessSettings(stretch="asinh", residual_of="linear"),
    # Configuration review: clip (-5, 20), a control in place of the residual. Its statistics over the whole stamp
    # absorb the arc, so they are taken on the outer annulus here too; its control is the image that the arc was
    # injected into, which no image on the sky has.
    "gen5_prime_paired": PreprocessSettings(
        clip_low=-5.0, clip_high=20.0, residual=False, control_source="azimuthal_median_self"
    ),
    # Early generations: median and MAD of the whole stamp. The arc raises its own scale.
    "full_image": PreprocessSettings(annulus_inner_pix=0.0, residual=False),
    # Calibration plan for real images: per-cutout asinh, or each band by training's mean and standard deviation.
    "real_asinh": PreprocessSettings(stretch="asinh", residual=False),
    "real_training_set": PreprocessSettings(normalisation="training_set", stretch="none", residual=False),
    # Earlier pipelines: r >= 20 pixels with clip +-5, and the [20, 32) annulus with the raw MAD.
    "planb": PreprocessSettings(annulus_inner_pix=20.0, clip_low=-5.0, clip_high=5.0, residual=False),
    "dhs_raw_robust": PreprocessSettings(annulus_inner_pix=20.0, annulus_outer_pix=32.0, residual=False),
}


def preset(name: str) -> PreprocessSettings:
    """The settings called `name`.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preprocessing preset {name!r}; choose one of {', '.join(sorted(PRESETS))}.")
    return PRESETS[name]


class AugmentSettings(Settings):
    """Random changes of training images, all of them true to the sky.

    Brightness, colour and scale jitter are refused by name: arcs are told from hosts by their colour and surface
    brightness, and a change of scale changes the Einstein radius against the PSF (seed "Augmentation", list AVOID).
    """

    dihedral: bool = True
    shift_pix: int = Field(default=0, ge=0, le=5)  # whole pixels: interpolation would mark the noise
    noise_sigma: float = Field(default=0.0, ge=0, le=0.1)  # in units of the stamp's own background noise
    psf_blur_sigma_pix: float = Field(default=0.0, ge=0, le=1.0)  # upper end of a uniform draw per image
    centre_degradation_probability: float = Field(default=0.0, ge=0, le=1)
    centre_degradation_radius_pix: float = Field(default=2.0, gt=0)  # remedy of a failed core or radial gate
    brightness: float = 0.0
    colour: float = 0.0
    scale: float = 0.0

    @model_validator(mode="after")
    def _refuse_jitter(self) -> Self:
        reasons = {
            "brightness": "it makes flux a cue that training then ignores or a shortcut",
            "colour": "arcs are told from their hosts by colour",
            "scale": "it changes the Einstein radius relative to the PSF",
        }
        for name, reason in reasons.items():
            if getattr(self, name) != 0.0:
                raise ValueError(f"{name} jitter is refused because {reason}; set {name} to 0")
        return self
