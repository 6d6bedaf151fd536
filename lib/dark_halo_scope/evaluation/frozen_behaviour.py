"""What a frozen finder says of a few drawn images: settings and weights stay when code is edited, logits do not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.freeze import NAME_DIGITS, Frozen, FrozenChangedError
from dark_halo_scope.evaluation.pairs import Predict

_SEED = 20260210
_NOISE = 0.01  # nanomaggies per pixel: r-band background of usual depth
_BANDS = 3


def probe_images(count: int, size: int) -> NDArray[np.float32]:
    """Galaxies with a ring, on noise, (count, 3, size, size) float32 in nanomaggies per pixel.

    They are no honest injections and need not be: preprocessing and network must be asked something that has a core,
    an arc and a background, each of several strengths.
    """
    rng = np.random.default_rng(_SEED)
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(x, y)
    images = rng.normal(0, _NOISE, (count, _BANDS, size, size))
    for image in images:
        core, arc, radius = rng.uniform(0.1, 3), rng.uniform(0.02, 0.3), rng.uniform(3, 9)
        for band, colour in enumerate((0.4, 1.0, 1.6)):
            image[band] += core * colour * np.exp(-r / 3) + arc / colour * np.exp(-((r - radius) ** 2) / 4) * (x > 0)
    return images.astype(np.float32)


def behaviour(predict: Predict, described: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Logits of the probe images, as the card has them.

    Args:
        predict: the network with its preprocessing.
        described: what best.json says of it: `stamp_size`, and `meta` whose means the probes take.
        count: number of probes.
    """
    meta = described["meta"]
    columns = {name: np.full(count, mean) for name, mean in zip(meta["columns"], meta["mean"], strict=True)}
    # A table without columns has no rows.
    rows = pa.table({"probe": np.arange(count), **columns})
    logits = np.asarray(predict(probe_images(count, int(described["stamp_size"])), rows), dtype=float)
    return {"probes": count, "logits": logits.tolist()}


def check_behaviour(frozen: Frozen, predict: Predict) -> None:
    """Refuse a network that answers otherwise than when it was frozen: its code was changed.

    Args:
        frozen: the card.
        predict: of the network that is about to be used, on the device where it will run.

    Raises:
        FrozenChangedError: a logit differs by more than the card allows.
        BadInputError: the card has no probes.
    """
    try:
        then, tolerance = frozen.card["behaviour"], float(frozen.card["behaviour"]["tolerance"])
        before = np.asarray(then["logits"], dtype=float)
        now = np.asarray(behaviour(predict, frozen.card["described"], int(then["probes"]))["logits"])
    except KeyError as error:
        raise BadInputError(f"The card of {frozen.generation} lacks {error}; freeze it again.") from None
    worst = float(np.abs(now - before).max())
    if not worst <= tolerance:
        raise FrozenChangedError(
            f"{frozen.generation} answers otherwise than when it was frozen as {frozen.sha256[:NAME_DIGITS]}: the "
            f"logit of a probe differs by {worst:.3g}, {tolerance:g} is allowed. Its weights and settings are the "
            "same, so that its code was changed: restore it, or freeze it again and measure its selection function "
            "anew."
        )
