"""The paper's LaTeX: every number and citation in it exists."""

import re
import shutil
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import sha256_bytes
from dark_halo_scope.paper import compile_paper as compiling
from dark_halo_scope.paper.compile_paper import compile_paper
from dark_halo_scope.paper.write_paper import assemble, survey_note

NUMBERS = r"\newcommand{\AUC}{0.92}" + "\n" + r"\newcommand{\SurveyName}{mini}" + "\n"
WORKS = "@article{one1999, author = {One}}\n"
NOTE = r"\newcommand{\SurveyNote}{A note.}"
TEMPLATE = "%SURVEY\nThe area is \\AUC{} \\citep{one1999}. % \\Commented\n"

needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


def test_numbers_and_works_that_exist_pass_and_the_survey_s_note_stands_in_its_place() -> None:
    text = assemble(TEMPLATE, NOTE, NUMBERS, WORKS)
    assert text == TEMPLATE.replace("%SURVEY", NOTE)


def test_a_number_that_nobody_measured_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match="nobody measured: Recall"):
        assemble(TEMPLATE + "\\Recall", NOTE, NUMBERS, WORKS)


def test_a_work_that_the_bibliography_lacks_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"lacks: two2000"):
        assemble(TEMPLATE + "\\citet{one1999, two2000}", NOTE, NUMBERS, WORKS)


def test_a_template_without_a_place_for_the_survey_is_refused() -> None:
    with pytest.raises(BadInputError, match="one line %SURVEY"):
        assemble("text", NOTE, NUMBERS, WORKS)


def test_the_paper_says_when_its_sky_is_simulated() -> None:
    drawn, real = (survey_note({"facts": {"embedded": embedded}}) for embedded in (True, False))
    assert "simulated" in drawn
    assert "simulated" not in real
    with pytest.raises(BadInputError, match="whether its survey is drawn"):
        survey_note({"facts": {}})


def test_the_template_cites_every_work_and_its_results_hold_no_digit(
    project_root: Path,
) -> None:
    folder = project_root / "workflow" / "paper"
    template, works = (folder / "paper.tex").read_text(), (folder / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{([^,]+),", works, re.MULTILINE)
    cited = {key.strip() for group in re.findall(r"\\cite[a-z]*\{([^}]+)\}", template) for key in group.split(",")}
    assert len(keys) == len(set(keys))
    assert cited == set(keys)
    results = template[template.index("\\section{Results}") : template.index("\\section{Discussion}")]
    # What is left of a result once commands, labels and the gates' names are away is text.
    words = re.sub(r"\\(includegraphics|label|ref|fittable|cite[a-z]*)(\[[^]]*\])?\{[^}]*\}", "", results)
    assert not re.findall(r"\d", words)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A paper.tex of one line with what it inputs."""
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "key_numbers.tex").write_text("\\newcommand{\\AUC}{0.92}\n")
    lines = [
        "\\documentclass{article}",
        "\\pdfinfoomitdate=1\\pdftrailerid{}\\pdfsuppressptexinfo=-1",
        "\\input{key_numbers}\\begin{document}\\AUC\\end{document}",
    ]
    (folder / "paper.tex").write_text("\n".join(lines) + "\n")
    return folder / "paper.tex"


@needs_latex
def test_the_same_sources_give_the_same_pdf_and_leave_nothing_beside_them(paper: Path) -> None:
    first, second = compile_paper(paper), compile_paper(paper)
    assert first.startswith(b"%PDF")
    assert sha256_bytes(first) == sha256_bytes(second)
    assert sorted(path.name for path in paper.parent.iterdir()) == ["key_numbers.tex", "paper.tex"]


@needs_latex
def test_what_latex_refuses_is_said_in_its_words(paper: Path) -> None:
    (paper.parent / "key_numbers.tex").write_text("")
    with pytest.raises(BadInputError, match="Undefined control sequence"):
        compile_paper(paper)


def test_without_latex_the_sentence_says_what_to_install(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="apt-get install latexmk"):
        compile_paper(paper)
