"""The DAG acted out: Snakemake runs every rule for real, and each job only writes that it was there.

So plans of generations that learn from one another can be tested in seconds, with the provenance that Snakemake keeps.
"""

import sys
from pathlib import Path

_STAND_IN = '''#!{python}
"""Stands in for `python -m dark_halo_scope...`: every output is a JSON file with the job's arguments."""
import json, pathlib, sys

OUTPUTS = ("--output", "--history")
option = None
for argument in sys.argv[1:]:
    if argument.startswith("--"):
        option = argument
    elif option in OUTPUTS:
        path = pathlib.Path(argument)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sys.argv[1:]))
'''


def write_stand_in(folder: Path) -> Path:
    """A folder for the front of PATH in which `python` is the stand-in."""
    folder.mkdir(parents=True)
    script = folder / "python"
    script.write_text(_STAND_IN.format(python=sys.executable))
    script.chmod(0o755)
    return folder
