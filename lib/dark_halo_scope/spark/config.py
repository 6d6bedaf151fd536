"""Settings of Spark on Amazon EMR: facts about an account and its machines, never about results."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dark_halo_scope.core.config import Settings

PresetName = Literal["test", "small", "medium", "medium-large", "large-xlarge", "large", "full"]


class Preset(BaseModel):
    """Machines of a cluster beside its master, and what Spark asks of them (contract.md, section 6)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    core_count: int
    core_type: str
    executor_memory: str
    executor_cores: int
    driver_memory: str = "4g"


def _xlarge(count: int) -> Preset:
    # 16 GiB and 4 vCPU: 4g is the most that never lost an executor.
    return Preset(core_count=count, core_type="m5.xlarge", executor_memory="4g", executor_cores=2)


def _2xlarge(count: int) -> Preset:
    # 32 GiB and 8 vCPU; 10g is the most that is safe.
    return Preset(core_count=count, core_type="m5.2xlarge", executor_memory="8g", executor_cores=4)


PRESETS: dict[PresetName, Preset] = {
    "test": _xlarge(2),
    "small": _xlarge(5),
    "medium": _2xlarge(10),
    "medium-large": _2xlarge(20),
    "large-xlarge": _xlarge(30),
    "large": _2xlarge(30),
    "full": _2xlarge(30),
}


class EmrSettings(Settings):
    """Where and on what EMR steps run."""

    scratch: str = Field(description="s3:// place of code, inputs and small outputs of steps")
    data_root: str = Field(description="s3:// place of the bulk data that steps write")
    log_uri: str = Field(description="s3:// place of EMR's logs")
    region: str = Field("us-east-2", description="that of the bucket: data that cross regions cost money")
    preset: PresetName = "medium"
    core_count: int | None = Field(None, ge=1, description="in place of the preset's number of machines")
    release: str = Field("emr-7.0.0", pattern=r"^emr-[67]\.\d+\.\d+$")
    master_type: str = "m5.xlarge"
    cluster_id: str | None = Field(
        None, pattern=r"^j-[A-Z0-9]+$", description="a running cluster, in place of a new one"
    )
    service_role: str = "EMR_DefaultRole"
    instance_profile: str = "EMR_EC2_DefaultRole"
    subnet: str | None = None
    key_pair: str | None = None
    requirements: str = Field("envs/spark.lock", description="what the bootstrap installs on every machine")
    poll_seconds: float = Field(30.0, gt=0)
    deadline_hours: float = Field(24.0, gt=0, description="a step that takes longer is cancelled")

    @field_validator("scratch", "data_root", "log_uri")
    @classmethod
    def _is_s3(cls, value: str) -> str:
        if not value.startswith("s3://"):
            raise ValueError("must start with s3://")
        return value.rstrip("/")

    def machines(self) -> Preset:
        """The preset, with the number of machines that these settings ask for."""
        preset = PRESETS[self.preset]
        return preset if self.core_count is None else preset.model_copy(update={"core_count": self.core_count})
