"""A dataset of stamps on disk, with one known thing wrong or nothing: pairs of noise, hosts and arcs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.manifest import Manifest, attempt
from dark_halo_scope.injection.schema import UNPAIRED, encode_stamp, stamp_schema
from dark_halo_scope.injection.stamp_parquet import parquet_bytes
from dark_halo_scope.injection.stamps import MODULE

SIZE = 32
SIGMA = 0.01


def _ring(theta_e: float) -> np.ndarray:
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * 0.262
    return np.exp(-0.5 * ((np.hypot(axis, axis[:, None]) - theta_e) / 0.4) ** 2)


def stamp_rows(pairs: int = 120, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs on hosts spread over the sky, two a host, in the split of their cell."""
    rng = np.random.default_rng(seed)
    hosts = (pairs + 1) // 2
    ra, dec = np.repeat(rng.uniform(10, 60, hosts), 2)[:pairs], np.repeat(rng.uniform(-20, 20, hosts), 2)[:pairs]
    cells = healpix_cell(ra, dec)
    splits = split_of_cells(cells)
    rows = []
    one_sided = np.arange(SIZE) < SIZE // 2
    for index in range(pairs):
        control = rng.normal(0, SIGMA, (3, SIZE, SIZE)).astype(np.float32)
        ring = _ring(1.5) * 2 * SIGMA
        values: dict[str, Any] = {
            "task_id": f"{rng.integers(2**63):016x}{index:048x}",
            "experiment_id": "train_stamp32_bandsgrz_gridprior",
            "selection_set_id": "v3",
            "ranking_mode": "none",
            "selection_strategy": "healpix_split",
            "region_split": str(splits[index]),
            "split": str(splits[index]),
            "brickname": f"{index // 20:04d}p000",
            "bandset": "grz",
            "config_id": "PRIOR",
            "region_id": int(cells[index]),
            "healpix_128": int(cells[index]),
            "stamp_size": SIZE,
            "replicate": index % 2,
            "is_control": 0,
            "cutout_ok": 1,
            "metrics_only": 0,
            "ra": float(ra[index]),
            "dec": float(dec[index]),
            "objid": index // 2,
            "theta_e_arcsec": 1.5,
            "theta_e_arcsec_true": 1.5,
            "src_dmag": 3.0,
            "src_reff_arcsec": 0.3,
            "src_e": 0.1,
            "shear": 0.02,
            "psfsize_r": 1.25,
            "psfdepth_r": 24.3,
            "arc_snr": 30.0,
            "lensed_mag_r": 21.0,
            "sampling_weight": 0.5,
            "source_mode": "image",
            "source_id": f"{splits[index]}{index}",
            "host_offset_x_arcsec": 0.0,
            "host_offset_y_arcsec": 0.0,
            "stamp_npz": encode_stamp(control + 2 * ring * one_sided),
            "ctrl_stamp_npz": encode_stamp(control),
            "hardneg_stamp_npz": encode_stamp(control + ring),
        }
        rows.append(values)
    return rows


def as_control(row: dict[str, Any]) -> dict[str, Any]:
    """Make a row an unpaired control: the host alone, no lens."""
    row |= {"is_control": 1, "control_kind": UNPAIRED, "config_id": "CONTROL", "lens_model": "CONTROL"}
    row |= {"stamp_npz": row["ctrl_stamp_npz"], "ctrl_stamp_npz": None, "hardneg_stamp_npz": None}
    row |= {"theta_e_arcsec": 0.0, "theta_e_arcsec_true": None, "arc_snr": None, "lensed_mag_r": None}
    row |= {"source_id": None, "source_mode": None}
    return row


def write_negatives(folder: Path, rows: list[dict[str, Any]]) -> tuple[Path, Manifest]:
    """Publish cutouts without arcs behind negatives.json."""
    output = folder / "negatives.json"
    with attempt(output, "negatives", MODULE, {}, []) as work:
        table = pa.Table.from_pylist(rows, schema=stamp_schema()).sort_by("task_id")
        (work.prefix / "negatives-0000.parquet").write_bytes(parquet_bytes(table))
        return output, work.publish(rows_out=len(rows))


def write_stamps(
    folder: Path,
    rows: list[dict[str, Any]],
    files: int = 3,
    change: Callable[[pa.Table], pa.Table] | None = None,
    extra: tuple[str, ...] = (),
    facts: dict[str, Any] | None = None,
) -> tuple[Path, Manifest]:
    """Publish the rows as `files` stamp files behind stamps.json."""
    output = folder / "stamps.json"
    with attempt(output, "stamps", MODULE, {}, []) as work:
        for number in range(files):
            table = pa.Table.from_pylist(rows[number::files], schema=stamp_schema(extra)).sort_by("task_id")
            table = change(table) if change else table
            (work.prefix / f"stamps-train-{number:04d}-000.parquet").write_bytes(parquet_bytes(table))
        return output, work.publish(rows_out=len(rows), facts=facts or {})
