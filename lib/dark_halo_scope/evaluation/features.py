"""Penultimate features: what a network has made of an image before its head decides.

Shape legend: N images, 3 bands g, r, z, H rows, W columns, F features of the image. Images are nanomaggies per pixel.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import predictor

#: Features (N, F) and raw logits (N,), float64, of images (N, 3, H, W) and their rows.
Features = Callable[[NDArray[np.floating], pa.Table], tuple[NDArray[np.float64], NDArray[np.float64]]]


def feature_extractor(
    model: LensFinder6CH,
    preprocess: Preprocess6CH,
    device: torch.device,
    batch_size: int = 256,
    advance: Callable[[int], None] = lambda count: None,
) -> Features:
    """A function from images and rows to features and logits.

    What enters the head is watched while the network predicts as it always does, so that preprocessing, crop and
    orientations are those of its scores. Features of several orientations are averaged, as their logits are. Those that
    come from metadata (fused late) are left out: a probe is to judge images, not seeing and depth.

    Args:
        model, preprocess, device: as `predictor` takes them.
        batch_size: images per forward pass.
        advance: told how many images were dealt with.

    Raises:
        BadInputError: the function, where the predictor does.
    """
    predict = predictor(model, preprocess, device, batch_size)
    fused = model.settings.hidden if model.meta is not None and model.settings.fusion == "late" else 0
    first_layer = model.head[0]
    assert isinstance(first_layer, torch.nn.Linear)
    width = first_layer.in_features - fused

    def extract(images_N3HW: NDArray[np.floating], rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        features, logits = [np.empty((0, width))], [np.empty(0)]
        seen: list[torch.Tensor] = []
        handle = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, :width].cpu()))
        try:
            for start in range(0, len(images_N3HW), batch_size):
                part = slice(start, start + batch_size)
                logits.append(predict(images_N3HW[part], rows.slice(start, batch_size)))
                features.append(torch.stack(seen).double().mean(0).numpy())
                seen.clear()
                advance(len(logits[-1]))
        finally:
            handle.remove()
        return np.concatenate(features), np.concatenate(logits)

    return extract
