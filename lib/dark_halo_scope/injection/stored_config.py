"""Settings of `list_stored_stamps` and `adopt_stored_stamps`: stamps that an earlier pipeline made, read in place."""

from typing import Literal

from pydantic import Field

from dark_halo_scope.core.config import Settings

Variant = Literal[
    "v3_color_relaxed",
    "v4_sota",
    "v4_sota_moffat",
    "v5_cosmos_production",
    "cosmos_corrected",
    "v5_cosmos_paired",
]


class PixelShuffleSettings(Settings):
    """Hard negatives of stored pairs: the pixels of positive - control change places in an annulus about the lens.

    The annulus is max(min_radius, theta_E - w) <= r < theta_E + w, w = fwhm_factor x psfsize_r: the theta-aware one of
    earlier training. `rings` keeps the radial profile, pixel ring by pixel ring; `annulus` is the earlier training's
    own, one permutation of all its pixels.
    """

    within: Literal["rings", "annulus"] = "rings"
    fwhm_factor: float = Field(default=1.5, gt=0)
    min_radius_pixels: float = Field(default=2.0, ge=0)
    min_pixels: int = Field(default=16, ge=1)  # an annulus of no more is recorded as a failure


class AuditSettings(Settings):
    """Stored arcs of Sersic sources, rendered again from their own parameters and laid over the stored pixels.

    An arc that lies elsewhere than its parameters say (the earlier pipeline's FFT moved Moffat arcs by whole pixels)
    teaches a network a wrong geometry: `refuse` ends the job where the median shift exceeds the limit, or where no arc
    could be rendered, so that nobody knows it; `flag` records and warns.
    """

    rows: int = Field(default=200, ge=0)  # about this many positives, chosen by a hash of their task_id
    sersic_n: float = Field(default=1.0, ge=0.3, le=10)  # of the sources; stored rows do not say it
    max_shift_pixels: float = Field(default=1.0, gt=0)
    on_failure: Literal["refuse", "flag"] = "refuse"


class StoredSettings(Settings):
    """Where stored stamps lie, which variant they are, and what is made of them."""

    uri: str = Field(min_length=1)  # directory or s3:// prefix of Parquet files, `region_split=` folders or not
    variant: Variant
    # A file counts as whole only where its job left `_SUCCESS` beside or above it; copies may have lost theirs.
    require_success: bool = True
    # What theta_e_arcsec means. lacks_sqrt_q: a product-average SIE has theta_e / sqrt(q). null: as the variant has it.
    theta_e_convention: Literal["lacks_sqrt_q", "product_average"] | None = None
    # Where a row has no control of its own: cut it from the coadds, or record the row as failed.
    controls: Literal["cut", "stored"] = "cut"
    # A control fits its positive where no outermost pixel differs by more, nanomaggies. 0: they are the same bits. A
    # PSF with wings (Moffat) leaves light there; a stamp one pixel off leaves noise there, a hundred times as much.
    max_edge_difference: float = Field(default=0.0, ge=0)
    search_pixels: int = Field(default=2, ge=0, le=8)  # how far from the nominal place a stamp's pixel grid may lie
    hard_negatives: PixelShuffleSettings = PixelShuffleSettings()
    audit: AuditSettings = AuditSettings()
    # JSON list (or object with a list under `bricks`) of bricks to leave out: path or URI.
    brick_blacklist: str | None = None
    excluded_bricks: tuple[str, ...] = ("0460m800", "3252p267")
    # Rows without identity, brick or position; and rows whose stamp or control cannot be used. More refuse the dataset.
    max_unidentified_fraction: float = Field(default=0.001, ge=0, le=1)
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    split_seed: int = Field(default=42, ge=0)
    seed: int = Field(default=13, ge=0)  # of the hard negatives
    rows_per_file: int = Field(default=500, ge=1)  # about 150 kB each, held in memory by one task
