"""Medians of tensors, on every device, also where only deterministic algorithms may run."""

import numpy as np
import torch


def lower_median(x: torch.Tensor) -> torch.Tensor:
    """The median of the last dimension, which stays as one element; of an even number the smaller of the middle two.

    The same value as `torch.median` has, of finite numbers.
    """
    middle = (x.shape[-1] - 1) // 2
    if x.device.type == "cpu" and not x.requires_grad:
        # NumPy's selection uses the processor's vectors: half the time for the same value.
        return torch.from_numpy(np.partition(x.numpy(), middle, axis=-1)[..., middle : middle + 1])
    if torch.are_deterministic_algorithms_enabled():
        # torch.median also says where the median is, one place of several that are equal, and CUDA refuses to choose.
        return x.sort(dim=-1).values[..., middle : middle + 1]
    return x.median(dim=-1, keepdim=True).values
