"""Settings of the realism ladder."""

from pydantic import Field

from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.realism_config import MatchSettings
from dark_halo_scope.injection.config import ArcSnrRange


class LadderSettings(Settings):
    """How the rungs of injections are compared with real lenses."""

    max_hosts: int = Field(default=2000, ge=1, description="hosts, by a hash of their names, with one draw each")
    max_lenses: int = Field(default=2000, ge=1, description="real lenses of the test split, at random")
    arc_snr: ArcSnrRange = Field(
        default=ArcSnrRange(low=10.0, high=300.0),
        description="injections compared have such an arc: one that nobody could see is a host",
    )
    match: MatchSettings = Field(
        default=MatchSettings(), description="what matched hosts are matched in, variables and conditions"
    )
    classifiers: ShortcutSettings = Field(
        default=ShortcutSettings(min_pairs=30), description="folds, resamples and fewest members of a probe's class"
    )
    floor_repeats: int = Field(default=20, ge=1, description="random assignments of matched hosts behind the floor")
    seed: int = Field(default=42, ge=0)
