"""A change reruns exactly what it invalidates: the set of rules that a dry run plans after each edit."""

import os

import pytest
import yaml

from checkouts import MAIN_JOB, Checkout

FROM_STAMPS_ON = {"inject_stamps", "check_dataset", "pack_images", "train", "measure_gates"}


def test_a_finished_job_has_nothing_to_do(finished: Checkout) -> None:
    assert finished.planned() == set()


def test_touching_every_file_reruns_nothing(finished: Checkout) -> None:
    for folder in ("lib", "rules", "config", "envs", "results"):
        for file in (finished.path / folder).rglob("*"):
            if file.is_file() and file.suffix in {".py", ".smk", ".yaml", ".lock", ".json"}:
                os.utime(file)
    assert finished.planned() == set()


def test_reordering_a_settings_file_reruns_nothing(finished: Checkout) -> None:
    def reordered(text: str) -> str:
        return yaml.safe_dump(dict(reversed(yaml.safe_load(text).items())), sort_keys=False)

    with finished.edited("config/generations/gen5_prime.yaml", reordered):
        assert finished.planned() == set()


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("evaluation/gates.py", {"train", "measure_gates"}),
        ("evaluation/measure_gates.py", {"measure_gates"}),
        ("training/train.py", {"train", "measure_gates"}),
        ("images/pack.py", {"pack_images", "train", "measure_gates"}),
        # Sources are placed within the caustic, which the manifest computes with the same deflections.
        ("lensing/deflection.py", {"build_injection_manifest", "cache_coadds"} | FROM_STAMPS_ON),
        ("lensing/render.py", FROM_STAMPS_ON),
        (
            "injection/measure_sources.py",
            {"measure_sources", "build_injection_manifest", "cache_coadds"} | FROM_STAMPS_ON,
        ),
        ("evaluation/mining.py", set()),
        ("evaluation/mining_config.py", set()),
        ("injection/parents.py", set()),
        ("spark/submit.py", set()),
        ("evaluation/show_gates.py", set()),
    ],
)
def test_editing_code_reruns_the_rules_that_execute_it(finished: Checkout, module: str, rules: set[str]) -> None:
    with finished.edited(f"lib/dark_halo_scope/{module}", lambda text: text + "\n# An edit.\n"):
        assert finished.planned() == rules


def test_editing_a_lock_reruns_what_runs_in_that_environment(finished: Checkout) -> None:
    with finished.edited("envs/train.lock", lambda text: text.replace("torch==", "torch==9")):
        assert finished.planned() == {"pack_images", "train", "measure_gates"}


def test_adding_an_import_reruns_the_importer(finished: Checkout) -> None:
    importing = "\nimport dark_halo_scope.evaluation.show_gates\n"
    with finished.edited("lib/dark_halo_scope/evaluation/measure_gates.py", lambda text: text + importing):
        assert finished.planned() == {"measure_gates"}


def test_a_run_of_another_survey_is_refused_and_says_how_to_choose_a_directory(finished: Checkout) -> None:
    description = (finished.path / "results" / "survey.json").read_bytes()
    run = finished.snakemake(MAIN_JOB, survey="mini")
    assert run.returncode != 0
    assert "--directory" in run.stderr + run.stdout
    assert (finished.path / "results" / "survey.json").read_bytes() == description
    assert finished.snakemake("--dry-run", MAIN_JOB, survey="mini").returncode == 0, "dry runs stay free"


def test_changing_one_figure_s_code_draws_that_figure_alone(finished: Checkout) -> None:
    drawn = {
        "paper/training_examples.py": "training_examples",
        "paper/six_channels.py": "six_channels",
        "paper/gate_figure.py": "gates",
    }
    rules = {
        "training_examples": "figure_paper_examples",
        "six_channels": "figure_six_channels",
        "gates": "figure_gates",
    }
    targets = [f"results/paper/figures/{name}.pdf" for name in drawn.values()]
    run = finished.snakemake(*targets)
    assert run.returncode == 0, run.stderr + run.stdout
    assert finished.planned(*targets) == set()
    for module, name in drawn.items():
        with finished.edited(f"lib/dark_halo_scope/{module}", lambda text: text + "\n# An edit.\n"):
            assert finished.planned(*targets) == {rules[name]}
    with finished.edited("workflow/report/figure_gates.rst", lambda text: text + "\nMore.\n"):
        assert finished.planned(*targets) == set()
