"""Settings of a dataset of the parent sample: galaxies as they are, for a network to be scored on."""

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.injection.negative_config import SplitName


class ParentStampSettings(Settings):
    """Which parents are cut out, and how large."""

    # Cells of other splits are for measuring: what is mined from them would be trained on.
    splits: tuple[SplitName, ...] = Field(default=("train",), min_length=1)
    # Most galaxies of a split, drawn by a hash of their names; a split without a number has all of its parents.
    max_galaxies: dict[SplitName, int] = Field(default={})
    # Parents this near to a known or candidate lens are left out: 5 + 2 x 3 arcsec.
    exclude_arcsec: float = Field(default=11.0, ge=0)
    stamp_size: int = Field(default=64, ge=16, le=512)
    seed: int = Field(default=13, ge=0)
    split_seed: int = Field(default=42, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "ParentStampSettings":
        if len(set(self.splits)) < len(self.splits):
            raise ValueError("splits lists a split twice")
        unknown = sorted(set(self.max_galaxies) - set(self.splits))
        if unknown:
            raise ValueError(f"max_galaxies limits {', '.join(unknown)}, which splits does not list")
        if any(number < 1 for number in self.max_galaxies.values()):
            raise ValueError("max_galaxies must be positive numbers; leave a split out of `splits` to have none of it")
        return self

    @property
    def experiment_id(self) -> str:
        """`parent_stamp{N}_bandsgrz`, as other datasets name themselves."""
        return f"parent_stamp{self.stamp_size}_bandsgrz"
