"""Settings of the cutout service: where it is, what a usable cutout is, and how politely it is asked."""

from typing import Self

from pydantic import Field

from dark_halo_scope.core.config import Settings

EMBEDDED = "embedded"


class CutoutServiceSettings(Settings):
    """A service in the format of the Legacy Surveys' viewer, and what is wanted of it: what results depend on."""

    service: str = Field(
        EMBEDDED,
        pattern=r"embedded|https?://\S+",
        description="address, such as https://www.legacysurvey.org; embedded: a local server over the survey's files",
    )
    layer: str = Field("ls-dr10-south", pattern=r"[a-z0-9-]+")
    size: int = Field(64, ge=8, le=3000, description="side of a cutout, pixels of 0.262 arcsec")
    on_brick_pixels: bool = Field(
        True,
        description="ask for planes that lie on the pixels of the target's brick, which the service then hands out as "
        "they are; otherwise the target is at the very centre and interpolation smooths the noise",
    )
    max_failed: float = Field(
        0.02, ge=0, le=1, description="share of cutouts that may fail by fault of the service, not of the sky"
    )
    max_zero_fraction: float = Field(
        0.5, ge=0, le=1, description="a cutout with more pixels without data than this in any band is not used"
    )

    @property
    def is_embedded(self) -> bool:
        """Whether the cutouts come from the survey's own files."""
        return self.service == EMBEDDED


class AskingSettings(Settings):
    """How politely and patiently a service is asked: no result depends on it, and changing it reruns nothing."""

    user_agent: str = Field(
        "dark_halo_scope", pattern=r"[!-~ ]+", description="who asks; the version is added, a contact address is polite"
    )
    interval_s: float = Field(
        0.25, ge=0.1, description="least time between the starts of two requests; a server of our own waits for none"
    )
    attempts: int = Field(5, ge=1, le=20, description="requests for one cutout before it has failed")
    deadline_s: float = Field(300.0, gt=0, description="time for one cutout, all attempts and waits together")
    max_failures_in_a_row: int = Field(
        3,
        ge=1,
        description="cutouts that the service fails to give, one after another, before all is stopped",
    )

    def without_pauses(self) -> Self:
        """The same, for a server that nobody else asks."""
        return self.model_copy(update={"interval_s": 0.0})
