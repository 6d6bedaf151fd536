"""What a trained network may be used for: images on the sky have no copy without an arc."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, DIAGNOSTIC_SOURCES


def require_deployable(card: Mapping[str, Any], path: Path) -> None:
    """Refuse a network that is a diagnostic.

    Args:
        card: best.json. One without `deployable` is of a time when every network could be deployed.
        path: where it lies.

    Raises:
        BadInputError: its control channels cannot be made of an image on the sky.
    """
    if card.get("deployable", True):
        return
    source = card["preprocessing"]["control_source"]
    known = ", ".join(name for name in CONTROL_SOURCES if name not in DIAGNOSTIC_SOURCES)
    raise BadInputError(
        f"The network of {path} was trained with the control source {source}, which no image on the sky has: it is a "
        f"diagnostic and never deployed; train with one of {known}."
    )
