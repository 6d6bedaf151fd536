"""Settings of the network."""

from typing import Literal

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings

#: What a network may know beside the image: how the sky was observed. Columns that describe an injection, a target's
#: selection or its match in a catalogue leak the label, so there is no way to name them.
OBSERVING_CONDITIONS = (
    *(f"{name}_{band}" for name in ("psfsize", "psfdepth", "galdepth", "nobs") for band in "grz"),
    "ebv",
)


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
    pretrained: bool = Field(default=True, description="start from timm's published weights (needs the network once)")
    checkpoint_path: str | None = Field(
        default=None, description="a safetensors file of timm's backbone weights, used instead of a download"
    )
    meta_columns: tuple[str, ...] = ("psfsize_r", "psfdepth_r")
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    evaluate_symmetries: Literal[1, 4, 8] = Field(
        default=1,
        description="orientations whose logits are averaged outside training: a lens has no preferred orientation",
    )

    @field_validator("meta_columns")
    @classmethod
    def _observing_conditions_only(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        leaks = [column for column in columns if column not in OBSERVING_CONDITIONS]
        if leaks:
            raise ValueError(
                f"{', '.join(leaks)} could leak the label; a network may know {', '.join(OBSERVING_CONDITIONS)}"
            )
        if len(set(columns)) != len(columns):
            raise ValueError("a column is named twice")
        return columns
