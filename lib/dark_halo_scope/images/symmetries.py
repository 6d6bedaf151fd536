"""The eight symmetries of the square: what the sky does not prefer one of."""

import torch

DIHEDRAL = 8  # four quarter turns, each with its mirror image


def dihedral(x_BCHW: torch.Tensor, element: int) -> torch.Tensor:
    """Apply one of the eight symmetries of the square: bit 0 mirrors x, bit 1 mirrors y, bit 2 transposes."""
    dims = [dim for bit, dim in ((1, -1), (2, -2)) if element & bit]
    if dims:
        x_BCHW = x_BCHW.flip(dims)
    return x_BCHW.transpose(-1, -2) if element & 4 else x_BCHW
