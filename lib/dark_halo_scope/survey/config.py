"""Settings of the survey stage: which survey, what the embedded one holds, and how its coadds are checked."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.survey.names import CoaddLayout


class MiniSettings(Settings):
    """Sizes of an embedded survey. Counts per brick are of the drawn image, whatever its size."""

    seed: int = Field(ge=0)
    bricks: int = Field(ge=1)
    pixels: int = Field(ge=160, multiple_of=100, description="side of each brick's image, pixels of 0.262 arcsec")
    sweep_tiles: int = Field(ge=1, description="sweep files (5 x 5 deg) over which the bricks are scattered")
    min_cells_per_split: int = Field(ge=0, description="HEALPix cells that train, val and test each must have")
    lrgs_per_brick: int = Field(ge=0, description="galaxies that pass the v3_color_relaxed cuts by design")
    spirals_per_brick: int = Field(ge=0)
    edge_ons_per_brick: int = Field(ge=0)
    rings_per_brick: int = Field(ge=0)
    mergers_per_brick: int = Field(ge=0)
    field_per_arcmin2: float = Field(ge=0, description="background galaxies, 19 < r < 24.6")
    stars_per_arcmin2: float = Field(ge=0, description="14 < r < 23; brighter ones come on top of these")
    bright_stars_per_brick: float = Field(
        ge=0, description="mean number with 10.5 < r < 13.5, masked as the survey masks them"
    )
    lenses: int = Field(ge=0, description="lenses in the whole survey")
    confirmed_fraction: float = Field(ge=0, le=1)
    sources: int = Field(ge=1, description="galaxies in the source bank")


class SurveyFiles(Settings):
    """Where the files of a survey lie: local paths, s3:// or http(s)://. A directory stands for all sweeps below it."""

    bricks: str = Field(description="survey-bricks.fits.gz: all bricks and their boxes")
    brick_summary: str = Field(description="the release's own survey-bricks: PSF sizes, depths in magnitudes, E(B-V)")
    sweeps: str | list[str]
    photoz: str | list[str] = Field(description="photo-z sweeps; sweep-X-pz.fits belongs to sweep-X.fits")
    coadds: str = Field(description="root of the coadd tree")
    lenses: list[str] = Field(description="lens catalogues in lenscat's format")
    sources: str = Field(description="source bank: a catalogue in GalSim's real-galaxy format, or an HDF5 bank")


class SurveySettings(Settings):
    """Which survey the results are of; `files` for one that exists, `embedded` for one to be drawn."""

    name: str = Field(pattern=r"[a-z][a-z0-9_]*")
    release: Literal["dr9", "dr10", "dr10.1"]
    region: Literal["south"]
    coadd_layout: CoaddLayout
    files: SurveyFiles | None = None
    embedded: MiniSettings | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.files is None) == (self.embedded is None):
            raise ValueError("give either files or embedded")
        return self


class CoaddSettings(Settings):
    """What a coadd must be to be used."""

    pixels: int = Field(ge=1, description="side of a brick's images")
    min_finite_fraction: float = Field(gt=0, le=1, description="of the pixels of image, invvar and psfsize")
    max_missing_fraction: float = Field(
        ge=0, le=1, description="of the bricks; more than this and nothing is published"
    )
    attempts: int = Field(ge=1, description="times a file that arrives damaged is fetched again")
