"""Galaxies of a catalogue, anywhere on the sky or on the bricks of a small scene, and those bricks' coadds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from brick_scene import BRICK, SIDE, brick_wcs, planes, write_brick
from dark_halo_scope.catalogue.parent import PARENT_SCHEMA
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings

BRICKS = (BRICK, "0003p000", "0006p000")


def galaxies(ra: NDArray, dec: NDArray, bricks: Sequence[str]) -> pa.Table:
    """Rows of a parent sample at these positions (degrees), objid counting from 0, in the split of their cell."""
    cells = healpix_cell(ra, dec)
    splits = split_of_cells(cells)
    rows = []
    for i, brick in enumerate(bricks):
        row = {f.name: 0 if pa.types.is_integer(f.type) else 1.0 for f in PARENT_SCHEMA}
        row |= {f.name: False for f in PARENT_SCHEMA if pa.types.is_boolean(f.type)}
        row |= {"brickname": brick, "objid": i, "release": 10000, "type": "DEV", "rmag": 19.0 + i / 100}
        row |= {"ra": float(ra[i]), "dec": float(dec[i]), "healpix_128": int(cells[i]), "split": str(splits[i])}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=PARENT_SCHEMA)


def scene_galaxies(count: int, edge: int = 0, bricks: Sequence[str] = (BRICK,)) -> pa.Table:
    """Galaxies of the scene's bricks in turn; the first `edge` of them too near to its edge."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(40, SIDE - 40, (2, count))
    x[:edge] = 5.0
    names = [bricks[i % len(bricks)] for i in range(count)]
    places = [brick_wcs(SIDE, name).all_pix2world(x[i], y[i], 0) for i, name in enumerate(names)]
    ra, dec = np.array(places, dtype=float).reshape(count, 2).T
    return galaxies(ra, dec, names)


def write_scene_coadds(folder: Path, bricks: Sequence[str] = BRICKS) -> Manifest:
    """coadds.json of the scene's bricks, in the working directory; pixels go below `folder`."""
    for seed, brick in enumerate(bricks):
        write_brick(folder / "coadds", planes(seed=seed), brick)
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz", "sources")}
    with attempt(Path("survey.json"), "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        work.publish(facts=facts | {"files": files | {"coadds": str(folder / "coadds"), "lenses": []}})
    with attempt(Path("bricks.json"), "manifest", "dark_halo_scope.injection.manifest", {}, []) as work:
        pq.write_table(pa.table({"brickname": list(BRICKS)}), work.prefix / "manifest-train-0000.parquet")
        work.publish(rows_out=1)
    settings = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.5, attempts=1)
    cache_coadds(Path("survey.json"), Path("bricks.json"), Path("coadds.json"), settings, folder / "cache", 1)
    return load_manifest(Path("coadds.json"))
