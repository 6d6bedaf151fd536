"""Dark Halo Scope: from survey files to gates, one artifact a file.

`snakemake -n results/gen5_prime/gates.json` says what would run and why.
"""

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.19")


configfile: Path(workflow.basedir) / "config" / "config.yaml"


# This checkout's code, whatever else is installed; jobs get the same through the prefix.
LIB = Path(workflow.basedir) / "lib"
sys.path.insert(0, str(LIB))
shell.prefix(f"export PYTHONPATH={str(LIB)!r}; ")
# Whose death ends every job, also one that starts a moment after it; and where EMR's machines are described.
os.environ.update(DHS_SCHEDULER_PID=str(os.getpid()))
os.environ.setdefault(
    "DHS_EMR_CONFIG", str(Path(workflow.basedir) / "profiles" / "lambda" / "emr.yaml")
)


include: "rules/common.smk"
include: "rules/survey.smk"
include: "rules/catalogue.smk"
include: "rules/anchors.smk"
include: "rules/real_images.smk"
include: "rules/dataset.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/selection_function.smk"
include: "rules/paper.smk"
include: "rules/tables.smk"


wildcard_constraints:
    dataset="[a-z0-9_]+",
    generation="[a-z0-9_]+",
    stage="[a-z0-9]+",
    split="train|val|test",


localrules:
    ablations,
    datasets,
    finder,
    gates,
    generations,
    paper_figures,
    preflight,


onstart:
    refuse_other_survey(Path("results/survey.json"), config["survey"])


rule gates:
    input:
        "results/gen5_prime/gates.json",
        "results/gen5_prime_no_hard_negatives/comparison.json",
    message:
        "The gates of the main generation and of its negative control"


rule generations:
    input:
        expand("results/{generation}/gates.json", generation=CONFIG.main_generations),
        "results/generations.md",
    message:
        "Every generation under config/generations: its gates, and the table of all"


rule ablations:
    input:
        "results/ablations.md",
    message:
        "Every ablation trained, gated and compared with its base"


rule datasets:
    input:
        finished_datasets(),
    message:
        "Every dataset under config/datasets, packed, each with its page"


rule finder:
    input:
        "results/catalogue/negative_pool_gates.json",
        finder_files("json", "pdf", "png"),
    message:
        "The survey's finder of real images: validation, selection function and realism of injections"


rule paper_figures:
    input:
        paper_figure_files("pdf", "png"),
        finder_files("pdf", "png"),
        paper_table_files("csv", "md", "tex"),
        "results/paper/key_numbers.json",
        "results/paper/key_numbers.tex",
        "results/targets.json",
        paper_result("errors.png"),
        "results/paper/paper.tex",
    message:
        "Every figure, table and number of the paper, and its LaTeX"


rule preflight:
    input:
        "results/gen5_prime/preflight.json",
    message:
        "Whether the main job can run here, item by item"
