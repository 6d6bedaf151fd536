"""Settings of `check_dataset`: how much is measured, and what makes a dataset unfit for training."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class ShortcutSettings(Settings):
    """Data-level classifiers. They report; they never decide (science: such baselines cannot satisfy a threshold)."""

    max_pairs: int = Field(1500, ge=20, description="pairs drawn at random from all splits together")
    folds: int = Field(5, ge=2, description="of the cross-validation, grouped by HEALPix cell")
    min_pairs: int = Field(50, ge=2, description="pairs below which a classifier says `too few`")
    core_pixels: int = Field(10, ge=2, description="side of the square of core pixels")
    rings: int = Field(24, ge=4, description="rings of the radial profile, one pixel wide")
    corner_pixels: int = Field(12, ge=4, description="side of each corner square, where no arc reaches")
    trees: int = Field(60, ge=1, description="boosting rounds")
    bootstraps: int = Field(300, ge=0, description="host resamples per interval")
    permutations: int = Field(300, ge=0, description="label permutations per null")
    confidence: float = Field(0.95, gt=0, lt=1)


class DatasetCheckSettings(Settings):
    """What quality.json holds and what refuses a dataset."""

    shortcuts: ShortcutSettings = ShortcutSettings()
    strata: tuple[float, ...] = Field((0.5, 1.0), description="edges in x = theta_E / psfsize_r, the gates'")
    pair_radius_arcsec: float = Field(2.0, gt=0, description="hosts of different splits nearer than this are a leak")
    min_rows_per_split: int = Field(1, ge=0, description="usable rows that every split must have")
    max_failed_fraction: float = Field(
        0.05, ge=0, le=1, description="failed cutouts above this share refuse the dataset"
    )
    split_proportions: dict[str, float] = Field({"train": 0.70, "val": 0.15, "test": 0.15})
    seed: int = Field(42, ge=0)
