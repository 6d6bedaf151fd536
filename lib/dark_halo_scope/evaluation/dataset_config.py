"""Settings of `check_dataset`: how much is measured, and what makes a dataset unfit for training."""

from typing import Literal

from pydantic import Field

from dark_halo_scope.core.config import Settings


class ShortcutSettings(Settings):
    """Data-level classifiers. They report; they never decide (science: such baselines cannot satisfy a threshold)."""

    max_pairs: int = Field(default=1500, ge=20, description="pairs drawn at random from all splits together")
    folds: int = Field(default=5, ge=2, description="of the cross-validation, grouped by HEALPix cell")
    min_pairs: int = Field(default=50, ge=2, description="pairs below which a classifier says `too few`")
    core_pixels: int = Field(default=10, ge=2, description="side of the square of core pixels")
    rings: int = Field(default=24, ge=4, description="rings of the radial profile, one pixel wide")
    corner_pixels: int = Field(default=12, ge=4, description="side of each corner square, where no arc reaches")
    trees: int = Field(default=60, ge=1, description="boosting rounds")
    bootstraps: int = Field(default=300, ge=1, description="host resamples per interval")
    permutations: int = Field(default=300, ge=1, description="label permutations per null")
    confidence: float = Field(default=0.95, gt=0, lt=1)


class DatasetCheckSettings(Settings):
    """What quality.json holds and what refuses a dataset."""

    shortcuts: ShortcutSettings = ShortcutSettings()
    strata: tuple[float, ...] = Field(default=(0.5, 1.0), description="edges in x = theta_E / psfsize_r, the gates'")
    max_decoded: int = Field(default=50_000, ge=1, description="usable rows whose pixels are looked at, at random")
    same_object_arcsec: float = Field(default=1.0, gt=0, description="hosts of two splits nearer than this are a leak")
    pair_radius_arcsec: float = Field(default=2.0, gt=0, description="hosts of two splits nearer than this are counted")
    min_rows_per_split: int = Field(default=1, ge=0, description="usable rows that every split must have")
    max_failed_fraction: float = Field(
        default=0.05, ge=0, le=1, description="failed cutouts above this share refuse the dataset"
    )
    shared_sources: Literal["refuse", "report"] = Field(
        default="refuse", description="what source galaxies in more than one split do; earlier datasets have them"
    )
    max_metadata_auc: float = Field(
        default=0.6,
        gt=0.5,
        le=1,
        description="refuses where the AUC of seeing, depth and extinction, positives against unpaired controls, "
        "certainly (its interval) lies above this",
    )
    split_tolerance: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="how far each split's share of the cells may lie from 70, 15 and 15%, beyond three standard "
        "deviations of as many cells",
    )
    min_colour_scatter: float = Field(
        default=0.03, ge=0, description="mag; arcs whose colours scatter less are reported as having one colour"
    )
    seed: int = Field(default=42, ge=0)
