"""Settings of `list_anchors`: which known lenses a finder is tried on."""

from typing import Self

from pydantic import Field, model_validator

from dark_halo_scope.core.config import Settings


class AnchorListSettings(Settings):
    """A user's own list of lenses.

    A CSV with the columns name, ra, dec (degrees) and perhaps theta_e_arcsec, zlens, tier and discovery.
    """

    name: str = Field(pattern=r"[a-z][a-z0-9_]*")
    path: str = Field(description="path or URI of the CSV")
    tier_scheme: str | None = Field(
        None, pattern=r"[a-z][a-z0-9_]*", description="what its tiers are a scheme of: tier_<this>; default: its name"
    )
    stress: bool = Field(False, description="lenses that images from the ground hardly resolve: reported apart")

    @property
    def tier_column(self) -> str:
        """The column that its tiers go into."""
        return f"tier_{self.tier_scheme or self.name}"


class AnchorSettings(Settings):
    """Known lenses in the survey's footprint."""

    types: tuple[str, ...] = Field(("galaxy",), description="kinds of lenses of the catalogues, as lenscat names them")
    lists: tuple[AnchorListSettings, ...] = ()
    merge_radius_arcsec: float = Field(2.0, gt=0)
    theta_e_tables: tuple[str, ...] = Field(
        (),
        description="Einstein radii: CSV (ra, dec, theta_e_arcsec) or FITS (RA, DEC, THETA_E); "
        "{survey}/... is a file of the embedded survey",
    )
    theta_e_radius_arcsec: float = Field(3.0, gt=0)
    tier_a_theta_e_arcsec: float = Field(
        1.5, ge=0, description="what Gen5-Prime's Tier-A wants of Storfer et al. (2022)"
    )
    stress_refs: tuple[str, ...] = Field(
        ("0805.1931", "1112.3683", "1604.01842", "0911.2471"),
        description="references of SLACS, BELLS and kin: a lens known from nowhere else is a stress test",
    )
    tractor: bool = Field(
        False, description="match with the sweeps, of which every one that holds a lens is read; its position is cut"
    )
    tractor_radius_arcsec: float = Field(2.0, gt=0)
    split_seed: int = 42

    @model_validator(mode="after")
    def _lists_once(self) -> Self:
        names = [item.name for item in self.lists]
        if len(set(names)) < len(names):
            raise ValueError("lists names a list twice")
        reserved = {"tier_grade", "tier_gen5_prime"} & {item.tier_column for item in self.lists}
        if reserved:
            raise ValueError(
                f"{', '.join(sorted(reserved))} are the catalogue's own; give the list another tier_scheme"
            )
        return self
