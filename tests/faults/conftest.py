"""Servers that fail on purpose, and a tiny workflow to kill."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dark_halo_scope.core import http

LIB = Path(__file__).resolve().parents[2] / "lib"


@dataclass
class Answer:
    """What a server says to one request. `length` is what it announces; `hang_s` passes before it speaks."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    hang_s: float = 0.0
    reset: bool = False


class Server:
    """An HTTP server on this machine that gives scripted answers, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.times.append(time.monotonic())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(answer.hang_s)
        with self._lock:
            self._at_once -= 1
        if answer.reset:
            # Closing with a linger time of zero sends a reset.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        handler.end_headers()
        handler.wfile.write(answer.body)
        if answer.length is not None:
            handler.close_connection = True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that fails as it is told."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def answer() -> type[Answer]:
    """The answers that `server` takes."""
    return Answer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and timeouts of a tenth of a second."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(http, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a real S3 server, and the directory that it serves."""
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("rclone")
    process = subprocess.Popen(
        [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "testing-id,testing-secret", str(root)],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", root
    finally:
        process.kill()
        process.wait()


def _point_s3_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def s3(rclone: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of a real S3 server."""
    _point_s3_at(monkeypatch, rclone[0])
    return "s3://bucket"


@pytest.fixture
def broken_s3(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket whose server gives the scripted answers of `server`."""
    _point_s3_at(monkeypatch, server.url)
    return "s3://bucket"
