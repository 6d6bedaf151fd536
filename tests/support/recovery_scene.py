"""Hosts of two bricks of the test split, their coadds, and all that injection and recovery reads of them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brick_scene import PSFSIZE, SIDE, brick_wcs, planes, write_brick
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells, split_of_key
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.injection import measure_sources
from dark_halo_scope.injection.recovery_schema import HOST_SCHEMA
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from source_banks import gaussian, write_galsim_bank

COADDS = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.5, attempts=1)
PARENT_COLUMNS = (*HOST_SCHEMA.names[1:], "release")


@cache
def bricks_of(split: str, count: int) -> tuple[str, ...]:
    """Names of bricks on the equator whose middle lies well within cells of a split."""
    names = []
    for number in range(0, 1400):
        name = f"{int((number * 0.25 + 0.125) * 10):04d}p000"
        ra, dec = (
            values.ravel() for values in np.meshgrid(number * 0.25 + 0.125 + np.linspace(-0.02, 0.02, 5), [-0.02, 0.02])
        )
        if set(split_of_cells(healpix_cell(ra, dec))) == {split}:
            names.append(name)
        if len(names) == count:
            break
    return tuple(names)


def host(x: float, y: float, brick: str, objid: int, **changes: Any) -> dict[str, Any]:
    """A host at pixel x, y of a brick, as the parent sample has it and more."""
    ra, dec = (float(value) for value in brick_wcs(SIDE, brick).all_pix2world(x, y, 0))
    cell = int(healpix_cell(ra, dec)[0])
    return {
        "galaxy_id": f"{brick}_{objid}",
        "brickname": brick,
        "objid": objid,
        "release": 10000,
        "healpix_128": cell,
        "split": str(split_of_cells([cell])[0]),
        "ra": ra,
        "dec": dec,
        "z_phot": 0.4,
        **{f"psfsize_{band}": size for band, size in PSFSIZE.items()},
        **{f"psfdepth_{band}": depth for band, depth in (("g", 24.5), ("r", 24.0), ("z", 23.0))},
        "ebv": 0.03,
        **{f"{band}mag": mag for band, mag in (("g", 21.0), ("r", 19.5), ("z", 18.7))},
        "shape_e1": 0.1,
        "shape_e2": -0.05,
        **changes,
    }


def some_hosts(count: int, split: str = "test") -> list[dict[str, Any]]:
    """So many hosts in two bricks of a split."""
    rng = np.random.default_rng(3)
    bricks = bricks_of(split, 2)
    return [host(*rng.uniform(60, SIDE - 60, 2), bricks[number % 2], number) for number in range(count)]


def table(hosts: list[dict[str, Any]]) -> pa.Table:
    """Hosts as `HOST_SCHEMA`."""
    return pa.Table.from_pylist(hosts, schema=HOST_SCHEMA)


def write_hosts(path: Path, hosts: list[dict[str, Any]], kind: str = "parent", files: int = 2) -> None:
    """A catalogue of hosts behind a manifest, in some files."""
    full = pa.Table.from_pylist(hosts)
    keep = [name for name in full.column_names if name != "galaxy_id" or kind != "parent"]
    with attempt(path, kind, "dark_halo_scope.catalogue.parent", {"files": files}, []) as work:
        for number in range(files):
            pq.write_table(
                full.select(keep).take(pa.array(range(number, len(hosts), files), pa.int64())),
                work.prefix / f"{number}.parquet",
            )
        work.publish(rows_out=len(hosts), columns={name: str(full.schema.field(name).type) for name in keep})


def write_lenses(path: Path, positions: list[tuple[float, float]]) -> None:
    """Positions of known lenses behind a manifest."""
    with attempt(path, "lenses", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        ra, dec = zip(*positions, strict=True) if positions else ((), ())
        pq.write_table(
            pa.table({"ra": pa.array(ra, pa.float64()), "dec": pa.array(dec, pa.float64())}),
            work.prefix / "lenses.parquet",
        )
        work.publish(rows_out=len(positions))


def _bank(folder: Path) -> str:
    """A bank of two galaxies of the test split."""
    idents = [ident for ident in range(100, 200) if split_of_key(f"source_{ident}", 42) == "test"][:2]
    images = [50 * gaussian(81, sigma) for sigma in (6.0, 8.0)]
    return str(write_galsim_bank(folder / "bank", images, IDENT=np.array(idents)))


def write_inputs(folder: Path, hosts: list[dict[str, Any]]) -> None:
    """survey.json, parent.json, lenses.json, coadds.json, sources.json in the working directory `folder`."""
    for number, brick in enumerate(sorted({one["brickname"] for one in hosts})):
        write_brick(folder / "coadds", planes(seed=number), brick)
    files = {name: "none" for name in ("bricks", "brick_summary", "sweeps", "photoz")} | {"sources": _bank(folder)}
    with attempt(Path("survey.json"), "survey", "dark_halo_scope.survey.describe", {}, []) as work:
        facts = {"name": "toy", "release": "dr10", "region": "south", "coadd_layout": "cache", "embedded": False}
        work.publish(facts=facts | {"files": files | {"coadds": str(folder / "coadds"), "lenses": []}})
    write_hosts(Path("parent.json"), hosts)
    write_lenses(Path("lenses.json"), [])
    measure_sources.main(
        ["--survey", "survey.json", "--settings", "{}", "--processes", "1", "--output", "sources.json"]
    )
    cache_coadds(Path("survey.json"), Path("parent.json"), Path("coadds.json"), COADDS, folder / "cache", 1)
