"""Settings of a dataset of real images: known lenses, and galaxies that are none."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.injection.negative_config import SplitName

PixelPath = Literal["coadds", "service", "stored"]
"""Where all cutouts of a dataset come from; see `RealImageSettings.path`."""


class RealImageSettings(Settings):
    """Which real images a dataset has, and where all of their pixels come from."""

    size: int = Field(101, ge=16, le=512, description="side of a cutout, pixels of 0.262 arcsec")
    splits: tuple[SplitName, ...] = Field(("train", "val", "test"), min_length=1, description="splits that it has")
    split_seed: int = Field(42, ge=0, description="of the hash that gives a HEALPix cell its split")
    exclude_arcsec: float = Field(
        11.0,
        ge=0,
        description="negatives this near to a positive are left out: the pool kept as far from where catalogues have "
        "the lens, which may be 5 arcsec from the galaxy that is cut out",
    )
    same_object_arcsec: float = Field(
        1.0, gt=0, description="two rows of different splits this near are one object, and the dataset is refused"
    )
    rows_per_file: int = Field(
        2000,
        ge=1,
        description="a file of the list is full once it has so many rows, and one task cuts it out: of half a million "
        "rows some hundreds, each of which repeats little where it fails; whole bricks stay together",
    )
    path: PixelPath = Field(
        "coadds",
        description="from the survey's coadds, from its cutout service, or NPZ files that exist; one for the whole "
        "dataset, because a second path leaves its own noise texture, by which a network tells classes apart",
    )
    stored_positives: str | None = Field(
        None, description="path: stored: folder or URI of the positives' {galaxy_id}.npz"
    )
    stored_negatives: str | None = Field(
        None, description="path: stored: folder or URI of the negatives' {galaxy_id}.npz"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RealImageSettings":
        if len(set(self.splits)) < len(self.splits):
            raise ValueError("splits lists a split twice")
        folders = (self.stored_positives, self.stored_negatives)
        if self.path == "stored" and None in folders:
            raise ValueError("path: stored needs stored_positives and stored_negatives")
        if self.path != "stored" and folders != (None, None):
            raise ValueError(
                f"path: {self.path} takes no pixels from stored_positives or stored_negatives; leave them out, or give "
                "path: stored"
            )
        return self

    @property
    def experiment_id(self) -> str:
        """`real_stamp{N}_bandsgrz`, as other datasets name themselves."""
        return f"real_stamp{self.size}_bandsgrz"
