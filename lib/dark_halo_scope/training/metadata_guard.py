"""Columns that a network may not be given, because they know the label: by name, and by what they hold."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.evaluation.intervals import delong
from dark_halo_scope.models.config import leak_reason
from dark_halo_scope.models.predict import meta_array


def refuse_leaks(columns: Sequence[str], rows: pa.Table, labels_N: NDArray[np.floating], limit: float) -> None:
    """Refuse metadata that tell lenses from the rest by themselves.

    Args:
        columns: of metadata that the network would be given.
        rows: what training shows, (N), with these columns.
        labels_N: 1 for lenses; with fewer than two of either class, only names can be judged.
        limit: the largest AUC that a column may have, in whichever direction it tells the classes apart: the whole 95%
            interval must lie beyond it before a column is refused.

    Raises:
        ConfigError: a column is known to leak, or its AUC is above the limit; the reason or the AUC is said.
        BadInputError: a column is missing, or holds values that are not finite.
    """
    known = [f"{column} ({reason})" for column in columns if (reason := leak_reason(column)) is not None]
    if known:
        raise ConfigError(f"The metadata {', '.join(known)} would leak the label; take them out of model.meta_columns.")
    lens_N = np.asarray(labels_N) > 0.5
    meta_NM = meta_array(rows, tuple(columns))
    if min(lens_N.sum(), (~lens_N).sum()) < 2:
        return
    leaking = []
    for name, value_N in zip(columns, meta_NM.T, strict=True):
        value, interval = delong(value_N[lens_N], value_N[~lens_N])
        # Of a few dozen images chance alone makes 0.6.
        if interval.low > limit or interval.high < 1 - limit:
            leaking.append(f"{name} (AUC {value:.3f} [{interval.low:.3f}, {interval.high:.3f}])")
    if leaking:
        raise ConfigError(
            f"The metadata {', '.join(leaking)} alone tell lenses from the rest of what training shows, better than "
            f"{limit:g}; match the classes in them, take them out of model.meta_columns, or raise model.meta_auc_limit."
        )
