"""Logits of cutouts that are no packed split: known lenses and users' own lists. One path for both, training's."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.quarantine import split_rows
from dark_halo_scope.evaluation.pairs import Predict, column


def centre_crop(images: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The middle (..., size, size) of images (..., H, W); where H - size is odd, the target is half a pixel off.

    Raises:
        BadInputError: the images are smaller.
    """
    height, width = images.shape[-2:]
    if min(height, width) < size:
        raise BadInputError(f"The image has {height} x {width} pixels, fewer than the {size} x {size} of the network.")
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def pixel_reasons(images_N3HW: NDArray[np.floating]) -> list[str | None]:
    """Why each image cannot be scored, None where it can: pixels not finite, or a band without any light or noise."""
    reasons: list[str | None] = []
    for image_3HW in images_N3HW:
        if not np.isfinite(image_3HW).all():
            reasons.append("pixels not finite")
        elif not image_3HW.any(axis=(1, 2)).all():
            reasons.append("a band is missing")
        else:
            reasons.append(None)
    return reasons


def condition_reasons(rows: pa.Table, meta_columns: Sequence[str]) -> list[str | None]:
    """Which of a network's observing conditions are unknown in each row, None where all are known."""
    unknown_MN = [
        ~np.isfinite(column(rows, name)) if name in rows.column_names else np.ones(rows.num_rows, dtype=bool)
        for name in meta_columns
    ]
    reasons: list[str | None] = []
    for index in range(rows.num_rows):
        names = [name for name, unknown_N in zip(meta_columns, unknown_MN, strict=True) if unknown_N[index]]
        reasons.append(f"{', '.join(names)} unknown" if names else None)
    return reasons


def score_cutouts(
    predict: Predict,
    images_N3HW: NDArray[np.floating],
    rows: pa.Table,
    reasons: Sequence[str | None],
) -> tuple[pa.Table, pa.Table]:
    """Rows that can be scored with `logit` and `score`, and the others with `quarantine_reason`.

    Args:
        predict: the network.
        images_N3HW: nanomaggies per pixel; what lies in those with a reason does not matter.
        rows: N rows, with the network's observing conditions.
        reasons: why rows cannot be scored, as far as is known already; their pixels are looked at too.

    Raises:
        CorruptDataError: the network returns NaN or infinity for a good image.
    """
    pixels_N3HW = np.asarray(images_N3HW, dtype=np.float32)
    both = [known or seen for known, seen in zip(reasons, pixel_reasons(pixels_N3HW), strict=True)]
    good_N = np.array([reason is None for reason in both], dtype=bool)
    kept, bad = split_rows(rows, both)
    logits = np.asarray(predict(pixels_N3HW[good_N], kept), dtype=np.float64) if kept.num_rows else np.empty(0)
    if not np.isfinite(logits).all():
        first = int(np.flatnonzero(good_N)[np.flatnonzero(~np.isfinite(logits))[0]])
        raise CorruptDataError(
            f"The network's logit of cutout {first} of a batch is not finite, its pixels are; train the network again."
        )
    return kept.append_column("logit", pa.array(logits)).append_column("score", pa.array(expit(logits))), bad
