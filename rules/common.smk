"""Every helper function of the rules."""

import json
import os
from functools import cache

from snakemake.exceptions import WorkflowError

from dark_halo_scope.core.code import closure
from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.storage import is_local
from dark_halo_scope.evaluation import targets
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


def datasets_of(*sources: str) -> str:
    """Wildcard constraint: the datasets that are built here (`build`), that exist already (`existing`), whose galaxies
    are parents as they are (`parent`), or of real lenses and galaxies that are none (`real`).
    """
    names = [name for name, file in CONFIG.datasets.items() if file.source in sources]
    # Without any, a pattern that nothing matches.
    return "|".join(names) or "(?!)"


def finders() -> str:
    """Wildcard constraint: generations that learn from real images, and have no pairs to be gated on."""
    return "|".join(filter(_is_finder, CONFIG.generations)) or "(?!)"


def _is_finder(name: str) -> bool:
    return CONFIG.dataset(CONFIG.generation(name).dataset).source == "real"


def finder_files(*suffixes: str) -> list[str]:
    """What is shown of the paper's finder of real images: its validation, its selection function, its ladder."""
    finder = CONFIG.survey.paper.finder
    shown = ("validation", "selection_function", "ladder") if finder else ()
    return [
        f"results/{finder}/{name}.{suffix}" for name in shown for suffix in suffixes
    ]


def own_scores(split: str):
    """Input function: the generation's scores of `split` of the dataset that it is trained on."""

    def path(wildcards) -> str:
        dataset = CONFIG.generation(wildcards.generation).dataset
        return f"results/{wildcards.generation}/scores/{dataset}/{split}.json"

    return path


def last_history(wildcards) -> str:
    """Input function: what was recorded while the generation's last stage was trained."""
    stage = CONFIG.generation(wildcards.generation).last_stage
    return f"results/{wildcards.generation}/{stage}/history.json"


def finished_datasets() -> list[str]:
    """Every dataset packed, and the page of each that has injected arcs.

    Parents only of an embedded survey: on DR10 they are 20 million galaxies, 1.5 TB, which are asked for by name or by
    who learns from them.
    """
    embedded = CONFIG.survey.survey.embedded is not None
    return [
        f"results/datasets/{name}/{artifact}"
        for name, file in CONFIG.datasets.items()
        if embedded or file.source != "parent"
        for artifact in (
            ["packed.json", "page.png"]
            if file.source in ("build", "existing")
            else ["packed.json"]
        )
    ]


def anchor_lists() -> list[str]:
    """Users' own lists of lenses that are files here."""
    return [item.path for item in CONFIG.survey.anchors.lists if is_local(item.path)]


def pixels_of(wildcards) -> dict[str, str]:
    """Input function: what the pixels of a dataset of real images are taken from, by its path."""
    path = CONFIG.dataset(wildcards.dataset).real.path
    coadds = {"coadds": f"results/datasets/{wildcards.dataset}/coadds.json"}
    return {
        "coadds": coadds,
        "service": {"survey": "results/survey.json"},
        "stored": {},
    }[path]


def negatives_of(wildcards) -> list[str]:
    """Input function: the confusers of a dataset that has some."""
    has_some = CONFIG.dataset(wildcards.dataset).negatives is not None
    return [f"results/datasets/{wildcards.dataset}/negatives.json"] if has_some else []


def counted_positives(wildcards) -> list[str]:
    """Input function: the list of positives that negatives are counted by, unless the settings give numbers."""
    fixed = CONFIG.survey.negatives.positives is not None
    return [] if fixed else ["results/catalogue/positives.json"]


def training_data(artifact: str):
    """Input function: `artifact` of the dataset that the generation is trained on."""

    def path(wildcards) -> str:
        return f"results/datasets/{CONFIG.generation(wildcards.generation).dataset}/{artifact}.json"

    return path


def every_discovery(wildcards) -> str:
    """Params function: settings by which positives are matched, of lenses that were found in whatever way."""
    positives = json.loads(CONFIG.section("survey", None, "positives"))
    everything = {"desi_named": False, "discovery": None, "exclude_refs": []}
    return json.dumps(positives | everything, sort_keys=True)


def training_settings(section: str):
    """Params function: a section of the dataset that the generation is trained on, as JSON."""

    def value(wildcards) -> str:
        dataset = CONFIG.generation(wildcards.generation).dataset
        return CONFIG.section("dataset", dataset, section, None)

    return value


def coadds_of_injections(wildcards) -> str:
    """Input function: the coadds that arcs are injected into, for a finder whose own images come from coadds too."""
    dataset = CONFIG.generation(wildcards.generation).dataset
    path = CONFIG.dataset(dataset).real.path
    if path != "coadds":
        raise WorkflowError(
            f"{wildcards.generation} learned from cutouts of another kind than those that arcs are injected into: "
            f"{dataset} has `real.path: {path}`, and injections are made into coadds. Their noise tells them apart; "
            "train it on a dataset with `real.path: coadds`."
        )
    return f"results/datasets/{dataset}/coadds.json"


def lenses_never_seen(wildcards) -> list[str]:
    """Input function: recall of lenses that a finder has never seen, where its own images come from coadds as theirs."""
    dataset = CONFIG.generation(wildcards.generation).dataset
    coadds = CONFIG.dataset(dataset).real.path == "coadds"
    return [f"results/{wildcards.generation}/known_lenses.json"] if coadds else []


def gated_on(generation: str) -> str:
    """The dataset whose test pairs a generation is gated on."""
    dataset = CONFIG.generation(generation).gate_dataset
    if dataset is None:
        raise WorkflowError(
            f"The generation {generation} has gate_dataset: null, so that it has no gates and nothing that is measured "
            "on their pairs; ask for its validation.json instead."
        )
    return dataset


def gate_data(artifact: str):
    """Input function: `artifact` of the dataset whose test pairs the generation is gated on."""

    def path(wildcards) -> str:
        return f"results/datasets/{gated_on(wildcards.generation)}/{artifact}.json"

    return path


def gate_scores(split: str):
    """Input function: the generation's scores of `split` of the dataset that it is gated on."""

    def path(wildcards) -> str:
        dataset = gated_on(wildcards.generation)
        return f"results/{wildcards.generation}/scores/{dataset}/{split}.json"

    return path


def gate_galaxies(wildcards) -> list[str]:
    """Input function: catalogues of the galaxies in the dataset that the generation is gated on."""
    dataset = CONFIG.dataset(gated_on(wildcards.generation))
    confusers = (
        [] if dataset.negatives is None else ["results/catalogue/confusers.json"]
    )
    return ["results/catalogue/parent.json", *confusers]


def deployed_model(wildcards) -> str:
    """The best weights of the generation's last stage."""
    stage = CONFIG.generation(wildcards.generation).last_stage
    return f"results/{wildcards.generation}/{stage}/best.json"


def start_weights(wildcards) -> list[str]:
    """Input function: the best weights of the stage that this one starts from, where it does."""
    stage = CONFIG.generation(wildcards.generation).stage(wildcards.stage).start_from
    return (
        [] if stage is None else [f"results/{wildcards.generation}/{stage}/best.json"]
    )


def mined_negatives(wildcards) -> list[str]:
    """Input function: the false positives of the generation that this one learns from, where it does."""
    source = CONFIG.generation(wildcards.generation).hard_negatives_of
    return [] if source is None else [f"results/{source}/hard_negatives.json"]


def trainings(wildcards) -> str:
    """Params function: settings of every stage's training, by name."""
    return CONFIG.trainings(wildcards.generation)


def trained_stages(generations: list[str], artifact: str) -> list[str]:
    """`artifact` of every stage of these generations, in the order of training."""
    return [
        f"results/{name}/{stage}/{artifact}.json"
        for name in generations
        for stage in CONFIG.generation(name).stages
    ]


def ablation_scores() -> list[str]:
    """Scores of the test pairs that all ablations and their base are gated on."""
    return [
        f"results/{name}/scores/{CONFIG.generation(name).gate_dataset}/test.json"
        for name in CONFIG.ablations
    ]


def gates_to_beat(wildcards) -> str:
    """The gates of the generation whose negative control this one is."""
    return f"results/{CONFIG.generation(wildcards.generation).negative_control_of}/gates.json"


def paper_data(artifact: str) -> str:
    """`artifact` of the dataset that the paper's generation is gated on."""
    dataset = CONFIG.generation(CONFIG.survey.paper.generation).gate_dataset
    return f"results/datasets/{dataset}/{artifact}.json"


def paper_result(artifact: str) -> str:
    """`artifact` of the paper's generation."""
    return f"results/{CONFIG.survey.paper.generation}/{artifact}"


def paper_model() -> str:
    """The best weights of the paper's generation."""
    stage = CONFIG.generation(CONFIG.survey.paper.generation).last_stage
    return paper_result(f"{stage}/best.json")


def paper_preprocessing() -> str:
    """How the paper's generation preprocesses, in words for a caption."""
    generation = CONFIG.generation(CONFIG.survey.paper.generation)
    chosen = generation.stage_training(generation.last_stage).preprocessing
    stretch = (
        f"clipped to {chosen.clip_low:g} and {chosen.clip_high:g}"
        if chosen.stretch == "clip"
        else f"asinh with softening {chosen.asinh_softening:g}"
    )
    return f"{stretch}; residual against a Gaussian of sigma {chosen.residual_sigma_pix:g} pixels"


def gate_thresholds() -> str:
    """Thresholds of the paper's gates, for a caption."""
    thresholds = CONFIG.generation(CONFIG.survey.paper.generation).gates.thresholds
    return ", ".join(f"{name} {value:g}" for name, value in sorted(thresholds.items()))


def in_checkout(path: str) -> str:
    """A file of this checkout, relative to the working directory."""
    return os.path.relpath(ROOT / path)


def paper_figure_files(*suffixes: str) -> list[str]:
    """The paper's figures, in its order."""
    names = [
        "training_examples",
        "six_channels",
        "gates",
        "roc",
        "anchor_gallery",
        "selection_function",
    ]
    return [
        f"results/paper/figures/{name}.{suffix}"
        for name in names
        for suffix in suffixes
    ]


def paper_table_files(*suffixes: str) -> list[str]:
    """The paper's tables, in its order."""
    names = ["dataset", "hyperparameters", "gates", "anchors", "prior_work", "targets"]
    return [
        f"results/paper/tables/{name}.{suffix}" for name in names for suffix in suffixes
    ]


def paper_datasets() -> list[str]:
    """The datasets that the main generations are trained and gated on, in their order."""
    files = [CONFIG.generation(name) for name in CONFIG.main_generations]
    names = [name for file in files for name in (file.dataset, file.gate_dataset)]
    return list(dict.fromkeys(names))


def measured(generations: list[str], *artifacts: str) -> list[str]:
    """What is measured of each generation, one after the other; `best` and `history` are its last stage's."""
    return [
        f"results/{name}/{file}"
        for name in generations
        for file in (
            _file_of(CONFIG.generation(name).last_stage, artifact)
            for artifact in artifacts
        )
    ]


def _file_of(stage: str, artifact: str) -> str:
    if artifact in ("best", "history"):
        return f"{stage}/{artifact}.json"
    return f"{artifact}.csv" if artifact == "stratified_fpr" else f"{artifact}.json"


def target_artifacts() -> list[str]:
    """What the success targets read of the generations that exist here, and the weights that all of it must be of."""
    return [
        path
        for name in targets.generations()
        if name in CONFIG.generations
        and (not _is_finder(name) or name == CONFIG.survey.paper.finder)
        for path in measured([name], "best", *targets.needed(name))
    ]


def shown_threshold(figure: str):
    """Params function: the threshold that a figure of the generation shows, for its caption."""

    def threshold(wildcards) -> str:
        return getattr(CONFIG.generation(wildcards.generation), figure).threshold

    return threshold


def compared_arcs(wildcards) -> str:
    """Params function: signal to noise of the arcs that the ladder of the generation counts, for its caption."""
    arcs = CONFIG.generation(wildcards.generation).ladder.arc_snr
    return f"{arcs.low:g} to {arcs.high:g}"


def pixel_options(wildcards, input) -> str:
    """Params function: where the pixels of real images come from, as options of the command line."""
    return " ".join(f"--{name} {input[name]}" for name in pixels_of(wildcards))


def paper_training_data(artifact: str) -> str:
    """`artifact` of the dataset that the paper's generation is trained on."""
    dataset = CONFIG.generation(CONFIG.survey.paper.generation).dataset
    return f"results/datasets/{dataset}/{artifact}.json"
