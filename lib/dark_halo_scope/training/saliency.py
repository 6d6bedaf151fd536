"""Where a network looks: how much of the gradient of its logit falls where the arcs are."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.pairs import column, lens_centres, measurable_rows, true_theta_e
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import meta_array


def annulus_share(
    model: LensFinder6CH,
    preprocess: Preprocess6CH,
    images_N3HW: NDArray[np.floating],
    controls_N3HW: NDArray[np.floating],
    rows: pa.Table,
    gates: GateSettings,
    batch: int = 32,
) -> dict[str, Any]:
    """Share of a positive's attribution that falls in its arc annulus, as the gates define it.

    The attribution is |d logit / d x| of the preprocessed image, summed over channels (Simonyan et al. 2014). A network
    that looks everywhere alike gives the annulus its share of the area that the network sees.

    Args:
        model: the network, whose mode is put back afterwards; its parameters' gradients stay as they are.
        preprocess: its preprocessing, on the same device.
        images_N3HW: positives, nanomaggies per pixel.
        controls_N3HW: the same hosts without their arcs, for preprocessing that wants them.
        rows: the positives' packed rows; those that gates could not measure are left out.
        gates: size of the annulus.
        batch: images at once.

    Returns:
        `value`, the mean share, with its `standard_error`; `area`, the annulus' mean share of the pixels; and `n`, how
        many positives these are of. All but `n` are None where there is none, the error also where there is one.
    """
    from captum.attr import Saliency  # takes longer to import than torch

    chosen = np.flatnonzero(measurable_rows(rows)[0])
    device = model.meta_mean.device
    shares, areas = [], []
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            part_rows = rows.take(pa.array(part))
            with torch.no_grad():
                x_BCHW = preprocess(_on(images_N3HW[part], device), _on(controls_N3HW[part], device))
            x_BCHW.requires_grad_()
            meta_BM = torch.from_numpy(meta_array(part_rows, model.settings.meta_columns)).float().to(device)
            gradient_BCHW = Saliency(model).attribute(x_BCHW, abs=True, additional_forward_args=(meta_BM,))
            map_BHW = gradient_BCHW.detach().sum(1).double().cpu().numpy()
            annulus_BHW = _annulus(part_rows, map_BHW.shape[-2:], gates)
            seen_HW = _seen(model, x_BCHW)
            shares.append(_share(map_BHW, annulus_BHW))
            areas.append(_share(np.broadcast_to(seen_HW, annulus_BHW.shape).astype(float), annulus_BHW))
    finally:
        model.train(was_training)
    share = np.concatenate(shares) if shares else np.empty(0)
    # A logit that no pixel moves is attributed to none of them.
    known = np.isfinite(share)
    count = int(known.sum())
    if not count:
        return {"value": None, "standard_error": None, "area": None, "n": 0}
    return {
        "value": float(share[known].mean()),
        "standard_error": float(share[known].std(ddof=1) / np.sqrt(count)) if count > 1 else None,
        "area": float(np.concatenate(areas)[known].mean()),
        "n": count,
    }


def _annulus(rows: pa.Table, shape: tuple[int, int], gates: GateSettings) -> NDArray[np.bool_]:
    where = geometry(
        true_theta_e(rows),
        column(rows, "psfsize_r"),
        shape,
        centre_N2=lens_centres(rows),
        annulus_factor=gates.annulus_factor,
        core_pixels=gates.core_pixels,
        pixel_scale=gates.pixel_scale,
    )
    return where.annulus


def _seen(model: LensFinder6CH, x_BCHW: torch.Tensor) -> NDArray[np.bool_]:
    """(H, W) pixels that are left after the network's crop."""
    index_11HW = torch.arange(x_BCHW[0, 0].numel()).view(1, 1, *x_BCHW.shape[-2:])
    seen = np.zeros(index_11HW.numel(), dtype=bool)
    seen[model.crop(index_11HW).numpy().ravel()] = True
    return seen.reshape(x_BCHW.shape[-2:])


def _share(map_BHW: NDArray[np.floating], inside_BHW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(B,) the part of each map's sum that lies inside; NaN where the sum is zero."""
    total = map_BHW.sum((1, 2))
    part = (map_BHW * inside_BHW).sum((1, 2))
    return np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)


def _on(images_N3HW: NDArray[np.floating], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images_N3HW, dtype=np.float32)).to(device)
