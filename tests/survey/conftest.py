"""A tiny embedded survey, drawn once per session."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.survey.config import MiniSettings
from dark_halo_scope.survey.describe import main as describe
from dark_halo_scope.survey.description import SurveyDescription, load_survey

TINY = MiniSettings(
    seed=7,
    bricks=6,
    pixels=300,
    sweep_tiles=2,
    min_cells_per_split=1,
    lrgs_per_brick=12,
    spirals_per_brick=1,
    edge_ons_per_brick=1,
    rings_per_brick=1,
    mergers_per_brick=1,
    field_per_arcmin2=15,
    stars_per_arcmin2=1.5,
    bright_stars_per_brick=0.5,
    lenses=12,
    confirmed_fraction=0.34,
    sources=12,
)
IDENTITY = {"name": "tiny", "release": "dr10.1", "region": "south", "coadd_layout": "release"}
COADDS = {"pixels": 300, "min_finite_fraction": 1.0, "max_missing_fraction": 0.0, "attempts": 2}


@pytest.fixture(scope="session")
def tiny() -> MiniSettings:
    return TINY


@pytest.fixture(scope="session")
def survey_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """survey.json of the tiny survey; read only."""
    path = tmp_path_factory.mktemp("tiny") / "survey.json"
    settings = json.dumps({**IDENTITY, "embedded": TINY.model_dump()})
    describe(["--settings", settings, "--output", str(path), "--processes", "1"])
    return path


@pytest.fixture(scope="session")
def survey(survey_json: Path) -> SurveyDescription:
    return load_survey(survey_json)


def write_manifest(path: Path, bricknames: Sequence[str]) -> Path:
    """A dataset's manifest with a row for each name."""
    with attempt(path, "manifest", "dark_halo_scope.survey.describe", {}, []) as work:
        pq.write_table(pa.table({"brickname": pa.array(bricknames, pa.string())}), work.prefix / "rows.parquet")
        work.publish()
    return path


@pytest.fixture
def manifest_of():
    return write_manifest


@pytest.fixture(scope="session")
def coadd_settings() -> str:
    return json.dumps(COADDS)
