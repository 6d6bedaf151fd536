"""One set of functions for local paths and S3; HTTP is in tests/faults."""

import pytest
from moto import mock_aws

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.manifest import (
    attempt,
    load_manifest,
    object_list,
    verified_path,
    verified_paths,
    verify_manifest,
    write_object,
)

MODULE = "dark_halo_scope.core.verify_manifests"


@pytest.fixture
def bucket(monkeypatch):
    """An S3 bucket in memory."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3_client.cache_clear()
    with mock_aws():
        storage.s3_client().create_bucket(Bucket="bucket")
        yield "s3://bucket"
    storage._s3_client.cache_clear()


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """A writable place of each kind."""
    return str(tmp_path / "place") if request.param == "local" else f"{request.getfixturevalue('bucket')}/place"


def test_what_is_put_is_found_listed_read_and_removed(place, tmp_path):
    assert not storage.exists(place)
    storage.put(storage.join(place, "b", "x.bin"), b"x" * 1000)
    storage.put(storage.join(place, "a.bin"), b"a")
    storage.put(storage.join(place, ".hidden"), b"h")
    assert storage.list_sizes(place) == [("a.bin", 1), ("b/x.bin", 1000)]
    assert storage.list_files(place) == [f"{place}/a.bin", f"{place}/b/x.bin"]
    assert storage.read_bytes(f"{place}/b/x.bin") == b"x" * 1000
    storage.fetch(f"{place}/a.bin", tmp_path / "deep" / "a.bin")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"a"
    assert storage.exists(f"{place}/a.bin")
    assert storage.exists(place)
    assert storage.exists(f"{place}/b")
    assert not storage.exists(f"{place}/a")
    storage.remove(place)
    assert not storage.exists(place)
    storage.remove(place)


def test_files_are_uploaded_whole(place, tmp_path):
    (tmp_path / "big").write_bytes(bytes(range(256)) * 4 * 10_000)
    storage.upload(tmp_path / "big", f"{place}/big")
    assert storage.read_bytes(f"{place}/big") == (tmp_path / "big").read_bytes()


def test_what_is_not_there_is_refused_by_name_and_leaves_no_file(place, tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.bin does not exist"):
        storage.fetch(f"{place}/nothing.bin", tmp_path / "out" / "x")
    with pytest.raises(BadInputError, match=r"nothing\.bin does not exist"):
        storage.read_bytes(f"{place}/nothing.bin")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("s3a://b/x/", "s3://b/x"),
        ("s3n://b/x", "s3://b/x"),
        ("file:///a/b", "/a/b"),
        ("results/x/", "results/x"),
        ("https://h/x", "https://h/x"),
        ("/", "/"),
    ],
)
def test_addresses_have_one_form(uri, normal):
    assert storage.normalise(uri) == normal
    assert storage.is_local(uri) == ("://" not in normal)


def test_other_kinds_of_addresses_are_refused():
    with pytest.raises(BadInputError, match="ftp"):
        storage.is_local("ftp://h/x")
    with pytest.raises(BadInputError, match="listings"):
        storage.list_files("https://h/x")
    with pytest.raises(BadInputError, match="written"):
        storage.put("https://h/x", b"")


def test_a_bucket_is_never_removed_as_a_whole(bucket):
    with pytest.raises(BadInputError, match="below a bucket"):
        storage.remove(bucket)


@pytest.mark.parametrize("part", ["..", "a/../../b", "/etc/passwd", "a\\..\\b", "", "a\0b", "\n"])
def test_a_name_cannot_leave_its_place(part):
    for place in ("/data", "s3://bucket/place"):
        with pytest.raises(BadInputError, match="must not leave"):
            storage.join(place, part)


def test_names_with_dots_inside_are_names():
    assert storage.join("s3a://b/p/", "a..b", "c.d/e") == "s3://b/p/a..b/c.d/e"


def test_an_artifact_can_have_its_data_in_s3(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DHS_SCRATCH", str(tmp_path / "scratch"))
    output = tmp_path / "results" / "stamps.json"

    def make(seed: int) -> None:
        with attempt(output, "stamps", MODULE, {"seed": seed}, [], data_root=f"{bucket}/root") as work:
            (work.prefix / "driver.parquet").write_bytes(b"written by the driver")
            entries = [write_object(work.uri, "executor.parquet", b"written by an executor")]
            work.publish(objects=entries)

    make(1)
    first = output.read_bytes()
    manifest = load_manifest(output, "stamps")
    assert manifest.uri.startswith("s3://bucket/root/results/stamps/")
    assert [entry.name for entry in object_list(manifest)] == ["driver.parquet", "executor.parquet"]
    assert [path.read_bytes()[-8:] for path in verified_paths(manifest)] == [b"e driver", b"executor"]
    verify_manifest(manifest)
    make(2)
    assert output.read_bytes() == first
    assert len(storage.list_sizes(f"{bucket}/root")) == 3


def test_a_byte_that_flips_in_s3_is_noticed(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DHS_SCRATCH", str(tmp_path / "scratch"))
    with attempt(tmp_path / "x.json", "x", MODULE, {}, [], data_root=f"{bucket}/root") as work:
        (work.prefix / "a.npy").write_bytes(b"abc")
        manifest = work.publish()
    storage.put(f"{manifest.uri}/a.npy", b"abd")
    with pytest.raises(CorruptDataError, match=r"a\.npy"):
        verified_path(manifest, "a.npy")


def test_a_file_that_changes_on_its_way_to_s3_is_removed_there(bucket, tmp_path, monkeypatch):
    (tmp_path / "x.npy").write_bytes(b"abc")

    def flips_a_bit(path, bucket_name, key):
        storage.s3_client().put_object(Bucket=bucket_name, Key=key, Body=b"abb")

    monkeypatch.setattr(storage.s3_client(), "upload_file", flips_a_bit)
    with pytest.raises(StorageError, match=r"x\.npy arrived changed \(ETag [0-9a-f]{32}\) and was removed"):
        storage.upload(tmp_path / "x.npy", f"{bucket}/x.npy")
    assert not storage.exists(f"{bucket}/x.npy")


def test_a_file_that_goes_in_parts_arrives_whole(bucket, tmp_path):
    """Its ETag is not its MD5."""
    (tmp_path / "x.npy").write_bytes(bytes(9_000_000))
    storage.upload(tmp_path / "x.npy", f"{bucket}/x.npy")
    assert storage.list_sizes(bucket) == [("x.npy", 9_000_000)]


def test_an_object_that_an_executor_lost_is_noticed(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def lose_one() -> None:
        with attempt(tmp_path / "x.json", "x", MODULE, {}, [], data_root=f"{bucket}/root") as work:
            entry = write_object(work.uri, "a.npy", b"abc")
            storage.remove(f"{work.uri}/a.npy")
            work.publish(objects=[entry])

    with pytest.raises(CorruptDataError, match=r"a\.npy has 0 of 3 bytes"):
        lose_one()
    assert not (tmp_path / "x.json").exists()


def test_a_process_that_starts_elsewhere_finds_relative_paths_where_it_is_told(tmp_path, monkeypatch):
    """A Spark executor has a working directory of its own, and manifests name their data relative to another."""
    (tmp_path / "executor").mkdir()
    monkeypatch.chdir(tmp_path)
    with attempt(tmp_path / "results" / "x.json", "x", MODULE, {}, []) as work:
        storage.put(storage.join(work.uri, "a.bin"), b"a")
        manifest = work.publish()
    assert not manifest.uri.startswith("/")
    monkeypatch.chdir(tmp_path / "executor")
    with pytest.raises(CorruptDataError, match="missing"):
        object_list(manifest)
    monkeypatch.setenv("DHS_DIRECTORY", str(tmp_path))
    assert verified_path(manifest, "a.bin").read_bytes() == b"a"
    assert storage.exists(manifest.uri)
    assert [name for name, _ in storage.list_sizes(manifest.uri)] == ["_objects.json", "a.bin"]
    storage.put("results/new.bin", b"n")
    storage.fetch("results/new.bin", tmp_path / "copy.bin")
    storage.remove("results/new.bin")
    assert (tmp_path / "copy.bin").read_bytes() == b"n"
    assert not (tmp_path / "results" / "new.bin").exists()
    assert str(storage.local_path("/abs/x")) == "/abs/x"
