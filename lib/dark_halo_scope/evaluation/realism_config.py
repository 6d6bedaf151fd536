"""Settings of `measure_realism`."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.dataset_config import ShortcutSettings

MatchVariable = Literal["mag_r", "colour_gr", "colour_rz", "concentration", "psfsize_r", "psfdepth_r"]


class MatchSettings(Settings):
    """How injections are chosen whose hosts look like the lenses' galaxies."""

    variables: tuple[MatchVariable, ...] = Field(
        default=("mag_r", "colour_gr", "colour_rz", "concentration"),
        min_length=1,
        description="what is matched; magnitude, colours and concentration are measured on the images, both alike",
    )
    conditions: tuple[MatchVariable, ...] = Field(
        default=("psfsize_r", "psfdepth_r"),
        description="matched as well in a second comparison: lenses all over the sky against hosts of a few bricks",
    )
    aperture_arcsec: float = Field(
        default=1.0, gt=0, description="radius of magnitude and colours: little arc is inside"
    )
    inner_arcsec: float = Field(
        default=0.5, gt=0, description="concentration: the share of the aperture's r light within this radius"
    )
    recentre_arcsec: float = Field(default=1.0, ge=0, description="how far from its position a galaxy's peak may be")
    sky_arcsec: float = Field(default=6.0, gt=0, description="pixels beyond this radius are sky")
    caliper: float = Field(
        default=1.0,
        gt=0,
        description="a lens without an injection nearer than this, in standard deviations, is left out",
    )

    @model_validator(mode="after")
    def _each_once(self) -> "MatchSettings":
        names = (*self.variables, *self.conditions)
        if len(set(names)) != len(names):
            raise ValueError("variables and conditions name each variable once")
        return self


class BrickSettings(Settings):
    """Per-brick AUC: which bricks have one, and what their spread is compared with."""

    min_pairs: int = Field(default=20, ge=2, description="pairs below which a brick has no AUC")
    permutations: int = Field(default=200, ge=1, description="random assignments of hosts to bricks")
    worst: int = Field(default=5, ge=1, description="bricks that are named")


class ErrorSettings(Settings):
    """Which images the page of high-confidence errors shows."""

    each: int = Field(default=8, ge=1, description="images of each kind, one a host, the worst first")
    resolved_above: float = Field(
        default=1.0, ge=0, description="theta_E / psfsize_r of injections that count as missed"
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="p from which an image is called a lens")
    confident: float = Field(default=0.9, gt=0.5, lt=1, description="p, or 1 - p, of errors counted as confident")
    tier_column: Literal["tier_grade", "tier_gen5_prime"] = Field(default="tier_grade", description="tier scheme")
    tier: str = Field(default="A", description="known lenses of this tier count as missed")


class RealismSettings(Settings):
    """What is measured of real lenses against injections, of bricks, and of the worst errors."""

    max_lenses: int = Field(default=2000, ge=1, description="lenses probed, at random")
    max_injections: int = Field(default=10_000, ge=1, description="injections, one a host, to match with, at random")
    match: MatchSettings = MatchSettings()
    classifiers: ShortcutSettings = Field(
        default=ShortcutSettings(min_pairs=30),
        description="folds, resamples and fewest pairs of the probes and of the pixels' AUCs",
    )
    floor_repeats: int = Field(default=20, ge=1, description="random assignments of matched hosts behind the floor")
    same_object_arcsec: float = Field(
        default=1.0, gt=0, description="a lens's service cutout and coadd stamp lie nearer"
    )
    bricks: BrickSettings = BrickSettings()
    errors: ErrorSettings = ErrorSettings()
    seed: int = Field(default=42, ge=0)
