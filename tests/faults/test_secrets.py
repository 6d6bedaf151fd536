"""Fault 25: a secret in the environment or in settings is in no log, JSON file, lock or traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / "lib"
CANARIES = {"SERVICE_TOKEN": "canary-of-the-token", "AWS_SECRET_ACCESS_KEY": "canary/of+the/key=="}
SETTING = "canary-of-a-setting"

JOB = f"""
import logging, os, sys, threading
sys.path.insert(0, {str(LIB)!r})
from pathlib import Path
from dark_halo_scope.core.cli import load_settings, run
from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.core.manifest import attempt, write_result
from dark_halo_scope.core.progress import track

class Access(Settings):
    password: str

def main(argv):
    settings = load_settings(sys.argv[1], Access)
    token, key = os.environ["SERVICE_TOKEN"], os.environ["AWS_SECRET_ACCESS_KEY"]
    logging.getLogger("job").info("asking with %s", token)
    for _ in track(range(2), f"asking with {{key}}"):
        pass
    try:
        raise ValueError(f"refused: {{key}}")
    except ValueError:
        logging.getLogger("job").exception("asking failed")
    with attempt(Path("results/x.json"), "x", "dark_halo_scope.core.resume", settings, []) as work:
        print(Path("results/.x.json.lock").read_text(), file=sys.stderr)
        work.publish(facts={{"note": f"made with {{token}}"}})
    address = f"https://me:{{key}}@h/x"
    write_result(Path("results/y.json"), {{"u": address}}, "dark_halo_scope.core.resume", settings, [])
    if sys.argv[2] == "ours":
        raise ConfigError(f"The server refuses {{token}}; correct it.")
    if sys.argv[2] == "settings":
        load_settings('{{"password": "x", "pasword": "' + token + '"}}', Access)
    raise RuntimeError(f"{{token}} and {{key}}")
run(main)
"""


@pytest.mark.parametrize("error", ["ours", "settings", "other"])
def test_no_output_holds_a_secret(tmp_path, error):
    done = subprocess.run(
        [sys.executable, "-c", JOB, f'{{"password": "{SETTING}"}}', error, CANARIES["SERVICE_TOKEN"]],
        cwd=tmp_path,
        env={**os.environ, **CANARIES},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("[redacted]") >= 4
    written = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 5
    for where, text in {"stderr": done.stderr, "stdout": done.stdout, **written}.items():
        for canary in CANARIES.values():
            assert canary not in text, where
        # The lock shows a command line, and who gives a secret there shows it to every `ps`.
        if where != "stderr":
            assert SETTING not in text, where
