"""From YAML files to the settings of each rule."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.workflow.merge import merge
from dark_halo_scope.workflow.resolve import load_yaml, resolve, settings_getter

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


SURVEY = """
survey: {name: sky, release: dr10.1, region: south, coadd_layout: release, files: {bricks: b, brick_summary: s,
  sweeps: w, photoz: p, coadds: c, lenses: [l], sources: q}}
coadds: {pixels: 3600, min_finite_fraction: 1.0, max_missing_fraction: 0.0, attempts: 3}
"""
STAGES = """
dataset: any
training: {epochs: 6, optimizer: {lr: 3.0e-4, weight_decay: 0.02}}
stages:
  a1: {}
  a2: {start_from: a1, training: {optimizer: {lr: 1.0e-4}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of settings with the survey `sky` and generations by name, and return it."""

    def write(survey: str = SURVEY, **generations: str) -> Path:
        datasets = dict.fromkeys(("any", "v5_cosmos_paired"), "{source: parent, parent: {}}")
        for kind, files in (("surveys", {"sky": survey}), ("datasets", datasets), ("generations", generations)):
            (tmp_path / kind).mkdir(exist_ok=True)
            for name, text in files.items():
                (tmp_path / kind / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def test_a_stage_is_what_all_stages_share_and_what_it_changes(config: Callable[..., Path]) -> None:
    generation = resolve(config(one=STAGES), "sky").generation("one")
    first, second = (generation.stage_training(stage) for stage in ("a1", "a2"))
    assert first == generation.training
    assert second.optimizer.lr == 1.0e-4
    assert second.model_copy(update={"optimizer": first.optimizer}) == first
    assert (second.optimizer.weight_decay, second.epochs) == (0.02, 6)
    assert (generation.first_stage, generation.last_stage) == ("a1", "a2")


def test_a_generation_without_stages_has_one(config: Callable[..., Path]) -> None:
    generation = resolve(config(one="dataset: any"), "sky").generation("one")
    assert list(generation.stages) == ["main"]


def test_the_training_rule_takes_the_settings_of_its_stage_and_others_of_the_first(config: Callable[..., Path]) -> None:
    getter = settings_getter(resolve(config(one=STAGES), "sky"))("generation", "training")
    rate = {
        stage: json.loads(getter(SimpleNamespace(generation="one", **wildcards)))["optimizer"]["lr"]
        for stage, wildcards in (("a1", {"stage": "a1"}), ("a2", {"stage": "a2"}), (None, {}))
    }
    assert rate == {"a1": 3.0e-4, "a2": 1.0e-4, None: 3.0e-4}
    with pytest.raises(ConfigError, match=r"no stage 'b'.*there are: a1, a2"):
        getter(SimpleNamespace(generation="one", stage="b"))


def test_all_stages_are_checked_before_any_is_trained(config: Callable[..., Path]) -> None:
    resolved = resolve(config(one=STAGES), "sky")
    stages = json.loads(resolved.trainings("one"))["stages"]
    assert {name: training["optimizer"]["lr"] for name, training in stages.items()} == {"a1": 3.0e-4, "a2": 1.0e-4}


def test_a_generation_may_leave_out_stages_of_the_one_that_it_extends(config: Callable[..., Path]) -> None:
    other = "extends: one\nstages: {a1: null, a2: null, main: {training: {epochs: 9}}}"
    generation = resolve(config(one=STAGES, other=other), "sky").generation("other")
    assert list(generation.stages) == ["main"]
    assert generation.stage_training("main").epochs == 9
    assert generation.stage_training("main").optimizer.lr == 3.0e-4


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ("{a1: {start_from: a2}, a2: {}}", "a1 starts from 'a2', which is no stage before it"),
        ("{a1: {start_from: a1}}", "no stage before it"),
        ("{a1: {training: {epochs: 0}}}", "stage a1.*epochs"),
        ("{a1: {training: {epoch: 3}}}", "stage a1.*epoch"),
        ("{a1: {training: {epochs: 2}}}", "warmup_epochs must be fewer than epochs"),
        ("{A1: {}}", "cannot be called 'A1'"),
        ("{a1: null}", "no stage"),
        ("{a1: {lr: 1}}", "lr"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused_before_anything_runs(
    config: Callable[..., Path], stages: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve(config(one=f"dataset: any\nstages: {stages}"), "sky")


@pytest.mark.parametrize(
    ("generations", "sentence"),
    [
        ({"one": "two", "two": "one"}, "hard negatives of itself through one <- two <- one"),
        ({"one": "one"}, "hard negatives of itself"),
    ],
)
def test_hard_negatives_come_from_generations_that_do_not_wait_for_this_one(
    config: Callable[..., Path], generations: dict[str, str], sentence: str
) -> None:
    pool = "training: {sampler: {draw: images}}"
    files = {name: f"dataset: any\nhard_negatives_of: {source}\n{pool}" for name, source in generations.items()}
    with pytest.raises(ConfigError, match=sentence):
        resolve(config(**files), "sky")


@pytest.mark.parametrize("key", ["negative_control_of", "ablation_of", "hard_negatives_of"])
def test_a_generation_that_another_names_exists(config: Callable[..., Path], key: str) -> None:
    one = f"{{dataset: any, {key}: three, training: {{sampler: {{draw: images}}}}}}"
    with pytest.raises(ConfigError, match=f"one has {key}: three, which does not exist; there are: one, two"):
        resolve(config(one=one, two="dataset: any"), "sky")


def test_hard_negatives_are_refused_where_a_stage_shows_none_of_them(config: Callable[..., Path]) -> None:
    mined = "dataset: any\nhard_negatives_of: two\nstages: {a1: {training: {sampler: {negative_prob: 0.1}}}, a2: {}}"
    with pytest.raises(ConfigError, match=r"stage a2 shows no image of the pool.*hard_negatives_of: two"):
        resolve(config(one=mined, two="dataset: any"), "sky")
    with_pool = mined.replace("a2: {}", "a2: {training: {sampler: {draw: images}}}")
    assert resolve(config(one=with_pool, two="dataset: any"), "sky").generation("one").hard_negatives_of == "two"


@pytest.mark.parametrize("key", ["dataset", "gate_dataset"])
def test_a_dataset_that_a_generation_names_exists(config: Callable[..., Path], key: str) -> None:
    values = json.dumps({"dataset": "any"} | {key: "v9"})
    with pytest.raises(ConfigError, match=f"one has {key}: v9, which config/datasets does not have; there are: any"):
        resolve(config(one=values), "sky")


@pytest.mark.parametrize(("key", "value"), [("gate_dataset", "any"), ("gates", "{max_pairs: 9}")])
def test_an_ablation_is_gated_as_its_base_is(config: Callable[..., Path], key: str, value: str) -> None:
    other = f"{{extends: base, ablation_of: base, {key}: {value}}}"
    with pytest.raises(ConfigError, match=f"ablation other has another {key} than its base base"):
        resolve(config(base="dataset: any", other=other), "sky")
    # Main generations need not be: their table says which were gated otherwise.
    assert resolve(config(base="dataset: any", other=f"{{extends: base, {key}: {value}}}"), "sky")


def test_tables_are_of_generations_and_of_ablations_after_their_base(config: Callable[..., Path]) -> None:
    ablation = "{extends: base, ablation_of: base, title: less}"
    control = "{extends: two, negative_control_of: two}"
    base = "{dataset: any, title: base}"
    resolved = resolve(config(a=ablation, base=base, c=ablation, one=base, two=base, zero=control), "sky")
    assert resolved.ablations == ["base", "a", "c"]
    assert resolved.main_generations == ["one", "two"]
    assert json.loads(resolved.table_settings(["base", "a"])) == {"titles": {"base": "base", "a": "less"}}


@pytest.mark.parametrize("bases", [("one", "two"), ("a", "one"), ("b", "b")])
def test_all_ablations_are_of_one_generation_that_is_none(config: Callable[..., Path], bases: tuple[str, str]) -> None:
    a, b = (f"{{dataset: any, ablation_of: {base}}}" for base in bases)
    with pytest.raises(ConfigError, match="must be of one generation that is no ablation"):
        resolve(config(a=a, b=b, one="dataset: any", two="dataset: any"), "sky")


def test_a_survey_may_extend_another_with_its_overrides(config: Callable[..., Path]) -> None:
    overrides = "overrides: {generations: {one: {training: {epochs: 4}}}}"
    folder = config(survey=f"{SURVEY}\n{overrides}", one="dataset: any")
    larger = "extends: sky\nsurvey: {name: wide}\noverrides: {generations: {one: {training: {seed: 7}}}}"
    (folder / "surveys" / "wide.yaml").write_text(larger)
    resolved = resolve(folder, "wide")
    assert (resolved.survey.survey.name, resolved.survey.survey.release) == ("wide", "dr10.1")
    assert (resolved.generation("one").training.epochs, resolved.generation("one").training.seed) == (4, 7)


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


def test_what_the_paper_names_exists_and_its_finder_has_real_images(config: Callable[..., Path]) -> None:
    for chosen, sentence in (
        ("finder: none_such", r"paper\.finder: none_such, which config/generations does not have; there are: one"),
        ("finder: one", r"paper\.finder: one, which is trained on any and not on real images"),
        ("generation: two", r"paper\.generation: two, which config/generations does not have"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            resolve(config(SURVEY + f"paper: {{{chosen}}}\n", one=STAGES), "sky")
    assert resolve(config(SURVEY + "paper: {finder: null}\n", one=STAGES), "sky").survey.paper.finder is None
