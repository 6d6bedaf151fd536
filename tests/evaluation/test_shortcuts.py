"""What the data-level classifiers promise: noise scores 0.5, a planted shortcut is found, a leak cannot hide."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.intervals import auc_within, evaluate, weighted_auc
from dark_halo_scope.evaluation.shortcuts import (
    TOO_FEW,
    PairSample,
    UnpairedSample,
    annulus_statistics,
    core_brightness_ratio,
    corner_noise,
    held_out_scores,
    measure_shortcuts,
    measure_unpaired,
    radial_profile,
    shortcut_aucs,
)

SETTINGS = ShortcutSettings(trees=15, bootstraps=100, permutations=100)
SIZE = 48


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(0.0, 0.01, (n, 3, SIZE, SIZE)).astype(np.float32)


def _sample(n: int = 240, seed: int = 0) -> PairSample:
    """Pairs that differ by nothing but independent noise."""
    rng = np.random.default_rng(seed)
    where = geometry(np.full(n, 1.5), np.full(n, 1.3), (SIZE, SIZE))
    host = np.arange(n) // 2
    return PairSample(_noise(rng, n), _noise(rng, n), _noise(rng, n), where, host, host // 6)


def _arc(where: object, brightness: float) -> np.ndarray:
    return (brightness * where.annulus[:, None]).astype(np.float32)  # type: ignore[attr-defined]


def test_pairs_that_differ_by_noise_alone_score_one_half() -> None:
    result = measure_shortcuts(_sample(), SETTINGS, seed=1)
    for comparison in ("control", "hard_negative"):
        assert set(result[comparison]) == {"core", "radial", "annulus", "corner_noise"}
        for features, models in result[comparison].items():
            for model, auc in models.items():
                # 240 pairs: three standard errors of an AUC are 0.08.
                assert abs(auc["value"] - 0.5) < 0.09, (comparison, features, model)
                assert auc["n"] == 240
                assert auc["hosts"] == 120
                low, high = auc["interval"]
                assert low <= auc["value"] <= high
                assert auc["null"]["mean"] == pytest.approx(0.5, abs=0.02)


def test_a_classifier_scored_on_its_own_rows_would_have_found_something_in_noise() -> None:
    """Why the cross-validation: the same features, fitted and scored on the same rows."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(150, 300)), rng.normal(size=(150, 300))
    features, labels = np.concatenate([first, second]), np.repeat([1, 0], 150)
    model = LogisticRegression(max_iter=300).fit(features, labels)
    in_sample = model.predict_proba(features)[:, 1]
    assert evaluate(weighted_auc, in_sample[:150], in_sample[150:]) > 0.85
    *held_out, folds = held_out_scores(LogisticRegression(max_iter=300), first, second, np.arange(150) // 5, 5)
    assert abs(evaluate(auc_within(folds), *held_out) - 0.5) < 0.11


def test_an_arc_is_found_in_annulus_and_profile_but_not_in_the_corners() -> None:
    sample = _sample()
    lensed = PairSample(
        sample.positive + _arc(sample.where, 0.01),
        sample.control,
        sample.hard_negative,
        sample.where,
        sample.host,
        sample.cell,
    )
    found = measure_shortcuts(lensed, SETTINGS, seed=1)["control"]
    assert found["annulus"]["logistic"]["value"] > 0.95
    assert found["radial"]["logistic"]["value"] > 0.95
    assert found["annulus"]["logistic"]["null"]["p_value"] < 0.02
    assert abs(found["corner_noise"]["logistic"]["value"] - 0.5) < 0.09


def test_the_same_flux_rearranged_in_the_annulus_is_not_a_matter_of_flux() -> None:
    """Against hard negatives that share the profile, the radial profile has nothing to go by."""
    sample = _sample()
    arc = _arc(sample.where, 0.02)
    x_left = np.arange(SIZE) < SIZE // 2
    one_side = 2 * arc * x_left
    pairs = PairSample(
        sample.positive + one_side,
        sample.control,
        sample.hard_negative + arc,
        sample.where,
        sample.host,
        sample.cell,
    )
    found = measure_shortcuts(pairs, SETTINGS, seed=1)
    assert abs(found["hard_negative"]["radial"]["logistic"]["value"] - 0.5) < 0.09
    assert found["control"]["radial"]["logistic"]["value"] > 0.95


def test_resampled_noise_in_the_corners_is_noticed() -> None:
    sample = _sample()
    smoothed = (sample.positive + np.roll(sample.positive, 1, axis=-1)) / np.sqrt(2)
    pairs = PairSample(smoothed, sample.control, sample.hard_negative, sample.where, sample.host, sample.cell)
    corner = measure_shortcuts(pairs, SETTINGS, seed=1)["control"]["corner_noise"]
    assert corner["boosting"]["value"] > 0.95


def _unpaired(n: int, seed: int, seeing: float = 1.3) -> UnpairedSample:
    """Noise on hosts of its own, in sixty cells that it shares with others."""
    rng = np.random.default_rng(seed)
    where = geometry(np.full(n, 1.5), np.full(n, 1.3), (SIZE, SIZE))
    metadata = rng.normal([seeing, 24.0], 0.1, (n, 2))
    return UnpairedSample(_noise(rng, n), where, metadata, np.arange(n) // 2, rng.integers(0, 60, n))


def test_two_unpaired_classes_of_noise_score_one_half() -> None:
    found = measure_unpaired(_unpaired(240, 0), _unpaired(200, 1), SETTINGS, seed=1)
    assert set(found) == {"core", "radial", "annulus", "corner_noise", "metadata"}
    for features, models in found.items():
        for model, auc in models.items():
            assert abs(auc["value"] - 0.5) < 0.11, (features, model)
            assert (auc["n"], auc["negatives"], auc["hosts"]) == (240, 200, 220)
            assert auc["interval"][0] < 0.55 < 0.45 + auc["interval"][1]


def test_worse_seeing_of_unpaired_controls_is_found_in_the_metadata_alone() -> None:
    found = measure_unpaired(_unpaired(120, 0, 1.2), _unpaired(150, 1, 1.5), SETTINGS, seed=1)
    assert found["metadata"]["logistic"]["interval"][0] > 0.9
    assert abs(found["corner_noise"]["boosting"]["value"] - 0.5) < 0.15


def test_resampled_noise_of_unpaired_controls_is_noticed_in_the_corners() -> None:
    control = _unpaired(200, 1)
    images = (control.images + np.roll(control.images, 1, axis=-1)) / np.sqrt(2)
    found = measure_unpaired(_unpaired(200, 0), replace(control, images=images), SETTINGS, seed=1)
    assert found["corner_noise"]["boosting"]["interval"][0] > 0.9


def _uneven(rng: np.random.Generator, n: int, separation: float) -> tuple[UnpairedSample, UnpairedSample]:
    """Classes with very different shares of each cell; `separation` apart in their first observing condition."""
    cells = rng.integers(0, 30, 4 * n)
    positive = rng.random(4 * n) < np.where(cells % 5 == 0, 0.95, 0.2)
    samples = []
    for chosen, mean in ((positive, separation), (~positive, 0.0)):
        index = np.flatnonzero(chosen)[:n]
        where = geometry(np.full(len(index), 1.5), np.full(len(index), 1.3), (SIZE, SIZE))
        # Few values, so that boosting's bins can lie between the classes.
        metadata = rng.integers(0, 20, (len(index), 2)) / 20 + mean
        samples.append(UnpairedSample(_noise(rng, len(index)), where, metadata, np.arange(len(index)), cells[index]))
    return samples[0], samples[1]


def test_classes_with_other_shares_of_each_fold_are_told_apart_perfectly_or_not_at_all() -> None:
    """Ranks pooled over folds gave 0.91-0.96 for a perfect separation."""
    apart = measure_unpaired(*_uneven(np.random.default_rng(8), 240, 2.0), SETTINGS, seed=1)["metadata"]
    assert {model: auc["value"] for model, auc in apart.items()} == {"logistic": 1.0, "boosting": 1.0}
    assert [auc["interval"] for auc in apart.values()] == [[1.0, 1.0], [1.0, 1.0]]
    alike = measure_unpaired(*_uneven(np.random.default_rng(9), 240, 0.0), SETTINGS, seed=1)["metadata"]
    for auc in alike.values():
        assert abs(auc["value"] - 0.5) < 0.1
        assert auc["interval"][0] < 0.5 < auc["interval"][1]


def test_a_class_that_lies_in_cells_of_its_own_fold_gives_words_not_a_number() -> None:
    """Nothing was learnt about it elsewhere, or nothing is there to compare it with."""
    positive, negative = _unpaired(120, 0), _unpaired(100, 1)
    alone = replace(negative, cell=np.full(100, 77))
    found = measure_unpaired(positive, alone, SETTINGS, seed=1)
    assert found["metadata"] == {"logistic": TOO_FEW, "boosting": TOO_FEW}


def test_conditions_that_one_class_lacks_more_often_do_not_tell_it_apart() -> None:
    """Zero in place of an unknown depth had set the two apart."""
    positive, negative = _unpaired(240, 0), _unpaired(240, 1)
    negative.metadata[:100, 1] = np.nan
    negative.metadata[100, 0] = np.inf
    found = measure_unpaired(positive, negative, SETTINGS, seed=1)
    for auc in found["metadata"].values():
        assert abs(auc["value"] - 0.5) < 0.12
        assert (auc["n"], auc["negatives"], auc["left_out"]) == (240, 139, 101)
        assert auc["hosts"] == 120 + 70
    assert "left_out" not in found["core"]["logistic"]


def test_unknown_conditions_do_not_hide_a_difference_in_the_known_ones() -> None:
    positive, negative = _unpaired(300, 0, 1.2), _unpaired(300, 1, 1.5)
    for one in (positive, negative):
        one.metadata[np.arange(300) % 3 > 0, 0] = np.nan
    found = measure_unpaired(positive, negative, SETTINGS, seed=1)["metadata"]
    assert found["logistic"]["interval"][0] > 0.9
    assert found["logistic"]["left_out"] == 400


def test_a_condition_that_neither_class_has_changes_nothing_and_one_that_a_class_lacks_cannot_be_compared() -> None:
    samples = [_unpaired(240, 0), _unpaired(200, 1)]
    plain = measure_unpaired(samples[0], samples[1], SETTINGS, seed=1)
    nowhere = [replace(one, metadata=np.insert(one.metadata, 1, np.nan, axis=1)) for one in samples]
    assert measure_unpaired(nowhere[0], nowhere[1], SETTINGS, seed=1) == plain
    lacking = measure_unpaired(nowhere[0], replace(samples[1], metadata=np.ones((200, 3))), SETTINGS, seed=1)
    assert lacking["metadata"] == {"logistic": TOO_FEW, "boosting": TOO_FEW}


def test_a_pair_with_an_unknown_feature_is_left_out_whole() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(size=(2, 200, 4))
    hosts = np.arange(200)
    positive[:20, 2], negative[10:40, 0] = np.nan, np.nan
    found = shortcut_aucs(positive, negative, hosts, hosts, SETTINGS, np.random.default_rng(1))
    whole = shortcut_aucs(positive[40:], negative[40:], hosts[40:], hosts[40:], SETTINGS, np.random.default_rng(1))
    assert found == {name: auc | {"left_out": 40} for name, auc in whole.items()}


def test_few_unpaired_controls_give_words_not_numbers() -> None:
    found = measure_unpaired(_unpaired(120, 0), _unpaired(SETTINGS.min_pairs - 1, 1), SETTINGS, seed=1)
    assert found["metadata"] == {"logistic": TOO_FEW, "boosting": TOO_FEW}


def test_all_pairs_of_a_cell_lie_in_one_fold() -> None:
    """A cell's own signature cannot be learnt: a feature that names the cell and its label scores nothing."""
    rng = np.random.default_rng(4)
    cells = np.repeat(np.arange(20), 12)
    # In each cell one half of the pair has +s, the other -s, where s is the cell's own sign: unpredictable elsewhere.
    sign = rng.choice([-1.0, 1.0], 20)[cells][:, None]
    one_hot = np.eye(20)[cells]
    positive, negative = sign * one_hot, -sign * one_hot
    *scores, folds = held_out_scores(LogisticRegression(), positive, negative, cells, 5)
    assert evaluate(auc_within(folds), *scores) == pytest.approx(0.5, abs=1e-9)


def test_too_few_pairs_or_a_single_cell_give_words_not_numbers() -> None:
    rng = np.random.default_rng(5)
    few = rng.normal(size=(SETTINGS.min_pairs - 1, 4))
    hosts = np.arange(len(few))
    assert shortcut_aucs(few, few, hosts, hosts, SETTINGS, rng)["logistic"] == TOO_FEW
    many = rng.normal(size=(100, 4))
    assert shortcut_aucs(many, many, np.arange(100), np.zeros(100, int), SETTINGS, rng)["boosting"] == TOO_FEW


def test_features_have_their_stated_meaning() -> None:
    n = 3
    where = geometry(np.full(n, 1.5), np.full(n, 1.3), (SIZE, SIZE))
    radius_pixels = where.radius / where.pixel_scale
    images = np.repeat(np.floor(radius_pixels)[:, None], 3, axis=1).astype(np.float32)
    profile = radial_profile(images, where, SETTINGS).reshape(n, 3, SETTINGS.rings)
    np.testing.assert_allclose(profile, np.broadcast_to(np.arange(SETTINGS.rings), profile.shape))
    minimum, maximum = annulus_statistics(images, where).reshape(n, 3, 7)[0, 0, [0, 4]]
    assert minimum == images[0, 0][where.annulus[0]].min()
    assert maximum == images[0, 0][where.annulus[0]].max()
    rng = np.random.default_rng(6)
    mean, sigma, across, down = corner_noise(_noise(rng, 400), SETTINGS).reshape(400, 3, 4).mean(axis=(0, 1))
    assert mean == pytest.approx(0.0, abs=1e-4)
    assert sigma == pytest.approx(0.01, rel=0.01)
    assert across == pytest.approx(0.0, abs=0.01)
    assert down == pytest.approx(0.0, abs=0.01)


def test_core_brightness_ratio_is_that_of_the_cores() -> None:
    sample = _sample(60)
    bright = np.full_like(sample.control, 2.0)
    ratio = core_brightness_ratio(PairSample(1.2 * bright, bright, bright, sample.where, sample.host, sample.cell))
    assert ratio == pytest.approx(1.2, rel=1e-5)
