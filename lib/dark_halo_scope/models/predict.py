"""Raw logits of images in nanomaggies: preprocessing and network as one function of numpy arrays."""

from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.device import autocast, exact_convolutions, resolve_precision
from dark_halo_scope.models.lens_finder import LensFinder6CH


class Predict(Protocol):
    """Raw logits (N,) float64 of images (N, 3, H, W) in nanomaggies per pixel and the packed rows they belong to.

    `controls` (N, 3, H, W) are the same stamps without arcs; only a `paired_oracle` network looks at them.
    """

    def __call__(
        self, images: NDArray[np.floating], rows: pa.Table, /, controls: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]: ...


def meta_array(rows: pa.Table, columns: tuple[str, ...]) -> NDArray[np.float64]:
    """Metadata (N, M) of packed rows, in the columns' own units.

    Raises:
        BadInputError: a column is missing, or holds nulls or values that are not finite.
    """
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise BadInputError(
            f"The rows lack the metadata columns {', '.join(missing)}; pack the images again with them."
        )
    arrays = [np.asarray(rows.column(column).to_numpy(zero_copy_only=False), dtype=np.float64) for column in columns]
    values_NM = np.stack(arrays, axis=1) if arrays else np.empty((rows.num_rows, 0))
    bad = np.flatnonzero(~np.isfinite(values_NM).all(axis=1))
    if len(bad):
        raise BadInputError(
            f"{len(bad)} rows (first: row {bad[0]}) have metadata that are not finite; exclude them when packing."
        )
    return values_NM


def predictor(
    model: LensFinder6CH,
    preprocess: Preprocess6CH,
    device: torch.device,
    batch_size: int = 256,
    precision: str = "float32",
) -> Predict:
    """A function from images and rows to raw logits, with the model in evaluation mode whenever it is called.

    The model's mode is put back afterwards, so that training may validate itself. `precision` as in
    `models.device.resolve_precision`. The function raises BadInputError for images and rows that do not match or cannot
    be scored, and where a network needs controls and is given none.
    """
    model.to(device).to(memory_format=torch.channels_last)
    preprocess.to(device)
    dtype = resolve_precision(precision, device)

    def on_device(batch: NDArray[np.floating]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(device)

    @torch.inference_mode()
    def predict(
        images_N3HW: NDArray[np.floating], rows: pa.Table, /, controls: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        if len(images_N3HW) != rows.num_rows:
            raise BadInputError(f"{len(images_N3HW)} images do not match {rows.num_rows} rows.")
        meta_NM = torch.from_numpy(meta_array(rows, model.settings.meta_columns)).float()
        was_training = model.training
        model.eval()
        logits = []
        try:
            for start in range(0, len(images_N3HW), batch_size):
                part = slice(start, start + batch_size)
                own_B3HW = on_device(controls[part]) if preprocess.needs_controls and controls is not None else None
                x_BCHW = preprocess(on_device(images_N3HW[part]), own_B3HW)
                with exact_convolutions(), autocast(device, dtype):
                    logits.append(model(x_BCHW, meta_NM[part].to(device)).cpu())
        finally:
            model.train(was_training)
        return torch.cat(logits).double().numpy() if logits else np.empty(0)

    return predict
