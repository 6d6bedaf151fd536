"""What the YAML files under config/ hold: a section for each rule that takes settings."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dark_halo_scope.catalogue.anchor_config import AnchorSettings
from dark_halo_scope.catalogue.config import ConfuserSettings, LensSettings, ParentSettings
from dark_halo_scope.catalogue.negative_pool_config import (
    NegativePoolGateSettings,
    NegativePoolSettings,
    NegativeSampleSettings,
)
from dark_halo_scope.catalogue.positive_config import PositiveSettings
from dark_halo_scope.core.config import Settings, validate
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.evaluation.anchor_config import AnchorEvaluationSettings
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.evaluation.calibration_config import CalibrationSettings
from dark_halo_scope.evaluation.completeness_config import CompletenessSettings
from dark_halo_scope.evaluation.config import GateSettings, ScoreSettings
from dark_halo_scope.evaluation.dataset_config import DatasetCheckSettings
from dark_halo_scope.evaluation.fpr_config import FprSettings
from dark_halo_scope.evaluation.ladder_config import LadderSettings
from dark_halo_scope.evaluation.mining_config import MiningSettings
from dark_halo_scope.evaluation.performance_config import PerformanceSettings
from dark_halo_scope.evaluation.realism_config import RealismSettings
from dark_halo_scope.evaluation.selection_config import SelectionFunctionSettings
from dark_halo_scope.evaluation.training_gates_config import TrainingGateSettings
from dark_halo_scope.evaluation.validation_config import FreezeSettings, ValidationSettings
from dark_halo_scope.images.config import PackSettings
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.negative_config import NegativeSettings
from dark_halo_scope.injection.parent_config import ParentStampSettings
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stored_config import StoredSettings
from dark_halo_scope.paper.config import PageSettings, TrainingExamplesSettings
from dark_halo_scope.paper.errors_config import ErrorsPageSettings
from dark_halo_scope.paper.figure_config import (
    AnchorGallerySettings,
    GateFigureSettings,
    LadderFigureSettings,
    PaperSettings,
    RocFigureSettings,
    SelectionFigureSettings,
    SixChannelsSettings,
    ValidationFigureSettings,
)
from dark_halo_scope.survey.config import CoaddSettings, SurveySettings
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.workflow.merge import merge

#: What a stage may be called: it is a folder of the results.
_STAGE_NAME = re.compile("[a-z0-9]+")


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
    negative_pool: NegativePoolSettings = NegativePoolSettings()
    negative_pool_gates: NegativePoolGateSettings = NegativePoolGateSettings()
    positives: PositiveSettings = PositiveSettings()
    negatives: NegativeSampleSettings = NegativeSampleSettings()
    sources: SourceCheckSettings = SourceCheckSettings()
    paper: PaperSettings = PaperSettings()
    figure_training_examples: TrainingExamplesSettings = TrainingExamplesSettings(min_arc_snr=30.0, stretch=0.05)
    figure_six_channels: SixChannelsSettings = SixChannelsSettings()
    figure_gates: GateFigureSettings = GateFigureSettings()
    figure_roc: RocFigureSettings = RocFigureSettings()
    figure_anchor_gallery: AnchorGallerySettings = AnchorGallerySettings()
    figure_selection_function: SelectionFigureSettings = SelectionFigureSettings()
    anchors: AnchorSettings = AnchorSettings()
    cutouts: CutoutServiceSettings = CutoutServiceSettings()
    asking: AskingSettings = AskingSettings()
    overrides: Overrides = Overrides()


class DatasetFile(Settings):
    """config/datasets/<name>.yaml: stamps built here or that exist already, parents as they are, or real lenses."""

    source: Literal["build", "existing", "parent", "real"] = "build"
    manifest: ManifestSettings | None = None
    stored: StoredSettings | None = None
    parent: ParentStampSettings | None = None
    real: RealImageSettings | None = None
    stamps: StampSettings = StampSettings()
    negatives: NegativeSettings | None = None
    quality: DatasetCheckSettings = DatasetCheckSettings()
    cutout_quality: CutoutQualitySettings = CutoutQualitySettings()
    training_gates: TrainingGateSettings = TrainingGateSettings()
    arc_light: ArcLightSettings = ArcLightSettings()
    pack: PackSettings = PackSettings()
    examples: TrainingExamplesSettings = TrainingExamplesSettings()
    page: PageSettings = PageSettings()

    @model_validator(mode="after")
    def _section_of_source(self) -> "DatasetFile":
        section = {"build": "manifest", "existing": "stored", "parent": "parent", "real": "real"}[self.source]
        if getattr(self, section) is None:
            raise ValueError(f"source: {self.source} needs the section `{section}`")
        return self


class StageSettings(Settings):
    """One stage of a generation's training."""

    start_from: str | None = Field(None, description="the earlier stage whose best weights this one starts from")
    training: dict[str, Any] = Field({}, description="what differs from the generation's `training`")


def _or_null(schema: dict[str, Any]) -> None:
    """Tell editors that a stage may be null: a validator takes nulls away, so that the type does not know them."""
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class GenerationFile(Settings):
    """config/generations/<name>.yaml; `extends: <other>` takes another's settings first.

    Stages are trained in the order in which they are written, and the last one's best weights are scored and gated.
    """

    title: str | None = Field(None, description="what the generation is, or what an ablation changes, for tables")
    dataset: str
    gate_dataset: str | None = Field(
        "v5_cosmos_paired",
        description="whose test pairs the gates are measured on; null: it cannot read pairs and has no gates",
    )
    negative_control_of: str | None = Field(None, description="the generation that this one must lose against")
    ablation_of: str | None = Field(None, description="the generation from which this one differs in one thing")
    hard_negatives_of: str | None = Field(
        None, description="the generation whose false positives on the parent sample join the negatives"
    )
    training: TrainSettings = Field(TrainSettings(), description="what all stages share")
    stages: dict[str, StageSettings] = Field(
        {"main": StageSettings()},
        validate_default=True,
        json_schema_extra=_or_null,
        description="by name, in order; null leaves out a stage of the generation that this one extends",
    )
    scoring: ScoreSettings = ScoreSettings()
    mining: MiningSettings = MiningSettings()
    gates: GateSettings = GateSettings()
    performance: PerformanceSettings = PerformanceSettings()
    fpr: FprSettings = FprSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    anchors: AnchorEvaluationSettings = AnchorEvaluationSettings()
    realism: RealismSettings = RealismSettings()
    validation: ValidationSettings = ValidationSettings()
    freeze: FreezeSettings = FreezeSettings()
    errors_page: ErrorsPageSettings = ErrorsPageSettings()
    recovery: RecoverySettings = RecoverySettings()
    ladder: LadderSettings = LadderSettings()
    selection_function: SelectionFunctionSettings = SelectionFunctionSettings()
    figure_selection_function: SelectionFigureSettings = SelectionFigureSettings(threshold="p0.5")
    figure_ladder: LadderFigureSettings = LadderFigureSettings()
    figure_validation: ValidationFigureSettings = ValidationFigureSettings()

    @field_validator("stages", mode="before")
    @classmethod
    def _without_nulls(cls, stages: Any) -> Any:
        if not isinstance(stages, dict):
            return stages
        return {name: stage for name, stage in stages.items() if stage is not None}

    @model_validator(mode="after")
    def _stages_can_be_trained(self) -> "GenerationFile":
        if not self.stages:
            raise ValueError("stages names no stage; give one")
        earlier: list[str] = []
        for name, stage in self.stages.items():
            if not _STAGE_NAME.fullmatch(name):
                raise ValueError(f"a stage cannot be called {name!r}; use lower-case letters and digits")
            if stage.start_from is not None and stage.start_from not in earlier:
                raise ValueError(
                    f"stage {name} starts from {stage.start_from!r}, which is no stage before it; "
                    f"before it are: {', '.join(earlier) or 'none'}"
                )
            try:
                training = self.stage_training(name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
            if self.hard_negatives_of is not None and not training.sampler.uses_pool:
                raise ValueError(
                    f"stage {name} shows no image of the pool, where the false positives of hard_negatives_of: "
                    f"{self.hard_negatives_of} would be; set its sampler.negative_prob above 0, or draw: images"
                )
            earlier.append(name)
        return self

    @property
    def first_stage(self) -> str:
        """The stage that is trained first."""
        return next(iter(self.stages))

    @property
    def last_stage(self) -> str:
        """The stage whose best weights are scored and gated."""
        return list(self.stages)[-1]

    def stage(self, name: str) -> StageSettings:
        """The stage called `name`.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.stages:
            raise ConfigError(f"There is no stage {name!r} in this generation; there are: {', '.join(self.stages)}.")
        return self.stages[name]

    def stage_training(self, name: str) -> TrainSettings:
        """What all stages share, with what stage `name` changes.

        Raises:
            ConfigError: there is no such stage, or the two together are not valid.
        """
        values = merge(self.training.model_dump(mode="json"), self.stage(name).training)
        return validate(TrainSettings, values, f"The training of stage {name}")
