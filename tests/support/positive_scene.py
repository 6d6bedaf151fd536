"""Made-up lenses, galaxies of sweeps near them, and the positives that the two make."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.lenses import SCHEMA as LENS_SCHEMA
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings, PoolPreset
from dark_halo_scope.catalogue.negative_rows import POOL_SWEEP_COLUMNS
from dark_halo_scope.catalogue.positive_config import PositiveSettings
from dark_halo_scope.catalogue.positive_rows import Matched, galaxies_near, in_bricks, match
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.survey.grid import brick_at
from tiny_survey import flux

ARCSEC = 1 / 3600


def lens(ra: float = 10.0, dec: float = 0.0, **changes: object) -> dict:
    """A row of lenses.json."""
    values = {
        "name": f"DESI-{ra:.5f}{dec:+.5f}",
        "names": ["DESI", "other"],
        "ra": ra,
        "dec": dec,
        "zlens": 0.4,
        "zlens_is_certain": True,
        "type": "galaxy",
        "grading": "probable",
        "refs": ["Storfer et al. (2022) - arXiv:2206.02764", "x"],
        "discovery": "machine_learning_this_survey",
        "tier_gen5_prime": None,
        "theta_e_arcsec": None,
        "is_desi_named": True,
        "n_merged": 1,
    } | changes
    return values | {"tier_grade": "A" if values["grading"] == "confident" else "B"}


def lens_table(*rows: dict) -> pa.Table:
    """lenses.json's table."""
    return pa.Table.from_pylist(list(rows), schema=LENS_SCHEMA)


def galaxy(ra: float = 10.0, dec: float = 0.0, objid: int = 1, **changes: object) -> dict:
    """A usable row of a sweep."""
    values: dict = dict.fromkeys(POOL_SWEEP_COLUMNS, 0)
    values |= {"BRICKNAME": str(brick_at(ra, dec).name), "OBJID": objid, "TYPE": "SER", "RA": ra, "DEC": dec}
    mags = (("G", 21.0), ("R", 19.8), ("Z", 19.0), ("W1", 18.5))
    values |= {f"FLUX_{b}": flux(m) for b, m in mags} | {f"MW_TRANSMISSION_{b}": 0.9 for b, _ in mags}
    values |= {f"NOBS_{b}": 4 for b in "GRZ"} | {"SHAPE_R": 1.0, "SHAPE_E1": 0.2, "SERSIC": 2.0, "EBV": 0.02}
    for number, name in enumerate(("PSFSIZE", "PSFDEPTH", "GALDEPTH")):
        values |= {f"{name}_{b}": 1.5 + 100.0 * number for b in "GRZ"}
    return values | changes


def sweep_table(*rows: dict) -> pa.Table:
    """Rows of a sweep as they are read."""
    return pa.table({name: np.array([row[name] for row in rows]) for name in POOL_SWEEP_COLUMNS})


def galaxies_of(
    sweep: pa.Table,
    lenses: pa.Table,
    settings: PositiveSettings,
    name: str = "sweep.fits",
    pool: PoolPreset = "executed",
) -> pa.Table:
    """Its galaxies near some lens."""
    positions = LensPositions(lenses["ra"].to_numpy(), lenses["dec"].to_numpy())
    return galaxies_near(sweep, name, 0, positions, settings, NegativePoolSettings(preset=pool))[0]


def matched(
    lenses: Sequence[dict],
    galaxies: Sequence[dict],
    bricks: Sequence[str] = (),
    pool: PoolPreset = "executed",
    **changes,
) -> Matched:
    """Lenses matched with galaxies; `bricks` are the footprint, `pool` says which cuts negatives have."""
    settings, table = PositiveSettings(**changes), lens_table(*lenses)
    found = galaxies_of(sweep_table(*galaxies), table, settings, pool=pool)
    return match(table, found, in_bricks(table, bricks), settings)


def write_positives(output: Path, rows: pa.Table) -> Path:
    """A manifest of positives at `output`."""
    with attempt(output, "positives", "dark_halo_scope.catalogue.positives", {}, []) as work:
        pq.write_table(rows, work.prefix / "positives.parquet", compression="zstd")
        work.publish(rows_out=rows.num_rows, facts={})
    return output
