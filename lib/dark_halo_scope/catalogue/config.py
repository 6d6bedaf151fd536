"""Settings of the catalogue stage: lens lists, the parent sample and confusers."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings

LrgMode = Literal[
    "v1_pure_massive",
    "v2_baseline_dr10",
    "v3_color_relaxed",
    "v4_mag_relaxed",
    "v5_very_relaxed",
    "handoff",
    "desi_lrg",
]
"""Which selection of luminous red galaxies makes a row a parent."""


ConfuserPreset = Literal["intended", "executed", "plan"]
"""Which rules sort galaxies into classes of confusers; see `catalogue.confusers`."""


class LensSettings(Settings):
    """Settings of `match_lenses`."""

    merge_radius_arcsec: float = Field(default=2.0, gt=0)
    # A row of a catalogue of clusters, X-ray sources or occulting pairs is no lens, whatever its grade.
    drop_cluster_catalogues: bool = True
    # Tables of Einstein radii (CSV: ra, dec, theta_e_arcsec; degrees, arcsec), because lenscat has none.
    theta_e_tables: tuple[str, ...] = ()
    theta_e_radius_arcsec: float = Field(default=3.0, gt=0)
    # Tier-A of Gen5-Prime wants this much of Storfer et al. (2022).
    tier_a_theta_e_arcsec: float = Field(default=1.5, ge=0)


class ParentSettings(Settings):
    """Settings of `select_parent_sample`."""

    lrg_mode: LrgMode = "v3_color_relaxed"
    max_ebv: float = Field(default=0.12, gt=0)
    max_psfsize_r: float = Field(default=1.6, gt=0)  # arcsec, of the brick
    min_psfdepth_r: float = 23.6  # 5-sigma AB magnitude, of the brick
    # Train bricks whose coadds are bad, found by hand in the earlier pipeline.
    excluded_bricks: tuple[str, ...] = ("0460m800", "3252p267")
    # JSON list (or object with a list under `bricks`) of bricks to leave out: path or URI.
    brick_blacklist: str | None = None
    lens_radius_arcsec: float = Field(default=11.0, ge=0)  # 5 + 2 x 3: known lenses are neither hosts nor negatives
    same_object_arcsec: float = Field(default=1.0, gt=0)  # two rows this near are one object for the leak gate
    split_seed: int = 42
    files: int = Field(default=16, ge=1, le=4096)  # least number of output files; rows go by a hash of their brick
    rows_per_file: int = Field(default=100_000, ge=1)  # on average; more rows than `files` hold make more files
    max_quarantined: float = Field(default=0.001, ge=0, le=1)

    @model_validator(mode="after")
    def _bricks_once(self) -> "ParentSettings":
        if len(set(self.excluded_bricks)) < len(self.excluded_bricks):
            raise ValueError("excluded_bricks lists a brick twice")
        return self


class ConfuserSettings(Settings):
    """Settings of `select_confusers`: galaxies that look like lenses and are none."""

    preset: ConfuserPreset = "intended"
    lens_radius_arcsec: float = Field(default=11.0, ge=0)  # 5 + 2 x 3: known lenses are neither hosts nor negatives
    split_seed: int = 42
    rows_per_file: int = Field(default=100_000, ge=1)  # of the output, on average; rows go by a hash of their brick
    max_bad: float = Field(default=0.001, ge=0, le=1)  # share of sweep rows that may be unusable
