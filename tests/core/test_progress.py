"""A bar on a terminal; elsewhere a plain line every ten seconds and one at the end."""

import logging
import os
import pty
import sys
from pathlib import Path

from dark_halo_scope.core.progress import Progress, track

LIB = Path(__file__).resolve().parents[2] / "lib"


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_in_a_log_there_is_a_line_every_ten_seconds_and_one_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    with Progress(100, "stamps", clock=clock) as progress:
        for _ in range(50):
            clock.now += 0.5
            progress.advance()
        assert messages(caplog) == [
            "stamps: 20/100 (20%), 2/s, 10 s, 40 s left",
            "stamps: 40/100 (40%), 2/s, 20 s, 30 s left",
        ]
    assert messages(caplog)[2:] == ["stamps: 50/100 (50%), 2/s, 25 s, 25 s left"]


def test_a_short_loop_is_one_line(caplog):
    caplog.set_level(logging.INFO)
    assert list(track(range(3), "bricks")) == [0, 1, 2]
    assert len(messages(caplog)) == 1
    assert messages(caplog)[0].startswith("bricks: 3/3 (100%)")


def test_a_total_that_is_not_known_or_is_zero_is_no_obstacle(caplog):
    caplog.set_level(logging.INFO)
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert list(track([], "nothing")) == []
    assert messages(caplog)[0].startswith("letters: 2, ")
    assert messages(caplog)[1].startswith("nothing: 0, ")


def test_on_a_terminal_there_is_a_bar():
    code = (
        f"import sys; sys.path.insert(0, {str(LIB)!r})\n"
        "from dark_halo_scope.core import logs; logs.configure()\n"
        "from dark_halo_scope.core.progress import track\n"
        "list(track(range(5), 'bricks'))"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # how a terminal says that its program has ended
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"5/5" in shown
    assert "━".encode() in shown
    assert b"INFO" not in shown
