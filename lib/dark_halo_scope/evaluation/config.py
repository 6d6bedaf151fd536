"""Settings of the gates and of scoring. The defaults are science's answers, not tuning knobs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings

#: Pass thresholds of the five gates (execution plan of 2026-02-05, section 3.2).
THRESHOLDS: Mapping[str, float] = {"G1": 0.60, "G2": 0.60, "G3": 0.75, "G4": 0.05, "G5": 0.30}

#: What to do where a gate fails (the same plan, section 3.3).
REMEDIES: Mapping[str, str] = {
    "G1": "The network still uses the core: add centre degradation augmentation.",
    "G2": "The network still uses the radial profile: raise the hard-negative ratio, add centre degradation.",
    "G3": "The network ignores arcs: increase the residual's sigma, check the preprocessing.",
    "G4": "Hard negatives were too easy or too few in training: increase their ratio, verify the shuffle.",
    "G5": "The network does not use the arc's region: review the annulus mask, check the theta_E values.",
}

#: Annulus half width in units of psfsize_r that the seeds' gate runner used; the default is 1.
SEEDS_ANNULUS_FACTOR = 1.5

#: How many of the five gates must pass.
PASSED_FOR_PASS = 4
PASSED_FOR_MARGINAL = 3


class GateSettings(Settings):
    """What the gates measure, on how many pairs, and with which uncertainty."""

    annulus: Literal["psf", "seeds"] | Annotated[float, Field(gt=0)] = Field(
        default="psf", description="half width of the arc annulus in psfsize_r: `psf` is 1, `seeds` is 1.5, or a number"
    )
    pixel_scale: float = Field(default=0.262, gt=0, description="arcsec per pixel")
    core_pixels: float = Field(default=2.0, gt=0, description="smallest core radius in pixels")
    strata: tuple[float, ...] = Field(default=(0.5, 1.0), description="edges in x = theta_E / psfsize_r")
    min_pairs: int = Field(default=50, ge=2, description="pairs, and hosts, below which a stratum says `too few`")
    max_pairs: int | None = Field(
        default=None, ge=1, description="measure on a random choice of this many pairs; null: on all"
    )
    thresholds: dict[str, float] = Field(default=dict(THRESHOLDS), description="a subset overrides only what it names")
    remedies: dict[str, str] = Field(default=dict(REMEDIES), description="a subset overrides only what it names")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    bootstraps: int = Field(default=1000, ge=0, description="host resamples per interval; 0 leaves intervals out")
    permutations: int = Field(default=1000, ge=0, description="label permutations per null; 0 leaves nulls out")
    batch_pairs: int = Field(default=256, ge=1, description="pairs scored at once")
    fpr_targets: tuple[float, ...] = Field(default=(0.1, 0.01, 0.001, 0.0001), description="for TPR at FPR")
    seed: int = Field(default=42, ge=0)

    @field_validator("thresholds", "remedies", mode="before")
    @classmethod
    def _fill_in(cls, given: Any, info: Any) -> Any:
        """Keep the defaults of gates that a YAML does not name, and refuse gates that do not exist."""
        defaults: Mapping[str, Any] = THRESHOLDS if info.field_name == "thresholds" else REMEDIES
        if not isinstance(given, Mapping):
            return given
        unknown = sorted(set(given) - set(defaults))
        if unknown:
            raise ValueError(f"unknown gate {', '.join(map(str, unknown))}; known are {', '.join(defaults)}")
        return {**defaults, **given}

    @field_validator("strata")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)) or (edges and edges[0] <= 0):
            raise ValueError("edges must be positive and increase")
        if not edges or edges[-1] != 1.0:
            raise ValueError("G1 to G3 are judged on x >= 1, so 1.0 must be the last edge")
        return edges

    @property
    def annulus_factor(self) -> float:
        """Half width of the arc annulus in units of psfsize_r."""
        presets = {"psf": 1.0, "seeds": SEEDS_ANNULUS_FACTOR}
        return presets[self.annulus] if isinstance(self.annulus, str) else self.annulus

    def without_resampling(self) -> "GateSettings":
        """The same gates without intervals and nulls: light enough for a validation in training."""
        return self.model_copy(update={"bootstraps": 0, "permutations": 0})


class ScoreSettings(Settings):
    """Which images of a packed split are scored, and how many at once."""

    kinds: tuple[Literal["positive", "control", "hard_negative", "negative"], ...] = Field(
        default=("positive", "control", "hard_negative", "negative"),
        description="`negative`: images that are in no pair, such as confusers and parents",
    )
    batch: int = Field(default=512, ge=1, description="images per forward pass")
