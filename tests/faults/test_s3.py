"""Fault 26: an S3 server that throttles, cuts short, or sends something else than it stored; and one that works."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from dark_halo_scope.core import http, storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.manifest import (
    Manifest,
    attempt,
    load_manifest,
    verify_manifest,
    write_object,
    write_or_take_over,
)
from dark_halo_scope.core.ranges import open_binary

DATA = bytes(range(256)) * 100
ETAG = f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"'
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>"


def test_an_artifact_goes_to_a_real_s3_server_and_comes_back(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DHS_SCRATCH", str(tmp_path / "scratch"))
    output = tmp_path / "results" / "stamps.json"
    with attempt(output, "stamps", "dark_halo_scope.core.resume", {}, [], data_root=f"{s3}/root") as work:
        (work.prefix / "driver.parquet").write_bytes(b"d" * 10_000_000)
        entry = write_object(work.uri, "sub/executor.parquet", b"e")
        work.publish(objects=[entry])
    manifest = load_manifest(output)
    verify_manifest(manifest)
    assert [name for name, _ in storage.list_sizes(manifest.uri)] == [
        "_objects.json",
        "driver.parquet",
        "sub/executor.parquet",
    ]
    storage.remove(f"{s3}/root")
    assert not storage.exists(f"{s3}/root")


def test_nothing_is_taken_from_a_place_that_others_may_write_to(s3, tmp_path, monkeypatch):
    """The lock is beside the manifest: it does not cover a prefix in S3, where another checkout may be at work."""
    monkeypatch.chdir(tmp_path)
    written = []

    def make(names: str) -> Manifest:
        def write(path: Path) -> None:
            written.append(1)
            path.write_bytes(b"stamps")

        with attempt(
            Path("stamps.json"), "stamps", "dark_halo_scope.core.resume", {}, [], f"{s3}/shared", resumable=True
        ) as work:
            entries = [write_or_take_over(work.target, name, write, Path.read_bytes)[0] for name in names]
            if names == "ab":
                raise StorageError("stop")
            return work.publish(objects=entries)

    with pytest.raises(StorageError, match="stop"):
        make("ab")
    assert not storage.exists(f"{s3}/shared/stamps")
    storage.put(f"{s3}/shared/stamps/0123456789abcdef/a", b"of another checkout")
    manifest = make("abc")
    assert len(written) == 5
    verify_manifest(manifest)
    assert storage.read_bytes(f"{s3}/shared/stamps/0123456789abcdef/a") == b"of another checkout"


def test_an_object_that_is_not_there_is_refused(s3, tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.bin does not exist"):
        storage.fetch(f"{s3}/nothing.bin", tmp_path / "x")


def test_throttling_is_retried(broken_s3, server, answer, tmp_path):
    slow = answer(503, body=SLOW_DOWN, headers={"Content-Type": "application/xml"})
    server.answers = [slow, slow, answer(body=DATA, headers={"ETag": ETAG})]
    storage.fetch(f"{broken_s3}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(server.times) == 3


@pytest.mark.usefixtures("impatient")
def test_a_wrong_etag_is_refused_and_leaves_no_file(broken_s3, server, answer, tmp_path):
    flipped = bytes([DATA[0] ^ 1]) + DATA[1:]
    server.answers = [answer(body=flipped, headers={"ETag": ETAG})]
    with pytest.raises(CorruptDataError, match="does not match its ETag"):
        storage.fetch(f"{broken_s3}/x", tmp_path / "x")
    assert len(server.times) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("impatient")
def test_a_body_that_was_wrong_once_is_fetched_again(broken_s3, server, answer, tmp_path):
    short = answer(body=DATA[:100], length=len(DATA), headers={"ETag": ETAG})
    flipped = answer(body=DATA[::-1], headers={"ETag": ETAG})
    server.answers = [short, flipped, answer(body=DATA, headers={"ETag": ETAG})]
    storage.fetch(f"{broken_s3}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_refused_access_is_one_clear_sentence(broken_s3, server, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.02)
    denied = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    server.answers = [answer(403, body=denied, headers={"Content-Type": "application/xml"})]
    with pytest.raises(StorageError, match="AccessDenied"):
        storage.fetch(f"{broken_s3}/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_loses_a_part_leaves_no_object_and_no_parts(tmp_path, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3_client.cache_clear()
    (tmp_path / "big").write_bytes(bytes(20_000_000))

    def lose(params, **_):
        from botocore.exceptions import EndpointConnectionError

        if params["query_string"]["partNumber"] == 2:
            raise EndpointConnectionError(endpoint_url="http://nowhere")

    with mock_aws():
        client = storage.s3_client()
        client.create_bucket(Bucket="bucket")
        client.meta.events.register("before-call.s3.UploadPart", lose)
        with pytest.raises(StorageError, match="s3://bucket/big"):
            storage.upload(tmp_path / "big", "s3://bucket/big")
        assert not storage.exists("s3://bucket/big")
        assert "Uploads" not in client.list_multipart_uploads(Bucket="bucket")
    storage._s3_client.cache_clear()


def test_a_parquet_file_is_read_in_pieces_where_it_lies(s3, tmp_path):
    table = pa.table({"n": range(10_000), "blob": [bytes([n % 256]) * 500 for n in range(10_000)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=500, compression="none")
    storage.upload(tmp_path / "x.parquet", f"{s3}/ranges/x.parquet")
    with open_binary(f"{s3}/ranges/x.parquet") as stream:
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 16)
        batches = list(file.iter_batches(100, row_groups=[7], columns=["n", "blob"]))
    assert pa.Table.from_batches(batches).equals(table.slice(3500, 500))
    with pytest.raises(BadInputError, match=r"nothing\.parquet does not exist"):
        open_binary(f"{s3}/ranges/nothing.parquet")


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(s3):
    storage.put(f"{s3}/ranges/y", bytes(300_000))
    with open_binary(f"{s3}/ranges/y") as stream:
        assert stream.read(10) == bytes(10)
        storage.put(f"{s3}/ranges/y", b"\1" * 300_000)
        stream.seek(-10, 2)
        with pytest.raises(CorruptDataError, match="changed while it was read"):
            stream.read(10)
