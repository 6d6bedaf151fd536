"""Scores as Parquet rows: one per image, with every variable by which results are stratified."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.quarantine import split_rows, write_quarantine
from dark_halo_scope.evaluation.pairs import Predict, column, theta_e_over_psf
from dark_halo_scope.images.packed import ImageBatch

#: Columns carried over from the packed rows where they have them; the first six always do.
CARRIED = (
    "task_id",
    "ra",
    "dec",
    "brickname",
    "theta_e_arcsec",
    "psfsize_r",
    "objid",
    "galaxy_id",
    "control_kind",
    "healpix_128",
    "psfdepth_r",
    "arc_snr",
    "arc_snr_maxpix",
    "src_dmag",
    "src_reff_arcsec",
    "source_mode",
    "magnification",
    "lensed_mag_g",
    "lensed_mag_r",
    "lensed_mag_z",
    "z_phot",
    "ebv",
    "sampling_weight",
    "bad_pixel_frac",
    "sampling_prob",
    "nobs_z",
    "pool",
    "confuser_category",
    "tier",
    "sample_weight",
    "discovery",
    "refs",
    "type",
    "type_bin",
    "nobs_z_bin",
    "mag_r",
)

# A row group for each forward pass would make a footer that takes more memory than the scores.
_ROW_GROUP = 50_000


def score_batches(predict: Predict, batches: Iterable[ImageBatch], split: str) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Score images batch by batch; no more than one batch is in memory.

    Args:
        predict: the network.
        batches: images of a packed split.
        split: its name.

    Yields:
        Scored rows: the carried columns and `split`, `kind`, `packed_row` (place in the kind's array), `label` (1 for
        positives), `theta_e_over_psf`, `logit` (raw, float64) and `score` (its sigmoid). And rows that are not scored,
        with `quarantine_reason`.

    Raises:
        CorruptDataError: the network returns NaN or infinity for a good image.
    """
    for batch in batches:
        pixels = np.asarray(batch.images, dtype=np.float32)
        reasons = _reasons(pixels, batch.rows)
        good = np.array([reason is None for reason in reasons])
        kept, bad = split_rows(_labelled(batch, split), reasons)
        logits = np.asarray(predict(pixels[good], batch.rows.filter(pa.array(good))), dtype=np.float64)
        if not np.isfinite(logits).all():
            first = kept.column("task_id")[int(np.flatnonzero(~np.isfinite(logits))[0])]
            raise CorruptDataError(
                f"The network's logit of {batch.kind} {first} is not finite, its pixels are; train the network again."
            )
        kept = kept.append_column("logit", pa.array(logits)).append_column("score", pa.array(expit(logits)))
        yield kept, bad


def write_scores(
    batches: Iterable[tuple[pa.Table, pa.Table]], prefix: Path, name: str = "scores"
) -> tuple[int, int, pa.Schema | None]:
    """Stream scored rows into `{name}.parquet` and the others into `quarantine/` below `prefix`.

    Returns:
        Number of rows scored, number left out, and the scores' schema (None where there was no batch).
    """
    writer: pq.ParquetWriter | None = None
    count = waiting = 0
    quarantined: list[pa.Table] = []
    held: list[pa.Table] = []

    def write() -> None:
        if writer is not None and held:
            writer.write_table(pa.concat_tables(held))
            held.clear()

    try:
        for scored, bad in batches:
            writer = writer or pq.ParquetWriter(prefix / f"{name}.parquet", scored.schema, compression="zstd")
            held.append(scored)
            waiting += scored.num_rows
            if waiting >= _ROW_GROUP:
                write()
                waiting = 0
            count += scored.num_rows
            if bad.num_rows:
                quarantined.append(bad)
        write()
    finally:
        if writer is not None:
            writer.close()
    if quarantined:
        write_quarantine(prefix, name, pa.concat_tables(quarantined))
    return count, sum(table.num_rows for table in quarantined), None if writer is None else writer.schema


def _reasons(pixels: NDArray[np.float32], rows: pa.Table) -> list[str | None]:
    reasons: list[str | None] = [None if np.isfinite(image).all() else "pixels not finite" for image in pixels]
    if "cutout_ok" in rows.column_names:
        for index in np.flatnonzero(np.not_equal(column(rows, "cutout_ok"), 1)):
            reasons[index] = "cutout not ok"
    return reasons


def _labelled(batch: ImageBatch, split: str) -> pa.Table:
    table = batch.rows.select([name for name in CARRIED if name in batch.rows.column_names])
    n = table.num_rows
    added = {
        "split": pa.array([split] * n, pa.string()),
        "kind": pa.array([batch.kind] * n, pa.string()),
        "packed_row": pa.array(np.arange(batch.first, batch.first + n, dtype=np.int64)),
        "label": pa.array(np.full(n, int(batch.kind == "positive"), dtype=np.int8)),
        "theta_e_over_psf": pa.array(theta_e_over_psf(batch.rows)),
    }
    for name, values in added.items():
        table = table.append_column(name, values)
    return table
