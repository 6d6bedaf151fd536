"""Settings of the positives of the real-image finder."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dark_halo_scope.core.config import Settings

LensType = Literal["galaxy", "group", "cluster"]
"""What lenscat says that the deflector is."""

TIERS = ("A", "B")
"""Tiers of the calibration plan, by lenscat's grade: A confident, B probable."""


class PositiveSettings(Settings):
    """Settings of `match_positives`: which lenses a finder is trained on, and what counts as their galaxy.

    Lenses that other surveys, spectra or HST found may show nothing in these images: learnt as lenses, they teach that
    any red galaxy is one. So the plan takes entries with DESI in their names, found in these very images, and so does
    the default. Recall on them is circular, which is why every row says how its lens was found (`discovery`). Negatives
    keep away from all lenses, whatever is chosen here.
    """

    desi_named: bool = Field(True, description="only lenses with DESI in one of their names, as the plan has it")
    types: tuple[LensType, ...] = Field(
        ("galaxy", "group"),
        min_length=1,
        description="deflectors; the arcs of a cluster do not fit into a cutout of 26 arcsec",
    )
    discovery: tuple[str, ...] | None = Field(
        None, description="only lenses found by these methods (`discovery` of lenses.json); null: by any"
    )
    exclude_refs: tuple[str, ...] = Field(
        (), description="no lens with one of these texts in a reference", examples=[["2012hst..prop12833M"]]
    )
    dec_range: tuple[float, float] | None = Field(
        (-18.0, 32.0),
        description="declinations, degrees, exclusive: those of the negatives (preset `executed` of the pool), which "
        "depth and seeing would otherwise tell from positives; null with the preset `plan`",
    )
    same_cuts_as_negatives: bool = Field(
        True,
        description="only lenses whose galaxy passes the cuts of the pool of negatives (`negative_pool.preset`: type, "
        "mask bits, exposures, magnitude, declination): what only lenses have, such as the type EXP, tells the "
        "classes apart without a look at the arc",
    )
    radius_arcsec: float = Field(5.0, gt=0, le=60, description="a lens is matched with the nearest galaxy within it")
    tier_weights: dict[Literal["A", "B"], float] = Field(
        {"A": 1.0, "B": 0.5}, description="`sample_weight` of the tiers: A 1.0, B 0.3 to 0.6"
    )
    same_object_arcsec: float = Field(
        1.0, gt=0, description="matched galaxies of two splits this near are one object and are quarantined, arcsec"
    )
    split_seed: int = Field(42, ge=0, description="of the hash that gives a HEALPix cell its split")
    min_match_share: float = Field(
        0.9, ge=0, le=1, description="share of the lenses in the footprint that should be matched; reported"
    )
    max_bad: float = Field(0.001, ge=0, le=1, description="share of sweep rows that may be unusable")

    @field_validator("tier_weights")
    @classmethod
    def _plans_weights(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if set(value) != set(TIERS):
            raise ValueError("tier_weights gives a weight to A and to B")
        if value["A"] != 1.0 or not 0.3 <= value["B"] <= 0.6:
            raise ValueError("tier_weights are 1.0 for A and 0.3 to 0.6 for B")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "PositiveSettings":
        if len(set(self.types)) < len(self.types):
            raise ValueError("types lists a type twice")
        if self.dec_range is not None and not -90 <= self.dec_range[0] < self.dec_range[1] <= 90:
            raise ValueError("dec_range is [low, high] with -90 <= low < high <= 90")
        return self
