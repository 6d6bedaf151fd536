"""Injections scored unit by unit, in parts that a kill leaves behind and a rerun skips: no image is kept."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.files import make_directory
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.score_parts import Scored, read_part, write_part
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
        folder: of the parts of this very run.
        made_on: the kind of device; parts of another are done again, for logits differ in the last digits.
        resumed: told of the images of each part that was done before.

    Yields:
        For each unit, rows with their logits and rows that are left out.

    Raises:
        CorruptDataError: the network returns NaN or infinity.
    """
    make_directory(folder)
    work = units(hosts, job.settings)
    length = max(1, job.settings.part_images // job.settings.unit_images)
    parts = [work[first : first + length] for first in range(0, len(work), length)]
    done = [read_part(folder, _name(part), made_on) is not None for part in parts]
    missing = [hosts.slice(*unit) for part, is_done in zip(parts, done, strict=True) if not is_done for unit in part]
    rendered = render_units(missing, job, workers)
    for part, is_done in zip(parts, done, strict=True):
        found = read_part(folder, _name(part), made_on) if is_done else None
        if found is None:
            found = [score_rendered(predict, unit) for unit in islice(rendered, len(part))]
            write_part(folder, _name(part), found, made_on)
        else:
            resumed(sum(table.num_rows for tables in found for table in tables))
        yield from found


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


def _name(part: list[tuple[int, int]]) -> str:
    return f"hosts-{part[0][0]:09d}"
