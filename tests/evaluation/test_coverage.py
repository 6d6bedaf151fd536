"""95% intervals hold the truth in 93 to 97% of simulated experiments, where their method promises it."""

import numpy as np
import pytest
from scipy import stats

from dark_halo_scope.evaluation import host_resampling as resampling
from dark_halo_scope.evaluation import intervals


def binomial_coverage(n: int, p: float) -> float:
    """How often the Clopper-Pearson interval of n trials holds p: exactly, summed over every outcome."""
    k = np.arange(n + 1)
    low, high = intervals.clopper_pearson(k, n)
    return float(stats.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum())


@pytest.mark.parametrize("n", [10, 50, 200, 1000, 4000])
def test_clopper_pearson_never_covers_less_than_it_promises(n: int) -> None:
    rates = np.concatenate([np.geomspace(0.5 / n, 0.5, 25), 1 - np.geomspace(0.5 / n, 0.5, 25)])
    assert min(binomial_coverage(n, p) for p in rates) >= 0.95 - 1e-12


def test_clopper_pearson_covers_little_more_in_the_middle_range_of_many_trials() -> None:
    coverage = [binomial_coverage(4000, p) for p in np.linspace(0.05, 0.95, 91)]
    assert 0.95 <= np.mean(coverage) < 0.956
    assert max(coverage) < 0.965


def test_clopper_pearson_covers_simulated_false_positive_rates() -> None:
    rng = np.random.default_rng(0)
    alarms = rng.binomial(2000, 0.05, 20_000)
    low, high = intervals.clopper_pearson(alarms, 2000)
    assert 0.93 <= np.mean((low <= 0.05) & (high >= 0.05)) <= 0.97


def many_delongs(positive_RM: np.ndarray, negative_RN: np.ndarray) -> np.ndarray:
    """Bounds of each experiment."""
    found = [intervals.delong(p, n)[1] for p, n in zip(positive_RM, negative_RN, strict=True)]
    return np.array([[interval.low, interval.high] for interval in found])


@pytest.mark.parametrize(("separation", "m", "n"), [(0.5, 100, 200), (1.5, 200, 200), (2.0, 150, 1500)])
def test_delong_covers_the_auc_of_independent_images(separation: float, m: int, n: int) -> None:
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(separation / np.sqrt(2))
    bounds = many_delongs(rng.normal(separation, 1, (4000, m)), rng.normal(0, 1, (4000, n)))
    assert 0.93 <= np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])) <= 0.97


HOSTS, PER_HOST, SEPARATION, SHARED = 250, 3, 1.2, 1.0


def clustered(rng: np.random.Generator, hosts: int, per_host: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positives and negatives of hosts that make all their images brighter or fainter for the network."""
    host = np.repeat(np.arange(hosts), per_host)
    shared = rng.normal(0, SHARED, hosts)[host]
    noise = rng.normal(0, 1, (2, len(host)))
    return SEPARATION + shared + noise[0], shared + noise[1], host


SPREAD = np.sqrt(1 + SHARED**2)
TRUE_AUC = stats.norm.cdf(SEPARATION / (np.sqrt(2) * SPREAD))
TRUE_TPR = stats.norm.sf(stats.norm.isf(0.1) - SEPARATION / SPREAD)
TRUE_FPR = stats.norm.sf(stats.norm.isf(0.8) + SEPARATION / SPREAD)


@pytest.mark.slow
def test_the_host_bootstrap_covers_where_images_share_hosts_and_independent_images_would_not() -> None:
    """AUC, TPR at FPR 0.1 and FPR at TPR 0.8, resampled as performance.json and stratified_fpr.csv are."""
    rng = np.random.default_rng(2)
    experiments = 1200
    covered, naive = np.zeros(3), 0
    for _ in range(experiments):
        positive, negative, host = clustered(rng, HOSTS, PER_HOST)
        levels = resampling.choose_levels(np.sort(positive), np.sort(negative))
        counts = [resampling.count(host, levels.of(score), len(levels.edges)) for score in (positive, negative)]
        [sample] = resampling.resamples(resampling.grouped(counts[0], counts[1], True), rng, 200)
        drawn = (resampling.auc(sample), resampling.tpr_at_fpr(sample, 0.1), resampling.fpr_at_tpr(sample, 0.8))
        for index, (values, truth) in enumerate(zip(drawn, (TRUE_AUC, TRUE_TPR, TRUE_FPR), strict=True)):
            interval = resampling.percentile_interval(values, 0.95)
            assert interval is not None
            covered[index] += interval.low <= truth <= interval.high
        hits = int(np.sum(negative >= stats.norm.isf(0.1, scale=SPREAD)))
        low, high = intervals.clopper_pearson(hits, len(negative))
        naive += bool(low <= 0.1 <= high)
    assert ((covered / experiments >= 0.93) & (covered / experiments <= 0.97)).all(), covered / experiments
    assert naive / experiments < 0.93, "images of one host must not count as independent"


def test_the_plain_host_bootstrap_covers_means_and_differences_of_clustered_scores() -> None:
    rng = np.random.default_rng(3)
    covered = np.zeros(2)
    for _ in range(800):
        positive, negative, host = clustered(rng, 150, 2)
        for index, (statistic, truth) in enumerate(
            ((intervals.weighted_mean, SEPARATION), (intervals.weighted_difference, SEPARATION))
        ):
            interval = intervals.host_bootstrap(statistic, positive, negative, host, rng, 400)
            covered[index] += interval.low <= truth <= interval.high
    assert ((covered / 800 >= 0.93) & (covered / 800 <= 0.97)).all(), covered / 800
