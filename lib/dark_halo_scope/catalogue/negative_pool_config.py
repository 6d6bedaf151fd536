"""Settings of the negatives of the real-image finder: the pool, its gates, and the stratified sample."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings

PoolPreset = Literal["executed", "plan"]
"""Which cuts make a sweep row a negative; see `NegativePoolSettings`."""

ConfuserThresholds = Literal["intended", "executed"]
"""Which thresholds make a negative a confuser (N2)."""

NOBS_Z_BINS = ("1-2", "3-5", "6-10", "11+")
"""Exposures in z by which negatives are stratified."""

Range = tuple[float, float]


class NegativePoolSettings(Settings):
    """Settings of `build_negative_pool`.

    The two presets differ because the plan's pool was never run. It asks for MASKBITS == 0, one exposure in g and r and
    three in z. What ran in 2026 and gave 18.6 million rows asks for three exposures in every band, for none of the bits
    1, 5-7 and 11-13, and stays between Dec -18 and 32 deg. So it keeps galaxies with saturated or WISE-masked pixels
    near them, which a finder will meet on the sky; it loses half-exposed g and r, where colours mislead; and its
    declinations are those of the candidates that it was to be trained beside. Both cut at z < 20 as observed and keep a
    galaxy without z flux: the plan does not say so, but its number of rows has that cut.
    """

    preset: PoolPreset = Field("executed", description="the cuts: as they ran, or as the plan has them")
    confusers: ConfuserThresholds = Field(
        "intended",
        description="thresholds of the classes of N2: as meant, or as they ran, without ellipticity and Sersic index",
    )
    dereddened: bool = Field(
        False,
        description="whether cuts and classes see fluxes corrected for extinction; the earlier pipeline's did not",
    )
    # 5 + 2 x 3: nothing near a known or candidate lens is a negative.
    lens_radius_arcsec: float = Field(
        11.0, ge=0, description="no negative is nearer to a known or candidate lens, arcsec"
    )
    same_object_arcsec: float = Field(
        1.0, gt=0, description="rows of two splits this near are one object and are quarantined, arcsec"
    )
    split_seed: int = Field(42, description="of the hash that gives a HEALPix cell its split")
    rows_per_file: int = Field(100_000, ge=1, description="of the output, on average; rows go by a hash of their brick")
    max_quarantined: float = Field(0.001, ge=0, le=1, description="share of sweep rows that may be unusable")


class NegativePoolGateSettings(Settings):
    """Settings of `measure_negative_pool`: the limits of the plan's table (section 2.1) and of its gate 2 (4.3).

    The plan's limits of N1 leave 5% to 25% for N2, those of N2 are 15% to 25%: each is a gate of its own.
    """

    min_rows: int = Field(200_000, ge=1, description="rows that the pool must have")
    n1_share: Range = Field((0.75, 0.95), description="share of galaxies that are no confusers")
    n2_share: Range = Field((0.15, 0.25), description="share of confusers")
    train_share: Range = Field((0.65, 0.75), description="share of the training split")
    val_share: Range = Field((0.12, 0.18), description="share of the validation split")
    test_share: Range = Field((0.12, 0.18), description="share of the test split")
    min_types: int = Field(3, ge=1, description="galaxy types that must occur")

    @field_validator("n1_share", "n2_share", "train_share", "val_share", "test_share")
    @classmethod
    def _a_range(cls, value: Range) -> Range:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("a range of shares is [low, high] with 0 <= low <= high <= 1")
        return value


class NegativeSampleSettings(Settings):
    """Settings of `sample_negatives`."""

    per_positive: int = Field(100, ge=1, description="negatives for each positive of the same stratum")
    n2_share: float = Field(
        0.15, ge=0, le=1, description="share of confusers in each stratum; N1 stands in for missing ones"
    )
    seed: int = Field(42, ge=0, description="of the hash that orders the galaxies of a stratum")
    positives: dict[str, dict[str, int]] | None = Field(
        None,
        description="number of positives by bin of nobs_z and by type, in place of a list of positives",
        examples=[{"3-5": {"SER": 120, "DEV": 40}}],
    )
    rows_per_file: int = Field(50_000, ge=1, description="of the output, on average; rows go by a hash of their brick")
    min_count_ratio: float = Field(
        0.9, ge=0, le=1, description="share of the wanted negatives that the sample should have"
    )
    n1_range: Range = Field((0.80, 0.92), description="share of N1 that the sample should have")

    @field_validator("positives")
    @classmethod
    def _known_bins(cls, value: Mapping[str, Mapping[str, int]] | None) -> Mapping[str, Mapping[str, int]] | None:
        for name, types in (value or {}).items():
            if name not in NOBS_Z_BINS:
                raise ValueError(f"{name!r} is no bin of nobs_z; there are: {', '.join(NOBS_Z_BINS)}")
            if any(count < 0 for count in types.values()):
                raise ValueError(f"the bin {name} has a negative number of positives")
        return value
