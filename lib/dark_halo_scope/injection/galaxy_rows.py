"""Galaxies without arcs as rows of a dataset: which are drawn, and what a row says of them.

What lists galaxies needs no more than this; what cuts them out (`negatives.cut_unit`) also imports the renderer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dark_halo_scope.injection.schema import BANDS, stamp_schema
from dark_halo_scope.injection.tasks import hash_fraction, task_id

# What a galaxy gives to its row.
HOST_COLUMNS = (
    *("brickname", "ra", "dec", "split", "healpix_128", "objid", "z_phot", "ebv", "gmag", "rmag", "zmag", "w1mag"),
    *(f"{name}_{band}" for name in ("psfsize", "psfdepth") for band in "grz"),
)


def draw_ranks(galaxies: pa.Table, seed: int) -> npt.NDArray[np.float64]:
    """(N,) uniform numbers in [0, 1) by a hash of each galaxy's name, of which a draw takes the lowest."""
    names = [galaxies[name].to_pylist() for name in ("brickname", "objid", "release")]
    return np.array(
        [hash_fraction(f"{brick}_{objid}_{release}|{seed}") for brick, objid, release in zip(*names, strict=True)],
        dtype=np.float64,
    )


def control_rows(
    galaxies: pa.Table, kinds: pa.ChunkedArray, selection_set: str, experiment_id: str, stamp_size: int
) -> pa.Table:
    """Rows as an injection manifest has them for controls, one per galaxy.

    Args:
        galaxies: N rows with the parent sample's columns and `sampling_weight`.
        kinds: (N,) what becomes their `control_kind`.
        selection_set: their `selection_set_id`.
        experiment_id: of the dataset that they join or are.
        stamp_size: pixels.
    """
    count = galaxies.num_rows
    names = (galaxies[name].to_pylist() for name in ("split", "brickname", "ra", "dec"))
    constants: dict[str, Any] = {
        "experiment_id": experiment_id,
        "selection_set_id": selection_set,
        "ranking_mode": "none",
        "selection_strategy": "healpix_split",
        "bandset": BANDS,
        "pipeline_version": "dark_halo_scope",
        "lens_model": "CONTROL",
        "ab_zp_nmgy": 22.5,
        "stamp_size": stamp_size,
        "replicate": 0,
        "is_control": 1,
        **dict.fromkeys(("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear"), 0.0),
    }
    tasks = [
        task_id(experiment_id, selection_set, split, brick, ra, dec, kind.upper(), 0)
        for split, brick, ra, dec, kind in zip(*names, kinds.to_pylist(), strict=True)
    ]
    columns = {name: pa.array([value] * count) for name, value in constants.items()}
    columns |= {name: galaxies[name] for name in (*HOST_COLUMNS, "sampling_weight")}
    columns |= {
        "task_id": pa.array(tasks, pa.string()),
        "config_id": pc.utf8_upper(kinds),
        "control_kind": kinds,
        "region_split": galaxies["split"],
        "region_id": galaxies["healpix_128"],
        "galaxy_id": pc.binary_join_element_wise(
            galaxies["brickname"], galaxies["objid"].cast(pa.string()), pa.scalar("_")
        ),
    }
    schema = stamp_schema()
    return pa.table({f.name: columns[f.name].cast(f.type) for f in schema if f.name in columns})
