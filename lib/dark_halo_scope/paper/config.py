"""Settings of the paper's figures."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class TrainingExamplesSettings(Settings):
    """Which pairs the figure of training examples shows, and how it stretches them."""

    split: str = Field("train", pattern="^(train|val|test)$")
    pairs: int = Field(5, ge=1, le=20, description="rows of the figure, spread evenly in theta_E")
    min_arc_snr: float = Field(25.0, ge=0, description="fainter arcs drown in the noise of a printed page")
    stretch: float = Field(0.08, gt=0, description="Lupton stretch in nanomaggies per pixel of the r band")
    softening: float = Field(8.0, gt=0, description="Lupton Q")
