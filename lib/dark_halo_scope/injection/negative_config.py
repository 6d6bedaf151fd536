"""Settings of `cut_negatives`."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings

ConfuserClass = Literal["merger", "companion", "ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy"]
SplitName = Literal["train", "val", "test"]


class NegativeSettings(Settings):
    """Which confusers a dataset gets besides its controls, and how many of each class.

    One of the two numbers is given. Where a class has fewer galaxies on the dataset's bricks, all of them are taken.
    """

    classes: tuple[ConfuserClass, ...] = (
        *("merger", "companion", "ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy"),
    )
    share_of_positives: float | None = Field(default=0.05, gt=0)  # of each class, per positive of the split
    per_class: dict[SplitName, int] | None = None  # of each class
    seed: int = 13

    @model_validator(mode="after")
    def _one_number(self) -> "NegativeSettings":
        if (self.share_of_positives is None) == (self.per_class is None):
            raise ValueError("give share_of_positives or per_class, and null for the other")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes lists a class twice")
        return self
