"""Columns that a network may not be given, because they know the label: by name, and by what they hold."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.evaluation.metrics import auc
from dark_halo_scope.models.config import leak_reason
from dark_halo_scope.models.predict import meta_array


def refuse_leaks(columns: Sequence[str], rows: pa.Table, labels_N: NDArray[np.floating], limit: float) -> None:
    """Refuse metadata that tell lenses from the rest by themselves.

    Args:
        columns: of metadata that the network would be given.
        rows: what training shows, (N), with these columns.
        labels_N: 1 for lenses; where all are of one class, only names can be judged.
        limit: the largest AUC that a column may have, in whichever direction it tells the classes apart.

    Raises:
        ConfigError: a column is known to leak, or its AUC is above the limit; the reason or the AUC is said.
        BadInputError: a column is missing, or holds values that are not finite.
    """
    known = [f"{column} ({reason})" for column in columns if (reason := leak_reason(column)) is not None]
    if known:
        raise ConfigError(f"The metadata {', '.join(known)} would leak the label; take them out of model.meta_columns.")
    labels_N = np.asarray(labels_N).astype(np.int64)
    meta_NM = meta_array(rows, tuple(columns))
    if len(np.unique(labels_N)) < 2:
        return
    aucs = {column: auc(labels_N, meta_NM[:, index]) for index, column in enumerate(columns)}
    leaking = [f"{name} (AUC {value:.3f})" for name, value in aucs.items() if max(value, 1 - value) > limit]
    if leaking:
        raise ConfigError(
            f"The metadata {', '.join(leaking)} alone tell lenses from the rest of what training shows, better than "
            f"{limit:g}; match the classes in them, take them out of model.meta_columns, or raise model.meta_auc_limit."
        )
