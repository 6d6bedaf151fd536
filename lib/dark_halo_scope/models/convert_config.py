"""Settings of `convert`: what a checkpoint of the earlier pipeline does not say of itself."""

from pydantic import Field

from dark_halo_scope.core.config import Settings
from dark_halo_scope.images.preprocess_config import PreprocessSettings


class ConvertSettings(Settings):
    """How the network was fed. None of it can be read off the weights, so none of it has a default."""

    stamp_size: int = Field(ge=16, description="pixels along a stamp's side")
    preprocessing: PreprocessSettings = Field(description="how stamps became channels when it was trained")
    meta_columns: tuple[str, ...] = Field(
        description="columns of the metadata branch in its order and in the units it was trained with; [] without one"
    )
