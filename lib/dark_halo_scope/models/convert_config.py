"""Settings of `convert`: what a checkpoint of the earlier pipeline does not say of itself."""

from typing import Literal

from pydantic import Field

from dark_halo_scope.core.config import Settings
from dark_halo_scope.images.preprocess_config import PreprocessSettings


class ConvertSettings(Settings):
    """How the network was fed, and what its weights do not tell; nothing that matters has a default."""

    stamp_size: int = Field(ge=16, description="pixels along a stamp's side")
    preprocessing: PreprocessSettings = Field(description="how stamps became channels when it was trained")
    meta_columns: tuple[str, ...] = Field(
        description="columns of the metadata branch in its order and in the units it was trained with; [] without one"
    )
    stem_stride: Literal[1, 2] | None = Field(
        default=None,
        description="of a ResNet whose first convolution is 3x3, and only of that: pixels that it moves by",
    )
    stem_pool: bool | None = Field(
        default=None,
        description="of a ResNet whose first convolution is 3x3, and only of that: whether pooling follows",
    )
