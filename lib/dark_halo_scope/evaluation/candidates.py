"""The highest scores of any scored images as a small CSV to look at, with a link to a viewer of the sky."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.core.manifest import Manifest, verified_paths
from dark_halo_scope.evaluation.calibration import apply_calibration

_BATCH_ROWS = 200_000

#: Columns of the CSV that scores may have; empty where they do not.
CARRIED = (
    *("task_id", "galaxy_id", "brickname", "objid", "split", "kind", "tier", "pool", "confuser_category"),
    *("discovery", "type", "mag_r", "z_phot", "psfsize_r", "psfdepth_r"),
)
COLUMNS = ("rank", "ra", "dec", "logit", "score", "probability", "category", *CARRIED, "viewer")


def top_rows(manifests: Sequence[Manifest], count: int) -> pa.Table:
    """The rows of the highest logits of several scores, highest first; of equal ones, by task id.

    No more than a batch and `count` rows are in memory, however many scores there are.
    """
    best: pa.Table | None = None
    for manifest in manifests:
        for path in verified_paths(manifest):
            with pq.ParquetFile(path) as file:
                wanted = [name for name in ("ra", "dec", "logit", "score", *CARRIED) if name in file.schema_arrow.names]
                for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                    table = pa.Table.from_batches([batch])
                    both = table if best is None else pa.concat_tables([best, table], promote_options="permissive")
                    best = both.sort_by([("logit", "descending"), ("task_id", "ascending")]).slice(0, count)
    return pa.table({}) if best is None else best.combine_chunks()


def category(row: Mapping[str, Any]) -> str:
    """What a candidate is known as: `Tier-A`, a category of confuser, `N1`, or the kind of its image."""
    if row.get("kind") == "positive":
        return f"Tier-{row['tier']}" if row.get("tier") else "positive"
    return str(row.get("confuser_category") or row.get("pool") or row.get("kind"))


def candidates_csv(rows: pa.Table, calibration: Mapping[str, Any] | None, viewer: str) -> str:
    """The CSV of some scored rows.

    Args:
        rows: in the order of their rank.
        calibration: with which a probability is given, of a lens among images like those of val; None leaves it out.
        viewer: the link, with {ra} and {dec}.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    found = rows.to_pylist()
    logits = np.array([row["logit"] for row in found], dtype=float)
    probability: Sequence[Any] = [None] * len(found)
    if calibration is not None and len(found):
        probability = apply_calibration(logits, calibration).tolist()
    for rank, (row, p) in enumerate(zip(found, probability, strict=True), start=1):
        link = viewer.format(ra=row["ra"], dec=row["dec"])
        writer.writerow({**row, "rank": rank, "probability": p, "category": category(row), "viewer": link})
    return text.getvalue()
