"""Settings of `cut_real_images`: what a usable cutout of a real image is."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class CutoutQualitySettings(Settings):
    """When a cutout is usable; pixels count as missing where they are not finite or exactly 0, as surveys fill gaps."""

    centre_pixels: int = Field(50, ge=2, description="side of the central square")
    max_missing_centre: float = Field(0.02, ge=0, le=1, description="share of the square, in any band")
    core_radius_pixels: float = Field(8.0, gt=0, description="of the core, where arcs and their lens lie")
    max_missing_core: float = Field(0.001, ge=0, le=1, description="share of the core, in any band; default: none")
