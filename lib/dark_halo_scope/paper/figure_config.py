"""Settings of the paper's figures: which generations they show, and what of them."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class PaperSettings(Settings):
    """What the paper is about."""

    generation: str = Field("gen5_prime", description="whose channels, anchors and completeness are shown")
    gates_of: tuple[str, ...] | None = Field(
        None, min_length=1, description="generations whose gates are drawn, in this order; null: every main generation"
    )
    roc_of: tuple[str, ...] = Field(
        ("gen1_resolved", "gen2", "gen3", "gen4", "gen5_cosmos", "gen5_prime"),
        min_length=1,
        max_length=7,
        description="generations whose ROC curves are drawn; seven colours are all that the colour-blind tell apart",
    )
    finder: str | None = Field(
        "real_resnet18",
        description="finder of real images that is validated, frozen and judged; null: none, and none is trained",
    )


class SixChannelsSettings(Settings):
    """Which pair the figure of the network's channels shows."""

    split: str = Field("test", pattern="^(train|val|test)$")
    theta_e_arcsec: float = Field(1.6, gt=0, description="the pair whose Einstein radius is nearest is shown")
    min_arc_snr: float = Field(60.0, ge=0, description="fainter arcs are not shown")
    shown_percentile: float = Field(99.7, gt=50, le=100, description="of a channel's values, where its grey scale ends")


class GateFigureSettings(Settings):
    """How the figure of gates is laid out."""

    row_mm: float = Field(9.0, gt=3, description="height of a generation's row, printed millimetres")


class RocFigureSettings(Settings):
    """What the figure of ROC curves shows."""

    lowest_fpr: float = Field(1e-4, gt=0, lt=1, description="left end of the axis")
    min_false_positives: int = Field(10, ge=1, description="left of where so many negatives pass nothing is measurable")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the anchors' bands")
    min_anchors: int = Field(10, ge=1, description="fewer known lenses make no curve")


class AnchorGallerySettings(Settings):
    """Which known lenses the gallery shows."""

    tier: str = Field("tier_gen5_prime", pattern="^tier_[a-z0-9_]+$", description="column that holds the tier")
    first: str = Field("A", description="the tier that is shown first")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a lens counts as found")
    columns: int = Field(8, ge=2, le=12, description="pictures in a row")
    rows: tuple[int, int, int, int] = Field(
        (2, 1, 1, 1), description="rows at most of: first tier found, missed, others found, missed"
    )
    crop_pix: int = Field(48, ge=16, description="side of what is shown, pixels")
    stretch: float = Field(0.05, gt=0, description="Lupton stretch in nanomaggies per pixel of the r band")
    softening: float = Field(8.0, gt=0, description="Lupton Q")


class SelectionFigureSettings(Settings):
    """What the figure of the selection function shows."""

    threshold: str = Field("p=0.5", description="the threshold whose completeness is drawn, by its name")
    redshifts: tuple[float, ...] = Field((0.3, 0.5, 0.7), min_length=1, max_length=4, description="cuts through it")
    levels: tuple[float, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="contours that are drawn")


class LadderFigureSettings(Settings):
    """What the figure of the realism ladder shows."""

    threshold: str = Field("p0.5", description="the threshold whose completeness is drawn, by its name")
    row_mm: float = Field(8.0, gt=3, description="height of a rung's row, printed millimetres")


class ValidationFigureSettings(Settings):
    """What the figure of a finder's validation shows."""

    threshold: str = Field("p0.5", description="the threshold of recall and false positive rates, by its name")
