"""What every file of a figure promises: exact width, bytes that depend on the picture alone, code of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.code import modules
from dark_halo_scope.core.files import sha256_file, write_json
from dark_halo_scope.paper import (
    anchor_gallery,
    gate_figure,
    ladder_figure,
    roc_figure,
    selection_figure,
    validation_figure,
)
from dark_halo_scope.paper.figure_config import SixChannelsSettings
from dark_halo_scope.paper.layout import Margins, panel_row, picture_grid
from dark_halo_scope.paper.six_channels import draw
from dark_halo_scope.paper.style import PAGE_MM, save_figure

from .figure_inputs import (
    LADDER,
    VALIDATION,
    gates,
    write_anchors,
    write_cells,
    write_lens_cutouts,
    write_performance,
    write_surface,
)

FIGURES = (
    "training_examples",
    "six_channels",
    "gate_figure",
    "roc_figure",
    "anchor_gallery",
    "selection_figure",
    "ladder_figure",
    "validation_figure",
    "errors_page",
)
MAINS = {
    "gate_figure": gate_figure.main,
    "roc_figure": roc_figure.main,
    "anchor_gallery": anchor_gallery.main,
    "selection_figure": selection_figure.main,
    "ladder_figure": ladder_figure.main,
    "validation_figure": validation_figure.main,
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each command line is given, but for its output."""
    folder = tmp_path_factory.mktemp("inputs")
    write_json(folder / "gates.json", gates("one"))
    write_json(folder / "ladder.json", LADDER)
    write_json(folder / "validation.json", VALIDATION)
    performance = write_performance(folder / "performance.json", "one")
    scores = np.linspace(0.02, 0.98, 24).tolist()
    anchors = write_anchors(folder / "anchors.csv", scores, ["A", "B", ""] * 8)
    cutouts = write_lens_cutouts(folder / "cutouts.json", 24)
    surface, cells = write_surface(folder / "surface.csv"), write_cells(folder / "cells.csv")
    return {
        "gate_figure": ["--gates", str(folder / "gates.json")],
        "roc_figure": ["--performance", str(performance), "--anchors", str(anchors)],
        "anchor_gallery": ["--anchors", str(anchors), "--cutouts", str(cutouts)],
        "selection_figure": ["--completeness", str(cells), "--surface", str(surface)],
        "ladder_figure": ["--ladder", str(folder / "ladder.json")],
        "validation_figure": ["--validation", str(folder / "validation.json")],
    }


@pytest.mark.parametrize("figure", MAINS)
def test_a_figure_has_the_same_bytes_in_another_process_with_other_hashes(
    figure: str, arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    here = [tmp_path / "here.png", tmp_path / "here.pdf"]
    MAINS[figure]([*arguments[figure], "--output", *map(str, here)])
    there = [tmp_path / "there.png", tmp_path / "there.pdf"]
    command = [sys.executable, "-m", f"dark_halo_scope.paper.{figure}", *arguments[figure], "--output"]
    environment = os.environ | {"PYTHONHASHSEED": "4242", "TZ": "Asia/Tokyo"}
    subprocess.run([*command, *map(str, there)], check=True, env=environment, timeout=120)
    assert [sha256_file(path) for path in here] == [sha256_file(path) for path in there]


@pytest.mark.parametrize("figure", MAINS)
def test_a_figure_is_as_wide_as_a_page_in_print(figure: str, arguments: dict[str, list[str]], tmp_path: Path) -> None:
    path = tmp_path / "figure.pdf"
    MAINS[figure]([*arguments[figure], "--output", str(path)])
    data = path.read_bytes()
    box = data[data.index(b"/MediaBox") :].split(b"[")[1].split(b"]")[0].split()
    assert float(box[2]) == pytest.approx(PAGE_MM / 25.4 * 72, abs=0.5)
    for secret in (b"CreationDate", b"Producer", str(Path.home()).encode()):
        assert secret not in data


def test_the_channels_have_the_same_bytes_twice(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(3, 6, 32, 32)).astype(np.float32)
    titles = ["g", "r", "z", "g residual", "r residual", "z residual"]
    for name in ("a.pdf", "b.pdf", "a.png", "b.png"):
        save_figure(draw(images, titles, "pair", 24, SixChannelsSettings()), tmp_path / name, tight=False)
    for suffix in ("pdf", "png"):
        assert sha256_file(tmp_path / f"a.{suffix}") == sha256_file(tmp_path / f"b.{suffix}")


def test_pictures_of_a_grid_are_square_and_keep_their_distance() -> None:
    figure, axes = picture_grid(2, 3, Margins(left=5, top=7, gap=2, row_gap=4))
    width, height = (inches * 25.4 for inches in figure.get_size_inches())
    boxes = [[axis.get_position() for axis in row] for row in axes]
    side = boxes[0][0].width * width
    assert width == pytest.approx(PAGE_MM)
    assert boxes[0][0].height * height == pytest.approx(side)
    assert (boxes[0][1].x0 - boxes[0][0].x1) * width == pytest.approx(2)
    assert (boxes[0][0].y0 - boxes[1][0].y1) * height == pytest.approx(4)
    assert boxes[0][0].x0 * width == pytest.approx(5)


@pytest.mark.parametrize("figure", FIGURES)
def test_no_figure_executes_the_code_of_another(figure: str) -> None:
    """So that an edit of one draws that one anew."""
    executed = modules(f"dark_halo_scope.paper.{figure}")
    others = {f"dark_halo_scope.paper.{other}" for other in FIGURES if other != figure}
    assert not executed & others


def test_panels_of_a_row_share_what_the_margins_leave() -> None:
    figure, panels = panel_row(3, 60, Margins(left=10, right=4, top=8, bottom=12, gap=5), sharey=True)
    width, height = (inches * 25.4 for inches in figure.get_size_inches())
    boxes = [axis.get_position() for axis in panels]
    assert (width, height) == (pytest.approx(PAGE_MM), pytest.approx(60))
    assert [box.width * width for box in boxes] == pytest.approx([(PAGE_MM - 10 - 4 - 2 * 5) / 3] * 3)
    assert (boxes[1].x0 - boxes[0].x1) * width == pytest.approx(5)
    assert boxes[0].x0 * width == pytest.approx(10)
    assert (1 - boxes[2].x1) * width == pytest.approx(4)
    assert (boxes[0].y0 * height, (1 - boxes[0].y1) * height) == (pytest.approx(12), pytest.approx(8))
    assert panels[0].get_shared_y_axes().joined(panels[0], panels[2])
