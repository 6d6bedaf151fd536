"""Completeness by cell: counted exactly, weighted honestly, empty cells named, intervals that hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import beta, binomtest

from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.evaluation.completeness import (
    Injections,
    all_cells,
    bin_of,
    cell_rows,
    count_cells,
    fractional_interval,
    host_intervals,
    mean_entries,
    outside,
    sky_area,
)
from dark_halo_scope.evaluation.completeness_config import AXES, CompletenessSettings

EDGES = CompletenessSettings().edges


def truth(theta_e: np.ndarray, z: np.ndarray) -> np.ndarray:
    return 0.95 * expit(4 * (theta_e - 1.2) - 3 * (z - 0.4))


def draw(n: int, seed: int = 0, hosts: int | None = None) -> tuple[Injections, np.ndarray]:
    rng = np.random.default_rng(seed)
    axes = {name: rng.uniform(EDGES[name][0], EDGES[name][-1], n) for name in AXES}
    host = np.arange(n) if hosts is None else np.unique(rng.integers(0, hosts, n), return_inverse=True)[1]
    found = rng.random(n) < truth(axes["theta_e_arcsec"], axes["z_phot"])
    return Injections(axes, np.ones(n), host), found


@given(st.lists(st.floats(-1, 4) | st.just(float("nan")) | st.sampled_from([0.5, 1.0, 2.0]), min_size=1))
def test_a_bin_holds_its_lower_edge_and_the_last_both(values: list[float]) -> None:
    edges = (0.5, 1.0, 2.0)
    for value, found in zip(values, bin_of(np.array(values), edges), strict=True):
        expected = 0 if 0.5 <= value < 1 else 1 if 1 <= value <= 2 else -1
        assert found == expected


def test_cells_are_counted_as_a_loop_counts_them_and_empty_ones_are_there() -> None:
    injections, found = draw(300, hosts=100)
    cells = count_cells(injections, found, EDGES, ("theta_e_arcsec", "z_phot"))
    assert len(cells.n) == 49
    for (i, j), n, k, hosts in zip(cells.bin, cells.n, cells.k, cells.hosts, strict=True):
        inside = np.ones(300, dtype=bool)
        for name, place in (("theta_e_arcsec", i), ("z_phot", j)):
            low, high = EDGES[name][place : place + 2]
            inside &= (injections.axes[name] >= low) & (injections.axes[name] < high)
        assert (n, k) == (inside.sum(), found[inside].sum())
        assert hosts == len(set(injections.host[inside].tolist()))


def test_every_injection_inside_the_edges_is_in_one_cell_of_each_table() -> None:
    injections, found = draw(500)
    for cells in all_cells(injections, found, EDGES):
        assert (cells.n.sum(), cells.k.sum()) == (500, found.sum())
    full = all_cells(injections, found, EDGES)[-1]
    assert full.axes == AXES
    assert full.n.min() > 0


def test_what_is_unknown_or_outside_is_counted_and_in_no_cell() -> None:
    injections, found = draw(10)
    injections.axes["z_phot"][:3] = np.nan
    injections.axes["z_phot"][3] = 7.0
    assert outside(injections, EDGES)["z_phot"] == {"unknown": 3, "outside": 1}
    assert count_cells(injections, found, EDGES, ("z_phot",)).n.sum() == 6


def test_intervals_are_exact_and_two_hundred_injections_give_seven_points() -> None:
    injections, _ = draw(200)
    rows = cell_rows(count_cells(injections, np.arange(200) < 100, EDGES, ()), EDGES, 200, 0.95)
    known = binomtest(100, 200).proportion_ci()
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((known.low, known.high))
    assert (rows[0]["high"] - rows[0]["low"]) / 2 == pytest.approx(0.07, abs=0.002)
    assert rows[0]["flag"] == ""


def test_empty_cells_say_so_and_have_no_value() -> None:
    injections, found = draw(5)
    rows = cell_rows(count_cells(injections, found, EDGES, ("theta_e_arcsec",)), EDGES, 200, 0.95)
    assert {row["flag"] for row in rows} == {"empty", "too few"}
    for row in rows:
        assert (row["value"] is None) == (row["n"] == 0)
        assert row["theta_e_arcsec_low"] in EDGES["theta_e_arcsec"]
        assert row["z_phot_low"] is None


def test_intervals_of_cells_hold_the_true_completeness() -> None:
    inside = total = 0
    for seed in range(30):
        injections, found = draw(2000, seed)
        exact = truth(injections.axes["theta_e_arcsec"], injections.axes["z_phot"])
        cells = count_cells(injections, found, EDGES, ("theta_e_arcsec", "z_phot"))
        bins = [bin_of(injections.axes[name], EDGES[name]) for name in cells.axes]
        for (i, j), row in zip(cells.bin, cell_rows(cells, EDGES, 200, 0.95), strict=True):
            mean = exact[(bins[0] == i) & (bins[1] == j)].mean()
            inside += row["low"] <= mean <= row["high"]
            total += 1
    assert 0.95 <= inside / total <= 0.995


def test_weights_turn_a_proposal_into_the_prior_with_the_effective_number_of_kish() -> None:
    rng = np.random.default_rng(1)  # not that of the injections
    injections, _ = draw(20_000)
    theta_e = injections.axes["theta_e_arcsec"]
    weight = np.exp(-theta_e)
    found = rng.random(20_000) < truth(theta_e, injections.axes["z_phot"])
    weighted = Injections(injections.axes, weight, injections.host)
    [row] = cell_rows(count_cells(weighted, found, EDGES, ()), EDGES, 200, 0.95)
    expected = np.average(truth(theta_e, injections.axes["z_phot"]), weights=weight)
    assert row["weighted_low"] <= expected <= row["weighted_high"]
    assert row["value"] > row["weighted_high"]
    assert row["n_effective"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert row["n_effective"] < row["n"]


def test_less_than_one_success_bounds_a_share_by_less_than_one_does() -> None:
    low, high = fractional_interval(np.array([0.5, 9.5, 0.0, 3.0, 0.0]), np.array([10.0, 10.0, 0.0, 10.0, 10.0]), 0.95)
    assert low[0] == pytest.approx(beta.ppf(0.025, 0.5, 10.5))
    assert low[0] < binomtest(1, 10).proportion_ci().low
    assert high[1] == pytest.approx(1 - low[0])
    assert (low[2], high[2]) == (0, 1)
    known = binomtest(3, 10).proportion_ci()
    assert (low[3], high[3]) == pytest.approx((known.low, known.high))
    assert (low[4], high[4]) == pytest.approx((0, binomtest(0, 10).proportion_ci().high))


def test_the_effective_number_over_the_sky_knows_what_the_area_does_to_weights() -> None:
    """900 injections in good seeing stand for as much sky as 100 in bad seeing."""
    injections, found = draw(1000)
    injections.axes["psfsize_r"][:] = np.where(np.arange(1000) < 900, 1.15, 1.35)
    conditions = {name: np.array([1.15, 1.35]) for name in ("psfsize_r",)}
    sky = sky_area(conditions, np.ones(2), EDGES)
    entries = mean_entries(injections, found, EDGES, sky, 0.95, 20, np.random.default_rng(0))
    assert entries["as_injected"]["n_effective"] == pytest.approx(1000)
    assert entries["area_weighted"]["n_effective"] == pytest.approx(4 / (1 / 900 + 1 / 100))


def test_equal_weights_change_nothing() -> None:
    injections, found = draw(400)
    scaled = Injections(injections.axes, np.full(400, 3.7), injections.host)
    [row] = cell_rows(count_cells(scaled, found, EDGES, ()), EDGES, 200, 0.95)
    assert row["n_effective"] == pytest.approx(400)
    for end in ("value", "low", "high"):
        assert row[f"weighted_{end}"] == pytest.approx(row[end])


def test_hosts_that_bear_many_arcs_widen_their_intervals() -> None:
    rng = np.random.default_rng(0)
    host = np.repeat(np.arange(40), 25)
    axes = {name: np.full(1000, EDGES[name][0]) for name in AXES}
    found = (rng.random(40) < 0.5)[host]
    for owner, wider in ((host, True), (np.arange(1000), False)):
        injections = Injections(axes, np.ones(1000), owner)
        [row] = cell_rows(count_cells(injections, found, EDGES, ()), EDGES, 200, 0.95)
        first = host_intervals(injections, found, EDGES, 0.95, 200, rng)["z_phot"][0]
        assert first is not None
        assert (first[1] - first[0] > 3 * (row["high"] - row["low"])) == wider


def test_area_weighting_counts_conditions_as_the_sky_has_them() -> None:
    n = 2000
    axes = {name: np.full(n, EDGES[name][0]) for name in AXES}
    sharp = np.arange(n) < n // 2
    axes["psfsize_r"] = np.where(sharp, 1.05, 1.35)
    found = sharp & (np.arange(n) % 2 == 0)
    injections = Injections(axes, np.ones(n), np.arange(n))
    bricks = {"psfsize_r": np.array([1.05, 1.35, 1.55]), "psfdepth_r": np.full(3, EDGES["psfdepth_r"][0])}
    sky = sky_area(bricks, np.array([1.0, 3.0, 4.0]), EDGES)
    entries = mean_entries(injections, found, EDGES, sky, 0.95, 100, np.random.default_rng(0))
    assert entries["as_injected"]["value"] == pytest.approx(0.25)
    # Half of the sharp quarter of the sky that has injections; the sky's other half has none.
    assert entries["area_weighted"]["value"] == pytest.approx(0.5 * 0.25)
    assert entries["area_weighted"]["area_covered"] == pytest.approx(0.5)
    low, high = entries["area_weighted"]["interval"]
    assert low < 0.125 < high


def test_a_handful_of_injections_does_not_speak_for_its_part_of_the_sky() -> None:
    axes = {name: np.full(109, EDGES[name][0]) for name in AXES}
    rare = np.arange(109) >= 100
    axes["psfsize_r"] = np.where(rare, 1.35, 1.05)
    bricks = {"psfsize_r": np.array([1.05, 1.35]), "psfdepth_r": np.full(2, EDGES["psfdepth_r"][0])}
    sky = sky_area(bricks, np.array([1.0, 9.0]), EDGES)
    injections = Injections(axes, np.ones(109), np.arange(109))
    entry = mean_entries(injections, rare, EDGES, sky, 0.95, 10, np.random.default_rng(0))["area_weighted"]
    assert (entry["value"], entry["area_covered"]) == (0.0, pytest.approx(0.1))


def test_without_a_survey_no_area_is_weighted() -> None:
    injections, found = draw(100)
    entries = mean_entries(injections, found, EDGES, None, 0.95, 10, np.random.default_rng(0))
    assert entries["area_weighted"]["value"] is None
    assert entries["area_weighted"]["status"] == "not measurable: no survey was given"


@pytest.mark.parametrize("edges", [{"z_phot": (0, 1)}, {**EDGES, "z_phot": (0.5, 0.5)}, {**EDGES, "z": (0, 1)}])
def test_edges_are_of_all_axes_and_increase(edges: dict) -> None:
    with pytest.raises(ConfigError, match="edges"):
        validate(CompletenessSettings, {"edges": edges}, "completeness")
