"""Settings of a generation's overall performance."""

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings


class PerformanceSettings(Settings):
    """Which rates of a generation's test scores are reported, and with which uncertainty."""

    threshold: float = Field(0.5, gt=0, lt=1, description="score at which accuracy and confusion are counted")
    recalls: tuple[float, ...] = Field((0.90, 0.95), description="for precision at recall")
    precisions: tuple[float, ...] = Field((0.90, 0.95), description="for recall at precision")
    tpr_targets: tuple[float, ...] = Field((0.80, 0.85, 0.90, 0.95), description="for FPR at TPR")
    fpr_targets: tuple[float, ...] = Field((1e-1, 1e-2, 1e-3, 1e-4, 1e-5), description="for TPR at FPR")
    operating_fprs: tuple[float, ...] = Field(
        (1e-1, 1e-2, 1e-3), description="whose thresholds are chosen on validation scores, for use elsewhere"
    )
    roc_points: int = Field(400, ge=10, description="most points of the ROC that is kept for a figure")
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstraps: int = Field(1000, ge=0, description="resamples of hosts per interval; 0 leaves them out")
    seed: int = Field(42, ge=0)

    @field_validator("recalls", "precisions", "tpr_targets", "fpr_targets", "operating_fprs")
    @classmethod
    def _rates(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < target < 1 for target in targets):
            raise ValueError("a target rate lies between 0 and 1")
        return targets
