"""The grids are those of the earlier datasets."""

import pytest

from dark_halo_scope.injection.grids import GRIDS


@pytest.mark.parametrize(("name", "cells"), [("small", 48), ("medium", 360), ("sota", 1008), ("sota_handoff", 648)])
def test_cell_counts_are_those_recorded(name, cells):
    points = GRIDS[name].points()
    assert len(points) == cells
    assert len(set(points)) == cells
    assert len({point.config_id for point in points}) == cells


def test_the_small_grid_is_the_handoffs_table():
    small = GRIDS["small"]
    assert (small.theta_e, small.dmag, small.reff) == ((0.3, 0.6, 1.0), (1.0, 2.0), (0.08, 0.15))
    assert (small.src_e, small.shear) == ((0.0, 0.3), (0.0, 0.03))


def test_the_two_readings_of_sota_differ_where_the_documents_do():
    assert set(GRIDS["sota_handoff"].theta_e) - set(GRIDS["sota"].theta_e) == {1.75, 2.25}
    assert GRIDS["sota"].shear == (0.0, 0.02, 0.04)
    assert GRIDS["sota_handoff"].shear == (0.0, 0.03)


def test_a_cells_name_says_its_values():
    assert GRIDS["sota"].points()[0].config_id == "te0.5_dm0.5_re0.06_e0_g0"
    assert GRIDS["sota"].points()[-1].config_id == "te2.5_dm2_re0.2_e0.4_g0.04"
