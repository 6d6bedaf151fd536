"""The rules of the house that a machine can check."""

import re
import subprocess
from pathlib import Path

import grimp
import pytest

# In the order in which data flows: a package imports only from those before it.
PACKAGES = [
    "core",
    "spark",
    "survey",
    "catalogue",
    "lensing",
    "injection",
    "images",
    "models",
    "evaluation",
    "training",
    "paper",
    "workflow",
]
FORBIDDEN = {
    r"allow_pickle\s*=\s*True": "an NPZ is read without pickle",
    r"weights_only\s*=\s*False": "weights are read without pickle",
    r"\bpickle\.load": "nothing is unpickled",
    r"np\.random\.(seed|rand|randn|normal|uniform|choice|shuffle)\(": "randomness comes through a passed Generator",
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "nothing is left for later in the code",
}
HIDDEN = [r"\{config\[", r"snakemake\.config", r"^\s*run:", r"touch\(", r"directory\(", r"\blambda\s+wil"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("dark_halo_scope", cache_dir=None)


def test_every_package_has_its_place_in_the_order(project_root: Path) -> None:
    folders = {path.parent.name for path in (project_root / "lib" / "dark_halo_scope").glob("*/__init__.py")}
    assert folders == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_those_before_it(graph: grimp.ImportGraph, package: str) -> None:
    later = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for importer in graph.find_descendants(f"dark_halo_scope.{package}"):
        imported = {name.split(".")[1] for name in graph.find_modules_directly_imported_by(importer)}
        assert not imported & later, f"{importer} imports from {sorted(imported & later)}"


def test_package_files_are_empty(project_root: Path) -> None:
    """Whatever stood in one would be part of every closure of its package."""
    for file in (project_root / "lib").rglob("__init__.py"):
        assert not file.read_text().strip(), file


def test_every_module_with_a_command_line_says_what_it_does(project_root: Path) -> None:
    for file in (project_root / "lib").rglob("*.py"):
        text = file.read_text()
        if file.name != "__init__.py":
            assert text.lstrip().startswith('"""'), f"{file} has no module docstring"


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_code_never_does_this(project_root: Path, pattern: str) -> None:
    found = [
        f"{file.relative_to(project_root)}:{number}"
        for file in [*(project_root / "lib").rglob("*.py"), *(project_root / "rules").glob("*.smk")]
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, f"{FORBIDDEN[pattern]}: {found}"


def test_rules_hide_nothing_from_snakemake(project_root: Path) -> None:
    """What reaches a rule other than through params goes stale without a word; flags and directories hide changes."""
    for file in [project_root / "Snakefile", *(project_root / "rules").glob("*.smk")]:
        text = file.read_text()
        for pattern in (
            r"\{config\[",
            r"snakemake\.config",
            r"^\s*run:",
            r"touch\(",
            r"directory\(",
            r"\blambda\s+wil",
        ):
            assert not re.search(pattern, text, re.MULTILINE), f"{file.name} holds {pattern}"


def test_every_rule_takes_its_code_as_an_input(project_root: Path) -> None:
    for file in (project_root / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.split(":")[0]
            module = re.search(r"dark_halo_scope\.(?!spark\.submit)[a-z_.]+", rule.split("shell:")[1])
            assert module is not None, f"{name} calls no module of ours"
            assert f'code=code("{module.group()}"' in rule, f"{name} does not take the code of {module.group()}"


def test_nothing_large_or_generated_is_in_git(project_root: Path) -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=project_root, capture_output=True, text=True, check=True).stdout
    for name in listing.split():
        file = project_root / name
        if file.is_file():
            assert file.stat().st_size < 1_000_000, f"{name} is over 1 MB"
            assert file.suffix not in {".fits", ".fz", ".npy", ".npz", ".parquet", ".safetensors", ".pt"}, name


def _named_in_decisions(project_root: Path) -> set[str]:
    """Everything in backquotes that has a folder and a suffix, or ends as a folder does."""
    text = (project_root / "docs" / "decisions.md").read_text()
    return set(re.findall(r"`([A-Za-z0-9_.{}]+/[A-Za-z0-9_./{}]*?(?:\.[a-z]+|/))`", text))


def test_every_file_that_the_decisions_name_exists(project_root: Path) -> None:
    """From the top of the repository, or from the package's."""
    places = (project_root, project_root / "lib" / "dark_halo_scope")
    named = {name for name in _named_in_decisions(project_root) if not name.startswith("results/")}
    assert len(named) > 30
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_every_result_that_the_decisions_name_is_made_by_a_rule(project_root: Path) -> None:
    rules = "".join(file.read_text() for file in (project_root / "rules").glob("*.smk"))
    sections = re.findall(r"^    output:\n(.*?)^    [a-z]+:\n", rules, re.MULTILINE | re.DOTALL)
    outputs = [output for section in sections for output in re.findall(r'"(results/[^"]+)"', section)]
    patterns = [re.sub(r"\\\{[a-z]+\\\}", "[^/]+", re.escape(output)) for output in outputs]
    named = {name for name in _named_in_decisions(project_root) if name.startswith("results/")}
    assert len(named) > 5
    assert [name for name in sorted(named) if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
