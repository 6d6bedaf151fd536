"""Controls and grid cells are balanced in every stratum, however small, and follow from a host's rank alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.injection.assignment import Assignment, Stratum, assign, cell_order
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.grids import GRIDS

STRATA = [Stratum(split, psf, depth) for split in ("train", "val", "test") for psf in range(4) for depth in range(4)]
GRID_NAMES = sorted(GRIDS)

strata = st.sampled_from(STRATA)
shares = st.floats(0.01, 0.99)


def settings_for(**changes) -> ManifestSettings:
    return ManifestSettings.model_validate({"replicates": {"train": 1, "val": 1, "test": 1}} | changes)


def assigned(count: int, stratum: Stratum = STRATA[0], **changes) -> list[Assignment]:
    chosen = settings_for(**changes)
    return [assign(stratum, rank, chosen) for rank in range(count)]


def evenly(counts: Counter, values: int) -> bool:
    return len(counts) <= values and max(counts.values()) - (min(counts.values()) if len(counts) == values else 0) <= 1


@settings(max_examples=60, deadline=None)
@given(strata, shares, st.integers(0, 400), st.integers(0, 99))
def test_every_stratum_has_its_share_of_controls_to_within_one(stratum, share, count, seed):
    hosts = assigned(count, stratum, controls="unpaired", control_fraction=share, seed=seed)
    assert abs(sum(host.is_control for host in hosts) - round(share * count)) <= 1


def test_rounding_takes_no_side_over_all_strata():
    controls = [host for stratum in STRATA for host in assigned(1, stratum, controls="unpaired")]
    # One host in each of 48 strata: half of these are controls, where rounding up would have taken all.
    assert 14 <= sum(host.is_control for host in controls) <= 34


def test_a_paired_dataset_has_no_controls():
    assert not any(host.is_control or host.point for host in assigned(300))


@pytest.mark.parametrize("grid", GRID_NAMES)
@pytest.mark.parametrize("controls", ["paired", "unpaired"])
def test_every_cell_occurs_equally_often_to_within_one(grid, controls):
    points = GRIDS[grid].points()
    for count in (len(points) // 3, 2 * len(points), 5 * len(points) + 17):
        cells = Counter(host.point for host in assigned(count, controls=controls, grid=grid) if not host.is_control)
        assert set(cells) <= set(points)
        assert evenly(cells, len(points))


@settings(max_examples=60, deadline=None)
@given(strata, st.sampled_from(GRID_NAMES), st.integers(1, 100), st.sampled_from([0.3, 0.5, 1.0]), st.integers(0, 9))
def test_einstein_radii_are_even_in_a_stratum_smaller_than_the_grid(stratum, grid, count, share, seed):
    changes = {"grid": grid, "grid_fraction": share, "controls": "unpaired", "seed": seed}
    radii = Counter(host.point.theta_e for host in assigned(count, stratum, **changes) if host.point)
    assert not radii or evenly(radii, len(GRIDS[grid].theta_e))


def test_small_strata_together_cover_the_grid():
    cells = {host.point for stratum in STRATA for host in assigned(100, stratum, grid="sota")}
    assert len(cells) > 950


@settings(max_examples=40, deadline=None)
@given(strata, shares, st.integers(0, 300))
def test_a_share_of_the_positives_is_the_grids_and_the_rest_the_priors(stratum, share, count):
    hosts = assigned(count, stratum, controls="unpaired", control_fraction=0.3, grid="small", grid_fraction=share)
    positives = [host for host in hosts if not host.is_control]
    assert abs(sum(host.point is not None for host in positives) - share * len(positives)) <= 1
    assert not any(host.point for host in hosts if host.is_control)


def test_the_share_of_one_takes_every_host_of_a_survey():
    chosen = settings_for(grid="medium")
    for rank in (0, 1, 2**20 - 1, 2**20, 19_687_747, 2**31 - 2):
        assert all(assign(stratum, rank, chosen).point is not None for stratum in STRATA)


@pytest.mark.parametrize("grid", GRID_NAMES)
def test_the_order_of_cells_is_a_permutation_that_the_seed_decides(grid):
    order = cell_order(grid, 13)
    assert sorted(order, key=repr) == sorted(GRIDS[grid].points(), key=repr)
    assert order != cell_order(grid, 14)
    # Besides theta_E, neither is any other parameter in step with the order.
    half = order[: len(order) // 2]
    for name in ("dmag", "reff", "src_e", "shear"):
        counts = Counter(getattr(point, name) for point in half)
        assert max(counts.values()) < 1.5 * len(half) / len(getattr(GRIDS[grid], name))


def test_other_strata_have_other_phases():
    patterns = {
        tuple(host.is_control for host in assigned(8, s, controls="unpaired", control_fraction=0.37)) for s in STRATA
    }
    assert len(patterns) > 5
