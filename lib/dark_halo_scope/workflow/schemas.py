"""JSON schemas of the YAML files under config/, written from the settings models: `make schemas`.

An editor that knows them completes keys and marks typos. `--check` fails where a file differs from its model.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import ConfigError
from dark_halo_scope.core.files import write_text
from dark_halo_scope.workflow.config import DatasetFile, GenerationFile, SurveyFile

FILES: dict[str, type[Settings]] = {"survey": SurveyFile, "dataset": DatasetFile, "generation": GenerationFile}


def schema_text(kind: str) -> str:
    """The schema of one kind of file, as JSON text."""
    return json.dumps(FILES[kind].model_json_schema(), indent=2, sort_keys=True) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the schemas, or check that they are current."""
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--directory", type=Path, default=Path("workflow/schemas"))
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a schema is not current")
    arguments = parser.parse_args(argv)
    for kind in FILES:
        path = arguments.directory / f"{kind}.schema.json"
        if not arguments.check:
            write_text(path, schema_text(kind))
        elif not path.is_file() or path.read_text() != schema_text(kind):
            raise ConfigError(f"{path} differs from the settings models; run `make schemas` and commit it.")


if __name__ == "__main__":
    run(main)
