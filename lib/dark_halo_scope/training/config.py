"""Settings of a generation's training. The defaults are those of the Gen5-Prime plan of 2026-02-05."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.images.preprocess_config import AugmentSettings, PreprocessSettings
from dark_halo_scope.images.samplers import SamplerSettings
from dark_halo_scope.models.config import ModelSettings

#: Red flags by name, in the order in which they are looked for. A loss that is not finite is none: it always stops.
FLAGS = (
    "core_auc",
    "annulus_auc",
    "hard_negative_mean_p",
    "loss_gap",
    "auc_drop",
    "auc_stuck",
)


class OptimizerSettings(Settings):
    """AdamW, warm-up, cosine."""

    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0, description="of weight matrices; biases and norms have none")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    warmup_epochs: float = Field(default=3, ge=0, description="linear from zero")
    final_lr_fraction: float = Field(
        default=0.01, ge=0, le=1, description="of lr, reached by the cosine at the last step"
    )
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="average the weights over steps, and validate and keep the average"
    )


class LossSettings(Settings):
    """Binary cross entropy, or the focal loss of Lin et al. (2017)."""

    kind: Literal["bce", "focal"] = "bce"
    focal_alpha: float = Field(default=0.25, gt=0, lt=1)
    focal_gamma: float = Field(default=2.0, ge=0)
    pair_ranking: float = Field(
        default=0.0, ge=0, description="weight of softplus(negative - positive) within pairs; needs per_pair: all"
    )


class ValidationSettings(Settings):
    """What every epoch is judged by."""

    monitor: Literal["val_loss", "val_auc"] = Field(
        default="val_loss", description="val_loss has the class mix of the curriculum's end, so that epochs compare"
    )
    patience: int | None = Field(
        default=10, ge=1, description="epochs without improvement before training stops; null: never"
    )
    min_delta: float = Field(default=1e-4, ge=0)
    max_pairs: int | None = Field(default=None, ge=1)
    gates_every: int | None = Field(
        default=5, ge=1, description="epochs between validation gates; null: only at the end"
    )
    gates: GateSettings = Field(default_factory=lambda: GateSettings.model_validate({"max_pairs": 2000}))


class RedFlagSettings(Settings):
    """When something looks wrong, and whether to stop for it (plan, section 2.4); gates count from `after_epoch` on."""

    after_epoch: int = Field(default=15, ge=0)
    core_auc: float = 0.70
    annulus_auc: float = 0.65
    hard_negative_mean_p: float = 0.15
    loss_gap: float = Field(default=0.3, gt=0)
    auc_drop: float = Field(default=0.05, gt=0, description="below the best epoch so far")
    auc_stuck: float = Field(default=0.02, gt=0, description="distance from 0.5 that counts as stuck")
    stuck_epochs: int = Field(default=3, ge=1)
    stop: tuple[str, ...] = Field(
        default=(), description=f"flags that end training, of {', '.join(FLAGS)}; others are recorded"
    )
    day_3_epoch: int | None = Field(
        default=None, ge=0, description="epoch of the mid-training checkpoint; null: half of the epochs"
    )

    @field_validator("stop")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in FLAGS]
        if unknown:
            raise ValueError(f"unknown flag {', '.join(unknown)}; known are {', '.join(FLAGS)}")
        return names


class CheckpointSettings(Settings):
    """How often a run can be resumed from; at least at every epoch's end. Not part of what is trained."""

    every_seconds: float | None = Field(default=300, gt=0)
    every_steps: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=2)


class TrainSettings(Settings):
    """One stage of one generation."""

    seed: int = Field(default=42, ge=0)
    epochs: int = Field(default=30, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    model: ModelSettings = ModelSettings()
    preprocessing: PreprocessSettings = PreprocessSettings()
    augmentation: AugmentSettings = AugmentSettings()
    sampler: SamplerSettings = SamplerSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()
    red_flags: RedFlagSettings = RedFlagSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.loss.pair_ranking and self.sampler.per_pair != "all":
            raise ValueError("loss.pair_ranking compares the images of a pair: it needs sampler.per_pair: all")
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError("optimizer.warmup_epochs must be fewer than epochs")
        return self
