"""The command measures any network on a packed split and writes numbers whatever they are."""

from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import load_manifest, verified_path
from dark_halo_scope.evaluation import check_gates, measure_gates
from dark_halo_scope.evaluation.gate_check import GateClosedError, problems

from . import toys
from .gates_files import SETTINGS
from .packed_files import write_model, write_packed


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("data/toys/packed.json"), {"train": toys.make_split(8, seed=1), "test": toys.make_split(120)})
    write_model(Path("best.json"))
    return tmp_path


def run(*extra: str) -> dict:
    arguments = ["--model", "best.json", "--packed", "data/toys/packed.json", "--output", "gates.json"]
    measure_gates.main([*arguments, "--settings", SETTINGS.model_dump_json(), "--device", "cpu", *extra])
    return read_json(Path("gates.json"))


def test_an_untrained_network_is_measured_recorded_and_kept_out(inputs: Path) -> None:
    result = run()
    assert {"model_sha256", "thresholds", "gates", "verdict", "remedies", "diagnostics"} < set(result)
    assert (result["generation"], result["dataset"], result["split"]) == ("gen5_prime", "toys", "test")
    assert result["model_sha256"] == read_json(Path("best.json"))["weights"]["sha256"]
    assert result["gates"]["G4"]["n"] == 120
    assert result["verdict"] == "fail"
    assert problems(result, SETTINGS) == []
    assert read_json(Path("gates.provenance.json"))["settings"] == SETTINGS.model_dump(mode="json")
    with pytest.raises(GateClosedError, match=r"verdict of gates\.json is fail"):
        check_gates.main(["--gates", "gates.json", "--model", "best.json", "--settings", SETTINGS.model_dump_json()])


def test_measuring_twice_gives_the_same_bytes(inputs: Path) -> None:
    run()
    first = Path("gates.json").read_bytes()
    run()
    assert Path("gates.json").read_bytes() == first


def test_data_level_shortcuts_come_along_as_diagnostics(inputs: Path) -> None:
    write_json(Path("quality.json"), {"verdict": "accepted", "shortcuts": {"control": {"core": 0.6}}})
    result = run("--quality", "quality.json")
    assert result["diagnostics"]["shortcuts"] == {"control": {"core": 0.6}}
    assert set(result["inputs"]) == {"model", "packed", "quality"}


def test_a_split_that_is_not_there_is_named(inputs: Path) -> None:
    with pytest.raises(BadInputError, match="no split 'val'"):
        run("--split", "val")


def test_one_flipped_byte_in_a_packed_array_is_an_error_and_not_a_number(inputs: Path) -> None:
    path = verified_path(load_manifest(Path("data/toys/packed.json")), "test/control.npy")
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"control\.npy"):
        run()
    assert not Path("gates.json").exists()
