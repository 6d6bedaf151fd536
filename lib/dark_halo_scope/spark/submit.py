"""Run a Spark module here, on a cluster or on EMR: `submit --backend BACKEND MODULE -- ARGUMENTS`."""

import importlib
import os
from collections.abc import Sequence

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.spark.session import local_cores

# An environment fact: which account and machines, never what is computed.
EMR_VARIABLE = "DHS_EMR_CONFIG"


def spark_master(backend: str) -> str:
    """The Spark master of a backend other than EMR; `local` takes all cores that this process may use.

    Raises:
        BadInputError: it is none of local, local[N], spark://host:port, emr.
    """
    if backend == "local":
        return "local[*]"
    if backend.startswith("spark://") or local_cores(backend) is not None:
        return backend
    raise BadInputError(f"There is no Spark backend {backend!r}; give local, local[N], spark://host:port or emr.")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argument_parser("Run a Spark module in this process, on a cluster or as an EMR step.")
    parser.add_argument("--backend", required=True, help="local, local[N], spark://host:port or emr")
    parser.add_argument(
        "--emr-config",
        default=os.environ.get(EMR_VARIABLE),
        help=f"EMR's settings as JSON text, or the path of a YAML or JSON file (default: ${EMR_VARIABLE})",
    )
    parser.add_argument("module", help="dotted name of a module with main(argv)")
    parser.add_argument("arguments", nargs="*", help="after `--`: the module's own arguments")
    options = parser.parse_args(argv)
    if not options.module.startswith("dark_halo_scope."):
        raise BadInputError(
            f"{options.module} is not a module of this package; give dark_halo_scope.<package>.<module>."
        )
    if options.backend == "emr":
        # boto3 and all else that is EMR's, only where it is asked for.
        from dark_halo_scope.spark.config import EmrSettings
        from dark_halo_scope.spark.emr import run_on_emr

        if not options.emr_config:
            raise ConfigError(f"EMR needs to know account and machines: give --emr-config or set {EMR_VARIABLE}.")
        run_on_emr(options.module, options.arguments, load_settings(options.emr_config, EmrSettings, "--emr-config"))
        return
    master = spark_master(options.backend)
    try:
        module = importlib.import_module(options.module)
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"{options.module} cannot be imported ({error}); correct its name or install that."
        ) from error
    module.main([*options.arguments, "--spark-master", master])


if __name__ == "__main__":
    run(main)
