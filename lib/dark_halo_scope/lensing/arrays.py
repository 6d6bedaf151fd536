"""One spelling of array types for functions that take NumPy and torch arrays alike (Python array API)."""

from typing import Any

import array_api_compat

# No array library has a common static type; the array API leaves it to protocols that none implements yet.
Array = Any


def constants(like: Array, *values: Any) -> tuple[Array, ...]:
    """`values` (numbers or arrays) as arrays of `like`'s library, dtype and device."""
    xp = array_api_compat.array_namespace(like)
    device = array_api_compat.device(like)
    return tuple(xp.asarray(value, dtype=like.dtype, device=device) for value in values)
