"""What a trained network may be used for: images on the sky have no copy without an arc."""

from pathlib import Path

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess_config import CONTROL_SOURCES, DIAGNOSTIC_SOURCES, PreprocessSettings


def require_deployable(preprocessing: PreprocessSettings, path: Path) -> None:
    """Refuse a network that is a diagnostic.

    Whoever scores images that may be of the sky calls this after `load_model`, and so does whoever hands a network on:
    `evaluation.score`, the only one so far, and with it mining and the comparisons that read its scores. Measuring
    gates and training from a network's weights do not: pairs have the image that a diagnostic asks for. A predictor
    refuses again where that image is not given.

    Args:
        preprocessing: the network's, as `load_model` made it, which decides whatever best.json says of itself.
        path: where best.json lies.

    Raises:
        BadInputError: its control channels cannot be made of an image on the sky.
    """
    if preprocessing.deployable:
        return
    known = ", ".join(name for name in CONTROL_SOURCES if name not in DIAGNOSTIC_SOURCES)
    raise BadInputError(
        f"The network of {path} was trained with the control source {preprocessing.control_source}, which no image on "
        f"the sky has: it is a diagnostic and never deployed; train with one of {known}."
    )
