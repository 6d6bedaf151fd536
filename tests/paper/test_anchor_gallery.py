"""The gallery of known lenses."""

from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.paper.anchor_gallery import main, read_anchors, strips
from dark_halo_scope.paper.figure_config import AnchorGallerySettings

from .figure_inputs import write_anchors, write_lens_cutouts

SETTINGS = AnchorGallerySettings(columns=2, rows=(1, 1, 1, 1))


def anchors(folder: Path, scores: list[float], tiers: list[str], stress: int = 0):
    return read_anchors(write_anchors(folder / "anchors.csv", scores, tiers, stress), "tier_gen5_prime")


def test_the_first_tier_comes_first_and_found_before_missed(tmp_path: Path) -> None:
    known = anchors(tmp_path, [0.9, 0.1, 0.8, 0.2, 0.5], ["B", "B", "A", "A", "A"])
    made = strips(known, SETTINGS)
    assert [strip.title for strip in made] == [
        "Tier A, found",
        "Tier A, missed",
        "others, found",
        "others, missed",
    ]
    # A probability at the threshold is a detection.
    assert [strip.shown.tolist() for strip in made] == [[2, 4], [3], [0], [1]]


def test_those_shown_are_spread_in_rank_and_not_picked(tmp_path: Path) -> None:
    scores = np.linspace(0.5, 1.0, 100).tolist()
    (strip,) = strips(anchors(tmp_path, scores, ["A"] * 100), SETTINGS)
    assert strip.total == 100
    # Ranks 25 and 75 by falling probability.
    assert strip.shown.tolist() == [74, 24]


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    known = anchors(tmp_path, [0.9, 0.9, 0.9, 0.7], ["A"] * 4)
    (strip,) = strips(known, SETTINGS)
    turned = type(known)(known.names[::-1], known.score[::-1], known.theta_e[::-1], known.tier[::-1], known.image[::-1])
    (other,) = strips(turned, SETTINGS)
    assert [known.names[i] for i in strip.shown] == [turned.names[i] for i in other.shown]


def test_stress_lists_are_not_shown(tmp_path: Path) -> None:
    assert anchors(tmp_path, [0.1, 0.2, 0.9], ["A"] * 3, stress=2).names == ["lens2"]


def test_without_any_anchor_the_sentence_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="footprint holds no known lens"):
        strips(anchors(tmp_path, [], []), SETTINGS)


def test_a_tier_scheme_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    path = write_anchors(tmp_path / "anchors.csv", [0.5])
    with pytest.raises(BadInputError, match="tier_mine"):
        read_anchors(path, "tier_mine")


def test_anchors_of_other_cutouts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores = write_anchors(tmp_path / "anchors.csv", [0.5, 0.6, 0.7])
    cutouts = write_lens_cutouts(tmp_path / "cutouts.json", 2)
    with pytest.raises(BadInputError, match="other cutouts"):
        main(["--anchors", str(scores), "--cutouts", str(cutouts), "--output", str(tmp_path / "a.png")])
