"""What the YAML files under config/ hold: a section for each rule that takes settings."""

from typing import Any, Literal

from pydantic import Field, model_validator

from dark_halo_scope.catalogue.config import ConfuserSettings, LensSettings, ParentSettings
from dark_halo_scope.core.config import Settings
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.evaluation.config import GateSettings, ScoreSettings
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.negative_config import NegativeSettings
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.paper.config import PageSettings, TrainingExamplesSettings
from dark_halo_scope.survey.config import CoaddSettings, SurveySettings
from dark_halo_scope.training.config import TrainSettings


class Overrides(Settings):
    """Settings of datasets and generations that differ on this survey: by name, then as in their own file."""

    datasets: dict[str, dict[str, Any]] = Field(default={})
    generations: dict[str, dict[str, Any]] = Field(default={})


class SurveyFile(Settings):
    """config/surveys/<name>.yaml."""

    survey: SurveySettings
    coadds: CoaddSettings
    lenses: LensSettings = LensSettings()
    parent: ParentSettings = ParentSettings()
    confusers: ConfuserSettings = ConfuserSettings()
    sources: SourceCheckSettings = SourceCheckSettings()
    overrides: Overrides = Overrides()


class DatasetFile(Settings):
    """config/datasets/<name>.yaml: stamps that are built here (`manifest`), or that exist already (`stored`)."""

    source: Literal["build", "existing"] = "build"
    manifest: ManifestSettings | None = None
    stored: StoredSettings | None = None
    stamps: StampSettings = StampSettings()
    negatives: NegativeSettings | None = None
    quality: DatasetCheckSettings = DatasetCheckSettings()
    arc_light: ArcLightSettings = ArcLightSettings()
    pack: PackSettings = PackSettings()
    examples: TrainingExamplesSettings = TrainingExamplesSettings()
    page: PageSettings = PageSettings()

    @model_validator(mode="after")
    def _section_of_source(self) -> "DatasetFile":
        section = "manifest" if self.source == "build" else "stored"
        if getattr(self, section) is None:
            raise ValueError(f"source: {self.source} needs the section `{section}`")
        return self


class GenerationFile(Settings):
    """config/generations/<name>.yaml; `extends: <other>` takes another's settings first."""

    dataset: str
    gate_dataset: str = Field("v5_cosmos_paired", description="whose test pairs the gates are measured on")
    last_stage: str = Field("main", description="the stage whose best weights are scored and gated")
    negative_control_of: str | None = Field(None, description="the generation that this one must lose against")
    training: TrainSettings = TrainSettings()
    scoring: ScoreSettings = ScoreSettings()
    gates: GateSettings = GateSettings()
