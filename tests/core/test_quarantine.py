"""No row is lost: it is kept, or kept aside with the reason."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.quarantine import check_balance, check_fraction, split_rows, write_quarantine


@given(st.lists(st.sampled_from([None, "", "flux is NaN", "RA 361"]), max_size=30))
def test_every_row_is_on_exactly_one_side_in_its_order(reasons):
    table = pa.table({"id": pa.array(range(len(reasons)), pa.int64())})
    kept, bad = split_rows(table, reasons)
    assert kept["id"].to_pylist() == [i for i, reason in enumerate(reasons) if not reason]
    assert bad["id"].to_pylist() == [i for i, reason in enumerate(reasons) if reason]
    assert bad["quarantine_reason"].to_pylist() == [reason for reason in reasons if reason]
    check_balance(table.num_rows, kept.num_rows, bad.num_rows)


def test_reasons_for_other_rows_are_refused():
    with pytest.raises(ValueError, match="2 reasons for 1 rows"):
        split_rows(pa.table({"id": [1]}), ["a", "b"])


def test_quarantined_rows_are_written_below_the_prefix(tmp_path):
    _, bad = split_rows(pa.table({"id": [1, 2]}), [None, "duplicate id"])
    path = write_quarantine(tmp_path, "sweep-1", bad)
    assert path == tmp_path / "quarantine" / "sweep-1.parquet"
    assert pq.read_table(path).to_pylist() == [{"id": 2, "quarantine_reason": "duplicate id"}]


def test_without_bad_rows_nothing_is_written(tmp_path):
    _, bad = split_rows(pa.table({"id": [1]}), [None])
    assert write_quarantine(tmp_path, "sweep-1", bad) is None
    assert list(tmp_path.iterdir()) == []


def test_rows_without_a_reason_are_refused(tmp_path):
    with pytest.raises(ValueError, match="quarantine_reason"):
        write_quarantine(tmp_path, "x", pa.table({"id": [1]}))


def test_a_lost_or_doubled_row_is_an_error_with_the_numbers():
    check_balance(10, 9, 1)
    with pytest.raises(BadInputError, match="10 rows but accounts for 9"):
        check_balance(10, 8, 1)
    with pytest.raises(BadInputError, match="11"):
        check_balance(10, 10, 1)


def test_a_thousandth_of_bad_rows_is_the_most():
    check_fraction(1000, 1)
    check_fraction(0, 0)
    with pytest.raises(BadInputError, match=r"2 of 1000 rows.*0\.10%"):
        check_fraction(1000, 2)
    with pytest.raises(BadInputError):
        check_fraction(999, 1)
