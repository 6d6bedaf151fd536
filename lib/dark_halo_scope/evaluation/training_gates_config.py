"""Settings of `check_training_data`: the gates that real images pass before a finder is trained on them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.dataset_config import ShortcutSettings

Reported = Literal["core_auc", "core_brightness", "corner_noise_auc", "metadata_auc", "feature_auc"]
Range = tuple[float, float]


class SplitGateSettings(Settings):
    """Share of each class that a split may have."""

    train: Range = (0.65, 0.75)
    val: Range = (0.12, 0.18)
    test: Range = (0.12, 0.18)
    on_failure: Literal["stop", "report"] = "stop"
    reason: str | None = Field(None, description="why shares outside do not stop training; needed with `report`")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("train", "val", "test"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ValueError(f"{name} must be a lower and an upper share between 0 and 1")
        if (self.on_failure == "report") != bool(self.reason):
            raise ValueError("on_failure: report needs a reason, and a reason is for it alone")
        return self


class TrainingGateSettings(Settings):
    """What stops training, and what is measured and reported.

    Core AUC and core brightness do not stop it unless `stop_on` says so: the galaxies of real lenses differ from random
    ones, and no honest sample meets these thresholds.
    """

    splits: SplitGateSettings = SplitGateSettings()
    weight_a: float = Field(1.0, gt=0, description="`sample_weight` of tier A")
    weight_b: Range = Field((0.3, 0.6), description="lowest and highest `sample_weight` of tier B")
    weight_negative: float = Field(1.0, gt=0)
    max_failed_positives: float = Field(
        0.05, ge=0, le=1, description="share of positives without a usable cutout; the plan's 0 is reported beside it"
    )
    max_failed_negatives: float = Field(0.02, ge=0, le=1)
    same_object_arcsec: float = Field(
        1.0, gt=0, description="rows of two classes, or of two splits, nearer than this are one object"
    )
    max_decoded: int = Field(
        50_000, ge=1, description="usable cutouts whose pixels are looked at, by a hash of task_id"
    )
    core_radius_pixels: float = Field(10.0, gt=0, description="of the core whose brightness is compared")
    max_core_auc: float = Field(0.60, gt=0.5, le=1)
    core_brightness: Range = (0.90, 1.10)
    yellow_auc: float = Field(0.60, gt=0.5, le=1, description="lower end of an AUC's interval, as `red_auc`")
    red_auc: float = Field(0.70, gt=0.5, le=1)
    stop_on: tuple[Reported, ...] = Field((), description="reported gates that stop training where they fail")
    shortcuts: ShortcutSettings = ShortcutSettings()
    seed: int = Field(42, ge=0)
