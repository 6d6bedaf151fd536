"""What the probe promises: nothing where there is nothing, what is planted where it is, and words where n is small."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.matching import Match
from dark_halo_scope.evaluation.realism import Galaxies, floor_auc, held_out_auc, match, measure_realism, two_ways
from dark_halo_scope.evaluation.realism_config import RealismSettings

SIZE = 48
CLASSIFIERS = ShortcutSettings(trees=10, bootstraps=100, permutations=50, min_pairs=30)
SETTINGS = RealismSettings(classifiers=CLASSIFIERS, floor_repeats=8)


def _galaxies(count: int, seed: int, shift: float = 0.0, features: int = 6, cells: int = 20) -> Galaxies:
    """Noise, with features `shift` standard deviations from those of others in their first column."""
    rng = np.random.default_rng(seed)
    host = np.arange(count)
    values = rng.normal(size=(count, features))
    values[:, 0] += shift
    rows = pa.table(
        {
            "ra": rng.uniform(0, 10, count),
            "dec": rng.uniform(0, 10, count),
            "healpix_128": host % cells,
            "theta_e_arcsec": np.full(count, 1.5),
            "psfsize_r": rng.uniform(1.1, 1.4, count),
            "psfdepth_r": rng.uniform(24, 24.5, count),
        }
    )
    photometry = {name: rng.normal(size=count) for name in SETTINGS.match.variables}
    images = rng.normal(0, 0.01, (count, 3, SIZE, SIZE)).astype(np.float32)
    return Galaxies(images, rows, np.zeros((count, 2)), host, photometry, values)


def _auc(first: Galaxies, second: Galaxies, seed: int = 0, settings: ShortcutSettings = CLASSIFIERS) -> dict:
    rng = np.random.default_rng(seed)
    return held_out_auc(first.features, second.features, first, second, settings, rng)


def test_classes_that_do_not_differ_score_one_half() -> None:
    entry = _auc(_galaxies(300, 1), _galaxies(300, 2))
    assert entry["status"] == "measured"
    assert abs(entry["value"] - 0.5) < 0.09
    assert entry["interval"][0] < 0.5 < entry["interval"][1]
    assert (entry["n"], entry["negatives"], entry["hosts"], entry["cells"]) == (300, 300, 600, 20)


def test_what_is_unknown_of_one_class_does_not_tell_it_apart() -> None:
    """A feature that a quarter of one class lacks: any number in its place would mark that class."""
    first, second = _galaxies(400, 1), _galaxies(300, 2)
    first.features[:100, 2] = np.nan
    entry = _auc(first, second)
    assert abs(entry["value"] - 0.5) < 0.09
    assert (entry["n"], entry["left_out"]) == (300, 100)
    first.features[:, 2] = np.nan
    assert _auc(first, second)["status"] == "not measurable: fewer than 30"


def test_a_planted_difference_is_found_at_its_size() -> None:
    """Two Gaussians a standard deviation apart have an AUC of 0.760."""
    entry = _auc(_galaxies(600, 1, shift=1.0), _galaxies(600, 2))
    assert entry["value"] == pytest.approx(0.760, abs=0.04)
    assert entry["interval"][0] < entry["value"] < entry["interval"][1]


def test_what_marks_a_cell_and_not_a_class_is_not_found() -> None:
    """Cells have looks of their own and hold mostly one class: a probe that had seen a cell would know its class."""
    rng = np.random.default_rng(3)
    looks, own_cells = rng.normal(size=(20, 30)), rng.permutation(20)
    pair, leaked = [], []
    for one, half in ((_galaxies(400, 4), own_cells[:10]), (_galaxies(400, 5), own_cells[10:])):
        cell = np.where(rng.random(400) < 0.8, rng.choice(half, 400), rng.integers(0, 20, 400))
        for kept, groups in ((pair, cell), (leaked, np.arange(400))):
            rows = one.rows.set_column(one.rows.schema.get_field_index("healpix_128"), "healpix_128", pa.array(groups))
            kept.append(replace(one, rows=rows, features=looks[cell]))
    # With the cells unknown to it, a probe learns what each looks like and knows it again.
    assert _auc(*leaked)["value"] > 0.85
    # Folds of balanced classes leave the opposite balance to learn from: below one half is no finding either.
    assert _auc(*pair)["value"] < 0.6


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (_galaxies(29, 1), _galaxies(100, 2), "fewer than 30"),
        (_galaxies(100, 1, cells=1), _galaxies(100, 2), "a class lies in one cell"),
    ],
)
def test_what_cannot_be_measured_says_why(first: Galaxies, second: Galaxies, why: str) -> None:
    entry = _auc(first, second)
    assert entry["value"] is None
    assert entry["interval"] is None
    assert entry["status"] == f"not measurable: {why}"
    assert entry["n"] == len(first)


def test_the_floor_is_one_half_whatever_the_second_choice_is_like() -> None:
    """Second choices are worse matches; who goes to which side is a coin's matter, so that this cannot show."""
    controls = _galaxies(400, 6)
    features = controls.features.copy()
    features[200:, 0] += 3.0  # all second choices are another kind of galaxy
    odd = replace(controls, features=features)
    found = Match(np.arange(200), np.arange(200), np.arange(200, 400), np.zeros(200))
    entry = floor_auc(odd, found, SETTINGS, np.random.default_rng(0))
    assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    assert abs(entry["value"] - 0.5) < 0.06
    assert (entry["n"], entry["repeats"]) == (200, 8)


def test_injections_that_look_like_lenses_reach_the_floor_and_others_do_not() -> None:
    lenses, injections = _galaxies(150, 7), _galaxies(600, 8)
    for shift, low, high in ((0.0, 0.35, 0.65), (3.0, 0.95, 1.0)):
        moved = replace(lenses, features=lenses.features + shift)
        found = match(moved, injections, SETTINGS.match.variables, 1.5)
        result = measure_realism(moved, injections, injections, found, SETTINGS)
        assert low <= result["probe"]["lenses_vs_injections"]["value"] <= high
        assert abs(result["probe"]["floor"]["value"] - 0.5) < 0.12
        assert result["counts"]["matched"] > 130
        assert set(result["pixels"]) == {"core", "radial", "annulus", "corner_noise", "metadata"}
        assert abs(result["corner_noise"]["lenses_vs_injections"]["value"] - 0.5) < 0.15


def test_a_variable_that_nobody_has_matches_nothing_and_everything_says_so() -> None:
    lenses, injections = _galaxies(60, 9), _galaxies(60, 10)
    found = match(lenses, injections, ("psfsize_r",), 1.0)
    result = measure_realism(lenses, injections, injections, found, SETTINGS)
    assert result["counts"]["matched"] == 0
    assert {entry["status"] for entry in result["probe"].values()} == {"not measurable: fewer than 30"}
    assert result["pixels"] == {}


def test_resampled_noise_is_told_from_noise_as_it_was() -> None:
    """What a cutout service does: neighbours share light, and the noise becomes smaller."""
    plain = _galaxies(120, 11)
    smooth = 0.5 * (plain.images + np.roll(plain.images, 1, axis=-1))
    service = replace(plain, images=smooth)
    result = two_ways(service, plain, CLASSIFIERS, np.random.default_rng(0))
    assert result["n"] == 120
    assert result["corner_noise"]["logistic"]["value"] > 0.95
    for band in "grz":
        assert result["noise_ratio"][band] == pytest.approx(np.sqrt(0.5), abs=0.03)
        assert result["neighbour_correlation"][band]["service"] == pytest.approx(0.5, abs=0.05)
        assert result["neighbour_correlation"][band]["coadd"] == pytest.approx(0.0, abs=0.05)


def test_the_same_seed_gives_the_same_numbers() -> None:
    lenses, injections = _galaxies(80, 12), _galaxies(200, 13)
    found = match(lenses, injections, SETTINGS.match.variables, 1.5)
    one, other = (measure_realism(lenses, injections, injections, found, SETTINGS) for _ in range(2))
    assert one == other


def test_no_lens_at_all_is_said_and_nothing_fails() -> None:
    nobody, injections = _galaxies(60, 14).take(np.empty(0, dtype=np.intp)), _galaxies(60, 15)
    found = match(nobody, injections, SETTINGS.match.variables, 1.0)
    result = measure_realism(nobody, injections, injections, found, SETTINGS)
    assert result["probe"]["lenses_vs_injections"]["status"] == "not measurable: fewer than 30"
    ways = two_ways(nobody, nobody, CLASSIFIERS, np.random.default_rng(0))
    assert ways["corner_noise"]["logistic"]["status"] == "not measurable: too few"
    assert ways["noise_ratio"] == {}
