"""Settings of `build_injection_manifest`: hosts, replicates, parameters of lenses and sources, controls."""

from typing import Literal

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings

GridName = Literal["small", "medium", "sota", "sota_handoff"]


class ThetaEPrior(Settings):
    """Einstein radius in arcsec, uniform or log-uniform. Uniform to 2.5" puts most arcs outside a 1.0-1.5" PSF."""

    distribution: Literal["uniform", "log_uniform"] = "uniform"
    low: float = Field(default=0.5, gt=0)
    high: float = Field(default=2.5, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "ThetaEPrior":
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class MagnitudePrior(Settings):
    """Unlensed r magnitude: number counts dN/dm proportional to 10^(slope m) between two limits.

    The faint one is the COSMOS 25.2 sample's F814W < 25.2 at r - F814W = 0.4; the slope that of deep r counts there.
    """

    slope: float = Field(default=0.30, gt=0)
    bright: float = 20.0
    faint: float = 25.6

    @model_validator(mode="after")
    def _ordered(self) -> "MagnitudePrior":
        if self.bright >= self.faint:
            raise ValueError("bright must be less than faint")
        return self


class SizePrior(Settings):
    """Half-light radius in arcsec: log-normal about a median that shrinks with r, cut at two limits.

    Approximates COSMOS galaxies in ACS images: 0.3" at r = 24.5, 0.4" two magnitudes brighter, scatter 0.22 dex.
    """

    median_arcsec: float = Field(default=0.30, gt=0)
    at_mag: float = 24.5
    slope_dex_per_mag: float = Field(default=-0.06, le=0)
    scatter_dex: float = Field(default=0.22, gt=0)
    low: float = Field(default=0.05, gt=0)
    high: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "SizePrior":
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class ColourPrior(Settings):
    """g - r and r - z of the source: a correlated normal cut at two limits.

    A scatter is required: constant colours let a classifier win by colour alone. The default approximates COSMOS field
    galaxies of r = 23-25.6. The earlier pipeline's draws are means 0.2 and 0.1, scatters 0.2, limits -0.5 and 1.5.
    """

    gr_mean: float = 0.45
    gr_scatter: float = Field(default=0.30, gt=0)
    rz_mean: float = 0.50
    rz_scatter: float = Field(default=0.35, gt=0)
    correlation: float = Field(default=0.5, gt=-1, lt=1)
    low: float = -0.5
    high: float = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> "ColourPrior":
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class LensPrior(Settings):
    """Shape of the deflector and the tide on it.

    Ellipticity is the host's light (SHAPE_E1, SHAPE_E2) plus a normal scatter in each component, because mass and light
    agree only roughly. Shear has a Rayleigh modulus.
    """

    e_scatter: float = Field(default=0.10, ge=0)
    max_e: float = Field(default=0.5, gt=0, lt=1)
    shear_scale: float = Field(default=0.03, ge=0)
    max_shear: float = Field(default=0.15, gt=0, lt=0.5)


class SourceShapePrior(Settings):
    """Sersic sources only: index log-normal about an exponential disc, ellipticity Rayleigh; both cut."""

    n_median: float = Field(default=1.0, gt=0)
    n_scatter_dex: float = Field(default=0.20, ge=0)
    n_low: float = Field(default=0.5, gt=0)
    n_high: float = Field(default=4.0, gt=0)
    e_scale: float = Field(default=0.20, ge=0)
    max_e: float = Field(default=0.6, gt=0, lt=1)


class PriorSettings(Settings):
    """Everything that is drawn. Magnitude, size and colour are COSMOS-like unless a dataset says otherwise."""

    theta_e: ThetaEPrior = ThetaEPrior()
    magnitude: MagnitudePrior = MagnitudePrior()
    size: SizePrior = SizePrior()
    colour: ColourPrior = ColourPrior()
    lens: LensPrior = LensPrior()
    shape: SourceShapePrior = SourceShapePrior()
    # The source lies uniformly in area within this many caustic radii of the lens.
    offset_caustics: float = Field(default=1.0, gt=0)


class ArcSnrRange(Settings):
    """Arcs are made this bright: lensed matched-filter arc_snr over g, r, z, log-uniform between two limits."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "ArcSnrRange":
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class PerSplit(Settings):
    """A positive number for each split."""

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)


class HostLimits(Settings):
    """Most hosts per split, spread evenly over 4 x 4 quartile bins of PSF and depth; null is all of them."""

    train: int | None = Field(default=None, ge=1)
    val: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class SourceFractions(Settings):
    """Shares of the sources that are real galaxy images, discs with clumps, and plain Sersic profiles."""

    sersic: float = Field(default=0.0, ge=0, le=1)
    clumpy: float = Field(default=0.0, ge=0, le=1)
    image: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "SourceFractions":
        total = self.sersic + self.clumpy + self.image
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"sersic, clumpy and image must sum to 1, not {total:g}")
        return self


class ManifestSettings(Settings):
    """All settings of `build_injection_manifest`."""

    tier: str = Field(default="train", pattern=r"^[a-z0-9_]+$")
    stamp_size: int = Field(default=64, ge=16, le=512)
    bandset: Literal["grz"] = "grz"
    # null draws all parameters from the prior; a grid fixes theta_E, dmag, size, source ellipticity and shear.
    grid: GridName | None = None
    # Share of positive hosts whose parameters are the grid's; the others' come from the prior.
    grid_fraction: float = Field(default=1.0, gt=0, le=1)
    # Whether a grid's dmag is the source's magnitude before lensing, or the arc's.
    dmag_mode: Literal["unlensed", "lensed"] = "unlensed"
    prior: PriorSettings = PriorSettings()
    target_arc_snr: ArcSnrRange | None = None
    source_fractions: SourceFractions = SourceFractions()
    source_salt: str = "production_v1"
    # paired: every row is a positive and brings its own control stamp. unpaired: some galaxies are controls, wholly.
    controls: Literal["paired", "unpaired"] = "paired"
    control_fraction: float = Field(default=0.5, gt=0, lt=1)
    replicates: PerSplit
    max_hosts: HostLimits = HostLimits()
    seed: int = Field(default=13, ge=0)
    split_seed: int = Field(default=42, ge=0)
    same_object_arcsec: float = Field(default=1.0, gt=0)
    # A split's bricks are hashed to ceil(hosts / hosts_per_file) files: a Spark task holds one file's hosts or stamps,
    # so that its memory does not grow with the survey.
    hosts_per_file: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ManifestSettings":
        if self.grid is None and self.dmag_mode == "lensed":
            raise ValueError("dmag_mode lensed needs a grid: the prior draws unlensed magnitudes")
        if self.grid is None and self.grid_fraction != 1:
            raise ValueError("grid_fraction needs a grid")
        if self.grid is not None and self.grid_fraction == 1 and self.target_arc_snr is not None:
            raise ValueError("target_arc_snr reweights the prior's magnitudes; a grid has none")
        return self

    @property
    def experiment_id(self) -> str:
        """`{tier}_stamp{N}_bands{bandset}_grid{grid}`, as earlier datasets name themselves."""
        grid = "prior" if self.grid is None else f"grid_{self.grid}" + "_prior" * (self.grid_fraction < 1)
        return f"{self.tier}_stamp{self.stamp_size}_bands{self.bandset}_grid{grid}"
