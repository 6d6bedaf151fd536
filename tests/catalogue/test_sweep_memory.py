"""What a task that reads a sweep promises about memory: it does not grow with the sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fitsio
import pytest
from numpy.lib.recfunctions import repack_fields

import tiny_survey
from dark_halo_scope.catalogue.negative_rows import POOL_SWEEP_COLUMNS
from dark_halo_scope.catalogue.selection import SWEEP_COLUMNS

FEW, MANY = 20_000, 150_000
PARTS, WHOLE = 10_000, 10**9
# Rows that are held whole take 0.6 to 1 kB each, and what a neighbour is judged by takes 60 bytes.
MOST_GROWTH_MB = 60

WORK = """
import json, sys
from pathlib import Path
import numpy as np
import peak_memory
import tiny_survey
from dark_halo_scope.catalogue import negative_pool, parent, select_confusers
from dark_halo_scope.catalogue.config import ConfuserSettings, ParentSettings
from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.catalogue.negative_pool_config import NegativePoolSettings
rule, sweep, part_rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
lens = np.array([180.0]), np.array([80.0])
if rule == "select_parent_sample":
    known = tiny_survey.BRICKS
    order = np.argsort(known.name)
    yes, box = np.ones(len(order), dtype=bool), np.stack([known.ra1, known.ra2, known.dec1, known.dec2], axis=1)
    bricks = parent.Bricks(known.name[order], yes, ~yes, box[order])
    parts = parent.select_file(sweep, None, ["dr10"], bricks, *lens, ParentSettings(), part_rows)
    rows = sum(part.rows.num_rows for part in parts)
elif rule == "build_negative_pool":
    parts = negative_pool.select_file(
        sweep, "a sweep", ["dr10"], LensPositions(*lens), NegativePoolSettings(preset="plan"), part_rows
    )
    rows = sum(part.rows.num_rows for part in parts)
else:
    parts = select_confusers.select_file(sweep, None, ["dr10"], *lens, ConfuserSettings(), part_rows)
    rows = sum(table.num_rows for table, _ in parts)
print(json.dumps([rows, peak_memory.peak_mb()]))
"""


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Sweep files by their number of rows."""
    folder = tmp_path_factory.mktemp("sweeps")
    for count in (FEW, MANY):
        columns = list(dict.fromkeys([*SWEEP_COLUMNS, *POOL_SWEEP_COLUMNS]))
        fitsio.write(folder / f"{count}.fits", repack_fields(tiny_survey.crowded_rows(count)[columns]))
    return {count: folder / f"{count}.fits" for count in (FEW, MANY)}


def _peak_mb(rule: str, sweep: Path, part_rows: int) -> float:
    """Largest resident memory of a process that selects from one sweep file, MB."""
    arguments = [sys.executable, "-c", WORK, rule, str(sweep), str(part_rows)]
    # The path that pytest gave itself.
    path = os.pathsep.join(sys.path)
    done = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, peak = json.loads(done.stdout)
    assert rows == int(sweep.stem) // 20
    return peak


@pytest.mark.parametrize(
    "rule",
    [
        "build_negative_pool",
        # These two read sweeps with the same code.
        *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("select_parent_sample", "select_confusers")),
    ],
)
def test_ten_times_the_rows_in_one_sweep_take_no_more_memory(sweeps: dict[int, Path], rule: str) -> None:
    few, many = (_peak_mb(rule, sweeps[count], PARTS) for count in (FEW, MANY))
    assert many - few < MOST_GROWTH_MB
    # And the test would notice: a file that is held whole.
    assert _peak_mb(rule, sweeps[MANY], WHOLE) - few > MOST_GROWTH_MB
