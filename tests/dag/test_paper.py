"""What the paper asks for, and what its captions say."""

import re
from pathlib import Path

import pytest

from checkouts import Checkout, make_checkout

FIGURES = {
    "figure_paper_examples",
    "figure_six_channels",
    "figure_gates",
    "figure_roc",
    "figure_anchor_gallery",
    "figure_selection_function",
}


@pytest.fixture(scope="module")
def fresh(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing has run."""
    return make_checkout(project_root, tmp_path_factory.mktemp("paper") / "checkout", survey="tiny")


def test_the_paper_is_six_figures_five_tables_its_numbers_and_its_text_but_needs_no_latex(fresh: Checkout) -> None:
    planned = fresh.planned("paper_figures")
    assert FIGURES | {"key_numbers", "measure_targets", "write_paper", "figure_errors_page"} <= planned
    tables = {"dataset", "hyperparameters", "gates", "anchors", "prior_work"}
    assert {f"table_paper_{name}" for name in tables} <= planned
    assert {"figure_validation", "figure_finder_selection", "figure_ladder"} <= planned
    assert "compile_paper" not in planned
    assert fresh.planned("results/paper/paper.pdf") - planned == {"compile_paper"}


def test_the_figure_of_gates_needs_the_generations_that_it_draws_and_no_scores(fresh: Checkout) -> None:
    planned = fresh.planned("results/paper/figures/gates.pdf")
    assert "figure_gates" in planned
    assert not planned & {"score", "measure_performance", "fetch_cutouts"}


def test_every_caption_names_what_its_rule_gives_it(project_root: Path) -> None:
    captions = set()
    for file in (project_root / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            for name in re.findall(r'caption="\.\./(workflow/report/\w+\.rst)"', rule):
                captions.add(name)
                text = (project_root / name).read_text()
                for param in re.findall(r"snakemake\.params\.(\w+)", text):
                    assert re.search(rf"^        {param}=", rule, re.MULTILINE), f"{name} names {param}"
    assert captions == {f"workflow/report/{path.name}" for path in (project_root / "workflow/report").glob("*.rst")}


def test_captions_of_gates_and_of_anchors_print_the_thresholds(project_root: Path) -> None:
    folder = project_root / "workflow" / "report"
    assert "snakemake.params.thresholds" in (folder / "figure_gates.rst").read_text()
    assert "snakemake.params.threshold " in (folder / "figure_anchor_gallery.rst").read_text()
    assert "snakemake.params.arc_snr" in (folder / "figure_ladder.rst").read_text()
    assert "snakemake.params.min_false_positives" in (folder / "figure_roc.rst").read_text()
