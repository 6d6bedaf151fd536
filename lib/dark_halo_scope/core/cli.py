"""What every command line of the package shares."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml

from dark_halo_scope.core import logs
from dark_halo_scope.core.config import SettingsT, validate
from dark_halo_scope.core.errors import ConfigError, DarkHaloScopeError
from dark_halo_scope.core.files import explained
from dark_halo_scope.core.process import die_with_parent
from dark_halo_scope.core.redaction import redact

_logger = logging.getLogger(__name__)


class _SetLogLevel(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        logging.getLogger().setLevel(str(values))
        setattr(namespace, self.dest, values)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--settings` (JSON text, or the path of a YAML or JSON file) and `--log-level`."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--settings", default=None, help="settings as JSON text, or the path of a YAML or JSON file")
    parser.add_argument(
        "--log-level",
        action=_SetLogLevel,
        type=str.upper,
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="least important messages to show (default: INFO)",
    )
    return parser


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def load_settings(text: str | None, model: type[SettingsT], option: str = "--settings") -> SettingsT:
    """Validated settings from JSON text (it starts with a brace) or from the YAML or JSON file of that path.

    None gives the model's defaults.

    Raises:
        ConfigError: unreadable, not a mapping, or a key is missing, unknown or invalid.
    """
    if text is None:
        return validate(model, {}, f"{option} (not given)")
    inline = text.lstrip().startswith("{")
    where = option if inline else text
    try:
        values = json.loads(text, parse_constant=_no_constants) if inline else yaml.safe_load(Path(text).read_text())
    except FileNotFoundError:
        raise ConfigError(f"The settings file {text} does not exist; correct {option}.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{where} cannot be read ({' '.join(str(error).split())}); correct it.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold a mapping of settings, not {type(values).__name__}.")
    return validate(model, values, where)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that `with` blocks remove their temporary files.
    raise SystemExit(128 + number)


def run(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run `main(None)` as a process: it dies with its parent, logs to stderr and ends with a status.

    An error that a user can act on is one line on stderr and status 1; any other is a traceback without secrets.
    """
    die_with_parent()
    logs.configure()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with explained(Path.cwd()):
            main(None)
    except DarkHaloScopeError as error:
        _logger.debug("Traceback of the error below", exc_info=error)
        print(f"error: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # Whoever read our output has left; say nothing more, also not when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        logs.print_traceback(error)
        raise SystemExit(1) from None
    finally:
        # What is left is Python's exit, where an exception is printed as a traceback and stops nothing.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise SystemExit(0)
