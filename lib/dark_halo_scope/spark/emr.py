"""Running a module as an EMR step: attach or start, wait, fetch; stop what was started when we are stopped."""

import gzip
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError, StorageError
from dark_halo_scope.core.locks import lock, lock_path
from dark_halo_scope.core.manifest import provenance_path
from dark_halo_scope.core.redaction import redact
from dark_halo_scope.spark import emr_job
from dark_halo_scope.spark.config import EmrSettings
from dark_halo_scope.spark.emr_job import EmrJob
from dark_halo_scope.spark.session import package_zip

_LIVE_CLUSTER_STATES = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
_LIVE_STEP_STATES = ("PENDING", "RUNNING")
_FAILED_STEP_STATES = ("CANCEL_PENDING", "CANCELLED", "FAILED", "INTERRUPTED")

# Describing a step may fail for a while (throttling, network) without the step being the worse for it.
_TOLERATED_FAILURES = 20
# EMR copies logs to S3 up to five minutes after the fact.
_LOG_ATTEMPTS = 11
_LOG_LINES = 40
_LINES_IN_ERROR = 5

_logger = logging.getLogger(__name__)


class EmrError(DarkHaloScopeError):
    """A step failed or was cancelled; the sentence holds the last lines of its log."""


@dataclass(frozen=True)
class RunningStep:
    """A step on a cluster; `owned` where the cluster runs nothing else."""

    cluster_id: str
    step_id: str
    owned: bool


def run_on_emr(
    module: str,
    arguments: Sequence[str],
    settings: EmrSettings,
    client: Any = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Run `module` with `arguments` as an EMR step and bring its output and provenance here.

    A step of the same code, settings and inputs that already runs is waited for, and one that ended unseen is only
    fetched: nothing is paid twice. SIGTERM and Ctrl-C cancel the step; a kill leaves it for the next call to find.

    Args:
        client: a boto3 EMR client; made for the settings' region if None.
        sleep: waits that many seconds.

    Raises:
        EmrError: the step failed, was cancelled or took longer than the deadline.
        LockHeldError: another process here already waits for the same output.
        BadInputError, ConfigError: EMR could not read an input; there is no such module.
        StorageError: S3 or EMR cannot be reached.
    """
    job = emr_job.plan(module, arguments, settings)
    if client is None:
        import boto3
        from botocore.config import Config

        client = boto3.client("emr", region_name=settings.region, config=Config(retries={"mode": "adaptive"}))
    with lock(lock_path(job.output)):
        if _finished(job):
            _logger.info("EMR step %s has ended before: only its output is fetched", job.name)
        else:
            running = find_step(job, settings, client) or _start(job, settings, client)
            _logger.info("EMR step %s is %s on cluster %s", job.name, running.step_id, running.cluster_id)
            try:
                _wait(job, running, settings, client, sleep)
            except (SystemExit, KeyboardInterrupt):
                _cancel(running, client)
                raise
        _fetch(job)


def _output_uri(job: EmrJob, path: Path) -> str:
    return storage.join(job.place, "outputs", path.as_posix())


def _finished(job: EmrJob) -> bool:
    return storage.exists(_output_uri(job, job.output))


def _fetch(job: EmrJob) -> None:
    if not _finished(job):
        raise EmrError(
            f"The EMR step {job.name} ended without its output {job.output}; look at its log and run it again."
        )
    for path in (provenance_path(job.output), job.output):
        storage.fetch(_output_uri(job, path), path)
    # A forced rerun must run again, so what is here is forgotten there.
    storage.remove(storage.join(job.place, "outputs"))


def find_step(job: EmrJob, settings: EmrSettings, client: Any) -> RunningStep | None:
    """The step of this job that waits or runs already, on the given cluster or on one of its own."""
    if settings.cluster_id:
        clusters = [settings.cluster_id]
    else:
        pages = client.get_paginator("list_clusters").paginate(ClusterStates=_LIVE_CLUSTER_STATES)
        clusters = [item["Id"] for page in pages for item in page["Clusters"] if item["Name"] == job.name]
    for cluster_id in clusters:
        for page in client.get_paginator("list_steps").paginate(ClusterId=cluster_id):
            for item in page["Steps"]:
                if item["Name"] == job.name and item["Status"]["State"] in _LIVE_STEP_STATES:
                    return RunningStep(cluster_id, item["Id"], owned=settings.cluster_id is None)
    return None


def _stage(job: EmrJob, settings: EmrSettings) -> None:
    requirements = Path(settings.requirements)
    if not requirements.is_file():
        raise BadInputError(f"The lock {requirements} for EMR's machines does not exist; correct `requirements`.")
    for path in job.inputs:
        storage.upload(path, storage.join(job.place, "inputs", path.as_posix()))
    with tempfile.TemporaryDirectory() as directory:
        storage.upload(package_zip(Path(directory)), storage.join(job.place, "dark_halo_scope.zip"))
    storage.upload(Path(__file__).with_name("emr_entry.py"), storage.join(job.place, "emr_entry.py"))
    storage.upload(requirements, storage.join(job.place, "requirements.txt"))
    storage.put(storage.join(job.place, "bootstrap.sh"), emr_job.BOOTSTRAP.encode())


def _start(job: EmrJob, settings: EmrSettings, client: Any) -> RunningStep:
    from botocore.exceptions import BotoCoreError, ClientError

    _stage(job, settings)
    try:
        if settings.cluster_id:
            steps = client.add_job_flow_steps(JobFlowId=settings.cluster_id, Steps=[emr_job.step(job, settings)])
            return RunningStep(settings.cluster_id, steps["StepIds"][0], owned=False)
        cluster_id = client.run_job_flow(**emr_job.cluster(job, settings))["JobFlowId"]
        steps = client.list_steps(ClusterId=cluster_id)
        return RunningStep(cluster_id, steps["Steps"][0]["Id"], owned=True)
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"EMR does not start {job.name} ({error}); check access and settings.") from error


def _wait(
    job: EmrJob, running: RunningStep, settings: EmrSettings, client: Any, sleep: Callable[[float], None]
) -> None:
    """Poll until the step has ended well (boto3's own waiter gives up after half an hour)."""
    from botocore.exceptions import BotoCoreError, ClientError

    waited, failures, last = 0.0, 0, ""
    while waited <= settings.deadline_hours * 3600:
        try:
            status = client.describe_step(ClusterId=running.cluster_id, StepId=running.step_id)["Step"]["Status"]
        except (BotoCoreError, ClientError) as error:
            failures += 1
            if failures > _TOLERATED_FAILURES:
                raise StorageError(
                    f"EMR has not answered {failures} times about {job.name}, which may still run ({error}); "
                    "run this again to wait for it."
                ) from error
            _logger.warning("EMR does not answer about %s (%s)", job.name, error)
        else:
            failures = 0
            if status["State"] != last:
                last = status["State"]
                _logger.info("EMR step %s: %s", job.name, last)
            if last == "COMPLETED":
                return
            if last in _FAILED_STEP_STATES:
                raise _failure(job, running, settings, status, client, sleep)
        sleep(settings.poll_seconds)
        waited += settings.poll_seconds
    _cancel(running, client)
    raise EmrError(
        f"The EMR step {job.name} took longer than {settings.deadline_hours:g} hours and was cancelled; "
        "raise deadline_hours or take a larger preset."
    )


def _cancel(running: RunningStep, client: Any) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    _logger.warning("Cancelling the EMR step %s", running.step_id)
    try:
        if running.owned:
            client.terminate_job_flows(JobFlowIds=[running.cluster_id])
        else:
            client.cancel_steps(
                ClusterId=running.cluster_id,
                StepIds=[running.step_id],
                StepCancellationOption="TERMINATE_PROCESS",
            )
    except (BotoCoreError, ClientError) as error:
        _logger.error(
            "EMR does not cancel step %s of cluster %s (%s): stop it in the console",
            running.step_id,
            running.cluster_id,
            error,
        )


def _failure(
    job: EmrJob,
    running: RunningStep,
    settings: EmrSettings,
    status: dict[str, Any],
    client: Any,
    sleep: Callable[[float], None],
) -> EmrError:
    details = status.get("FailureDetails", {})
    reasons = [details.get("Reason"), details.get("Message"), _cluster_reason(running, client)]
    reason = "; ".join(dict.fromkeys(part for part in reasons if part)) or "no reason given"
    lines = log_tail(running, settings, sleep)
    for line in lines:
        _logger.error("%s | %s", running.step_id, line)
    tail = " | ".join(lines[-_LINES_IN_ERROR:]) or f"none yet, look below {settings.log_uri}/{running.cluster_id}/steps"
    return EmrError(
        redact(f"The EMR step {job.name} of {job.module} ended as {status['State']} ({reason}); its last lines: {tail}")
    )


def _cluster_reason(running: RunningStep, client: Any) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        status = client.describe_cluster(ClusterId=running.cluster_id)["Cluster"]["Status"]
    except (BotoCoreError, ClientError):
        return None
    message: str | None = status.get("StateChangeReason", {}).get("Message")
    return message


def log_tail(running: RunningStep, settings: EmrSettings, sleep: Callable[[float], None]) -> list[str]:
    """The last lines of the step's stderr, waited for as long as EMR takes to copy it; none if it never comes."""
    uri = storage.join(settings.log_uri, running.cluster_id, "steps", running.step_id, "stderr.gz")
    for number in range(_LOG_ATTEMPTS):
        try:
            text = gzip.decompress(storage.read_bytes(uri)).decode(errors="replace")
            return [line.rstrip() for line in text.splitlines() if line.strip()][-_LOG_LINES:]
        except (DarkHaloScopeError, OSError, EOFError):
            if number + 1 < _LOG_ATTEMPTS:
                sleep(settings.poll_seconds)
    return []
