"""Every helper function of the rules."""

import json
import os
from functools import cache

from snakemake.exceptions import WorkflowError

from dark_halo_scope.core.code import closure
from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.workflow.resolve import resolve, settings_getter

ROOT = Path(workflow.basedir)

try:
    CONFIG = resolve(ROOT / "config", config["survey"])
except DarkHaloScopeError as error:
    raise WorkflowError(str(error)) from None

# `settings("dataset", "stamps")`: the section `stamps` of the dataset that the wildcards name, as sorted JSON.
settings = settings_getter(CONFIG)


@cache
def code(module: str, environment: str) -> list[str]:
    """All that `python -m module` executes of ours, and the lock of its environment, relative to the working directory.

    Snakemake does not see edits in imported modules: as inputs, they rerun exactly the rules that use them.
    """
    return [
        os.path.relpath(path)
        for path in [*closure(module), ROOT / "envs" / f"{environment}.lock"]
    ]


def refuse_other_survey(description: Path, survey: str) -> None:
    """Stop before results of one survey are overwritten by those of another."""
    if not description.exists():
        return
    made_from = json.loads(description.read_text())["facts"]["name"]
    if made_from != survey:
        raise WorkflowError(
            f"results/ here was made from the survey {made_from!r}, and this run is of {survey!r}: "
            f"choose another directory for it, for example with --directory ../{survey}."
        )


def datasets_of(source: str) -> str:
    """Wildcard constraint: the datasets that are built here (`build`), or that exist already (`existing`)."""
    names = [name for name, file in CONFIG.datasets.items() if file.source == source]
    # Without any, a pattern that nothing matches.
    return "|".join(names) or "(?!)"


def negatives_of(wildcards) -> list[str]:
    """Input function: the confusers of a dataset that has some."""
    has_some = CONFIG.dataset(wildcards.dataset).negatives is not None
    return [f"results/datasets/{wildcards.dataset}/negatives.json"] if has_some else []


def training_data(artifact: str):
    """Input function: `artifact` of the dataset that the generation is trained on."""

    def path(wildcards) -> str:
        return f"results/datasets/{CONFIG.generation(wildcards.generation).dataset}/{artifact}.json"

    return path


def gate_data(artifact: str):
    """Input function: `artifact` of the dataset whose test pairs the generation is gated on."""

    def path(wildcards) -> str:
        return f"results/datasets/{CONFIG.generation(wildcards.generation).gate_dataset}/{artifact}.json"

    return path


def deployed_model(wildcards) -> str:
    """The best weights of the generation's last stage."""
    stage = CONFIG.generation(wildcards.generation).last_stage
    return f"results/{wildcards.generation}/{stage}/best.json"


def gates_to_beat(wildcards) -> str:
    """The gates of the generation whose negative control this one is."""
    return f"results/{CONFIG.generation(wildcards.generation).negative_control_of}/gates.json"
