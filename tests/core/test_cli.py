"""Command lines end with one clear sentence, with the right status, and never with a secret."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dark_halo_scope.core.cli import argument_parser, load_settings
from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import ConfigError

LIB = Path(__file__).resolve().parents[2] / "lib"


class Cuts(Settings):
    """Settings of the tests."""

    z_max: float = 20.4
    bands: tuple[str, ...] = ()


@pytest.mark.parametrize("text", ['{"z_max": 21.0}', ' {"z_max": 21}'])
def test_settings_can_be_json_text(text):
    assert load_settings(text, Cuts) == Cuts(z_max=21.0)


@pytest.mark.parametrize(("name", "text"), [("x.yaml", "z_max: 21.0\n"), ("x.json", '{"z_max": 21.0}')])
def test_settings_can_be_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert load_settings(str(tmp_path / name), Cuts) == Cuts(z_max=21.0)


def test_without_settings_the_defaults_hold():
    assert load_settings(None, Cuts) == Cuts()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"zmax": 21.0}', "zmax: Extra inputs"),
        ('{"z_max": NaN}', "NaN"),
        ('{"z_max": "bright"}', "z_max"),
        ("{", "--settings cannot be read"),
        ("nothing.yaml", "nothing.yaml does not exist"),
    ],
)
def test_settings_that_are_wrong_are_refused_by_name(text, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        load_settings(text, Cuts)


@pytest.mark.parametrize("text", ["- 1\n", "z_max: .nan\n", "a: b: c\n", "", "!!python/object/apply:os.getpid []\n"])
def test_a_settings_file_that_is_wrong_is_refused_by_name(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_settings(str(tmp_path / "x.yaml"), Cuts)


def test_options_cannot_be_abbreviated(capsys):
    with pytest.raises(SystemExit):
        argument_parser("x").parse_args(["--set", "{}"])


def run_main(body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"from dark_halo_scope.core.cli import *\ndef main(argv):\n    {body}\nrun(main)"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(LIB), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_error_of_ours_is_one_line_and_status_1():
    done = run_main("raise ConfigError('x is wrong,\\n  correct it.')")
    assert done.returncode == 1
    assert done.stderr == "error: x is wrong, correct it.\n"
    assert done.stdout == ""


def test_another_error_is_a_traceback_and_status_1():
    done = run_main("1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "ZeroDivisionError" in done.stderr


def test_success_is_status_0_and_logs_go_to_stderr():
    done = run_main("import logging; logging.getLogger('x').info('hello'); print('result')")
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert done.stderr.endswith("INFO x: hello\n")


def test_the_log_level_is_an_option():
    body = "argument_parser('x').parse_args(argv); import logging; logging.getLogger('x').info('hello')"
    assert "hello" not in run_main(body, "--log-level", "warning").stderr
    assert "hello" in run_main(body, "--log-level", "debug").stderr
    assert run_main(body, "--log-level", "loud").returncode == 2


def test_sigterm_lets_blocks_clean_up(tmp_path):
    path = tmp_path / "x"
    body = (
        "import time; from pathlib import Path; from dark_halo_scope.core.files import atomic_path\n"
        f"    with atomic_path(Path({str(path)!r})) as temporary:\n"
        "        temporary.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    code = f"from dark_halo_scope.core.cli import *\ndef main(argv):\n    {body}\nrun(main)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(LIB)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_traceback():
    body = "[print('x' * 100) for _ in range(10000)]"
    code = f"from dark_halo_scope.core.cli import *\ndef main(argv):\n    {body}\nrun(main)"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" | head -1'],
        env={**os.environ, "PYTHONPATH": str(LIB)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
