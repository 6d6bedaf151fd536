"""Helpers of the core tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / "lib"

RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Run Python code in a process of its own, in `tmp_path`, with extra environment variables."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(LIB), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
