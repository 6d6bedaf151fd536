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
from dark_halo_scope.evaluation.config import ScoreSettings
from dark_halo_scope.evaluation.pairs import Pairs, Predict, column, theta_e_over_psf

#: Columns carried over from the packed rows where they have them; the first six always do.
CARRIED = (
    "task_id",
    "ra",
    "dec",
    "brickname",
    "theta_e_arcsec",
    "psfsize_r",
    "objid",
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
)

KINDS = ("positive", "control", "hard_negative")


def score_batches(
    predict: Predict, split: Pairs, name: str, settings: ScoreSettings
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Score a split in batches.

    Args:
        predict: the network.
        split: packed images and rows.
        name: of the split, for the column `split`.
        settings: which kinds, and the batch size.

    Yields:
        Scored rows: the carried columns and `split`, `kind`, `label` (1 for positives), `theta_e_over_psf`, `logit`
        (raw, float64) and `score` (its sigmoid). And rows that are not scored, with `quarantine_reason`.

    Raises:
        CorruptDataError: the network returns NaN or infinity for a good image.
    """
    rows = split.rows.select([column_name for column_name in CARRIED if column_name in split.rows.column_names])
    for kind in KINDS:
        if kind not in settings.kinds:
            continue
        images = getattr(split, kind)
        for start in range(0, rows.num_rows, settings.batch):
            pixels = np.asarray(images[start : start + settings.batch], dtype=np.float32)
            batch = split.rows.slice(start, settings.batch)
            reasons = _reasons(pixels, batch)
            good = np.array([reason is None for reason in reasons])
            kept, bad = split_rows(_labelled(rows.slice(start, settings.batch), name, kind), reasons)
            logits = np.asarray(predict(pixels[good], batch.filter(pa.array(good))), dtype=np.float64)
            if not np.isfinite(logits).all():
                first = kept.column("task_id")[int(np.flatnonzero(~np.isfinite(logits))[0])]
                raise CorruptDataError(
                    f"The network's logit of {kind} {first} is not finite, its pixels are; train the network again."
                )
            kept = kept.append_column("logit", pa.array(logits)).append_column("score", pa.array(expit(logits)))
            yield kept, bad


def write_scores(batches: Iterable[tuple[pa.Table, pa.Table]], prefix: Path) -> tuple[int, int, pa.Schema | None]:
    """Stream scored rows into `scores.parquet` and the others into `quarantine/` below `prefix`.

    Returns:
        Number of rows scored, number left out, and the scores' schema (None where there was no batch).
    """
    writer: pq.ParquetWriter | None = None
    count = 0
    quarantined = []
    try:
        for scored, bad in batches:
            writer = writer or pq.ParquetWriter(prefix / "scores.parquet", scored.schema, compression="zstd")
            writer.write_table(scored)
            count += scored.num_rows
            if bad.num_rows:
                quarantined.append(bad)
    finally:
        if writer is not None:
            writer.close()
    if quarantined:
        write_quarantine(prefix, "scores", pa.concat_tables(quarantined))
    return count, sum(table.num_rows for table in quarantined), None if writer is None else writer.schema


def _reasons(pixels: NDArray[np.float32], rows: pa.Table) -> list[str | None]:
    reasons: list[str | None] = [None if np.isfinite(image).all() else "pixels not finite" for image in pixels]
    if "cutout_ok" in rows.column_names:
        for index in np.flatnonzero(np.not_equal(column(rows, "cutout_ok"), 1)):
            reasons[index] = "cutout not ok"
    return reasons


def _labelled(table: pa.Table, split: str, kind: str) -> pa.Table:
    n = table.num_rows
    added = {
        "split": pa.array([split] * n, pa.string()),
        "kind": pa.array([kind] * n, pa.string()),
        "label": pa.array(np.full(n, int(kind == "positive"), dtype=np.int8)),
        "theta_e_over_psf": pa.array(theta_e_over_psf(table)),
    }
    for name, values in added.items():
        table = table.append_column(name, values)
    return table
