"""Settings of scoring a user's own list."""

from pydantic import Field

from dark_halo_scope.core.config import Settings
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings

PUBLIC_SERVICE = "https://www.legacysurvey.org"


class PredictSettings(Settings):
    """How a list of positions or images is scored."""

    batch: int = Field(default=256, ge=1, description="images per forward pass")
    duplicate_arcsec: float = Field(
        default=1.0, gt=0, description="positions nearer than this are flagged as one object"
    )
    survey_prevalence: float = Field(
        default=1e-4, gt=0, lt=1, description="share of lenses that p_survey is for; the list's own is not known"
    )
    cutouts: CutoutServiceSettings | None = Field(
        default=None,
        description="the cutout service; without `service`, a local one where the survey is embedded, else the public",
    )
    asking: AskingSettings = Field(
        default=AskingSettings(), description="how politely the service is asked: your address, pauses, attempts"
    )

    def service(self, embedded: bool) -> CutoutServiceSettings:
        """The service to ask: the one that is named, else a local one over an embedded survey, else the public one.

        Args:
            embedded: whether the survey is.
        """
        given = self.cutouts or CutoutServiceSettings()
        if embedded or "service" in given.model_fields_set:
            return given
        return given.model_copy(update={"service": PUBLIC_SERVICE})
