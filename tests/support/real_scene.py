"""Real lenses and negatives on the bricks of a small scene, as `list_real_images` lists them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brick_scene import BRICK
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest
from dark_halo_scope.injection.real_rows import REAL_SCHEMA
from galaxy_scene import scene_galaxies

SIZE = 51


def real_row(galaxy: dict[str, Any], lens: bool, size: int = SIZE, **values: Any) -> dict[str, Any]:
    """A row of a lens or of a negative at the place of a parent galaxy."""
    row: dict[str, Any] = {
        f.name: 0 if pa.types.is_integer(f.type) else "" if pa.types.is_string(f.type) else 1.0 for f in REAL_SCHEMA
    }
    row |= {name: galaxy[name] for name in ("brickname", "objid", "ra", "dec", "split", "healpix_128")}
    name = f"{galaxy['brickname']}_{galaxy['objid']}"
    row |= {"task_id": name, "galaxy_id": name, "cutout_path": f"{name}.npz", "region_split": galaxy["split"]}
    row |= {"region_id": galaxy["healpix_128"], "stamp_size": size, "bandset": "grz", "theta_e_arcsec": None}
    row |= {"type": "DEV", "type_bin": "DEV", "nobs_z": 4, "nobs_z_bin": "3-5", "psfdepth_r": 24.0, "psfsize_r": 1.2}
    if lens:
        row |= {"label": 1, "is_control": 0, "tier": "A", "config_id": "POSITIVE", "lens_model": "REAL", "pool": None}
        row |= {"control_kind": None, "confuser_category": None, "sampling_prob": None, "sampling_weight": None}
    else:
        row |= {"label": 0, "is_control": 1, "tier": "N1", "config_id": "N1", "lens_model": "CONTROL", "pool": "N1"}
        row |= {"control_kind": "N1", "confuser_category": None, "sampling_prob": 0.01, "sampling_weight": 100.0}
    return row | values


def scene_rows(count: int, edge: int = 0, bricks: Sequence[str] = (BRICK,), size: int = SIZE) -> list[dict[str, Any]]:
    """Rows on the scene's bricks, every third of them a lens, the first `edge` too near to a brick's edge."""
    galaxies = scene_galaxies(count, edge, bricks).to_pylist()
    return [real_row(galaxy, number % 3 == 0, size) for number, galaxy in enumerate(galaxies)]


def write_listed(rows: Sequence[dict[str, Any]], path: str = "coadds", files: int = 2) -> Manifest:
    """Publish rows behind manifest.json, whole bricks per file."""
    table = pa.Table.from_pylist(list(rows), schema=REAL_SCHEMA)
    bricks = sorted(set(table["brickname"].to_pylist()))
    with attempt(Path("manifest.json"), "galaxies", "dark_halo_scope.injection.list_parents", {}, []) as work:
        for number in range(files):
            mine = set(bricks[number::files])
            here = [row for row in rows if row["brickname"] in mine]
            pq.write_table(
                pa.Table.from_pylist(here, schema=REAL_SCHEMA), work.prefix / f"galaxies-{number:04d}.parquet"
            )
        splits = {split: table["split"].to_pylist().count(split) for split in sorted(set(table["split"].to_pylist()))}
        facts = {"path": path, "splits": splits, "split_seed": 42, "experiment_id": f"real_stamp{SIZE}_bandsgrz"}
        work.publish(rows_out=table.num_rows, facts=facts)
    return load_manifest(Path("manifest.json"), "galaxies")
