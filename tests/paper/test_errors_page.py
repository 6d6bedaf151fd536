"""What the page of errors promises: each image beside what is said of it, and how many errors there are in all."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.evaluation.score_errors import COLUMNS, errors_csv
from dark_halo_scope.paper.errors_config import ErrorsPageSettings
from dark_halo_scope.paper.errors_page import draw, gather
from dark_halo_scope.paper.style import save_figure

SETTINGS = ErrorsPageSettings(columns=3, crop_pix=16)
REALISM = {
    "errors": {
        "negatives": {"control": {"n": 90, "called_lenses": 4, "confident": 1}},
        "injections": {"n": 50, "missed": 7, "confident": 2},
        "lenses": {"tier": "tier_grade A", "n": 9, "missed": 1, "confident": 0},
    }
}


def _row(group: str, kind: str, row: int, score: float, **other: Any) -> dict[str, Any]:
    values = dict.fromkeys(COLUMNS) | {"group": group, "kind": kind, "row": row, "score": score, "logit": 0.0}
    return values | {"is_error": (score >= 0.5) == (kind == "control"), "name": f"{kind}{row}"} | other


ROWS = [
    *(_row("control taken for a lens", "control", row, 0.9 - 0.2 * row) for row in range(4)),
    _row("missed injection", "positive", 2, 0.004, theta_e_arcsec=1.25, arc_snr=31.4, name="ab12" * 16),
    _row("missed lens", "lens", 1, 0.3, theta_e_arcsec=1.5, name="DESI-012.3456+01.2345"),
]


def _images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {kind: rng.normal(0, 0.02, (5, 3, 20, 20)).astype(np.float16) for kind in ("control", "positive", "lens")}


@pytest.fixture
def errors(tmp_path: Path) -> Path:
    path = tmp_path / "errors.csv"
    path.write_text(errors_csv(ROWS))
    return path


def test_every_picture_is_the_image_that_its_row_names(errors: Path) -> None:
    images = _images()
    page = gather(errors, REALISM, images, SETTINGS)
    assert [len(row.pictures) for row in page] == [3, 1, 1]
    np.testing.assert_array_equal(page[0].pictures[1].image, images["control"][1].astype(np.float32))
    np.testing.assert_array_equal(page[1].pictures[0].image, images["positive"][2].astype(np.float32))
    np.testing.assert_array_equal(page[2].pictures[0].image, images["lens"][1].astype(np.float32))


def test_rows_say_how_many_errors_there_are_and_not_how_many_are_shown(errors: Path) -> None:
    page = gather(errors, REALISM, _images(), SETTINGS)
    assert [(row.errors, row.total) for row in page] == [(4, 90), (7, 50), (1, 9)]
    assert page[2].title == "known lenses\n(tier grade A)"


def test_what_is_right_is_not_framed_as_an_error(errors: Path) -> None:
    first = gather(errors, REALISM, _images(), SETTINGS)[0]
    assert [picture.is_error for picture in first.pictures] == [True, True, True]
    figure = draw([first], SETTINGS)
    right = draw(
        gather(errors, REALISM, _images(), ErrorsPageSettings(columns=4, crop_pix=16))[:1],
        SETTINGS.model_copy(update={"columns": 4}),
    )
    edges = [[axes.spines["left"].get_edgecolor() for axes in drawn.axes] for drawn in (figure, right)]
    assert len(set(edges[0])) == 1
    assert edges[1][3] != edges[1][0]


def test_labels_are_short_and_say_what_is_known(errors: Path) -> None:
    page = gather(errors, REALISM, _images(), SETTINGS)
    control, injection, lens = (row.pictures[0] for row in page)
    assert (control.note, control.name) == ("", "control0")
    assert (injection.note, injection.name) == ("$\\theta_E$ 1.2″, S/N 31", "ab12ab12")
    assert (lens.note, lens.name) == ("$\\theta_E$ 1.5″", "012.3456+01.2345")


def test_an_image_that_there_is_not_is_refused(errors: Path) -> None:
    images = _images()
    images["positive"] = images["positive"][:2]
    with pytest.raises(BadInputError, match="names image 2 of positive"):
        gather(errors, REALISM, images, SETTINGS)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "errors.csv").write_text(errors_csv([]))
    with pytest.raises(BadInputError, match="lists no image"):
        gather(tmp_path / "errors.csv", REALISM, _images(), SETTINGS)


def test_the_same_errors_give_the_same_bytes_in_any_process(tmp_path: Path, errors: Path) -> None:
    figure = draw(gather(errors, REALISM, _images(), SETTINGS), SETTINGS)
    here, there = ([tmp_path / f"{name}.{suffix}" for suffix in ("png", "pdf")] for name in ("here", "there"))
    for path in here:
        save_figure(figure, path, tight=False)
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.paper.test_errors_page import *\n"
        "from tests.paper.test_errors_page import _images\n"
        "figure = draw(gather(Path(sys.argv[1]), REALISM, _images(), SETTINGS), SETTINGS)\n"
        "[save_figure(figure, Path(path), tight=False) for path in sys.argv[2:]]"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": f"{root}:{root / 'lib'}"}
    command = [sys.executable, "-c", script, str(errors), *map(str, there)]
    subprocess.run(command, check=True, cwd=root, env=environment)
    assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]
