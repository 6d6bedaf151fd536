"""An EMR step is started once, waited for, cancelled with us, and explained when it fails."""

import gzip
import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, LockHeldError, StorageError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.locks import lock, lock_path
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_path
from dark_halo_scope.spark import emr, emr_job
from dark_halo_scope.spark.config import PRESETS, EmrSettings
from dark_halo_scope.spark.emr_entry import main as entry_main
from dark_halo_scope.spark.emr_entry import unpack_package
from dark_halo_scope.spark.session import package_zip

MODULE = "dark_halo_scope.core.resume"
OUTPUT = Path("results/parent.json")
ARGUMENTS = ["--survey", "results/survey.json", "--settings", '{"a": 1}', "--output", str(OUTPUT)]


@pytest.fixture
def settings() -> EmrSettings:
    """Everything in one bucket, polled as fast as told."""
    return EmrSettings(
        scratch="s3://bucket/scratch",
        data_root="s3://bucket/data",
        log_uri="s3://bucket/logs",
        requirements="spark.lock",
        poll_seconds=30,
        preset="test",
    )


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A working directory with one input, and an account in memory."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    write_json(Path("results/survey.json"), {"name": "mini"})
    Path("spark.lock").write_text("numpy==2.4.0\npyspark==4.3.0\n")
    storage._s3_client.cache_clear()
    with mock_aws():
        storage.s3_client().create_bucket(Bucket="bucket")
        yield tmp_path
    storage._s3_client.cache_clear()


class Cluster:
    """A boto3 client of moto whose steps go through scripted states; an exception in the script is raised."""

    def __init__(self, *states, on_end=lambda job: None) -> None:
        self.client = boto3.client("emr", region_name="us-east-2")
        self.states = list(states)
        self.on_end = on_end
        self.cancelled: list[dict] = []
        self.started = 0

    def describe_step(self, ClusterId, StepId):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, BaseException):
            raise state
        if state == "COMPLETED":
            self.on_end(self.job)
        details = {"Reason": "Unknown Error", "Message": "exit 1"} if state == "FAILED" else {}
        return {"Step": {"Status": {"State": state, "FailureDetails": details}}}

    def run_job_flow(self, **values):
        self.started += 1
        return self.client.run_job_flow(**values)

    def terminate_job_flows(self, **values):
        self.cancelled.append(values)
        return self.client.terminate_job_flows(**values)

    def cancel_steps(self, **values):
        self.cancelled.append(values)

    def __getattr__(self, name):
        return getattr(self.client, name)


def finish(job: emr_job.EmrJob) -> None:
    """What the step's own program uploads when it has ended well."""
    storage.put(f"{job.place}/outputs/results/parent.provenance.json", b'{"where": "emr"}\n')
    storage.put(f"{job.place}/outputs/results/parent.json", b'{"kind": "parent"}\n')


def submit(cluster: Cluster, settings: EmrSettings, waits: list[float] | None = None) -> None:
    cluster.job = emr_job.plan(MODULE, ARGUMENTS, settings)
    emr.run_on_emr(MODULE, ARGUMENTS, settings, cluster, (waits if waits is not None else []).append)


def test_a_step_is_started_waited_for_and_its_output_fetched(settings):
    cluster = Cluster("PENDING", "RUNNING", "RUNNING", "COMPLETED", on_end=finish)
    waits: list[float] = []
    submit(cluster, settings, waits)
    assert waits == [30, 30, 30]
    assert OUTPUT.read_text() == '{"kind": "parent"}\n'
    assert Path("results/parent.provenance.json").exists()
    assert cluster.cancelled == []


def test_the_cluster_is_that_of_the_preset_and_ends_with_its_step(settings):
    cluster = Cluster("COMPLETED", on_end=finish)
    submit(cluster, settings)
    (summary,) = cluster.client.list_clusters()["Clusters"]
    assert summary["Name"] == cluster.job.name
    described = cluster.client.describe_cluster(ClusterId=summary["Id"])["Cluster"]
    assert described["ReleaseLabel"] == "emr-7.0.0"
    assert described["AutoTerminate"] is True
    groups = cluster.client.list_instance_groups(ClusterId=summary["Id"])["InstanceGroups"]
    assert {
        (group["InstanceGroupType"], group["InstanceType"], group["RequestedInstanceCount"]) for group in groups
    } == {
        ("MASTER", "m5.xlarge", 1),
        ("CORE", "m5.xlarge", 2),
    }
    (step,) = cluster.client.list_steps(ClusterId=summary["Id"])["Steps"]
    words = step["Config"]["Args"]
    assert words[0] == "spark-submit"
    assert words[words.index("--executor-memory") + 1] == "4g"
    assert words[words.index(MODULE) :] == [MODULE, *ARGUMENTS, "--data-root", "s3://bucket/data"]


def test_all_that_a_step_needs_is_uploaded_before_it_starts(settings):
    cluster = Cluster("COMPLETED", on_end=finish)
    submit(cluster, settings)
    names = [name for name, _ in storage.list_sizes(cluster.job.place)]
    assert names == [
        "bootstrap.sh",
        "dark_halo_scope.zip",
        "emr_entry.py",
        "inputs/results/survey.json",
        "requirements.txt",
    ]


@pytest.mark.parametrize(
    ("preset", "count", "machine", "memory"),
    [
        ("test", 2, "m5.xlarge", "4g"),
        ("small", 5, "m5.xlarge", "4g"),
        ("medium", 10, "m5.2xlarge", "8g"),
        ("medium-large", 20, "m5.2xlarge", "8g"),
        ("large-xlarge", 30, "m5.xlarge", "4g"),
        ("large", 30, "m5.2xlarge", "8g"),
        ("full", 30, "m5.2xlarge", "8g"),
    ],
)
def test_presets_are_those_of_the_contract(preset, count, machine, memory):
    values = PRESETS[preset]
    assert (values.core_count, values.core_type, values.executor_memory) == (count, machine, memory)


def test_the_number_of_machines_can_be_set(settings):
    assert settings.model_copy(update={"core_count": 7}).machines().core_count == 7


def test_a_restarted_workflow_attaches_to_the_step_that_runs(settings):
    killed = Cluster("RUNNING", EOFError())
    with pytest.raises(EOFError):
        submit(killed, settings)
    again = Cluster("RUNNING", "COMPLETED", on_end=finish)
    submit(again, settings)
    assert (killed.started, again.started) == (1, 0)
    assert OUTPUT.exists()


def test_a_step_that_ended_unseen_is_fetched_and_not_paid_again(settings):
    finish(emr_job.plan(MODULE, ARGUMENTS, settings))
    cluster = Cluster("FAILED")
    submit(cluster, settings)
    assert cluster.started == 0
    assert OUTPUT.exists()


def test_a_forced_rerun_runs_again(settings):
    first = Cluster("COMPLETED", on_end=finish)
    submit(first, settings)
    first.client.terminate_job_flows(JobFlowIds=[first.client.list_clusters()["Clusters"][0]["Id"]])
    second = Cluster("COMPLETED", on_end=finish)
    submit(second, settings)
    assert second.started == 1


def test_the_name_follows_code_settings_and_inputs(settings):
    name = emr_job.plan(MODULE, ARGUMENTS, settings).name
    assert emr_job.plan(MODULE, ARGUMENTS, settings).name == name
    assert emr_job.plan("dark_halo_scope.core.clean_orphans", ARGUMENTS, settings).name != name
    assert emr_job.plan(MODULE, [*ARGUMENTS, "--more"], settings).name != name
    write_json(Path("results/survey.json"), {"name": "dr10"})
    assert emr_job.plan(MODULE, ARGUMENTS, settings).name != name


def test_a_failed_step_is_explained_by_its_reason_and_the_last_lines_of_its_log(settings, caplog):
    cluster = Cluster("RUNNING", "FAILED")

    def log_arrives_late(_):
        clusters = cluster.client.list_clusters()["Clusters"]
        step = cluster.client.list_steps(ClusterId=clusters[0]["Id"])["Steps"][0]
        lines = [*(f"INFO line {n}" for n in range(100)), "error: RA 361 in 5% of the rows; correct the input."]
        storage.put(
            f"s3://bucket/logs/{clusters[0]['Id']}/steps/{step['Id']}/stderr.gz",
            gzip.compress("\n".join(lines).encode()),
        )

    cluster.job = emr_job.plan(MODULE, ARGUMENTS, settings)
    with pytest.raises(emr.EmrError, match=r"ended as FAILED \(Unknown Error; exit 1.*INFO line 99 \| error: RA 361"):
        emr.run_on_emr(MODULE, ARGUMENTS, settings, cluster, log_arrives_late)
    assert len([record for record in caplog.records if " | " in record.getMessage()]) == 40
    assert not OUTPUT.exists()


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "INTERRUPTED"])
def test_a_log_that_never_comes_is_said(settings, state):
    with pytest.raises(emr.EmrError, match=f"ended as {state}.*none yet, look below s3://bucket/logs/j-"):
        submit(Cluster(state), settings)


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt()])
def test_a_step_is_cancelled_when_we_are_stopped(settings, stop):
    cluster = Cluster("RUNNING", stop)
    with pytest.raises(type(stop)):
        submit(cluster, settings)
    (cancelled,) = cluster.cancelled
    assert cancelled["JobFlowIds"][0].startswith("j-")


def test_on_a_shared_cluster_only_the_step_is_cancelled(settings):
    existing = boto3.client("emr", region_name="us-east-2").run_job_flow(
        Name="shared",
        Instances={"InstanceCount": 1, "MasterInstanceType": "m5.xlarge", "KeepJobFlowAliveWhenNoSteps": True},
    )["JobFlowId"]
    shared = settings.model_copy(update={"cluster_id": existing})
    cluster = Cluster("RUNNING", SystemExit(143))
    with pytest.raises(SystemExit):
        submit(cluster, shared)
    assert cluster.started == 0
    assert cluster.cancelled[0]["ClusterId"] == existing
    assert cluster.cancelled[0]["StepIds"][0].startswith("s-")


def test_a_step_that_takes_too_long_is_cancelled(settings):
    cluster = Cluster("RUNNING")
    with pytest.raises(emr.EmrError, match=r"longer than 0\.5 hours"):
        submit(cluster, settings.model_copy(update={"deadline_hours": 0.5}))
    assert len(cluster.cancelled) == 1


def test_waiting_longer_than_half_an_hour_is_fine(settings):
    waits: list[float] = []
    submit(Cluster(*["RUNNING"] * 500, "COMPLETED", on_end=finish), settings, waits)
    assert sum(waits) > 4 * 3600


def test_an_answer_that_fails_for_a_while_is_no_failure_of_the_step(settings):
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "DescribeStep")
    offline = EndpointConnectionError(endpoint_url="https://emr")
    submit(Cluster(*[throttled, offline] * 8, "COMPLETED", on_end=finish), settings)
    assert OUTPUT.exists()
    OUTPUT.unlink()
    lost = Cluster(offline)
    with pytest.raises(StorageError, match="may still run"):
        submit(lost, settings)
    assert lost.cancelled == []


def test_a_step_without_its_output_is_an_error(settings):
    with pytest.raises(emr.EmrError, match=r"without its output results/parent\.json"):
        submit(Cluster("COMPLETED"), settings)


def test_two_submitters_of_one_output_are_refused(settings):
    with lock(lock_path(OUTPUT)), pytest.raises(LockHeldError):
        submit(Cluster("COMPLETED"), settings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--survey", "results/survey.json"], "needs --output"),
        (["--output", "/abs.json"], "relative"),
        (["--output", "../x.json"], "relative"),
        (["--parent", "results/local.json", "--output", "x.json"], "lie on this machine"),
    ],
)
def test_what_emr_could_not_read_or_bring_back_is_refused(settings, arguments, says):
    write_json(Path("results/local.json"), {"kind": "parent", "uri": "results/parent/0123456789abcdef"})
    with pytest.raises(BadInputError, match=says):
        emr_job.plan(MODULE, arguments, settings)


def make_manifest(kind: str, data: bytes | None = b"data") -> Manifest:
    """results/{kind}.json, with one object, or with none."""
    with attempt(Path(f"results/{kind}.json"), kind, MODULE, {}, []) as work:
        if data is not None:
            (work.prefix / "part.parquet").write_bytes(data)
        return work.publish()


def arguments_with(kind: str) -> list[str]:
    return [f"--{kind}", f"results/{kind}.json", "--output", str(OUTPUT)]


@pytest.mark.parametrize("kind", ["lenses", "sources", "confusers"])
def test_data_that_the_driver_reads_travel_with_the_step(settings, kind, tmp_path, monkeypatch):
    """From the file system here to that of the cluster's master, and read there as they are here."""
    import sys
    import types

    manifest = make_manifest(kind)
    cluster = Cluster("COMPLETED", on_end=finish)
    cluster.job = emr_job.plan(MODULE, arguments_with(kind), settings)
    emr.run_on_emr(MODULE, arguments_with(kind), settings, cluster, lambda _: None)
    names = [name for name, _ in storage.list_sizes(f"{cluster.job.place}/inputs")]
    assert names == [f"results/{kind}.json", f"{manifest.uri}/_objects.json", f"{manifest.uri}/part.parquet"]

    found = []

    def read(argv):
        found.append(verified_path(load_manifest(Path(argv[1]), kind), "part.parquet").read_bytes())
        write_json(OUTPUT, {})
        write_json(Path("results/parent.provenance.json"), {})

    module = types.ModuleType("dark_halo_scope_read")
    module.main = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dark_halo_scope_read", module)
    (tmp_path / "master").mkdir()
    monkeypatch.chdir(tmp_path / "master")
    entry_main([cluster.job.place, "dark_halo_scope_read", *arguments_with(kind)])
    assert found == [b"data"]


def test_a_survey_that_lies_elsewhere_is_read_there_and_a_drawn_one_is_refused(settings):
    make_manifest("survey", None)
    assert emr_job.plan(MODULE, arguments_with("survey"), settings).inputs == (Path("results/survey.json"),)
    make_manifest("survey")
    with pytest.raises(BadInputError, match="lie on this machine"):
        emr_job.plan(MODULE, arguments_with("survey"), settings)


def test_coadds_of_this_machine_are_refused_with_what_to_do(settings):
    make_manifest("coadds")
    with pytest.raises(BadInputError, match=r"run this step where they are, with the Spark backend local or spark://"):
        emr_job.plan(MODULE, arguments_with("coadds"), settings)


def test_no_more_data_travel_than_a_stated_size(settings, monkeypatch):
    make_manifest("lenses", b"x" * 1000)
    monkeypatch.setattr(emr_job, "_LARGEST_DATA", 1500)
    emr_job.plan(MODULE, arguments_with("lenses"), settings)
    make_manifest("confusers", b"y" * 1000)
    with pytest.raises(BadInputError, match="travel with a step"):
        emr_job.plan(MODULE, [*arguments_with("lenses"), *arguments_with("confusers")[:2]], settings)


def test_damaged_data_do_not_travel(settings):
    manifest = make_manifest("lenses")
    Path(manifest.uri, "part.parquet").write_bytes(b"date")
    with pytest.raises(CorruptDataError, match=r"part\.parquet"):
        emr_job.plan(MODULE, arguments_with("lenses"), settings)


def test_a_lock_file_that_is_not_there_is_refused(settings):
    with pytest.raises(BadInputError, match=r"no\.lock"):
        submit(Cluster("COMPLETED"), settings.model_copy(update={"requirements": "no.lock"}))


def test_the_bootstrap_leaves_spark_to_emr_and_brings_python():
    assert "python3.11" in emr_job.BOOTSTRAP
    assert "pyspark|py4j" in emr_job.BOOTSTRAP


def test_on_the_cluster_inputs_arrive_and_the_output_goes_back(settings, tmp_path, monkeypatch):
    """The step's own program, with a module that copies its input."""
    import sys
    import types

    def copy(argv):
        survey = json.loads(Path("results/survey.json").read_text())
        write_json(OUTPUT, {"survey": survey["name"], "arguments": argv})
        write_json(Path("results/parent.provenance.json"), {})

    module = types.ModuleType("dark_halo_scope_copy")
    module.main = copy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dark_halo_scope_copy", module)
    storage.put("s3://bucket/place/inputs/results/survey.json", b'{"name": "mini"}')
    monkeypatch.chdir(tmp_path)
    entry_main(["s3://bucket/place", "dark_halo_scope_copy", "--output", str(OUTPUT)])
    stored = json.loads(storage.read_bytes("s3://bucket/place/outputs/results/parent.json"))
    assert stored == {"survey": "mini", "arguments": ["--output", str(OUTPUT), "--spark-master", "inherited"]}


def test_on_the_cluster_the_package_is_unpacked_so_that_its_code_can_be_hashed(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    archive = package_zip(tmp_path)
    unpack_package(tmp_path / "lib", ["/usr/lib", str(archive)])
    assert (tmp_path / "lib/dark_halo_scope/core/manifest.py").is_file()
    assert sys.path[0] == str(tmp_path / "lib")
    with pytest.raises(FileNotFoundError, match="--py-files"):
        unpack_package(tmp_path / "lib", ["/usr/lib"])
