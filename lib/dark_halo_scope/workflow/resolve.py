"""From the YAML files under config/ to the settings that each rule takes.

A survey may override settings of datasets and generations, and a file may extend another of its kind.
Everything is validated against the settings models when the workflow starts.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.paper.figure_config import PaperSettings
from dark_halo_scope.workflow.config import DatasetFile, GenerationFile, SurveyFile
from dark_halo_scope.workflow.merge import merge


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"{node.start_mark.name} gives the key {key!r} twice; keep one of them.")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping that the YAML file `path` holds.

    Raises:
        ConfigError: the file is missing, is not YAML, holds no mapping or gives a key twice.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        choices = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path} does not exist; there are: {choices}.") from None
    loader = _StrictLoader(text)
    loader.name = str(path)
    try:
        values = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(values).__name__}.")
    return values


@dataclass(frozen=True)
class Resolved:
    """Validated settings of one survey and of all datasets and generations under it."""

    survey: SurveyFile
    datasets: Mapping[str, DatasetFile]
    generations: Mapping[str, GenerationFile]

    def generation(self, name: str) -> GenerationFile:
        """The generation called `name`.

        Raises:
            ConfigError: there is none.
        """
        return _named("generation", name, self.generations)

    def dataset(self, name: str) -> DatasetFile:
        """The dataset called `name`.

        Raises:
            ConfigError: there is none.
        """
        return _named("dataset", name, self.datasets)

    @property
    def ablations(self) -> list[str]:
        """The generation that others are ablations of, and then those; empty where there are none."""
        bases = {file.ablation_of for file in self.generations.values() if file.ablation_of is not None}
        return [*bases, *(name for name, file in self.generations.items() if file.ablation_of is not None)]

    @property
    def main_generations(self) -> list[str]:
        """Generations that are gated and neither negative controls nor part of the ablations."""
        beside = {
            name
            for name, file in self.generations.items()
            if file.negative_control_of is not None or file.gate_dataset is None
        }
        return [name for name in self.generations if name not in beside | set(self.ablations)]

    @property
    def gated_in_paper(self) -> list[str]:
        """Generations whose gates the paper draws, in its order."""
        return list(self.survey.paper.gates_of or self.main_generations)

    def table_settings(self, names: Sequence[str]) -> str:
        """Settings of a table of these generations: their titles."""
        titles = {name: file.title for name in names if (file := self.generation(name)).title is not None}
        return _json({"titles": titles})

    def trainings(self, generation: str) -> str:
        """Settings of the training of every stage of a generation, by name.

        Raises:
            ConfigError: there is no such generation.
        """
        file = self.generation(generation)
        return _json({"stages": {stage: file.stage_training(stage).model_dump(mode="json") for stage in file.stages}})

    def section(self, kind: str, name: str | None, section: str, stage: str | None = None) -> str:
        """Settings as sorted JSON, so that the order of keys in a YAML file never matters.

        Args:
            kind: `survey`, `dataset` or `generation`.
            name: of the dataset or generation; None for the survey.
            section: a top-level key of its file, such as `stamps`.
            stage: of the generation, for its section `training`; None is the first.

        Raises:
            ConfigError: there is no dataset, generation or stage of that name.
        """
        if kind == "generation" and name is not None and section == "training":
            generation = self.generation(name)
            training = generation.stage_training(stage or generation.first_stage)
            return _json(training.model_dump(mode="json"))
        file: SurveyFile | DatasetFile | GenerationFile
        if kind == "survey" or name is None:
            file = self.survey
        else:
            file = _named(kind, name, self.datasets if kind == "dataset" else self.generations)
        return _json(file.model_dump(mode="json")[section])


def _json(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _named(kind: str, name: str, files: Mapping[str, Any]) -> Any:
    if name not in files:
        raise ConfigError(f"There is no {kind} {name!r} under config/{kind}s; there are: {', '.join(files)}.")
    return files[name]


def resolve(config_directory: Path, survey: str) -> Resolved:
    """Read, merge and validate everything under `config_directory` for `survey`.

    Raises:
        ConfigError: a file or key is missing, unknown or invalid; the sentence names the file.
    """
    survey_path = config_directory / "surveys" / f"{survey}.yaml"
    surveys = {path.stem: path for path in sorted(survey_path.parent.glob("*.yaml"))} | {survey: survey_path}
    survey_file = validate(SurveyFile, _extended(survey, surveys, {}, ()), str(survey_path))

    def read_all(kind: str, overrides: Mapping[str, Mapping[str, Any]], model: Any) -> dict[str, Any]:
        paths = {path.stem: path for path in sorted((config_directory / kind).glob("*.yaml"))}
        unknown = sorted(set(overrides) - set(paths))
        if unknown:
            raise ConfigError(
                f"{survey_path} overrides {', '.join(unknown)}, which config/{kind} does not have; correct the name."
            )
        values = {name: _extended(name, paths, overrides, ()) for name in paths}
        return {name: validate(model, values[name], str(paths[name])) for name in paths}

    generations = read_all("generations", survey_file.overrides.generations, GenerationFile)
    _refuse_unknown_generations(generations)
    _refuse_circles({name: file.hard_negatives_of for name, file in generations.items()})
    _refuse_two_bases({name: file.ablation_of for name, file in generations.items() if file.ablation_of is not None})
    _refuse_ablations_gated_otherwise(generations)
    datasets = read_all("datasets", survey_file.overrides.datasets, DatasetFile)
    _refuse_unknown_datasets(generations, datasets)
    _refuse_unknown_in_paper(survey_path, survey_file.paper, generations, datasets)
    return Resolved(survey=survey_file, datasets=datasets, generations=generations)


def _refuse_unknown_generations(generations: Mapping[str, GenerationFile]) -> None:
    """Generations name one another; every one that is named exists."""
    for name, file in generations.items():
        for key in ("negative_control_of", "ablation_of", "hard_negatives_of"):
            other = getattr(file, key)
            if other is not None and other not in generations:
                raise ConfigError(
                    f"The generation {name} has {key}: {other}, which does not exist; there are: "
                    f"{', '.join(generations)}."
                )


def _refuse_two_bases(base_of: Mapping[str, str]) -> None:
    """One table compares all ablations with one base, which is none itself."""
    bases = sorted(set(base_of.values()))
    if len(bases) > 1 or set(bases) & set(base_of):
        raise ConfigError(
            f"The generations {', '.join(base_of)} are ablations of {', '.join(bases)}; all must be of one generation "
            "that is no ablation."
        )


def _refuse_ablations_gated_otherwise(generations: Mapping[str, GenerationFile]) -> None:
    """Differences to the base are measured on the same pairs in the same way."""
    for name, file in generations.items():
        if file.ablation_of is None:
            continue
        base = generations[file.ablation_of]
        differing = [key for key in ("gate_dataset", "gates") if getattr(file, key) != getattr(base, key)]
        if differing:
            raise ConfigError(
                f"The ablation {name} has another {' and '.join(differing)} than its base {file.ablation_of}, and the "
                "table compares them on the same pairs; leave it to the base."
            )


def _refuse_unknown_datasets(generations: Mapping[str, GenerationFile], datasets: Mapping[str, DatasetFile]) -> None:
    """Every dataset that a generation is trained or gated on exists."""
    for name, file in generations.items():
        for key in ("dataset", "gate_dataset"):
            other = getattr(file, key)
            if other is not None and other not in datasets:
                raise ConfigError(
                    f"The generation {name} has {key}: {other}, which config/datasets does not have; there are: "
                    f"{', '.join(datasets)}."
                )


def _refuse_unknown_in_paper(
    path: Path,
    paper: PaperSettings,
    generations: Mapping[str, GenerationFile],
    datasets: Mapping[str, DatasetFile],
) -> None:
    """Every generation that the settings of the paper name exists; defaults matter to who asks for the paper only."""
    named = {
        "generation": (paper.generation,),
        "gates_of": paper.gates_of or (),
        "roc_of": paper.roc_of,
        "finder": (paper.finder,) if paper.finder else (),
    }
    for key in sorted(paper.model_fields_set):
        unknown = [name for name in named[key] if name not in generations]
        if unknown:
            raise ConfigError(
                f"{path} has paper.{key}: {', '.join(unknown)}, which config/generations does not have; there are: "
                f"{', '.join(generations)}."
            )
    if "finder" in paper.model_fields_set and paper.finder:
        dataset = generations[paper.finder].dataset
        if datasets[dataset].source != "real":
            raise ConfigError(
                f"{path} has paper.finder: {paper.finder}, which is trained on {dataset} and not on real images; "
                "name a generation whose dataset has `source: real`, or null."
            )


def _refuse_circles(mined_of: Mapping[str, str | None]) -> None:
    """Each generation's hard negatives come from one that does not wait for this one's."""
    for name in mined_of:
        line = [name]
        while (source := mined_of[line[-1]]) is not None:
            if source in line:
                raise ConfigError(
                    f"The generation {source} takes hard negatives of itself through {' <- '.join([*line, source])}; "
                    "break the circle."
                )
            line.append(source)


def _extended(
    name: str, paths: Mapping[str, Path], overrides: Mapping[str, Mapping[str, Any]], via: tuple[str, ...]
) -> dict[str, Any]:
    """The values of `name`: what it extends, then its own file, then the survey's override."""
    if name in via:
        raise ConfigError(f"{paths[name]} extends itself through {' -> '.join((*via, name))}; break the circle.")
    values = load_yaml(paths[name])
    parent = values.pop("extends", None)
    if parent is not None:
        if parent not in paths:
            raise ConfigError(f"{paths[name]} extends {parent!r}, which does not exist; there are: {', '.join(paths)}.")
        values = merge(_extended(parent, paths, overrides, (*via, name)), values)
    return merge(values, overrides.get(name, {}))


def settings_getter(resolved: Resolved) -> Callable[[str, str], Callable[[Any], str]]:
    """`settings("dataset", "stamps")`: a Snakemake params function of the rule's wildcards, `stage` among them."""

    def settings(kind: str, section: str) -> Callable[[Any], str]:
        def value(wildcards: Any) -> str:
            stage = getattr(wildcards, "stage", None)
            return resolved.section(kind, getattr(wildcards, kind, None), section, stage)

        return value

    return settings
