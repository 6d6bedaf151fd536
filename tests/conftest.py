"""Fixtures that every test package shares."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


def _existing(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} is absent: {path} (set DHS_REAL_DATA to the folder of real survey files)")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real survey files: $DHS_REAL_DATA, else ../shared/real beside the checkout."""
    return _existing(Path(os.environ.get("DHS_REAL_DATA", ROOT.parent / "shared" / "real")), "real survey data")


@pytest.fixture(scope="session")
def reference_data(real_data: Path) -> Path:
    """Folder of independent physics values, beside the real survey files."""
    return _existing(real_data.parent / "reference", "reference physics values")
