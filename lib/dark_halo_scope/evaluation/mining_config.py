"""Settings of mining hard negatives."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class MiningSettings(Settings):
    """Which galaxies of the parent sample become hard negatives of a later generation."""

    top_k: int = Field(default=50_000, ge=1, description="most galaxies, those with the highest logits")
    min_score: float = Field(default=0.90, ge=0, lt=1, description="sigmoid of the raw logit")
    exclude_arcsec: float = Field(
        default=11.0, ge=0, description="galaxies this near to a known or candidate lens are no negatives (5 + 2 x 3)"
    )
    split_seed: int = Field(default=42, ge=0, description="of the hash that gave cells their splits")
    batch_rows: int = Field(default=100_000, ge=1, description="scores in memory at once")
