"""Stamps as the earlier pipeline stored them, on small bricks of noise: every variant's columns, folders and codecs.

Arcs are Sersic sources (of the `v5` variants too: what matters there are columns) whose theta_e_arcsec lacks sqrt(q) in
v3 and v4, cut at the rounded WCS position, with pixel 32 of the stamp on the target. Light below a thousandth of an
arc's peak is left out, so that a stamp's edge is the coadd's.
"""

import gzip
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brick_scene import PSFSIZE, SIDE, brick_wcs, planes, write_brick
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.injection.schema import PHASE_4C_FIELDS, encode_stamp
from dark_halo_scope.injection.stored import VARIANTS
from dark_halo_scope.injection.stored_config import Variant
from dark_halo_scope.injection.tasks import task_id
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Psf
from dark_halo_scope.lensing.render import render_arc
from dark_halo_scope.lensing.sources import SersicSource
from dark_halo_scope.survey.grid import brick_at

SIZE = 64
SCALE = 0.262
# What the earlier pipeline called splits: regions, which have nothing to do with cells.
STORED_SPLITS = ("train", "val", "test")


def bricks_of_all_splits() -> dict[str, str]:
    """A brick on the equator in the cells of each split: split -> brick."""
    found: dict[str, str] = {}
    for number in range(400):
        ra = 0.125 + 0.25 * number
        split = str(split_of_cells(healpix_cell([ra], [0.0]))[0])
        # A stamp's brick lies in one cell: its corners too.
        corners = healpix_cell([ra - 0.012, ra + 0.012] * 2, [-0.012, -0.012, 0.012, 0.012])
        if len(set(corners.tolist())) == 1:
            found.setdefault(split, str(brick_at(ra, 0.0).name))
    return found


BRICKS = bricks_of_all_splits()


def brick_planes(brick: str) -> dict[str, np.ndarray]:
    return planes(seed=int(brick[:4]))


def survey_json(folder: Path, bricks: Iterable[str] = BRICKS.values()) -> Path:
    """survey.json of a survey with these bricks' coadds, and the coadds."""
    for brick in bricks:
        write_brick(folder / "coadds", brick_planes(brick), brick)
    files = dict.fromkeys(("bricks", "brick_summary", "sweeps", "photoz", "sources"), "none")
    path = folder / "survey.json"
    with attempt(path, "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        work.publish(facts=facts | {"files": files | {"coadds": str(folder / "coadds"), "lenses": []}})
    return path


def stored_row(
    variant: Variant,
    brick: str,
    x: float,
    y: float,
    number: int = 0,
    is_control: bool = False,
    first: tuple[int, int] = (-32, -32),
    moved: tuple[int, int] = (0, 0),
    content: dict[str, np.ndarray] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A stored row of a host at pixel x, y of a brick.

    Args:
        first: column and row of the stamp's first pixel, from the rounded position.
        moved: pixels by which the arc is displaced.
        content: the brick's pixels.
        changes: columns, also those that the arc is made from.
    """
    content = content or brick_planes(brick)
    facts = VARIANTS[variant]
    ra, dec = (float(value) for value in brick_wcs(SIDE, brick).all_pix2world(x, y, 0))
    rng = np.random.default_rng([number, 5])
    split, config = STORED_SPLITS[number % 3], "CONTROL" if is_control else f"te1.2_dm1_{number % 4}"
    values: dict[str, Any] = {
        "experiment_id": "train_stamp64_bandsgrz_gridgrid_sota",
        "selection_set_id": "v3_color_relaxed_topk",
        "ranking_mode": "n_lrg",
        "selection_strategy": "topk",
        "region_split": split,
        "brickname": brick,
        "bandset": "grz",
        "config_id": config,
        "region_id": 7,
        "stamp_size": SIZE,
        "replicate": number % 2,
        "is_control": int(is_control),
        "cutout_ok": 1,
        "metrics_only": 0,
        "ra": ra,
        "dec": dec,
        "theta_e_arcsec": 0.0 if is_control else 1.0 + 0.3 * rng.random(),
        "src_dmag": 1.0,
        "src_reff_arcsec": 0.25,
        "src_e": 0.2,
        "shear": 0.02,
        "task_seed64": number,
        "src_x_arcsec": 0.15,
        "src_y_arcsec": -0.1,
        "src_phi_rad": 0.4,
        "shear_phi_rad": 1.0,
        "src_gr": 0.3,
        "src_rz": 0.2,
        "ab_zp_nmgy": 22.5,
        "psfsize_r": PSFSIZE["r"],
        "psfdepth_r": 24.2,
        "ebv": 0.05,
        "bad_pixel_frac": 0.0,
        "wise_brightmask_frac": 0.0,
        "lens_e": 0.2 + 0.2 * rng.random(),
        "lens_phi_rad": float(rng.uniform(0, np.pi)),
        "psf_bin": 1,
        "depth_bin": 2,
        "metrics_ok": 1,
        "physics_valid": 1,
        "pipeline_version": "phase4c",
        "lens_model": "CONTROL" if is_control else "SIE",
        **({} if is_control else {f"psf_fwhm_used_{band}": size for band, size in PSFSIZE.items()}),
        **({"source_mode": "cosmos", "cosmos_index": number, "cosmos_hlr_arcsec": 0.4} if facts.unused else {}),
        **changes,
    }
    values["task_id"] = changes.get("task_id") or task_id(
        values["experiment_id"], values["selection_set_id"], values["region_split"], brick, ra, dec,
        values["config_id"], values["replicate"],
    )  # fmt: skip
    x0, y0 = round(x) + first[0], round(y) + first[1]
    square = slice(y0, y0 + SIZE), slice(x0, x0 + SIZE)
    host = np.stack([content[f"image-{band}"][square] for band in "grz"])
    arc = np.zeros_like(host)
    if not is_control:
        arc = _arc(values, facts.convention, facts.psf, ((x - x0), (y - y0)), moved)
        weights = np.stack([content[f"invvar-{band}"][square] for band in "grz"])
        values.setdefault("arc_snr", float((arc[1] * np.sqrt(weights[1])).max()))
        values.setdefault("magnification", None if variant.startswith("v4") else 4.0)
        values["total_injected_flux_r"] = float(arc[1].sum())
    values.setdefault("stamp_npz", encode_stamp(host + arc))
    if variant == "v5_cosmos_paired":
        values.setdefault("ctrl_stamp_npz", encode_stamp(host))
    return values


def _arc(
    values: dict[str, Any], convention: str, psf: str, target: tuple[float, float], moved: tuple[int, int]
) -> np.ndarray:
    e, shear, angle = values["lens_e"], values["shear"], values["shear_phi_rad"]
    q = (1 - e) / (1 + e)
    theta_e = values["theta_e_arcsec"] / (math.sqrt(q) if convention == "lacks_sqrt_q" else 1.0)
    x, y = ((at - (SIZE - 1) / 2) * SCALE for at in target)
    lens = Lens(theta_e, q, values["lens_phi_rad"], shear * math.cos(2 * angle), shear * math.sin(2 * angle), x, y)
    src_e = values["src_e"]
    source = SersicSource(
        x + values["src_x_arcsec"],
        y + values["src_y_arcsec"],
        values["src_reff_arcsec"],
        1.0,
        (1 - src_e) / (1 + src_e),
        values["src_phi_rad"],
    )
    psfs = [Psf(psf, values[f"psf_fwhm_used_{band}"]) for band in "grz"]  # type: ignore[arg-type]
    arc = render_arc(lens, source, psfs, [0.5, 0.7, 0.9])
    arc = np.where(arc < 1e-3 * arc.max(axis=(1, 2), keepdims=True), np.float32(0), arc)
    return np.roll(arc, (moved[1], moved[0]), axis=(1, 2))


def stored_rows(variant: Variant, hosts: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Positives on `hosts` hosts of each brick, two configurations each; of unpaired variants as many controls."""
    rows = []
    number = 0
    for brick in BRICKS.values():
        content = brick_planes(brick)
        rng = np.random.default_rng(int(brick[:4]))
        for _ in range(hosts):
            x, y = (float(value) for value in rng.uniform(45, SIDE - 45, 2))
            for _ in range(2):
                rows.append(stored_row(variant, brick, x, y, number, content=content, **changes))
                number += 1
            if variant != "v5_cosmos_paired":
                x, y = (float(value) for value in rng.uniform(45, SIDE - 45, 2))
                rows.append(stored_row(variant, brick, x, y, number, True, content=content))
                number += 1
    return rows


def variant_schema(variant: Variant, optional: bool = True) -> pa.Schema:
    """Every field nullable, as after a Spark re-read."""
    facts = VARIANTS[variant]
    fields = (*PHASE_4C_FIELDS, *facts.extra, *(facts.optional if optional else ()))
    return pa.schema([field.with_nullable(True) for field in fields])


def write_stored(
    folder: Path,
    rows: list[dict[str, Any]],
    variant: Variant,
    layout: str = "hive",
    codec: str = "gzip",
    wrapped: bool = False,
    change: Callable[[pa.Table], pa.Table] | None = None,
    optional: bool = True,
) -> Path:
    """Parquet files as Spark leaves them, two a split, in row groups of five rows.

    Args:
        layout: `hive`, with the split as a folder, or `column`.
        wrapped: stamps in a gzip wrapper.
        change: applied to each file's table.
        optional: write the columns that only later runs had.
    """
    root = folder / "stamps" / rows[0]["experiment_id"]
    schema = variant_schema(variant, optional)
    for split in STORED_SPLITS:
        target = root / (f"region_split={split}" if layout == "hive" else split)
        here = [dict(row) for row in rows if row["region_split"] == split]
        for row in here if wrapped else []:
            row["stamp_npz"] = gzip.compress(row["stamp_npz"])
        for part in range(2):
            if not here[part::2]:
                continue
            table = pa.Table.from_pylist(here[part::2], schema=schema)
            table = change(table) if change else table
            if layout == "hive":
                table = table.drop_columns(["region_split"])
            target.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, target / f"part-{part:05d}-c000.{codec}.parquet", compression=codec, row_group_size=5)
    (root / "_SUCCESS").touch()
    return folder / "stamps"
