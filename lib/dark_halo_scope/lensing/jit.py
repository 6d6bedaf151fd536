"""Numba decorator for functions that must also work where nothing can be cached."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, without the GIL and without threads; kept on disk between processes.

    The cache lies in NUMBA_CACHE_DIR, else beside the source, else in the user's cache folder. Where none of them can
    be written (a read-only image, a module shipped in a zip without a home folder) each process compiles for itself.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return numba.njit(cache=False, nogil=True, error_model="numpy")(function)
