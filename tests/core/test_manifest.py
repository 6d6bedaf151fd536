"""A manifest never names data that are not whole, and identical content is identical bytes."""

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dark_halo_scope.core import software
from dark_halo_scope.core.clean_orphans import main as clean_orphans
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, LockHeldError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import (
    Manifest,
    attempt,
    load_manifest,
    object_list,
    verified_path,
    verified_paths,
    verify_manifest,
    write_object,
    write_or_take_over,
    write_result,
)

MODULE = "dark_halo_scope.core.verify_manifests"
OUTPUT = Path("results/v5/stamps.json")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(
    content: Mapping[str, bytes],
    values: Mapping[str, object] | None = None,
    output: Path = OUTPUT,
    **options: object,
) -> Manifest:
    """Publish `content` (name -> bytes) as an artifact."""
    with attempt(output, "stamps", MODULE, values or {}, [], **options) as work:  # type: ignore[arg-type]
        for name, data in content.items():
            path = work.prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return work.publish()


CONTENT = {"stamps-train-0000.parquet": b"train", "sub/rows.parquet": b"rows", "stamps.npy": b"npy"}


def prefixes() -> list[str]:
    return sorted(path.name for path in OUTPUT.with_suffix("").iterdir())


def test_what_is_published_is_found_again():
    published = make(CONTENT)
    manifest = load_manifest(OUTPUT, "stamps")
    assert manifest == published
    assert [entry.name for entry in object_list(manifest)] == sorted(CONTENT)
    assert manifest.objects == 3
    assert manifest.bytes == sum(map(len, CONTENT.values()))
    for name, data in CONTENT.items():
        assert verified_path(manifest, name).read_bytes() == data
    verify_manifest(manifest)


def test_the_address_is_relative_and_the_paths_given_are_absolute(work):
    manifest = make(CONTENT)
    assert manifest.uri == f"results/v5/stamps/{prefixes()[0]}"
    assert verified_path(manifest, "stamps.npy") == work / manifest.uri / "stamps.npy"


def test_the_whole_directory_can_be_moved(work, monkeypatch):
    make(CONTENT)
    moved = work.with_name(f"{work.name}-moved")
    work.rename(moved)
    monkeypatch.chdir(moved)
    verify_manifest(load_manifest(OUTPUT))


def test_equal_content_gives_equal_manifest_bytes_whoever_asks(work, monkeypatch):
    make(CONTENT)
    first = OUTPUT.read_bytes()
    elsewhere = work.with_name(f"{work.name}-elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    make(dict(reversed(CONTENT.items())))
    assert OUTPUT.read_bytes() == first


def test_equal_content_of_other_code_or_settings_keeps_the_older_prefix_and_the_manifest_bytes():
    make(CONTENT, {"seed": 1})
    first, kept = OUTPUT.read_bytes(), prefixes()
    OUTPUT.unlink()  # as Snakemake does before a rerun
    make(CONTENT, {"seed": 2})
    assert OUTPUT.read_bytes() == first
    assert prefixes() == kept


def test_other_content_is_another_prefix_and_the_older_one_stays_whole():
    old = make(CONTENT, {"seed": 1})
    new = make({**CONTENT, "stamps.npy": b"other"}, {"seed": 2})
    assert new.uri != old.uri
    assert new.sha256 != old.sha256
    verify_manifest(old)
    verify_manifest(new)


def test_a_damaged_older_prefix_is_never_kept():
    old = make(CONTENT)
    victim = Path(old.uri) / "stamps.npy"
    victim.write_bytes(b"nqy")
    new = make(CONTENT)
    assert new.uri != old.uri
    verify_manifest(new)


def test_one_flipped_byte_is_an_error_that_names_the_file():
    manifest = make(CONTENT)
    victim = Path(manifest.uri) / "stamps.npy"
    victim.write_bytes(b"npz")
    with pytest.raises(CorruptDataError, match=r"stamps\.npy"):
        verified_path(manifest, "stamps.npy")
    with pytest.raises(CorruptDataError, match=r"stamps\.npy"):
        verify_manifest(manifest)


def test_a_file_that_changes_after_its_first_use_is_noticed_at_the_next():
    manifest = make(CONTENT)
    verified_path(manifest, "stamps.npy")
    victim = Path(manifest.uri) / "stamps.npy"
    victim.write_bytes(b"npz")
    os.utime(victim, ns=(1, 1))
    with pytest.raises(CorruptDataError):
        verified_path(manifest, "stamps.npy")


@pytest.mark.parametrize("damage", ["missing", "longer", "list missing", "list changed", "directory missing"])
def test_every_other_damage_is_an_error_too(damage):
    manifest = make(CONTENT)
    prefix = Path(manifest.uri)
    match damage:
        case "missing":
            (prefix / "stamps.npy").unlink()
        case "longer":
            (prefix / "stamps.npy").write_bytes(b"npy2")
        case "list missing":
            (prefix / "_objects.json").unlink()
        case "list changed":
            (prefix / "_objects.json").write_text("[]\n")
        case "directory missing":
            shutil.rmtree(prefix)
    with pytest.raises(CorruptDataError, match="again"):
        verified_path(manifest, "stamps.npy")
    with pytest.raises(CorruptDataError):
        verify_manifest(manifest)


def test_a_file_that_no_writer_left_is_noticed_by_the_full_check():
    manifest = make(CONTENT)
    (Path(manifest.uri) / "stranger.parquet").write_bytes(b"x")
    with pytest.raises(CorruptDataError, match=r"stranger\.parquet"):
        verify_manifest(manifest)


def test_quarantined_rows_are_part_of_the_artifact_and_not_of_its_data():
    manifest = make({"a.parquet": b"a", "quarantine/a.parquet": b"bad"})
    assert [path.name for path in verified_paths(manifest)] == ["a.parquet"]
    assert manifest.objects == 2


def test_an_object_that_is_not_there_is_refused():
    with pytest.raises(BadInputError, match=r"nothing\.npy"):
        verified_path(make(CONTENT), "nothing.npy")


def test_a_block_that_fails_leaves_nothing():
    def fail() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
            (work.prefix / "x").write_bytes(b"x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not OUTPUT.exists()
    assert prefixes() == []


def write_letters(names: str, values: Mapping[str, object] | None = None, fail: bool = False) -> tuple[str, Manifest]:
    """Publish an object for each letter by what an attempt before has left; the letters that it did not have."""
    written = []

    def write(path: Path, letter: str) -> int:
        written.append(letter)
        path.write_text(letter * 3)
        return 3

    with attempt(OUTPUT, "stamps", MODULE, values or {}, [], resumable=True) as work:
        found = [
            write_or_take_over(
                work.target, f"{letter}.txt", partial(write, letter=letter), lambda path: len(path.read_text())
            )
            for letter in names
        ]
        if fail:
            raise RuntimeError("stop")
        assert [said for _, said in found] == [3] * len(names)
        manifest = work.publish(
            rows_out=3 * len(names), objects=list({entry.name: entry for entry, _ in found}.values())
        )
    return "".join(written), manifest


def test_a_resumable_attempt_goes_on_with_what_failed_ones_at_the_same_have_written():
    for names in ("xy", "xyz"):
        with pytest.raises(RuntimeError, match="stop"):
            write_letters(names, fail=True)
    assert len(prefixes()) == 2
    written, manifest = write_letters("wxyz")
    assert written == "w"
    verify_manifest(manifest)
    assert prefixes() == [Path(manifest.uri).name]
    resumed = OUTPUT.read_bytes()
    OUTPUT.unlink()
    shutil.rmtree(OUTPUT.with_suffix(""))
    assert write_letters("wxyz")[0] == "wxyz"
    assert OUTPUT.read_bytes() == resumed


def test_an_attempt_takes_nothing_from_one_with_other_settings_or_from_a_finished_one():
    with pytest.raises(RuntimeError, match="stop"):
        write_letters("xyz", {"seed": 2}, fail=True)
    assert write_letters("xyz")[0] == "xyz"
    assert len(prefixes()) == 1, "what nobody can go on with any more is gone"
    assert write_letters("xyz")[0] == "xyz"


def test_what_changed_since_it_was_written_is_not_taken_over(caplog):
    with pytest.raises(RuntimeError, match="stop"):
        write_letters("xyz", fail=True)
    [left] = OUTPUT.with_suffix("").iterdir()
    (left / "y.txt").write_text("yyz")
    written, manifest = write_letters("xyz")
    assert written == "y"
    assert "y.txt changed since it was written" in caplog.text
    assert verified_path(manifest, "y.txt").read_text() == "yyy"


def test_what_publishing_found_damaged_is_written_anew():
    def damaged() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {}, [], resumable=True) as work:
            entry, _ = write_or_take_over(work.target, "x.txt", lambda path: path.write_text("x"), Path.read_text)
            (work.prefix / "x.txt").write_text("y")
            work.publish(objects=[entry])

    with pytest.raises(CorruptDataError, match="does not hold what its writers wrote"):
        damaged()
    assert write_letters("x")[0] == "x"


def test_what_was_made_with_other_software_is_made_anew(monkeypatch):
    with pytest.raises(RuntimeError, match="stop"):
        write_letters("xy", fail=True)
    monkeypatch.setattr(software, "versions", lambda packages: {"python": "another"})
    assert write_letters("xy")[0] == "xy"


def test_unfinished_stamps_are_no_orphan_to_be_removed_with_the_others(capsys):
    with pytest.raises(RuntimeError, match="stop"):
        write_letters("xy", fail=True)
    clean_orphans(["results", "--yes"])
    assert "checkpoints" in capsys.readouterr().out
    assert write_letters("xyz")[0] == "z"


def test_what_a_failed_task_of_the_same_attempt_has_written_is_not_written_again():
    assert write_letters("xyzx")[0] == "xyz"


def test_a_block_that_fails_leaves_the_old_artifact():
    old = make(CONTENT)
    first = OUTPUT.read_bytes()

    def fail() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {"seed": 2}, []):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert OUTPUT.read_bytes() == first
    verify_manifest(old)


def test_an_attempt_that_does_not_publish_is_an_error():
    with pytest.raises(RuntimeError, match="without publishing"), attempt(OUTPUT, "stamps", MODULE, {}, []):
        pass


def test_two_attempts_at_once_are_refused():
    with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
        with (
            pytest.raises(LockHeldError, match=str(os.getpid())),
            attempt(OUTPUT, "stamps", MODULE, {}, []),
        ):
            pytest.fail("two attempts")
        work.publish()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_fact_that_is_no_number_is_refused_and_leaves_the_old_artifact(bad):
    old = make(CONTENT)

    def publish_bad() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {"seed": 2}, []) as work:
            work.publish(facts={"auc": bad})

    with pytest.raises(BadInputError, match=r"stamps\.json"):
        publish_bad()
    assert load_manifest(OUTPUT) == old
    assert len(prefixes()) == 1


def test_lost_rows_are_refused():
    def lose_rows() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
            work.publish(rows_in=10, rows_out=8, rows_quarantined=1)

    with pytest.raises(BadInputError, match="10 rows"):
        lose_rows()
    assert not OUTPUT.exists()


def test_links_are_refused():
    def link() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
            (work.prefix / "link").symlink_to("/etc/passwd")
            work.publish()

    with pytest.raises(BadInputError, match="link"):
        link()


def test_temporary_files_and_local_checksums_of_writers_are_not_data():
    manifest = make({"a.parquet": b"a", ".a.parquet.crc": b"crc", ".tmp-host-1-2.a.parquet": b"half"})
    assert [entry.name for entry in object_list(manifest)] == ["a.parquet"]
    verify_manifest(manifest)


def test_another_kind_is_refused():
    make(CONTENT)
    with pytest.raises(BadInputError, match="'stamps', and one of 'coadds'"):
        load_manifest(OUTPUT, "coadds")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "stamps"}', "null"])
def test_what_is_no_manifest_is_refused_by_name(text):
    OUTPUT.parent.mkdir(parents=True)
    OUTPUT.write_text(text)
    with pytest.raises(CorruptDataError, match=r"stamps\.json"):
        load_manifest(OUTPUT)


def test_provenance_says_by_what_it_was_made_and_the_manifest_does_not():
    write_json(Path("results/parent.json"), {"x": 1})
    with attempt(OUTPUT, "stamps", MODULE, {"seed": 7}, [Path("results/parent.json")]) as work:
        work.publish(rows_in=2, rows_out=1, rows_quarantined=1, columns={"ra": "double"}, facts={"bands": "grz"})
    provenance = read_json(Path("results/v5/stamps.provenance.json"))
    assert provenance["settings"] == {"seed": 7}
    assert provenance["module"] == MODULE
    assert provenance["inputs"][0]["path"] == "results/parent.json"
    assert len(provenance["code_sha256"]) == len(provenance["inputs"][0]["sha256"]) == 64
    assert {"python", "pydantic"} <= provenance["software"].keys()
    assert provenance["host"]["name"] == os.uname().nodename
    assert provenance["started"] <= provenance["finished"]
    text = OUTPUT.read_text()
    assert provenance["host"]["name"] not in json.loads(text).values()
    assert provenance["finished"][:10] not in text


def test_an_input_that_is_not_there_is_refused_by_name():
    with (
        pytest.raises(BadInputError, match=r"parent\.json"),
        attempt(OUTPUT, "stamps", MODULE, {}, [Path("results/parent.json")]),
    ):
        pytest.fail("it began")
    with pytest.raises(BadInputError, match=r"must end in \.json"), attempt(Path("results/x"), "x", MODULE, {}, []):
        pytest.fail("it began")


def test_bulk_data_can_go_to_another_directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("nfs")
    manifest = make(CONTENT, data_root=str(root))
    assert manifest.uri.startswith(f"{root}/results/v5/stamps/")
    verify_manifest(load_manifest(OUTPUT))


def test_writers_elsewhere_report_what_they_wrote_and_it_is_compared():
    with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
        entries = [write_object(work.prefix, f"{n}.parquet", bytes([n])) for n in (2, 1)]
        manifest = work.publish(objects=entries)
    assert object_list(manifest) == sorted(entries, key=lambda entry: entry.name)

    def lose_one() -> None:
        with attempt(OUTPUT, "stamps", MODULE, {}, []) as work:
            entries = [write_object(work.prefix, f"{n}.parquet", bytes([n])) for n in (2, 1)]
            (work.prefix / "1.parquet").unlink()
            work.publish(objects=entries)

    with pytest.raises(CorruptDataError, match="does not hold what its writers wrote"):
        lose_one()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", "", "a\nb"])
def test_an_object_cannot_leave_its_prefix(name, work):
    with pytest.raises(BadInputError, match="must not leave"):
        write_object(work / "prefix", name, b"x")
    assert list(work.iterdir()) == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=4).map(lambda name: f"{name}.npy"), st.binary(max_size=64), max_size=5
    )
)
def test_any_content_is_found_again_and_repeats_its_manifest(content):
    first = make(content)
    verify_manifest(first)
    assert {entry.name: (Path(first.uri) / entry.name).read_bytes() for entry in object_list(first)} == content
    assert make(content, {"seed": 1}) == first


def test_a_result_and_its_provenance_are_written_together():
    path = Path("results/v5/quality.json")
    write_result(path, {"auc": 0.5}, module=MODULE, settings={"seed": 1}, inputs=[])
    assert read_json(path) == {"auc": 0.5}
    assert read_json(Path("results/v5/quality.provenance.json"))["settings"] == {"seed": 1}
    with pytest.raises(BadInputError, match=r"quality\.json"):
        write_result(path, {"auc": float("nan")}, module=MODULE, settings={}, inputs=[])
    assert read_json(path) == {"auc": 0.5}
    assert sorted(item.name for item in path.parent.iterdir()) == ["quality.json", "quality.provenance.json"]
