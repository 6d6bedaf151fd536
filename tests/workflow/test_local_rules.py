"""Rules that need the network run where the workflow runs, and how politely they ask reruns none of them."""

import re
from pathlib import Path

import pytest
import yaml

from dark_halo_scope.core.code import closure
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings

DOWNLOADS = {"cache_coadds", "fetch_cutouts", "cut_real_images"}


def rules_of(root: Path) -> dict[str, str]:
    """Name -> text of every rule in rules/."""
    texts = [path.read_text() for path in sorted((root / "rules").glob("*.smk"))]
    parts = [part for text in texts for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]]
    return {part.partition(":")[0]: part for part in parts}


def asks_a_service(rule: str) -> bool:
    """Whether the rule's module opens a client of the cutout service."""
    module = re.search(r'code\("dark_halo_scope\.([\w.]+)"', rule)
    if module is None:
        return False
    [path] = [one for one in closure(f"dark_halo_scope.{module[1]}") if one.match(module[1].replace(".", "/") + ".py")]
    return "open_client(" in path.read_text()


@pytest.mark.parametrize("name", sorted(DOWNLOADS))
def test_what_downloads_is_a_local_rule(project_root: Path, name: str) -> None:
    assert "\n    localrule: True\n" in rules_of(project_root)[name]


def test_no_other_rule_asks_the_cutout_service(project_root: Path) -> None:
    rules = rules_of(project_root)
    assert {name for name, text in rules.items() if asks_a_service(text)} == DOWNLOADS - {"cache_coadds"}


def test_how_politely_a_service_is_asked_is_a_resource_of_those_who_ask_and_a_param_of_none(project_root: Path) -> None:
    for name, text in rules_of(project_root).items():
        resources, _, params = text.partition("\n    params:")
        assert 'settings("survey", "asking")' not in params, name
        assert ('asking=settings("survey", "asking")' in resources) == asks_a_service(text), name
        assert ("--asking {resources.asking:q}" in params) == asks_a_service(text), name


def test_what_is_a_param_of_those_who_ask_does_not_say_how(project_root: Path) -> None:
    assert not set(CutoutServiceSettings.model_fields) & set(AskingSettings.model_fields)
    survey = yaml.safe_load((project_root / "config/surveys/dr10.yaml").read_text())
    assert set(survey["asking"]) <= set(AskingSettings.model_fields)
    assert set(survey["cutouts"]) <= set(CutoutServiceSettings.model_fields)
