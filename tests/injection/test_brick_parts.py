"""Files hold whole bricks."""

from dark_halo_scope.injection.brick_parts import parts_of


def test_a_file_holds_whole_bricks_and_about_as_many_rows_as_asked_for() -> None:
    bricks = ["c"] * 5 + ["a"] * 3 + ["b"] * 4 + ["d"]
    assert parts_of(bricks, 6) == [["a", "b"], ["c", "d"]]
    assert parts_of(bricks, 1) == [["a"], ["b"], ["c"], ["d"]]
    assert parts_of(bricks, 1000) == [["a", "b", "c", "d"]]
    assert parts_of([], 10) == []
    assert parts_of(list(reversed(bricks)), 6) == parts_of(bricks, 6)
