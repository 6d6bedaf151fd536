"""Settings of calibration."""

from typing import Annotated, Literal

from pydantic import Field

from dark_halo_scope.core.config import Settings

Method = Literal["raw", "platt", "isotonic"]


class CalibrationSettings(Settings):
    """Which images probabilities are fitted and judged on, and when a bad calibration blocks."""

    negatives: tuple[Literal["control", "negative", "hard_negative"], ...] = Field(
        default=("control", "negative"),
        min_length=1,
        description="kinds of image beside the positives; hard negatives are no sample of anything on the sky",
    )
    bins: int = Field(default=15, ge=2, description="of equal mass, of a reliability curve and its ECE")
    above: float = Field(default=0.1, gt=0, lt=1, description="ECE also among rows with a higher probability")
    prevalences: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(1e-4, 1 / 101), description="of lenses in a survey, to which probabilities are moved; 1/101 is 1:100"
    )
    min_rows: int = Field(default=100, ge=2, description="galaxies below which a number is not measurable")
    min_per_class: int = Field(default=50, ge=2, description="positives, and negatives, that a fit needs on val")
    calibration_blocks: bool = Field(default=False, description="whether a calibration beyond `max_ece` blocks")
    blocking_method: Method = Field(default="platt", description="whose probabilities are judged")
    max_ece: float = Field(default=0.10, gt=0, description="largest ECE, over all rows and among those `above`")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    bootstraps: int = Field(default=1000, ge=1, description="host resamples of each number")
    simulations: int = Field(default=200, ge=1, description="draws of the ECE that perfect probabilities would have")
    seed: int = Field(default=42, ge=0)
