"""Settings of false positive rates by stratum."""

from itertools import pairwise

from pydantic import Field, field_validator

from dark_halo_scope.core.config import Settings

#: A false positive rate at a completeness is measurable with at least so many positives.
MIN_POSITIVES = 10


class FprSettings(Settings):
    """Which rates are measured, in which strata, and when their counts carry a claim."""

    tpr_targets: tuple[float, ...] = Field((0.80, 0.85, 0.90, 0.95), description="for FPR at TPR")
    fpr_targets: tuple[float, ...] = Field((1e-5, 1e-4, 1e-3, 1e-2), description="for TPR at FPR")
    theta_edges: tuple[float, ...] = Field(
        (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5), description="Einstein radius in arcsec; restricts positives"
    )
    resolution_edges: tuple[float, ...] = Field(
        (0.5, 0.7, 0.9, 1.1, 1.4, 2.0), description="theta_E / psfsize_r; restricts positives"
    )
    arc_snr_edges: tuple[float, ...] = Field(
        (5.0, 10.0, 20.0, 40.0, 80.0, 200.0), description="signal to noise of the arc; restricts positives"
    )
    psf_edges: tuple[float, ...] = Field(
        (0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0), description="psfsize_r in arcsec; restricts both classes"
    )
    depth_edges: tuple[float, ...] = Field(
        (22.5, 23.0, 23.5, 24.0, 24.5, 25.0, 25.5), description="psfdepth_r in magnitudes; restricts both classes"
    )
    magnitude_edges: tuple[float, ...] = Field(
        (16.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.5), description="the galaxy's r magnitude; restricts both classes"
    )
    nobs_z_edges: tuple[int, ...] = Field((1, 3, 6, 11), description="first exposure count of each bin, the last open")
    min_rows: int = Field(1000, ge=1, description="rows below which a stratum's rates are not measurable")
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstraps: int = Field(200, ge=0, description="resamples of hosts per interval; 0 leaves them out")
    seed: int = Field(42, ge=0)

    @field_validator(
        "theta_edges",
        "resolution_edges",
        "arc_snr_edges",
        "psf_edges",
        "depth_edges",
        "magnitude_edges",
        "nobs_z_edges",
    )
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError("edges must be at least two and increase")
        return edges

    @field_validator("tpr_targets", "fpr_targets")
    @classmethod
    def _rates(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < target < 1 for target in targets):
            raise ValueError("a target rate lies between 0 and 1")
        return targets
