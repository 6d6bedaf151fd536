"""Settings of the validation of a finder of real images, and of its freeze."""

from typing import Annotated

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.calibration_config import CalibrationSettings

Rate = Annotated[float, Field(gt=0, lt=1)]


class ValidationSettings(Settings):
    """What validation.json says of a finder on the test split, with thresholds from the validation split."""

    probabilities: tuple[Rate, ...] = Field((0.5, 0.3), description="scores at which the plan counts, `p0.5`, `p0.3`")
    fprs: tuple[Rate, ...] = Field(
        (1e-1, 1e-2, 1e-3), description="rates of false positives among negatives of val, `fpr0.01`"
    )
    survey_fprs: tuple[Rate, ...] = Field(
        (1e-2, 1e-3), description="the same of the survey's pool of negatives, by 1 / sampling_prob, `survey_fpr0.01`"
    )
    recalls: tuple[Rate, ...] = Field((0.9,), description="of the positives of val, `recall0.9`")
    strata_at: tuple[str, ...] = Field(
        ("p0.5", "fpr0.01"), min_length=1, description="thresholds at which strata are counted"
    )
    # The quartiles of the earlier pipeline's parent sample.
    psfsize_edges: tuple[float, ...] = Field((1.218, 1.301, 1.411), description="of psfsize_r, arcsec")
    psfdepth_edges: tuple[float, ...] = Field((24.213, 24.464, 25.070), description="of psfdepth_r, 5-sigma magnitudes")
    min_stratum: int = Field(10, ge=2, description="positives, and negatives, of the AUC of a stratum or a region")
    region_nside: int = Field(8, ge=1, le=128, description="HEALPix cells left out one at a time; a power of 2")
    regions_named: int = Field(50, ge=1, description="regions listed, those without which the AUC changes most")
    calibration: CalibrationSettings = Field(
        CalibrationSettings(negatives=("negative",)), description="fitted on val, judged on test"
    )
    top_k: int = Field(1000, ge=1, description="candidates listed, highest scores first")
    viewer: str = Field(
        "https://www.legacysurvey.org/viewer?ra={ra:.6f}&dec={dec:.6f}&layer=ls-dr10&zoom=16",
        description="a candidate's link; {ra} and {dec} are its position in degrees",
    )
    confidence: float = Field(0.95, gt=0, lt=1)

    @field_validator("psfsize_edges", "psfdepth_edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError("edges increase")
        return edges

    @field_validator("region_nside")
    @classmethod
    def _power_of_two(cls, nside: int) -> int:
        if nside & (nside - 1):
            raise ValueError("region_nside is a power of 2")
        return nside

    @field_validator("viewer")
    @classmethod
    def _has_position(cls, viewer: str) -> str:
        try:
            different = viewer.format(ra=1.0, dec=2.0) != viewer.format(ra=3.0, dec=4.0)
        except (KeyError, IndexError, ValueError):
            different = False
        if not different:
            raise ValueError("viewer holds {ra} and {dec}, and no other braces")
        return viewer


class FreezeSettings(Settings):
    """How a finder is frozen."""

    supersedes: tuple[str, ...] = Field(
        (),
        description="names (the first 16 digits) of earlier cards that may be superseded: a finder that was frozen "
        "before is frozen as another only where every earlier card is listed here",
    )
    probe_images: int = Field(8, ge=4, description="drawn images whose logits are on the card")
    probe_tolerance: float = Field(
        0.02,
        gt=0,
        le=0.2,
        description="largest difference of those logits: devices round differently, edited code does more",
    )

    @field_validator("supersedes")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if len(name) != 16 or set(name) - set("0123456789abcdef"):
                raise ValueError(f"{name!r} is no name of a card, which has 16 hexadecimal digits")
        return names
