"""Settings of a generation's training. The defaults are those of the Gen5-Prime plan of 2026-02-05."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.images.preprocess_config import CENTRED_SOURCES, AugmentSettings, PreprocessSettings
from dark_halo_scope.images.samplers import SamplerSettings, SelectionSettings
from dark_halo_scope.models.config import ModelSettings

#: Red flags by name, in the order in which they are looked for. A loss that is not finite is none: it always stops.
FLAGS = (
    "core_auc",
    "annulus_auc",
    "hard_negative_mean_p",
    "loss_gap",
    "auc_drop",
    "auc_stuck",
    "auc_gap",
)


class OptimizerSettings(Settings):
    """AdamW, and what its learning rate does from epoch to epoch."""

    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0, description="of weight matrices; biases and norms have none")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    schedule: Literal["cosine", "warm_restarts", "step", "constant"] = Field(
        default="cosine", description="what follows the warm-up"
    )
    warmup_epochs: float = Field(default=3, ge=0, description="linear from zero")
    final_lr_fraction: float = Field(
        default=0.01, ge=0, le=1, description="of lr, reached by the cosine at the last step"
    )
    t_0: float = Field(default=10, gt=0, description="warm_restarts: epochs of the first cycle")
    t_mult: int = Field(default=2, ge=1, description="warm_restarts: each cycle is this many times as long")
    eta_min: float = Field(default=1e-6, ge=0, description="warm_restarts: learning rate at a cycle's end")
    step_epochs: int = Field(default=10, ge=1, description="step: epochs after which the rate falls, again and again")
    gamma: float = Field(default=0.1, gt=0, le=1, description="step: what the rate is multiplied with then")
    clip_norm: float | None = Field(default=1.0, gt=0)
    accumulate: int = Field(
        default=1, ge=1, description="batches whose gradients make one step; the schedule counts steps"
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="average the weights over steps, and validate and keep the average"
    )

    @model_validator(mode="after")
    def _cycles_fall(self) -> Self:
        if self.schedule == "warm_restarts" and self.eta_min > self.lr:
            raise ValueError("eta_min is where a cycle of warm_restarts ends: it must not exceed lr")
        return self


class LossSettings(Settings):
    """Binary cross entropy, or the focal loss of Lin et al. (2017)."""

    kind: Literal["bce", "focal"] = "bce"
    focal_alpha: float = Field(default=0.25, gt=0, lt=1)
    focal_gamma: float = Field(default=2.0, ge=0)
    pos_weight: float | None = Field(
        default=None, gt=0, description="bce: how many times as much an error on a lens counts; null: once"
    )
    label_smoothing: dict[str, Annotated[float, Field(ge=0, lt=0.5)]] = Field(
        default={},
        description="by the rows' column `tier`, how far the target lies from the label: B: 0.05 makes 1 into 0.95",
    )
    weight_column: str | None = Field(default=None, description="column of the rows with a weight for each image")
    pair_ranking: float = Field(
        default=0.0, ge=0, description="weight of softplus(negative - positive) within pairs; needs per_pair: all"
    )

    @model_validator(mode="after")
    def _one_class_weight(self) -> Self:
        if self.kind == "focal" and self.pos_weight is not None:
            raise ValueError("the focal loss weighs classes by focal_alpha: pos_weight is for bce")
        return self


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
    train_images: int | None = Field(
        default=None,
        ge=1,
        description="lenses, and as many negatives, of the training split that are scored after each epoch as "
        "validation is, for the red flag auc_gap; null: none",
    )
    gates_every: int | None = Field(
        default=5, ge=1, description="epochs between validation gates; null: only at the end, and never without pairs"
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
    auc_gap: float = Field(
        default=0.05, gt=0, description="training AUC less validation AUC, where validation.train_images are scored"
    )
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


class DiagnosticSettings(Settings):
    """Checks of a run by itself, with the criteria and the cadence of the configuration review (sections 3 and 4)."""

    every: int | None = Field(
        default=10,
        ge=1,
        description="epochs between checks by brick and theta_E, of errors and calibration; null: none",
    )
    saliency_epochs: tuple[int, ...] = Field(
        default=(10, 25, 50),
        description="epochs, counted from 1, after which it is measured; also after the last",
    )
    saliency_pairs: int = Field(default=64, ge=0, description="validation positives it is measured on; 0: never")
    improves_within: int = Field(default=10, ge=1, description="epochs in which val_loss and val_auc must improve")
    loss_gap: float = Field(default=0.1, gt=0, description="validation loss less training loss")
    gradient_norm: float = Field(default=10.0, gt=0, description="of any step, before clipping")
    early_gradient: float = Field(
        default=1e-3, gt=0, description="gradient norm of the backbone's first layers, as a fraction of its largest"
    )
    auc: float = Field(default=0.9, gt=0, lt=1, description="validation AUC that is due at `auc_epoch`")
    auc_epoch: int = Field(default=20, ge=1, description="counted from 1")
    undetectable_accuracy: float = Field(
        default=0.6, gt=0, le=1, description="share of arcs of arc_snr 0 that may be called lenses"
    )
    brick_auc_std: float = Field(default=0.05, gt=0, description="standard deviation of the AUC over bricks")
    brick_pairs: int = Field(default=20, ge=2, description="positives, and negatives, that a brick's AUC needs")
    theta_e_edges: tuple[float, ...] = Field(
        default=(0.75, 1.0, 1.25, 1.5, 2.0), description="arcsec, between the bins whose AUC should rise"
    )
    fp_fn_ratio: float = Field(
        default=3.0, gt=1, description="largest ratio of the rates of either error to the other, at p = 0.5"
    )
    ece: float = Field(default=0.1, gt=0, description="expected calibration error in bins of equal mass")
    calibration_bins: int = Field(default=15, ge=2)
    min_count: int = Field(default=20, ge=2, description="images below which a check is not measured, and says so")

    @field_validator("theta_e_edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges or list(edges) != sorted(set(edges)) or edges[0] <= 0:
            raise ValueError("edges must be positive and increase, and there must be one")
        return edges


class CheckpointSettings(Settings):
    """How often a run can be resumed from; at least at every epoch's end.

    It does not change what is trained, but is a setting like the others: another value trains again.
    """

    every_seconds: float | None = Field(default=300, gt=0)
    every_steps: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=2)


class TrainSettings(Settings):
    """One stage of one generation."""

    seed: int = Field(default=42, ge=0)
    epochs: int = Field(default=30, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "off", "on"] = Field(
        default="auto", description="torch.compile for the training steps; auto: on CUDA only"
    )
    deterministic: bool = Field(
        default=False,
        description="only algorithms that give the same bits each time, also on CUDA, where they are slower",
    )
    model: ModelSettings = ModelSettings()
    preprocessing: PreprocessSettings = PreprocessSettings()
    augmentation: AugmentSettings = AugmentSettings()
    selection: SelectionSettings = SelectionSettings()
    sampler: SamplerSettings = SamplerSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()
    red_flags: RedFlagSettings = RedFlagSettings()
    diagnostics: DiagnosticSettings = DiagnosticSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.loss.pair_ranking and (self.sampler.per_pair != "all" or self.sampler.draw != "pairs"):
            raise ValueError(
                "loss.pair_ranking compares the images of a pair: it needs sampler.draw: pairs and per_pair: all"
            )
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError("optimizer.warmup_epochs must be fewer than epochs")
        source = self.preprocessing.control_source
        if source in CENTRED_SOURCES and self.augmentation.shift_pix:
            raise ValueError(
                f"augmentation.shift_pix moves galaxies off the centre, where {source} has its control; set it to 0"
            )
        return self
