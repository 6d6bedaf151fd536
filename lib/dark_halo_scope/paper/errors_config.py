"""Settings of the page of high-confidence errors."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class ErrorsPageSettings(Settings):
    """How many errors of each kind are shown, and how they are stretched."""

    columns: int = Field(8, ge=2, le=10, description="images of each kind, the worst first")
    crop_pix: int = Field(44, ge=16, description="side of what is shown of an image, pixels")
    stretch: float = Field(0.06, gt=0, description="Lupton stretch in nanomaggies per pixel of the r band")
    softening: float = Field(8.0, gt=0, description="Lupton Q")
