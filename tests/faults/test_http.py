"""Faults 20 to 22: a server that throttles, fails, hangs, or sends something else than data."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dark_halo_scope.core import http, storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError

pytestmark = pytest.mark.usefixtures("impatient")

DATA = b"SIMPLE  =                    T" + bytes(5000)


def test_data_arrive_whole(server, answer, tmp_path):
    server.answers = [answer(body=DATA)]
    storage.fetch(f"{server.url}/x.fits", tmp_path / "x.fits")
    assert (tmp_path / "x.fits").read_bytes() == DATA
    assert storage.read_bytes(f"{server.url}/x.fits") == DATA


def test_retry_after_is_obeyed(server, answer, tmp_path):
    server.answers = [answer(429, headers={"Retry-After": "1"}), answer(body=DATA)]
    storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert server.times[1] - server.times[0] >= 1


def test_a_date_in_retry_after_is_obeyed(server, answer, tmp_path):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.answers = [answer(429, headers={"Retry-After": later}), answer(body=DATA)]
    storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert server.times[1] - server.times[0] >= 0.9


def test_retry_after_is_capped_and_jittered(server, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "RETRY_AFTER_CAP_S", 0.1)
    server.answers = [answer(429, headers={"Retry-After": "86400"}), answer(body=DATA)]
    storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert 0.1 <= server.times[1] - server.times[0] < 5
    waits = {http.backoff(http.RetryError("x", 86400.0)) for _ in range(5)}
    assert len(waits) == 5
    assert all(0.1 <= wait <= 1.1 for wait in waits)


def test_a_throttled_host_gets_one_request_at_a_time(server, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "RETRY_AFTER_CAP_S", 0.05)
    throttled = [answer(429, headers={"Retry-After": "1"}, hang_s=0.1) for _ in range(3)]
    server.answers = [*throttled, answer(body=DATA, hang_s=0.1)]
    threads = [threading.Thread(target=storage.fetch, args=(f"{server.url}/{n}", tmp_path / str(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    while len(server.times) < 3:
        time.sleep(0.01)
    time.sleep(0.15)
    server.most_at_once = 0
    for thread in threads:
        thread.join(30)
    assert server.most_at_once == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize("fault", ["500", "503", "reset", "hang", "short body"])
def test_a_passing_fault_is_retried(server, answer, tmp_path, fault):
    bad = {
        "500": answer(500),
        "503": answer(503, body=b"<html>busy</html>"),
        "reset": answer(reset=True),
        "hang": answer(body=DATA, hang_s=0.6),
        "short body": answer(body=DATA[:100], length=len(DATA)),
    }[fault]
    server.answers = [bad, bad, answer(body=DATA)]
    storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(server.times) == 3


@pytest.mark.parametrize("fault", ["500", "reset", "hang", "short body"])
def test_a_lasting_fault_ends_with_a_clear_sentence_and_no_file(server, answer, tmp_path, fault):
    server.answers = [
        {
            "500": answer(500),
            "reset": answer(reset=True),
            "hang": answer(body=DATA, hang_s=0.6),
            "short body": answer(body=DATA[:100], length=len(DATA)),
        }[fault]
    ]
    with pytest.raises(StorageError, match=r"/x cannot be fetched in 5 attempts"):
        storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert len(server.times) == http.ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_there_is_a_deadline(server, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "DEADLINE_S", 0.5)
    monkeypatch.setattr(http, "ATTEMPTS", 1000)
    server.answers = [answer(500)]
    start = time.monotonic()
    with pytest.raises(StorageError):
        storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("status", [404, 410])
def test_what_does_not_exist_is_asked_for_once(server, answer, tmp_path, status):
    server.answers = [answer(status)]
    with pytest.raises(BadInputError, match="does not exist"):
        storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert len(server.times) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_forbidden_is_asked_for_once(server, answer, tmp_path, status):
    server.answers = [answer(status)]
    with pytest.raises(StorageError, match=f"status {status}"):
        storage.fetch(f"{server.url}/x", tmp_path / "x")
    assert len(server.times) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<!DOCTYPE html><html>Please log in</html>", {}),
        (b"\n <HTML>no such object</HTML>", {}),
        (b"maintenance", {"Content-Type": "text/html; charset=utf-8"}),
    ],
)
def test_a_web_page_with_status_200_is_not_data(server, answer, tmp_path, body, headers):
    (tmp_path / "x.fits").write_bytes(b"cached before")
    server.answers = [answer(body=body, headers=headers)]
    with pytest.raises(CorruptDataError, match="web page in place of data"):
        storage.fetch(f"{server.url}/x.fits", tmp_path / "x.fits")
    assert (tmp_path / "x.fits").read_bytes() == b"cached before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.fits"]


def test_a_server_that_is_not_there_is_one_clear_sentence(tmp_path):
    with pytest.raises(StorageError, match="cannot be fetched"):
        storage.fetch("http://127.0.0.1:9/x", tmp_path / "x")


def test_a_password_in_an_address_is_not_shown(server, answer, tmp_path):
    server.answers = [answer(403)]
    address = server.url.replace("http://", "http://me:canary-0123456789@")
    with pytest.raises(StorageError) as error:
        storage.fetch(f"{address}/x", tmp_path / "x")
    assert "canary" not in str(error.value)
