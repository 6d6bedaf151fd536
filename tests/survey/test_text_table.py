"""Lists that users wrote: read as they are, or refused in one sentence by a process that then ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.text_table import read_text_table

LIB = Path(__file__).resolve().parents[2] / "lib"

READERS = {
    "coordinate_list": "from dark_halo_scope.evaluation.coordinate_list import read_coordinates as read",
    "fetch_cutouts": "from dark_halo_scope.images.fetch_cutouts import read_positions as read",
}


def test_cells_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('\ufeffra,note\n007,"a, ""b"""\n\n,"two\nlines"\n', encoding="utf-8")
    table = read_text_table(tmp_path / "list.csv")
    assert table.to_pydict() == {"ra": ["007", None], "note": ['a, "b"', "two\nlines"]}


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("ra,dec\n")
    table = read_text_table(tmp_path / "list.csv")
    assert (table.column_names, table.num_rows) == (["ra", "dec"], 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"ra,dec\n1,2\n1,2,3\n", "line 3 has 3 cells, the header 2"),
        (b"ra,dec\n1\n", "line 2 has 1 cells"),
        (b'ra,dec\n1,"2\n3,4\n', "cannot be read as CSV"),
        (b"ra,dec\n\xff\xfe,2\n", "cannot be read as CSV"),
        (b"", "it is empty"),
        (b"ra,dec,dec\n1,2,3\n", "two columns of one name"),
    ],
    ids=["too many cells", "too few cells", "an open quote", "not UTF-8", "empty", "two of one name"],
)
def test_what_is_no_table_is_refused_and_says_where(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(BadInputError, match=sentence):
        read_text_table(tmp_path / "list.csv")


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        read_text_table(tmp_path / "list.csv")


@pytest.mark.parametrize("reader", READERS)
def test_no_thread_outlives_the_error_of_a_ragged_list(tmp_path: Path, reader: str) -> None:
    (tmp_path / "list.csv").write_text("ra,dec\n" + "1,2\n" * 20000 + "1,2,3\n")
    # Threads of the process, also those that Python does not know.
    code = f"""
import os, sys
sys.path.insert(0, {str(LIB)!r})
from pathlib import Path
from dark_halo_scope.core.cli import run
{READERS[reader]}
def main(argv):
    before = len(os.listdir("/proc/self/task"))
    try:
        read(Path("list.csv"))
    finally:
        print(len(os.listdir("/proc/self/task")) - before)
run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (1, "0")
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "line 20002 has 3 cells" in sentence
