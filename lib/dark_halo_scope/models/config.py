"""Settings of the network."""

from typing import Literal

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings

#: Columns of packed rows that hold the label or how it came about, by the name's beginning, and why. Whatever else a
#: column holds is measured on the data (training.metadata_guard): this list is for leaks that an AUC can miss, such as
#: those within a pair.
LEAKS: dict[str, str] = {
    "src_": "a property of the injected source",
    "source_": "a property of the injected source",
    "cosmos_": "a property of the injected source",
    "theta_e": "the Einstein radius of the injected lens",
    "expected_arc_radius": "the Einstein radius of the injected lens",
    "lens_": "a property of the injected lens",
    "lensed_": "a property of the injected arc",
    "shear": "a property of the injected lens",
    "arc_": "a property of the injected arc",
    "total_injected_flux": "a property of the injected arc",
    "magnification": "a property of the injected arc",
    "tangential_stretch": "a property of the injected arc",
    "radial_stretch": "a property of the injected arc",
    "physics_": "a property of the injection",
    "metrics_": "a property of the injection",
    "edge_difference": "a comparison of the stamp with its control",
    "hard_negative": "the kind of the pair's hard negative",
    "psf_fwhm_used": "what the injection was convolved with",
    "psf_source": "what the injection was convolved with",
    "config_id": "the configuration of the injection",
    "replicate": "the configuration of the injection",
    "task_": "a name that the injection's configuration enters",
    "experiment_id": "the dataset, and with it the class",
    "is_control": "the label",
    "control_kind": "the label",
    "label": "the label",
    "tier": "the label",
    "sample_weight": "a weight that depends on the class",
    "sampling_": "a weight that depends on the class",
    "split": "the split",
    "region_split": "the split",
}


def leak_reason(column: str) -> str | None:
    """Why a column of this name must never reach a network; None where only the data can tell."""
    return next((reason for beginning, reason in LEAKS.items() if column.startswith(beginning)), None)


class ModelSettings(Settings):
    """LensFinder6CH. The defaults are the Gen5-Prime plan's."""

    backbone: str = Field(default="convnext_tiny", description="a name of models.networks.NETWORKS, or any timm model")
    width: int = Field(default=32, ge=4, description="channels of the first stage; networks of this project only")
    depths: tuple[int, ...] = Field(
        default=(1, 1, 1), description="residual blocks per stage; networks of this project only"
    )
    crop_pix: int | None = Field(
        default=None,
        ge=16,
        description="the network sees the central pixels only, after preprocessing; null: the whole stamp",
    )
    init: Literal["copy_or_zero", "kaiming"] = Field(
        default="copy_or_zero", description="first-layer weights of the channels after the third; timm backbones only"
    )
    stem: Literal["timm", "3x3"] = Field(
        default="timm",
        description="3x3: a ResNet begins with a 3x3 convolution of stride 1 and no pooling, for small stamps",
    )
    head_norm: bool = Field(
        default=True, description="the norm between pooling and head of timm's ConvNeXts; the earlier pipeline lost it"
    )
    pretrained: bool = Field(default=True, description="start from timm's published weights (needs the network once)")
    checkpoint_path: str | None = Field(
        default=None, description="a safetensors file of timm's backbone weights, used instead of a download"
    )
    meta_columns: tuple[str, ...] = ("psfsize_r", "psfdepth_r")
    meta_auc_limit: float = Field(
        default=0.6,
        ge=0.5,
        le=1,
        description="largest AUC of a metadata column alone, lenses against the rest of what training shows",
    )
    fusion: Literal["late", "early", "branch"] = Field(
        default="late",
        description="metadata enter beside the pooled features (late), as constant planes beside the image's channels "
        "(early), or through a network of their own whose logit is added to the image's (branch)",
    )
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    evaluate_symmetries: Literal[1, 4, 8] = Field(
        default=1,
        description="orientations whose logits are averaged outside training: a lens has no preferred orientation",
    )

    @field_validator("meta_columns")
    @classmethod
    def _no_known_leak(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        leaks = [f"{column} ({reason})" for column in columns if (reason := leak_reason(column)) is not None]
        if leaks:
            raise ValueError(
                f"{', '.join(leaks)} would leak the label; give columns that say how the sky was observed, such as "
                "psfsize_r, psfdepth_r or ebv"
            )
        if len(set(columns)) != len(columns):
            raise ValueError("a column is named twice")
        return columns
