"""Settings of scoring anchors and of what is said of their scores."""

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings


class AnchorEvaluationSettings(Settings):
    """At which thresholds known lenses are counted as found, and how they are grouped."""

    probabilities: tuple[float, ...] = Field(default=(0.5, 0.3), description="thresholds in p, the plan's two")
    theta_e_edges: tuple[float, ...] = Field(
        default=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5), description="edges of bins in theta_E, arcsec"
    )
    confidence: float = Field(default=0.95, gt=0, lt=1)
    batch: int = Field(default=256, ge=1, description="cutouts per forward pass")

    @field_validator("probabilities")
    @classmethod
    def _are_probabilities(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or len(set(values)) < len(values) or not all(0 < p < 1 for p in values):
            raise ValueError("give different probabilities between 0 and 1")
        return values

    @field_validator("theta_e_edges")
    @classmethod
    def _increase(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if len(edges) < 2 or list(edges) != sorted(set(edges)) or edges[0] < 0:
            raise ValueError("edges must be two or more, not negative, and increase")
        return edges
