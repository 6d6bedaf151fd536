"""Settings of the paper's figures and tables."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class TrainingExamplesSettings(Settings):
    """Which pairs the figure of training examples shows, and how it stretches them."""

    split: str = Field("train", pattern="^(train|val|test)$")
    pairs: int = Field(5, ge=1, le=20, description="rows of the figure, spread evenly in theta_E")
    min_arc_snr: float = Field(25.0, ge=0, description="fainter arcs drown in the noise of a printed page")
    stretch: float = Field(0.08, gt=0, description="Lupton stretch in nanomaggies per pixel of the r band")
    softening: float = Field(8.0, gt=0, description="Lupton Q")


class PageSettings(Settings):
    """How much of a dataset its page looks at, and which stamps it shows."""

    max_rows: int = Field(100_000, ge=1, description="positives, and negatives, whose columns are drawn, at random")
    examples: int = Field(8, ge=2, le=10, description="stamps of each kind, spread in theta_E")
    min_arc_snr: float = Field(30.0, ge=0, description="fainter arcs are not among the examples")
    crop_pix: int = Field(44, ge=16, description="side of what is shown of an example, pixels")
    min_curve_rows: int = Field(30, ge=1, description="a stratum of fewer injections has no curves of its own")
    strata: tuple[float, ...] = Field((0.5, 1.0), min_length=1, description="edges in x = theta_E / psfsize_r")
    bins: int = Field(30, ge=5, description="of a histogram")
    stretch: float = Field(0.06, gt=0, description="Lupton stretch in nanomaggies per pixel of the r band")
    softening: float = Field(8.0, gt=0, description="Lupton Q")


class TableSettings(Settings):
    """What tables of generations say beside their numbers, and how differences are resampled."""

    titles: dict[str, str] = Field({}, description="by generation, what it is or changes")
    bootstraps: int = Field(1000, ge=1, description="host resamples of each difference")
    confidence: float = Field(0.95, gt=0, lt=1, description="of a difference's interval")
    seed: int = Field(42, ge=0)
