"""Settings of injection and recovery: hosts, what is drawn, how often, and with which physics."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings
from dark_halo_scope.injection.config import PriorSettings, ThetaEPrior
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings

#: What is injected with which physics, each rung with one more thing than the one before: see `recovery.RUNG_PHYSICS`.
Rung = Literal["sersic_fwhm", "sersic_nea", "sersic_noise", "clumpy", "image"]
RUNGS: tuple[Rung, ...] = get_args(Rung)

#: Source families of the selection function, and the rung that has each with all physics.
FAMILIES: dict[str, Rung] = {"sersic": "sersic_noise", "clumpy": "clumpy", "image": "image"}


class MagnitudeProposal(Settings):
    """Unlensed r magnitude that is injected: density proportional to 10^(slope m) between two limits; 0 is uniform.

    Counts of galaxies rise so steeply that nearly all sources of the prior are too faint to be seen.
    """

    slope: float = Field(default=0.0, ge=0)
    bright: float = 20.0
    faint: float = 25.6

    @model_validator(mode="after")
    def _ordered(self) -> "MagnitudeProposal":
        if self.bright >= self.faint:
            raise ValueError("bright must be less than faint")
        return self


class RecoverySettings(Settings):
    """What `inject_recovery` injects into galaxies of the test split.

    Einstein radius and source magnitude are drawn from a proposal, everything else from the prior; each row's `weight`
    is prior density over proposal density.
    """

    rungs: tuple[Rung, ...] = Field(
        default=tuple(FAMILIES.values()),
        min_length=1,
        description="what is injected: the families of the selection function, and rungs of the ladder below them",
    )
    prior: PriorSettings = Field(
        default=PriorSettings(theta_e=ThetaEPrior(distribution="uniform", low=0.5, high=3.0)),
        description="what weighted numbers refer to; sources lie uniformly in area within offset_caustics",
    )
    theta_e: ThetaEPrior = Field(
        default=ThetaEPrior(distribution="uniform", low=0.5, high=3.0), description="proposal of Einstein radii"
    )
    magnitude: MagnitudeProposal = Field(default=MagnitudeProposal(), description="proposal of source magnitudes")
    replicates: int = Field(
        default=1,
        ge=1,
        description="draws for each host; all rungs share a draw's numbers. Draws of one host share its pixels, which "
        "intervals of cells do not know: more than one where hosts are few, and then these are too narrow",
    )
    max_hosts: int | None = Field(
        default=336_000,
        ge=1,
        description="most hosts, drawn by a hash of their names, null is all of them; with one draw and the three "
        "families they bear a million injections",
    )
    exclude_arcsec: float = Field(
        default=11.0, ge=0, description="galaxies this near to a known or candidate lens are no hosts"
    )
    quality: CutoutQualitySettings = Field(
        default=CutoutQualitySettings(), description="what a host must have, as real images must"
    )
    unit_images: int = Field(
        default=512, ge=1, description="images rendered and scored together: what bounds the memory"
    )
    part_images: int = Field(default=20_000, ge=1, description="images after which the work is safe from a kill")
    batch: int = Field(default=256, ge=1, description="images of one forward pass")
    source_salt: str = "recovery_v1"
    seed: int = Field(default=13, ge=0)
    split_seed: int = Field(default=42, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "RecoverySettings":
        if len(set(self.rungs)) < len(self.rungs):
            raise ValueError("rungs lists a rung twice")
        covered: list[tuple[str, tuple[float, float], tuple[float, float]]] = [
            ("theta_e", _range(self.prior.theta_e), _range(self.theta_e)),
            (
                "magnitude",
                (self.prior.magnitude.bright, self.prior.magnitude.faint),
                (self.magnitude.bright, self.magnitude.faint),
            ),
        ]
        for name, prior, proposal in covered:
            if proposal[0] > prior[0] or proposal[1] < prior[1]:
                raise ValueError(
                    f"the proposal of {name} ({proposal[0]:g} to {proposal[1]:g}) must cover its prior "
                    f"({prior[0]:g} to {prior[1]:g}): no weight brings back what is never injected"
                )
        return self


def _range(prior: ThetaEPrior) -> tuple[float, float]:
    return prior.low, prior.high
