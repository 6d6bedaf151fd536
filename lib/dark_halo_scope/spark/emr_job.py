"""What one EMR step needs and is called, without asking AWS."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dark_halo_scope.core import code, storage
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import load_manifest, verify_manifest
from dark_halo_scope.spark.config import EmrSettings

BOOTSTRAP = """#!/bin/bash
# Python 3.11 (EMR brings 3.9) and the packages of the lock; Spark and its Python side are EMR's own.
set -euo pipefail
sudo dnf install -y python3.11 python3.11-pip python3.11-devel gcc
aws s3 cp "$1" /tmp/requirements.txt
grep -viE '^(pyspark|py4j)==' /tmp/requirements.txt > /tmp/requirements-executors.txt
sudo python3.11 -m pip install --no-cache-dir -r /tmp/requirements-executors.txt
"""

# What a job's driver alone reads, so that it may travel with the step; executors read no file of this machine.
_DRIVER_KINDS = frozenset({"lenses", "sources", "confusers"})
_LARGEST_DATA = 256_000_000


@dataclass(frozen=True)
class EmrJob:
    """One call of a module as an EMR step. `name` is the same for the same code, settings and inputs.

    `inputs` are files below the working directory: the arguments that are files, and the data of local manifests.
    """

    name: str
    place: str
    module: str
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...]
    output: Path


def output_argument(arguments: Sequence[str]) -> Path:
    """The path that `--output` gives.

    Raises:
        BadInputError: there is none.
    """
    for position, argument in enumerate(arguments):
        if argument.startswith("--output="):
            return Path(argument.removeprefix("--output="))
        if argument == "--output" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
    raise BadInputError("A step on EMR needs --output, to know what to bring back.")


def _is_file(argument: str) -> bool:
    # Settings arrive as JSON text, which may be longer than any file name.
    return len(argument) < 1024 and not argument.startswith(("-", "{")) and Path(argument).is_file()


def _check_below(path: Path, what: str) -> None:
    if path.is_absolute() or ".." in path.parts:
        raise BadInputError(f"{what} must lie below the working directory, named relative to it.")


def _local_data(path: Path) -> list[Path]:
    """The files that must travel with an input: those of a manifest whose data lie here and which the driver reads.

    Raises:
        BadInputError: the data lie here, and executors read them.
        CorruptDataError: the data are not those of the manifest.
    """
    if path.suffix != ".json":
        return []
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        return []
    uri = values.get("uri") if isinstance(values, dict) else None
    # A survey that is not drawn here has no data: it says where others lie.
    if not isinstance(uri, str) or not storage.is_local(uri) or values.get("objects") == 0:
        return []
    if values.get("kind") == "coadds":
        raise BadInputError(
            f"The coadds of {path} lie on this machine, where EMR cannot read them; run this step where they are, "
            "with the Spark backend local or spark://host:port."
        )
    if values.get("kind") not in _DRIVER_KINDS:
        raise BadInputError(
            f"The data of {path} lie on this machine ({uri}), where EMR cannot read them; make it on EMR, or with "
            "--data-root s3://..., first."
        )
    manifest = load_manifest(path)
    _check_below(Path(uri), f"The data {uri} of {path}, an input of an EMR step,")
    verify_manifest(manifest)
    return [Path(storage.join(uri, name)) for name, _ in storage.list_sizes(uri)]


def _check_size(data: Sequence[Path]) -> None:
    size = sum(path.stat().st_size for path in data)
    if size > _LARGEST_DATA:
        raise BadInputError(
            f"The local data of this EMR step's inputs are {size / 1e6:.0f} MB, and at most {_LARGEST_DATA / 1e6:.0f} "
            f"MB travel with a step (the first: {data[0]}); make them with --data-root s3://... first."
        )


def plan(module: str, arguments: Sequence[str], settings: EmrSettings) -> EmrJob:
    """The job of calling `module` with `arguments`; arguments that are files become its inputs.

    Raises:
        BadInputError: there is no `--output`, EMR could not read an input, or the inputs' local data are too large.
        CorruptDataError: local data are not those of their manifest.
        ConfigError: there is no such module.
    """
    output = output_argument(arguments)
    if output.is_absolute() or ".." in output.parts:
        raise BadInputError(f"The output {output} of an EMR step must be relative to the working directory.")
    inputs = tuple(Path(argument) for argument in arguments if _is_file(argument) and Path(argument) != output)
    for path in inputs:
        _check_below(path, f"The input {path} of an EMR step")
    data = [path for manifest in inputs for path in _local_data(manifest)]
    _check_size(data)
    complete = list(arguments)
    if not any(argument.partition("=")[0] == "--data-root" for argument in arguments):
        complete += ["--data-root", settings.data_root]
    key = code.run_key(module, {"arguments": complete}, inputs)
    return EmrJob(
        name=f"dark-halo-scope-{key}",
        place=storage.join(settings.scratch, key),
        module=module,
        arguments=tuple(complete),
        inputs=(*inputs, *data),
        output=output,
    )


def step(job: EmrJob, settings: EmrSettings) -> dict[str, Any]:
    """The step for boto3: spark-submit in client mode, so that the driver's log is the step's own."""
    machines = settings.machines()
    spark_settings = {
        "spark.pyspark.python": "/usr/bin/python3.11",
        "spark.pyspark.driver.python": "/usr/bin/python3.11",
        "spark.executorEnv.NUMBA_CACHE_DIR": "/tmp/numba_cache",
    }
    return {
        "Name": job.name,
        "ActionOnFailure": "CONTINUE" if settings.cluster_id else "TERMINATE_CLUSTER",
        "HadoopJarStep": {
            "Jar": "command-runner.jar",
            "Args": [
                "spark-submit",
                *("--deploy-mode", "client"),
                *("--driver-memory", machines.driver_memory),
                *("--executor-memory", machines.executor_memory),
                *("--executor-cores", str(machines.executor_cores)),
                *(part for name, value in spark_settings.items() for part in ("--conf", f"{name}={value}")),
                *("--py-files", storage.join(job.place, "dark_halo_scope.zip")),
                storage.join(job.place, "emr_entry.py"),
                job.place,
                job.module,
                *job.arguments,
            ],
        },
    }


def cluster(job: EmrJob, settings: EmrSettings) -> dict[str, Any]:
    """A cluster for boto3 that runs the one step and ends."""
    machines = settings.machines()

    def group(name: str, role: str, instance_type: str, count: int) -> dict[str, Any]:
        return {
            "Name": name,
            "InstanceRole": role,
            "InstanceType": instance_type,
            "InstanceCount": count,
            "Market": "ON_DEMAND",
        }

    instances: dict[str, Any] = {
        "InstanceGroups": [
            group("master", "MASTER", settings.master_type, 1),
            group("core", "CORE", machines.core_type, machines.core_count),
        ],
        "KeepJobFlowAliveWhenNoSteps": False,
        "TerminationProtected": False,
    }
    if settings.subnet:
        instances["Ec2SubnetId"] = settings.subnet
    if settings.key_pair:
        instances["Ec2KeyName"] = settings.key_pair
    return {
        "Name": job.name,
        "ReleaseLabel": settings.release,
        "LogUri": f"{settings.log_uri}/",
        "Applications": [{"Name": "Spark"}],
        "Instances": instances,
        "ServiceRole": settings.service_role,
        "JobFlowRole": settings.instance_profile,
        "VisibleToAllUsers": True,
        "Tags": [{"Key": "project", "Value": "dark-halo-scope"}],
        "BootstrapActions": [
            {
                "Name": "python packages",
                "ScriptBootstrapAction": {
                    "Path": storage.join(job.place, "bootstrap.sh"),
                    "Args": [storage.join(job.place, "requirements.txt")],
                },
            }
        ],
        "Steps": [step(job, settings)],
    }
