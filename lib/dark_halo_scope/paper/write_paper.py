"""The paper's LaTeX, from its template: which survey the numbers are of, and that every number and citation exists."""

import re
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json, write_text

SURVEY_MARK = "%SURVEY"

#: What LaTeX and its packages call by a capital letter; every other such macro is a number of ours.
_LATEX_CAPITALS = frozenset({"LaTeX", "TeX", "Large", "LARGE", "Huge", "Delta", "Omega", "Sigma", "Theta", "Lambda"})
_SIMULATED = (
    "All numbers here are of the embedded survey \\SurveyName{}, which is simulated: they show that the workflow "
    "measures what it says, not how a finder does on the sky."
)
_REAL = "All numbers here are of the survey \\SurveyName{}."


def survey_note(description: object) -> str:
    r"""The macro `\SurveyNote`: which survey, by a survey.json, the numbers are of, and whether the sky has it.

    Raises:
        BadInputError: it describes no survey.
    """
    try:
        embedded = bool(description["facts"]["embedded"])  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise BadInputError(f"survey.json does not say whether its survey is drawn here ({error!r}).") from None
    return f"\\newcommand{{\\SurveyNote}}{{{_SIMULATED if embedded else _REAL}}}"


def assemble(template: str, survey: str, key_numbers: str, bibliography: str) -> str:
    """The paper's source: the template with the survey's note.

    Args:
        template: LaTeX with a line `%SURVEY`.
        survey: what replaces that line.
        key_numbers: LaTeX that defines the numbers.
        bibliography: BibTeX.

    Raises:
        BadInputError: the template lacks the line, or names a number or a work that nobody defines.
    """
    if template.count(SURVEY_MARK) != 1:
        raise BadInputError(
            f"The template of the paper needs one line {SURVEY_MARK}, where the note on the survey goes."
        )
    text = template.replace(SURVEY_MARK, survey)
    defined = set(re.findall(r"\\newcommand\{?\\([A-Za-z]+)\}?", key_numbers + text)) | _LATEX_CAPITALS
    unknown = sorted(set(re.findall(r"\\([A-Z][A-Za-z]*)", _without_comments(text))) - defined)
    if unknown:
        raise BadInputError(f"The template of the paper uses numbers that nobody measured: {', '.join(unknown)}.")
    works = set(re.findall(r"^@\w+\{([^,\s]+)", bibliography, re.MULTILINE))
    cited = {key.strip() for group in re.findall(r"\\cite[a-z]*\{([^}]+)\}", text) for key in group.split(",")}
    if cited - works:
        raise BadInputError(f"The paper cites what references.bib lacks: {', '.join(sorted(cited - works))}.")
    return text


def _without_comments(text: str) -> str:
    return re.sub(r"(?<!\\)%.*", "", text)


def main(argv: Sequence[str] | None = None) -> None:
    """Write paper.tex and references.bib."""
    parser = argument_parser("Write the paper's LaTeX from its template.")
    parser.add_argument("--template", type=Path, required=True, help="LaTeX with numbers as macros")
    parser.add_argument("--bibliography", type=Path, required=True, help="BibTeX of the works cited")
    parser.add_argument("--key-numbers", type=Path, required=True, help="key_numbers.tex")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json of these results")
    parser.add_argument("--output", type=Path, nargs=2, required=True, help="paper.tex and references.bib to write")
    arguments = parser.parse_args(argv)
    template, bibliography, key_numbers = (
        path.read_text() for path in (arguments.template, arguments.bibliography, arguments.key_numbers)
    )
    paper = assemble(template, survey_note(read_json(arguments.survey)), key_numbers, bibliography)
    for path, text in zip(arguments.output, (paper, bibliography), strict=True):
        write_text(path, text)


if __name__ == "__main__":
    run(main)
