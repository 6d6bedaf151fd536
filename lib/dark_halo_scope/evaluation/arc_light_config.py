"""Settings of `measure_arc_light`."""

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings


class ArcLightSettings(Settings):
    """Where light of arcs is looked for, on how many injections, and what counts as seen."""

    core_arcsec: float = Field(default=0.45, gt=0, description="radius within which the galaxy's colour is taken")
    inner_arcsec: float = Field(default=0.8, gt=0, description="of the annulus: inside, the galaxy outshines all arcs")
    outer_arcsec: float = Field(default=4.0, gt=0, description="of the annulus: beyond the largest arcs of galaxies")
    sky_gap_arcsec: float = Field(default=1.0, ge=0, description="pixels beyond the annulus and this are sky")
    sky_arcsec: float = Field(default=2.5, gt=0, description="width beyond the annulus that a stamp must have")
    recentre_arcsec: float = Field(default=1.0, ge=0, description="how far from its position a galaxy's peak may be")
    min_snr: float = Field(default=3.0, gt=0, description="light fainter than this times its noise is not seen")
    max_injections: int = Field(default=2000, ge=1, description="positives measured, at random")
    max_lenses: int = Field(default=2000, ge=1, description="known lenses measured, at random")
    bias_edges: tuple[float, ...] = Field(
        # The grids' arcs, whose contrast is that of the source unlensed, are as bright as 16.
        default=tuple(float(magnitude) for magnitude in range(16, 26)),
        min_length=2,
        description="true g magnitudes, edges of bias bins",
    )
    strata: tuple[float, ...] = Field(default=(0.5, 1.0), description="edges in x = theta_E / psfsize_r, the gates'")
    seed: int = Field(default=42, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "ArcLightSettings":
        if self.inner_arcsec >= self.outer_arcsec:
            raise ValueError("inner_arcsec must be less than outer_arcsec")
        if self.core_arcsec > self.inner_arcsec:
            raise ValueError("core_arcsec must not exceed inner_arcsec")
        if self.sky_gap_arcsec >= self.sky_arcsec:
            raise ValueError("sky_gap_arcsec must be less than sky_arcsec")
        if list(self.bias_edges) != sorted(set(self.bias_edges)):
            raise ValueError("bias_edges must increase")
        return self
