"""What a finder of real images takes, from the catalogue of lenses to its selection function."""

from pathlib import Path

import pytest

from checkouts import Checkout, make_checkout

DATASET_RULES = {
    "describe_survey",
    "match_lenses",
    "match_positives",
    "build_negative_pool",
    "sample_negatives",
    "list_real_images",
    "cache_coadds",
    "cut_real_images",
    "check_training_data",
    "pack_images",
}
FROZEN_RULES = DATASET_RULES | {"train", "score", "validate_finder", "freeze_model"}
# Hosts come from the parent sample, sources of one family from a bank of galaxies.
RECOVERY_RULES = FROZEN_RULES | {"select_parent_sample", "measure_sources", "inject_recovery"}
SELECTION_RULES = RECOVERY_RULES | {"measure_selection_function"}


@pytest.fixture(scope="module")
def fresh(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing has run."""
    return make_checkout(project_root, tmp_path_factory.mktemp("real") / "checkout", survey="mini")


def test_the_selection_function_is_one_call_from_the_catalogue_of_lenses(fresh: Checkout) -> None:
    assert fresh.planned("results/real_resnet18/selection_function.json") == SELECTION_RULES


def test_the_finder_adds_the_ladder_lenses_it_never_saw_three_drawings_and_the_gates_of_the_pool(
    fresh: Checkout,
) -> None:
    drawings = {"figure_validation", "figure_finder_selection", "figure_ladder"}
    measured = {"measure_ladder", "measure_negative_pool", "match_known_lenses", "measure_known_lenses"}
    assert fresh.planned("finder") == SELECTION_RULES | drawings | measured | {"finder"}


def test_lenses_that_a_finder_never_saw_need_no_injections(fresh: Checkout) -> None:
    planned = fresh.planned("results/real_resnet18/known_lenses.json")
    assert planned == DATASET_RULES | {
        "train",
        "score",
        "validate_finder",
        "match_known_lenses",
        "measure_known_lenses",
    }


@pytest.mark.parametrize("generation", ["real_efficientnet_b0", "real_efficientnetv2_s"])
def test_other_networks_go_the_same_way(fresh: Checkout, generation: str) -> None:
    assert fresh.planned(f"results/{generation}/selection_function.fits") == SELECTION_RULES


def test_the_figure_of_validation_shows_lenses_that_it_never_saw(fresh: Checkout) -> None:
    planned = fresh.planned("results/real_resnet18/validation.png")
    assert {"figure_validation", "match_known_lenses", "measure_known_lenses"} <= planned


def test_a_finder_is_frozen_before_anything_is_injected(fresh: Checkout) -> None:
    assert fresh.planned("results/real_resnet18/frozen.json") == FROZEN_RULES


def test_a_generation_of_simulated_lenses_has_no_selection_function(fresh: Checkout) -> None:
    run = fresh.snakemake("--dry-run", "results/gen5_prime/selection_function.json")
    assert run.returncode != 0
    assert "MissingRuleException" in run.stderr + run.stdout


@pytest.mark.parametrize("path", ["service", "stored"])
def test_arcs_are_not_injected_into_other_pixels_than_the_finder_learned_from(fresh: Checkout, path: str) -> None:
    """Noise of the viewer's cutouts is not that of coadds, and tells them apart."""
    where = "stored_positives: a, stored_negatives: b, " if path == "stored" else ""
    edit = fresh.edited(
        "config/datasets/realimage_v1.yaml", lambda text: f"source: real\nreal: {{{where}path: {path}}}\n"
    )
    with edit:
        assert "freeze_model" in fresh.planned("results/real_resnet18/frozen.json")
        assert "measure_known_lenses" not in fresh.planned("results/real_resnet18/validation.png")
        run = fresh.snakemake("--dry-run", "results/real_resnet18/recovery.json")
    assert run.returncode != 0
    assert f"realimage_v1 has `real.path: {path}`, and injections are made into coadds" in run.stderr + run.stdout
