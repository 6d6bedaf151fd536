"""Injections scored unit by unit, in parts that a kill leaves behind and a rerun skips: no image is kept."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.parts import Scored, in_parts, is_done
from dark_halo_scope.injection.recovery import Rendered, units
from dark_halo_scope.injection.recovery_schema import RECOVERY_SCHEMA
from dark_halo_scope.injection.recovery_work import RecoveryJob, render_units


def recover(
    predict: Predict,
    hosts: pa.Table,
    job: RecoveryJob,
    workers: int,
    folder: Path,
    made_on: str,
    resumed: Callable[[int], None] = lambda images: None,
) -> Iterator[Scored]:
    """Inject into hosts and score, from the parts in `folder` where they are done and into it where not.

    Args:
        predict: the frozen network.
        hosts: `HOST_SCHEMA`, all of them, in their order.
        job: what is injected where.
        workers: processes that render; see `render_units`.
        folder, made_on, resumed: see `in_parts`.

    Yields:
        For each unit, rows with their logits and rows that are left out.

    Raises:
        CorruptDataError: the network returns NaN or infinity.
    """
    work = units(hosts, job.settings)
    length = max(1, job.settings.part_images // job.settings.unit_images)
    parts = [(f"hosts-{work[first][0]:09d}", work[first : first + length]) for first in range(0, len(work), length)]
    missing = [part for name, part in parts if not is_done(folder, name, made_on)]
    # One after another whatever part they are of, so that no process waits for the end of a part.
    rendered = render_units((hosts.slice(*unit) for part in missing for unit in part), job, workers)

    def score(part: list[tuple[int, int]]) -> Iterator[Scored]:
        # A part that was damaged since it was looked at is not among them.
        own = rendered if part in missing else render_units((hosts.slice(*unit) for unit in part), job, 0)
        return (score_rendered(predict, unit) for unit in islice(own, len(part)))

    return in_parts(parts, score, folder, made_on, resumed)


def score_rendered(predict: Predict, unit: Rendered) -> Scored:
    """Rows of a unit with their logits, and what it leaves out.

    Raises:
        CorruptDataError: see `recover`.
    """
    logits = np.asarray(predict(unit.images.astype(np.float32), unit.rows), dtype=np.float64)
    if not np.isfinite(logits).all():
        first = unit.rows["task_id"][int(np.flatnonzero(~np.isfinite(logits))[0])]
        raise CorruptDataError(
            f"The network's logit of the injection {first} is not finite, its pixels are; train the network again."
        )
    return unit.rows.append_column(RECOVERY_SCHEMA.field("logit"), pa.array(logits)), unit.left_out
