"""A standalone Spark cluster on this machine (a master and workers, each a process of its own), and rules run on it."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkouts import Checkout
from dark_halo_scope.core.manifest import load_manifest

JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# Spark's settings of each version that is tested.
VERSIONS: dict[str, dict[str, str]] = {
    "4": {},
    # Another number of partitions than either version's own, most of them empty.
    "3.5": {"spark.sql.shuffle.partitions": "13", "spark.sql.adaptive.enabled": "false"},
}

_START_S = 90.0
_PR_SET_PDEATHSIG = 1


@dataclass
class SparkCluster:
    """A running cluster; `home` is the pyspark package that it runs, `workers` its workers in order of start."""

    address: str
    home: Path
    folder: Path
    workers: list[subprocess.Popen[bytes]]

    @property
    def version(self) -> str:
        """The version of Spark."""
        return min(self.home.glob("jars/spark-core_*.jar")).stem.rpartition("-")[2]

    def executors(self, worker: int) -> list[int]:
        """Process ids of the executors that a worker has started."""
        return children(self.workers[worker].pid)

    def kill_worker(self, worker: int) -> None:
        """SIGKILL a worker and its executors, as if its machine had lost power."""
        pids = [self.workers[worker].pid, *self.executors(worker)]
        # The worker first: it would report the end of its executors.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.workers[worker].wait()

    def work_folders(self) -> list[Path]:
        """Folders in which executors have run, one each."""
        return sorted(path for path in self.folder.glob("work-*/app-*/*") if path.is_dir())


def children(pid: int) -> list[int]:
    """Process ids of the living children of a process; none of one that is gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        return sorted(int(child) for task in tasks for child in task.read_text().split())
    except OSError:
        return []


def pyspark_home(python_path: str | None = None) -> Path:
    """The pyspark package that a process with this PYTHONPATH imports."""
    code = "import pyspark; print(pyspark.__path__[0])"
    environment = os.environ | ({"PYTHONPATH": python_path} if python_path else {})
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_the_test() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _start(home: Path, arguments: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    # Executors start elsewhere and with another path: only what was shipped can be imported.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
    environment["SPARK_DAEMON_JAVA_OPTS"] = JAVA_OPTIONS
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(home / "bin" / "spark-class"), *arguments],
            env=environment | {"SPARK_WORKER_DIR": str(folder)},
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_the_test,
        )


def _wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while not re.search(text, log.read_text(errors="replace")):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.1)


@contextmanager
def spark_cluster(
    folder: Path, home: Path | None = None, workers: int = 2, cores: int = 1, memory: str = "1g"
) -> Iterator[SparkCluster]:
    """A master and `workers` workers of `cores` cores and `memory` each; all of them are gone when the block ends."""
    home = home or pyspark_home()
    folder.mkdir(parents=True)
    port = _free_port()
    address = f"spark://127.0.0.1:{port}"
    deploy = "org.apache.spark.deploy"
    master = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = ["--cores", str(cores), "--memory", memory, "--host", "127.0.0.1", "--webui-port", "0", address]
    processes = [_start(home, [f"{deploy}.master.Master", *master], folder, folder / "master.log")]
    cluster = SparkCluster(address, home, folder, [])
    try:
        _wait_for("New state: ALIVE", folder / "master.log", processes[0])
        for number in range(workers):
            log = folder / f"worker-{number}.log"
            process = _start(home, [f"{deploy}.worker.Worker", *worker], folder / f"work-{number}", log)
            processes.append(process)
            cluster.workers.append(process)
        for number, process in enumerate(cluster.workers):
            _wait_for("Successfully registered with master", folder / f"worker-{number}.log", process)
        yield cluster
    finally:
        for number, process in enumerate(cluster.workers):
            if process.poll() is None:
                cluster.kill_worker(number)
        for process in processes:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Call:
    """One call of a rule's command line in `folder`, and the artifact that it makes there."""

    folder: Path
    module: str
    arguments: tuple[str, ...]
    artifact: Path

    def start(self, backend: str, output: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
        """Submit it as Snakemake does, in a process of its own: a JVM keeps the folder that it was started in."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "dark_halo_scope.spark.submit", "--backend", backend),
                *(self.module, "--", *self.arguments, "--output", str(output)),
            ],
            cwd=self.folder,
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def make(self, lib: Path) -> None:
        """Make the artifact here, with the code in `lib`."""
        process = self.start("local[2]", self.artifact, {"PYTHONPATH": str(lib)})
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said


def call_of(checkout: Checkout, artifact: str, **inputs: str) -> Call:
    """What made an artifact of a checkout, with the same settings and inputs.

    Args:
        inputs: by option, in place of those that it was made from.
    """
    made = json.loads((checkout.path / artifact).with_suffix(".provenance.json").read_text())
    # Options are called as what they take.
    options = {Path(item["path"]).stem: item["path"] for item in made["inputs"]} | inputs
    options["settings"] = json.dumps(made["settings"])
    arguments = tuple(part for name, value in options.items() for part in (f"--{name}", value))
    return Call(checkout.path, made["module"], arguments, checkout.path / artifact)


@dataclass(frozen=True)
class Spark:
    """A cluster, and the environment of a driver of the same version."""

    cluster: SparkCluster
    environment: dict[str, str]

    def start(self, call: Call, output: Path) -> subprocess.Popen[str]:
        """Submit a call to the cluster."""
        return call.start(self.cluster.address, output, self.environment)

    def run(self, call: Call, output: Path) -> tuple[int, str]:
        """`start`, to its end: status and what it said."""
        process = self.start(call, output)
        _, said = process.communicate(timeout=500)
        return process.returncode, said

    def makes_the_same(self, call: Call, output: Path) -> None:
        """A call gives there what it gave here: two manifests say the same, checksums of all files included."""
        before = len(self.cluster.work_folders())
        status, said = self.run(call, output)
        assert status == 0, said
        assert f"Spark {self.cluster.version}, {self.cluster.address}" in said
        assert len(self.cluster.work_folders()) == before + 2, "both workers take part"
        same_data(output, call.artifact)


def same_data(output: Path, artifact: Path) -> None:
    """Two manifests say the same of data in two places."""
    ours, theirs = (load_manifest(path).model_dump(exclude={"uri"}) for path in (output, artifact))
    assert ours == theirs, {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


@contextmanager
def spark_of(version: str, lib: Path, folder: Path, project_root: Path) -> Iterator[Spark]:
    """A master and two workers of a version of VERSIONS, and a driver with the code in `lib`."""
    python_path = [str(lib)]
    if version == "3.5":
        if not (project_root / ".spark35" / "pyspark").is_dir():
            pytest.skip("Spark 3.5 is absent: `make setup` puts it into .spark35")
        python_path.insert(0, str(project_root / ".spark35"))
    defaults = {"spark.executor.extraJavaOptions": JAVA_OPTIONS} | VERSIONS[version]
    lines = [f"{name} {value}\n" for name, value in defaults.items()]
    (folder / "spark-defaults.conf").write_text("".join(lines))
    environment = {"SPARK_CONF_DIR": str(folder), "PYTHONPATH": os.pathsep.join(python_path)}
    with spark_cluster(folder / "cluster", pyspark_home(environment["PYTHONPATH"])) as cluster:
        assert cluster.version.startswith(f"{version}.")
        yield Spark(cluster, environment)
