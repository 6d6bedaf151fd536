"""survey.json names every file of a survey, and checks those that the workflow drew itself."""

import json
import socket
from pathlib import Path

import pytest
import yaml

from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import BadInputError, ConfigError, CorruptDataError
from dark_halo_scope.survey.config import CoaddSettings, SurveySettings
from dark_halo_scope.survey.describe import main as describe
from dark_halo_scope.survey.description import load_survey


def _section(project_root: Path, survey: str, section: str) -> dict:
    return yaml.safe_load((project_root / f"config/surveys/{survey}.yaml").read_text())[section]


@pytest.mark.parametrize("survey", ["mini", "dr10"])
def test_the_configurations_are_valid(project_root, survey):
    assert validate(SurveySettings, _section(project_root, survey, "survey"), survey).name == survey
    validate(CoaddSettings, _section(project_root, survey, "coadds"), survey)


def test_dr10_is_described_without_network_at_the_places_of_the_plans(project_root, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    settings = json.dumps(_section(project_root, "dr10", "survey"))
    describe(["--settings", settings, "--output", str(tmp_path / "survey.json")])
    survey = load_survey(tmp_path / "survey.json")
    assert survey.files.coadds == "/lambda/nfs/darkhaloscope-training-dc/dr10/coadd_cache"
    assert survey.coadd_layout == "cache"
    assert str(survey.files.sweeps).startswith("s3://darkhaloscope/")
    assert survey.releases == ("dr10",)
    assert survey.manifest.objects == 0


def test_an_embedded_survey_pairs_every_sweep_with_its_photo_z(survey):
    pairs = survey.sweep_pairs()
    assert len(pairs) >= 1
    for sweep, photoz in pairs:
        assert photoz is not None
        assert Path(photoz).name == Path(sweep).name.replace(".fits", "-pz.fits")
        assert survey.verified(sweep).is_file()


def test_a_changed_file_of_an_embedded_survey_is_refused(survey_json, tmp_path):
    text = json.loads(survey_json.read_text())
    survey = load_survey(survey_json)
    catalogue = survey.verified(survey.files.lenses[0])
    original = catalogue.read_bytes()
    try:
        catalogue.write_bytes(original.replace(b"galaxy", b"galaxz", 1))
        with pytest.raises(CorruptDataError, match=r"lenscat\.csv"):
            survey.verified(survey.files.lenses[0])
    finally:
        catalogue.write_bytes(original)
    assert text["objects"] == survey.manifest.objects


def test_a_file_that_is_no_survey_is_refused(manifest_of, tmp_path):
    with pytest.raises(BadInputError, match="'survey' is needed"):
        load_survey(manifest_of(tmp_path / "m.json", ["1102p240"]))


def test_a_survey_exists_or_is_drawn_but_not_both(project_root):
    settings = _section(project_root, "mini", "survey")
    with pytest.raises(ConfigError, match="either files or embedded"):
        validate(SurveySettings, {**settings, "embedded": None}, "here")


def test_unknown_and_impossible_settings_are_refused(project_root):
    settings = _section(project_root, "mini", "survey")
    for change in ({"lensess": 3}, {"bricks": 0}, {"field_per_arcmin2": float("nan")}):
        with pytest.raises(ConfigError):
            validate(SurveySettings, {**settings, "embedded": {**settings["embedded"], **change}}, "here")
