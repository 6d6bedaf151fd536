"""Generations that learn from one another: what a change of one makes the others do again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from checkouts import MAIN_RULES, Checkout, make_checkout, planned_rules, planned_trainings
from dark_halo_scope.workflow.resolve import resolve
from rehearsal import write_stand_in

GEN3 = "results/gen3/gates.json"
STAGES = {("gen3", "a1"), ("gen3", "a2")}
TABLES = [f"results/paper/tables/{name}.tex" for name in ("dataset", "hyperparameters", "gates")]
SEEDS = [
    *("gen1_convnext", "gen1_resnet18", "gen1_resolved", "gen2", "gen3", "gen4"),
    *("gen5_cosmos", "gen5_prime", "gen5_prime_paired"),
]


@pytest.fixture(scope="module")
def rehearsed(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which every generation of DR10 has been acted out, up to their table and some of the paper's."""
    folder = tmp_path_factory.mktemp("rehearsal")
    checkout = replace(
        make_checkout(project_root, folder / "checkout", survey="dr10"), programs=write_stand_in(folder / "bin")
    )
    run = checkout.snakemake("generations", *TABLES)
    assert run.returncode == 0, run.stderr[-6000:]
    return checkout


def plan(checkout: Checkout, target: str, *options: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Rules and trainings that would run for a target."""
    run = checkout.snakemake("--dry-run", target, *options)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    return planned_rules(output), planned_trainings(output)


def replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


def test_all_generations_of_the_seeds_are_there_and_nothing_else_is_in_their_table(project_root: Path) -> None:
    for survey in ("mini", "mini_large", "dr10"):
        assert resolve(project_root / "config", survey).main_generations == SEEDS


def test_every_generation_is_gated_on_the_same_pairs(project_root: Path) -> None:
    generations = resolve(project_root / "config", "dr10").generations
    ungated = {name for name, file in generations.items() if file.gate_dataset is None}
    assert ungated == {"real_resnet18", "real_efficientnet_b0", "real_efficientnetv2_s"}
    assert {generations[name].gate_dataset for name in generations.keys() - ungated} == {"v5_cosmos_paired"}
    assert all(generations[name].gates == generations["gen5_prime"].gates for name in SEEDS)


def test_finished_generations_have_nothing_to_do(rehearsed: Checkout) -> None:
    assert plan(rehearsed, "generations") == (set(), set())


def test_performance_takes_scores_of_two_splits_and_strata_those_of_one_and_neither_the_gates(
    rehearsed: Checkout,
) -> None:
    assert plan(rehearsed, "results/gen3/performance.json")[0] == {"score", "measure_performance"}
    # Exposures come from the catalogue of the galaxies; confusers are none of the pairs that generations are gated on.
    assert plan(rehearsed, "results/gen3/stratified_fpr.csv")[0] == {"score", "stratify_fpr"}
    run = rehearsed.snakemake("--dry-run", "results/gen3/performance.json")
    scored = [line for line in (run.stdout + run.stderr).splitlines() if "Scoring v5_cosmos_paired" in line]
    assert sorted(line.partition("(")[2][:4] for line in scored) == ["test", "val)"]


def test_watching_a_training_another_way_trains_nothing_again(rehearsed: Checkout) -> None:
    assert plan(rehearsed, GEN3, "--set-resources", "train:tracking=wandb") == (set(), set())


def test_another_learning_rate_of_the_second_stage_trains_only_that_again(rehearsed: Checkout) -> None:
    with rehearsed.edited("config/generations/gen3.yaml", replacing("{lr: 1.0e-4}", "{lr: 2.0e-4}")):
        assert plan(rehearsed, GEN3) == ({"train", "measure_gates"}, {("gen3", "a2")})


def test_another_learning_rate_of_the_first_stage_trains_both_again(rehearsed: Checkout) -> None:
    with rehearsed.edited("config/generations/gen3.yaml", replacing("{lr: 3.0e-4}", "{lr: 2.0e-4}")):
        assert plan(rehearsed, GEN3) == ({"train", "measure_gates"}, STAGES)


def test_another_training_of_gen2_is_mined_again_and_gen3_learns_from_it(rehearsed: Checkout) -> None:
    with rehearsed.edited("config/generations/gen2.yaml", replacing("batch_images: 512", "batch_images: 384")):
        rules, trainings = plan(rehearsed, GEN3)
    assert rules == {"train", "score", "mine_hard_negatives", "measure_gates"}
    assert trainings == STAGES | {("gen2", "main")}


def test_another_threshold_of_mining_trains_only_who_learns_from_it(rehearsed: Checkout) -> None:
    with rehearsed.edited("config/generations/gen2.yaml", replacing("min_score: 0.90", "min_score: 0.95")):
        assert plan(rehearsed, GEN3) == ({"mine_hard_negatives", "train", "measure_gates"}, STAGES)
    with rehearsed.edited("config/generations/gen3.yaml", replacing("min_score: 0.90", "min_score: 0.95")):
        # Gen4 starts from no weights of gen3, and gen3 is not trained again for its own mining.
        assert plan(rehearsed, "results/gen4/gates.json")[1] == {("gen4", "main")}


def test_a_title_and_the_tables_code_rerun_the_table_alone(rehearsed: Checkout) -> None:
    with (
        rehearsed.edited("config/generations/gen4.yaml", replacing("title: Gen3 with", "title: The third with")),
        rehearsed.edited("lib/dark_halo_scope/paper/generation_table.py", lambda text: text + "\n# An edit.\n"),
    ):
        assert plan(rehearsed, "generations")[0] == {"table_generations", "generations"}


def test_each_table_of_the_paper_is_made_again_by_its_own_code_alone(rehearsed: Checkout) -> None:
    def planned_after(module: str) -> set[str]:
        with rehearsed.edited(f"lib/dark_halo_scope/paper/{module}.py", lambda text: text + "\n# An edit.\n"):
            output = rehearsed.snakemake("--dry-run", *TABLES)
        return planned_rules(output.stdout + output.stderr)

    assert planned_after("dataset_table") == {"table_paper_dataset"}
    assert planned_after("hyperparameter_table") == {"table_paper_hyperparameters"}
    assert planned_after("gate_strata_table") == {"table_paper_gates"}
    assert planned_after("tables") == {"table_paper_dataset", "table_paper_hyperparameters", "table_paper_gates"}


def test_a_stage_that_a_generation_does_not_have_is_one_clear_sentence(rehearsed: Checkout) -> None:
    run = rehearsed.snakemake("--dry-run", "results/gen3/b1/best.json")
    assert run.returncode != 0
    assert "There is no stage 'b1' in this generation; there are: a1, a2." in run.stdout + run.stderr


def test_gen3_is_these_rules_from_the_survey_on(project_root: Path, tmp_path: Path) -> None:
    rules, trainings = plan(make_checkout(project_root, tmp_path / "checkout", survey="dr10"), GEN3)
    mining = {"list_parent_galaxies", "cut_parent_galaxies", "score", "mine_hard_negatives"}
    assert rules == MAIN_RULES | mining
    assert trainings == STAGES | {("gen2", "main")}


def test_the_ablations_train_each_once_and_need_no_other_generation(project_root: Path, tmp_path: Path) -> None:
    checkout = make_checkout(project_root, tmp_path / "checkout", survey="mini")
    names = resolve(checkout.path / "config", "mini").ablations
    rules, trainings = plan(checkout, "ablations")
    assert trainings == {(name, "main") for name in names}
    assert {"score", "table_ablations", "ablations"} <= rules
