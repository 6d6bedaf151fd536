"""Faults 20 to 22 on the cutout service: it throttles, fails, hangs, or sends something else than it was asked for."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.core import http
from dark_halo_scope.core.errors import CorruptDataError, StorageError
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.survey.cutout_server import encode_cutout
from dark_halo_scope.survey.cutout_service import (
    Cutout,
    CutoutClient,
    NoCutout,
    OutsideFootprintError,
    ServiceError,
    fetch_list,
)
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.resample import Mosaic, target_header

pytestmark = pytest.mark.usefixtures("impatient")

RA, DEC, SIZE = 150.25, -10.5, 16
SETTINGS = CutoutServiceSettings()
ASKING = AskingSettings().without_pauses()


def good(size: int = SIZE, scale: float = PIXEL_SCALE, ra: float = RA) -> bytes:
    image = np.random.default_rng(0).normal(0, 0.01, (3, size, size)).astype(np.float32)
    pixels = Mosaic(image, np.ones_like(image), np.zeros((size, size), np.int32))
    return encode_cutout(pixels, target_header(ra, DEC, size, scale), "dr10.1")


@pytest.fixture
def client(server, tmp_path):
    made = CutoutClient(SETTINGS, server.url, tmp_path / "cache", asking=ASKING)
    yield made
    made.close()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_server_that_throttles_is_waited_for(server, answer, client):
    server.answers = [answer(429, headers={"Retry-After": "1"}), answer(body=good())]
    client.fetch(RA, DEC, SIZE)
    assert server.times[1] - server.times[0] >= 1


def test_the_wait_that_a_server_asks_for_is_capped(server, answer, client, monkeypatch):
    monkeypatch.setattr(http, "RETRY_AFTER_CAP_S", 0.1)
    server.answers = [answer(429, headers={"Retry-After": "86400"}), answer(body=good())]
    client.fetch(RA, DEC, SIZE)
    assert 0.1 <= server.times[1] - server.times[0] < 5


def test_threads_and_clients_ask_one_host_one_at_a_time(server, answer):
    server.answers = [answer(body=good(), hang_s=0.05)]
    clients = [CutoutClient(SETTINGS, server.url, asking=ASKING) for _ in range(4)]
    threads = [threading.Thread(target=client.fetch, args=(RA, DEC, SIZE)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for client in clients:
        client.close()
    assert len(server.times) == 4
    assert server.most_at_once == 1


@pytest.mark.parametrize("fault", ["500", "503", "reset", "hang", "short body"])
def test_a_passing_fault_is_retried(server, answer, client, tmp_path, fault):
    bad = {
        "500": answer(500),
        "503": answer(503),
        "reset": answer(reset=True),
        "hang": answer(body=good(), hang_s=0.6),
        "short body": answer(body=good()[:4000], length=len(good())),
    }[fault]
    server.answers = [bad, bad, answer(body=good())]
    assert isinstance(client.fetch(RA, DEC, SIZE), Cutout)
    assert len(server.times) == 3
    [path] = cached(tmp_path)
    assert path.read_bytes() == good()
    assert path.stem.endswith(hashlib.sha256(good()).hexdigest()[:16])


@pytest.mark.parametrize("fault", ["500", "reset", "hang", "short body"])
def test_a_lasting_fault_ends_after_bounded_attempts_and_leaves_the_cache_clean(
    server, answer, client, tmp_path, fault
):
    server.answers = [
        {
            "500": answer(500),
            "reset": answer(reset=True),
            "hang": answer(body=good(), hang_s=0.6),
            "short body": answer(body=good()[:4000], length=len(good())),
        }[fault]
    ]
    with pytest.raises(ServiceError, match="cannot be fetched in 5 attempts"):
        client.fetch(RA, DEC, SIZE)
    assert len(server.times) == ASKING.attempts
    assert cached(tmp_path) == []


def test_there_is_a_deadline(server, answer, tmp_path):
    server.answers = [answer(500)]
    client = CutoutClient(SETTINGS, server.url, asking=AskingSettings(attempts=20, deadline_s=0.3).without_pauses())
    start = time.monotonic()
    with pytest.raises(ServiceError):
        client.fetch(RA, DEC, SIZE)
    client.close()
    assert time.monotonic() - start < 3
    assert len(server.times) < 20


@pytest.mark.parametrize("status", [404, 410])
def test_no_overlap_is_asked_for_once(server, answer, client, status):
    server.answers = [answer(status)]
    with pytest.raises(OutsideFootprintError):
        client.fetch(RA, DEC, SIZE)
    assert len(server.times) == 1


def test_a_refusal_is_asked_for_once(server, answer, client):
    server.answers = [answer(403)]
    with pytest.raises(ServiceError, match="status 403"):
        client.fetch(RA, DEC, SIZE)
    assert len(server.times) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html>Down for maintenance</html>",
        b"nothing of the kind",
        good(size=SIZE + 1),
        good(scale=0.524),
        good(ra=RA + 0.01),
    ],
    ids=["html", "text", "another size", "another scale", "another place"],
)
def test_another_thing_with_status_200_is_rejected_and_the_cache_stays_clean(server, answer, client, tmp_path, body):
    server.answers = [answer(body=body)]
    with pytest.raises(CorruptDataError):
        client.fetch(RA, DEC, SIZE)
    assert cached(tmp_path) == []
    server.answers = [answer(body=good())]
    assert isinstance(client.fetch(RA, DEC, SIZE), Cutout)


def test_a_service_that_is_down_ends_a_list_and_another_run_goes_on(server, answer, client, tmp_path):
    targets = [(RA + n / 100, DEC) for n in range(6)]
    server.answers = [answer(body=good(ra=ra)) for ra, _ in targets[:2]] + [answer(500)]
    outcomes = []
    with pytest.raises(ServiceError, match="fails 3 times in a row"):
        outcomes.extend(fetch_list(client, *zip(*targets, strict=True), SIZE))
    assert [type(item) for item in outcomes] == [Cutout, Cutout, NoCutout, NoCutout]
    assert len(cached(tmp_path)) == 2
    server.answers = [answer(body=good(ra=ra)) for ra, _ in targets[2:]]
    server.times.clear()
    assert all(isinstance(item, Cutout) for item in fetch_list(client, *zip(*targets, strict=True), SIZE))
    assert len(server.times) == 4


def test_a_single_failure_is_a_reason_of_its_row(server, answer, client):
    server.answers = [answer(403), answer(body=good(ra=RA + 0.01)), answer(body=b"<html>"), answer(404)]
    outcomes = list(fetch_list(client, [RA, RA + 0.01, RA + 0.02, RA + 0.03], [DEC] * 4, SIZE))
    assert [(item.reason, item.by_service) if isinstance(item, NoCutout) else None for item in outcomes] == [
        ("the service failed", True),
        None,
        ("the answer of the service was rejected", True),
        ("outside the footprint of the service", False),
    ]


@pytest.mark.parametrize(
    "body",
    [b"<html>Down for maintenance</html>", good(size=SIZE + 1), good(scale=0.524)],
    ids=["html", "size", "scale"],
)
def test_a_service_that_gives_no_cutouts_with_status_200_ends_a_list_too(server, answer, client, tmp_path, body):
    server.answers = [answer(body=body)]
    outcomes = []
    with pytest.raises(
        ServiceError, match=r"fails 3 times in a row \(.*\); cutouts so far are kept, run this step again"
    ):
        outcomes.extend(fetch_list(client, np.full(50, RA), np.full(50, DEC), SIZE))
    assert [item.reason for item in outcomes] == ["the answer of the service was rejected"] * 2
    assert len(server.times) == 3
    assert cached(tmp_path) == []


def test_failures_and_web_pages_add_up_and_what_is_not_asked_for_does_not_part_them(server, answer, client):
    server.answers = [answer(403), answer(body=b"<html>"), answer(403)]
    with pytest.raises(ServiceError, match="fails 3 times in a row"):
        list(fetch_list(client, [RA, np.nan, RA, 400.0, RA], [DEC] * 5, SIZE))


def one_band(band: str) -> bytes:
    """A whole cutout that has no z, as headers tell it."""
    return (
        good()
        .replace(b"BAND2   = 'z", b"BAND2   = '" + band.encode())
        .replace(b"BANDS   = 'grz", b"BANDS   = 'gr" + band.encode())
    )


def empty_z() -> bytes:
    image = np.ones((3, SIZE, SIZE), np.float32)
    image[2] = 0
    pixels = Mosaic(image, np.ones_like(image), np.zeros((SIZE, SIZE), np.int32))
    return encode_cutout(pixels, target_header(RA, DEC, SIZE, PIXEL_SCALE), "dr10.1")


def not_finite() -> bytes:
    image = np.full((3, SIZE, SIZE), np.nan, np.float32)
    pixels = Mosaic(image, np.ones_like(image), np.zeros((SIZE, SIZE), np.int32))
    return encode_cutout(pixels, target_header(RA, DEC, SIZE, PIXEL_SCALE), "dr10.1")


@pytest.mark.parametrize("fault", ["no coverage", "empty band", "missing band", "not finite"])
def test_places_without_usable_images_never_end_a_list(server, answer, client, fault):
    server.answers = [
        {
            "no coverage": answer(404),
            "empty band": answer(body=empty_z()),
            "missing band": answer(body=one_band("i")),
            "not finite": answer(body=not_finite()),
        }[fault]
    ]
    outcomes = list(fetch_list(client, [RA] * 8, [DEC] * 8, SIZE))
    assert len({item.reason for item in outcomes}) == 1
    assert [item.broken for item in outcomes] == [None] * 8


def test_a_full_disk_under_temporary_files_is_said_to_be_full(server, answer, client, monkeypatch):
    def refuses(path, *_):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(http, "open", refuses, raising=False)
    server.answers = [answer(body=good())]
    with pytest.raises(StorageError, match="the disk is full") as error:
        list(fetch_list(client, [RA], [DEC], SIZE))
    assert not isinstance(error.value, ServiceError)
    assert "service" not in str(error.value)
    assert len(server.times) == 1


def test_a_disk_that_refuses_is_no_fault_of_the_service(server, answer, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    server.answers = [answer(body=good())]
    client = CutoutClient(SETTINGS, server.url, tmp_path / "cache", asking=ASKING)
    with pytest.raises(StorageError) as error:
        list(fetch_list(client, [RA], [DEC], SIZE))
    client.close()
    assert not isinstance(error.value, ServiceError)
