"""What would run, before anything has run."""

import re
import shlex
import time
from pathlib import Path

import pytest

from checkouts import MAIN_JOB, MAIN_RULES, Checkout, make_checkout, planned_rules
from dark_halo_scope.core.cli import load_settings
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import Manifest, attempt
from dark_halo_scope.spark import emr_job
from dark_halo_scope.spark.config import EmrSettings
from dark_halo_scope.survey.describe import describe
from dark_halo_scope.workflow.resolve import resolve

EMR_RULES = {
    "select_parent_sample",
    "build_injection_manifest",
    "select_confusers",
    "list_stored_stamps",
    "build_negative_pool",
    "sample_negatives",
}
COADD_RULES = {"inject_stamps", "cut_negatives", "cut_parent_galaxies", "adopt_stored_stamps"}
PARENT_RULES = {
    "describe_survey",
    "match_lenses",
    "select_parent_sample",
    "list_parent_galaxies",
    "cache_coadds",
    "cut_parent_galaxies",
    "check_dataset",
    "pack_images",
}
GPU_RULES = {"train", "measure_gates", "score"}


@pytest.fixture(scope="module")
def fresh(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing has run."""
    return make_checkout(project_root, tmp_path_factory.mktemp("plan") / "checkout", survey="mini")


def test_anchors_are_fetched_without_any_dataset(fresh: Checkout) -> None:
    rules = {"describe_survey", "match_lenses", "list_anchors", "fetch_cutouts"}
    assert fresh.planned("results/anchors/cutouts.json") == rules


def test_the_main_job_on_the_embedded_survey_is_these_rules(fresh: Checkout) -> None:
    assert fresh.planned(MAIN_JOB) == MAIN_RULES


def test_the_negative_control_adds_only_a_training_and_a_comparison(fresh: Checkout) -> None:
    assert fresh.planned("results/gen5_prime_no_hard_negatives/comparison.json") == MAIN_RULES | {
        "compare_negative_control"
    }


def test_scores_of_a_split_need_no_gates(fresh: Checkout) -> None:
    assert fresh.planned("results/gen5_prime/scores/v5_cosmos_paired/val.json") == (
        MAIN_RULES - {"measure_gates"} | {"score"}
    )


def test_a_dataset_with_confusers_adds_their_selection_and_their_cutouts(fresh: Checkout) -> None:
    paired = fresh.planned("results/datasets/v5_cosmos_paired/packed.json")
    unpaired = fresh.planned("results/datasets/v5_cosmos/packed.json")
    assert paired == MAIN_RULES - {"train", "measure_gates"}
    assert unpaired == paired | {"select_confusers", "cut_negatives"}


def test_parents_are_a_dataset_without_sources_and_injections(fresh: Checkout) -> None:
    assert fresh.planned("results/datasets/parent/packed.json") == PARENT_RULES


def test_negatives_of_real_images_come_from_sweeps_and_lenses_alone(fresh: Checkout) -> None:
    pool = {"describe_survey", "match_lenses", "build_negative_pool"}
    assert fresh.planned("results/catalogue/negatives.json") == pool | {"match_positives", "sample_negatives"}
    assert fresh.planned("results/catalogue/negative_pool_gates.json") == pool | {"measure_negative_pool"}


def test_realism_compares_with_cutouts_and_coadds_of_known_lenses_and_needs_no_gates(fresh: Checkout) -> None:
    scored = MAIN_RULES - {"measure_gates"} | {"score"}
    realism = scored | {"list_anchors", "fetch_cutouts", "measure_arc_light", "measure_realism"}
    assert fresh.planned("results/gen5_prime/realism.json") == realism
    assert fresh.planned("results/gen5_prime/errors.png") == realism | {"figure_errors_page"}


def test_known_lenses_are_scored_from_cutouts_and_counted_at_thresholds_of_validation_scores(fresh: Checkout) -> None:
    scored = MAIN_RULES - {"measure_gates"} | {"list_anchors", "fetch_cutouts", "score_anchors"}
    assert fresh.planned("results/gen5_prime/anchor_scores.json") == scored
    assert fresh.planned("results/gen5_prime/anchors.csv") == scored | {
        "score",
        "measure_performance",
        "evaluate_anchors",
    }


def test_calibration_and_completeness_take_scores_of_two_splits_and_no_gates(fresh: Checkout) -> None:
    scored = MAIN_RULES - {"measure_gates"} | {"score"}
    assert fresh.planned("results/gen5_prime/completeness_surface.csv") == scored | {"measure_completeness"}
    calibrated = scored | {"calibrate", "check_calibration"}
    assert fresh.planned("results/gen5_prime/calibration.passed.json") == calibrated


def test_hard_negatives_are_mined_from_scores_of_parents_and_need_no_gates(fresh: Checkout) -> None:
    scored = MAIN_RULES - {"measure_gates"} | PARENT_RULES | {"score"}
    assert fresh.planned("results/gen5_prime/scores/parent/train.json") == scored
    assert fresh.planned("results/gen5_prime/hard_negatives.json") == scored | {"mine_hard_negatives"}


def test_every_dataset_is_packed_and_those_with_arcs_have_a_page(fresh: Checkout) -> None:
    run = fresh.snakemake("--dry-run", "datasets")
    assert run.returncode == 0, run.stderr + run.stdout
    packed = set(re.findall(r"Packing (\w+) into", run.stdout + run.stderr))
    pages = set(re.findall(r"Drawing the page of (\w+):", run.stdout + run.stderr))
    assert "parent" in packed
    assert pages == packed - {"parent", "realimage_v1"}
    # On a survey that exists, parents are too many to be packed unasked.
    run = fresh.snakemake("--dry-run", "datasets", survey="dr10")
    assert run.returncode == 0, run.stderr + run.stdout
    assert set(re.findall(r"Packing (\w+) into", run.stdout + run.stderr)) == packed - {"parent"}


def test_a_page_measures_arcs_and_draws(fresh: Checkout) -> None:
    packed = fresh.planned("results/datasets/v4_sota/packed.json")
    page = fresh.planned("results/datasets/v4_sota/page.png")
    assert page == packed - {"pack_images"} | {"measure_arc_light", "figure_dataset_page"}


def test_a_dataset_that_exists_is_taken_over_and_not_built(fresh: Checkout) -> None:
    source = "config/datasets/v5_cosmos_paired.yaml"
    with fresh.edited(source, lambda text: text.replace("source: build", "source: existing")):
        planned = fresh.planned("results/datasets/v5_cosmos_paired/packed.json")
        built = fresh.planned("results/datasets/v3_color_relaxed/stamps.json")
    assert planned == {
        "describe_survey",
        "list_stored_stamps",
        "cache_coadds",
        "adopt_stored_stamps",
        "check_dataset",
        "pack_images",
    }
    assert {"build_injection_manifest", "inject_stamps"} <= built


def test_dr10_resolves_without_network_and_says_where_each_rule_runs(fresh: Checkout) -> None:
    """In under 5 s on an idle machine; the bound here leaves room for a busy one."""
    start = time.monotonic()
    run = fresh.snakemake("--profile", "lambda", "--dry-run", MAIN_JOB)
    seconds = time.monotonic() - start
    assert run.returncode == 0, run.stderr
    output = run.stdout + run.stderr
    assert planned_rules(output) == MAIN_RULES
    assert output.count("(Spark: emr)") == len(EMR_RULES & MAIN_RULES)
    assert output.count("(Spark: local)") == len(COADD_RULES & MAIN_RULES)
    assert output.count("(asks for 1 GPU)") == len(GPU_RULES & MAIN_RULES)
    assert seconds < 30, f"the dry run took {seconds:.0f} s"


def spark_commands(output: str) -> list[tuple[str, str, list[str]]]:
    """Backend, module and arguments of each Spark rule in the output of a dry run."""
    found = []
    for line in re.findall(
        r"^Shell command: (exec python -m dark_halo_scope\.spark\.submit .*) 2> ", output, re.MULTILINE
    ):
        words = shlex.split(line)
        dashes = words.index("--")
        found.append((words[words.index("--backend") + 1], words[dashes - 1], words[dashes + 1 :]))
    return found


def test_on_dr10_every_step_for_emr_can_start_and_what_reads_coadds_stays_where_they_are(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = make_checkout(project_root, tmp_path / "checkout", survey="mini")
    existing = "config/datasets/v4_sota.yaml"
    datasets = ("v5_cosmos/negatives", "v4_sota/stamps", "parent/stamps")
    targets = [MAIN_JOB, "results/catalogue/negatives.json", *(f"results/datasets/{name}.json" for name in datasets)]
    with checkout.edited(existing, lambda text: text.replace("source: build", "source: existing")):
        run = checkout.snakemake("--profile", "lambda", "--dry-run", *targets)
    assert run.returncode == 0, run.stderr
    commands = spark_commands(run.stdout + run.stderr)
    modules: dict[str, set[str]] = {}
    for backend, module, _ in commands:
        modules.setdefault(backend, set()).add(module.rpartition(".")[2])
    assert modules == {
        "emr": {
            "parent",
            "manifest",
            "select_confusers",
            "list_stored",
            "negative_pool",
            "positives",
            "sample_negatives",
        },
        "local": {"stamps", "cut_negatives", "cut_parents", "adopt_stored"},
    }
    assert all(("--coadds" in arguments) == (backend == "local") for backend, _, arguments in commands)

    # What comes before them, as it is made on the node: small data below results/, or none at all.
    monkeypatch.chdir(checkout.path)
    describe(resolve(Path("config"), "dr10").survey.survey, Path("results/survey.json"), processes=1)
    for kind in ("lenses", "sources"):
        with attempt(Path(f"results/catalogue/{kind}.json"), kind, "dark_halo_scope.core.resume", {}, []) as work:
            (work.prefix / f"{kind}.parquet").write_bytes(b"rows")
            work.publish()
    # And as it is made on EMR.
    on_s3 = Manifest(kind="parent", uri="s3://bucket/parent/0123456789abcdef", objects=1, bytes=1, sha256="0" * 64)
    write_json(Path("results/catalogue/parent.json"), on_s3.model_dump())
    settings = load_settings("profiles/lambda/emr.yaml", EmrSettings)
    write_json(
        Path("results/catalogue/negative_pool.json"), on_s3.model_copy(update={"kind": "negative_pool"}).model_dump()
    )
    jobs = [emr_job.plan(module, arguments, settings) for backend, module, arguments in commands if backend == "emr"]
    assert len({job.name for job in jobs}) == len(jobs) == 8
    travelling = {path.name for job in jobs for path in job.inputs}
    assert {"survey.json", "lenses.json", "lenses.parquet", "sources.json", "sources.parquet"} <= travelling


def test_an_unknown_generation_is_one_clear_sentence(fresh: Checkout) -> None:
    run = fresh.snakemake("--dry-run", "results/gen99/gates.json")
    assert run.returncode != 0
    assert "There is no generation 'gen99'" in run.stderr + run.stdout


def test_an_unknown_survey_names_those_there_are(fresh: Checkout) -> None:
    run = fresh.snakemake("--dry-run", MAIN_JOB, survey="sdss")
    assert run.returncode != 0
    assert "there are: dr10, mini" in run.stderr + run.stdout


def test_the_picture_in_the_readme_is_the_dag(fresh: Checkout, project_root: Path) -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", (project_root / "README.md").read_text(), re.MULTILINE))
    graph = fresh.snakemake(
        "--rulegraph",
        "mermaid-js",
        "results/gen5_prime/scores/v5_cosmos_paired/test.json",
        "results/gen5_prime_no_hard_negatives/comparison.json",
    ).stdout
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]$", graph, re.MULTILINE))
    edges = re.findall(r"^\s*(id\d+) --> (id\d+)$", graph, re.MULTILINE)
    assert drawn == {(names[start], names[end]) for start, end in edges}
