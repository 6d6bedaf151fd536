"""Base of every settings model: a typo or a NaN fails when the workflow starts, not hours later."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dark_halo_scope.core.errors import ConfigError


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def validate(model: type[SettingsT], values: Mapping[str, Any], where: str) -> SettingsT:
    """Build `model` from `values`.

    Raises:
        ConfigError: one sentence that names `where`, each offending key and what is wrong with it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or model.__name__}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigError(f"{where} is not valid ({problems}); correct it there.") from error
