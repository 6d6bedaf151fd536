"""What spark-submit runs on an EMR master: fetch the inputs, run the module, upload its small outputs.

Arguments: the step's place in S3, the module, the module's arguments. It starts as a file of its own, before the
package can be imported.
"""

import contextlib
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path


def unpack_package(directory: Path, search_path: Sequence[str]) -> None:
    """Unpack the package that spark-submit put on the path as a zip: its own files are read for the code's hash.

    Raises:
        FileNotFoundError: it is not on the path.
    """
    for entry in search_path:
        if entry.endswith("dark_halo_scope.zip"):
            with zipfile.ZipFile(entry) as archive:
                archive.extractall(directory)
            sys.path.insert(0, str(directory))
            return
    raise FileNotFoundError("dark_halo_scope.zip is not on the Python path: spark-submit lacks --py-files")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one step."""
    import importlib

    from dark_halo_scope.core import storage
    from dark_halo_scope.core.manifest import provenance_path
    from dark_halo_scope.spark.emr_job import output_argument

    place, module, *arguments = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        inputs = storage.join(place, "inputs")
        if storage.exists(inputs):
            for name, _ in storage.list_sizes(inputs):
                storage.fetch(storage.join(inputs, name), Path(name))
        importlib.import_module(module).main([*arguments, "--spark-master", "inherited"])
        output = output_argument(arguments)
        # The output last: where it is, all of the step's results are.
        for path in (provenance_path(output), output):
            storage.upload(path, storage.join(place, "outputs", path.as_posix()))


if __name__ == "__main__":
    unpack_package(Path(tempfile.mkdtemp()), sys.path)

    from dark_halo_scope.core.cli import run

    run(main)
