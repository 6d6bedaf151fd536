"""Where a network looks: how much of the gradient of its logit falls where the arcs are."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import stats

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.pairs import column, lens_centres, measurable_rows, true_theta_e
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import meta_array

UNTRAINED = 5  # networks that say what no training looks like


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

    The attribution is |d logit / d x| of the preprocessed image, summed over channels (Simonyan et al. 2014). Padding
    and pooling make every network look more at the centre than at the edges: what must be exceeded is the share of
    untrained networks of the same kind on the same images, not that of the area alone.

    Args:
        model: the network, whose mode is put back afterwards; its parameters' gradients stay as they are.
        preprocess: its preprocessing, on the same device.
        images_N3HW: positives, nanomaggies per pixel.
        controls_N3HW: the same hosts without their arcs, for preprocessing that wants them.
        rows: the positives' packed rows; those that gates could not measure are left out.
        gates: size of the annulus.
        batch: images at once.

    Returns:
        `value`, the mean share, with its `standard_error` over positives; `area`, the annulus' mean share of the pixels
        that the network sees; `untrained`, the mean share of untrained networks, and `untrained_high`, which one more
        of them exceeds in one case of forty; and `n`, how many positives these are of. All but `n` are None where there
        are fewer than two.
    """
    chosen = np.flatnonzero(measurable_rows(rows)[0])
    networks = [model, *(_untrained(model, seed) for seed in range(UNTRAINED))]
    shares: list[NDArray[np.float64]] = []
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            part_rows = rows.take(pa.array(part))
            device = model.meta_mean.device
            with torch.no_grad():
                x_BCHW = preprocess(_on(images_N3HW[part], device), _on(controls_N3HW[part], device))
            meta_BM = torch.from_numpy(meta_array(part_rows, model.settings.meta_columns)).float().to(device)
            annulus_BHW = _annulus(part_rows, x_BCHW.shape[-2:], gates)
            maps = [_attribution(network, x_BCHW, meta_BM) for network in networks]
            maps.append(np.broadcast_to(_seen(model, x_BCHW), annulus_BHW.shape).astype(float))
            shares.append(np.stack([_share(map_BHW, annulus_BHW) for map_BHW in maps]))
    finally:
        model.train(was_training)
    share_KN = np.concatenate(shares, axis=1) if shares else np.empty((UNTRAINED + 2, 0))
    # A logit that no pixel moves is attributed to none of them.
    share_KN = share_KN[:, np.isfinite(share_KN[0])]
    count = share_KN.shape[1]
    if count < 2:
        names = ("value", "standard_error", "area", "untrained", "untrained_high")
        return {**dict.fromkeys(names), "n": count}
    # An untrained network without any attribution looks nowhere in particular.
    share_KN = np.where(np.isnan(share_KN), share_KN[-1], share_KN)
    value, *others, area = share_KN.mean(axis=1).tolist()
    # Prediction interval of one more draw of a normal distribution.
    width = stats.t.ppf(0.975, UNTRAINED - 1) * np.sqrt(1 + 1 / UNTRAINED)
    return {
        "value": value,
        "standard_error": float(share_KN[0].std(ddof=1) / np.sqrt(count)),
        "area": area,
        "untrained": float(np.mean(others)),
        "untrained_high": float(np.mean(others) + width * np.std(others, ddof=1)),
        "n": count,
    }


def _untrained(model: LensFinder6CH, seed: int) -> LensFinder6CH:
    """A network of the same kind, the same for a seed; torch's own random numbers are left alone."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        untrained = LensFinder6CH(model.settings, model.in_channels, load_weights=False)
    return untrained.to(model.meta_mean.device).eval()


def _attribution(model: LensFinder6CH, x_BCHW: torch.Tensor, meta_BM: torch.Tensor) -> NDArray[np.float64]:
    """(B, H, W) gradient of each image's logit, its absolute value summed over channels."""
    from captum.attr import Saliency  # takes longer to import than torch

    inputs_BCHW = x_BCHW.detach().requires_grad_()
    gradient_BCHW = Saliency(model).attribute(inputs_BCHW, abs=True, additional_forward_args=(meta_BM,))
    return gradient_BCHW.detach().sum(1).double().cpu().numpy()


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
