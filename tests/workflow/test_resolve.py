"""From YAML files to the settings of each rule."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.workflow.resolve import load_yaml, merge, resolve

VALUES = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
MAPPINGS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@given(MAPPINGS)
def test_merging_nothing_changes_nothing(values: dict) -> None:
    assert merge(values, {}) == values == merge({}, values)


@given(MAPPINGS, MAPPINGS)
def test_what_is_merged_over_wins_at_every_depth(base: dict, over: dict) -> None:
    def wins(merged: object, value: object) -> bool:
        if isinstance(value, dict) and value:
            return isinstance(merged, dict) and all(wins(merged[key], item) for key, item in value.items())
        return isinstance(merged, dict) if value == {} else merged == value

    assert wins(merge(base, over), over)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="twice"):
        load_yaml(tmp_path / "a.yaml")


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "mini.yaml").write_text("name: mini\n")
    with pytest.raises(ConfigError, match="there are: mini"):
        load_yaml(tmp_path / "dr11.yaml")


@pytest.mark.parametrize("survey", ["mini", "dr10"])
def test_every_file_under_config_is_valid_for_every_survey(project_root: Path, survey: str) -> None:
    resolved = resolve(project_root / "config", survey)
    assert resolved.survey.survey.name == survey
    assert "gen5_prime" in resolved.generations


def test_a_survey_overrides_settings_of_a_generation_and_of_what_extends_it(project_root: Path) -> None:
    mini = resolve(project_root / "config", "mini").generations
    dr10 = resolve(project_root / "config", "dr10").generations
    for name in ("gen5_prime", "gen5_prime_no_hard_negatives"):
        assert dr10[name].training.model.backbone == "convnext_tiny"
        assert mini[name].training.model.backbone != "convnext_tiny"


def test_sections_are_sorted_json(project_root: Path) -> None:
    text = resolve(project_root / "config", "mini").section("dataset", "v5_cosmos_paired", "stamps")
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_an_unknown_dataset_is_named(project_root: Path) -> None:
    with pytest.raises(ConfigError, match="no dataset 'v9'"):
        resolve(project_root / "config", "mini").section("dataset", "v9", "stamps")
