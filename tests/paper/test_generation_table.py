"""The table of generations: numbers of the weights at hand, and nothing that was not measured."""

import csv
import json
from pathlib import Path

import pytest

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.paper.generation_table import main

from .gate_results import write_gates, write_stage

A, B = "a" * 64, "b" * 64


def run(folder: Path, gates: list[Path], models: list[Path], titles: dict[str, str] | None = None) -> tuple[list, str]:
    """Rows of the CSV file, and the Markdown."""
    outputs = [folder / "table.csv", folder / "table.md"]
    histories = [model.with_name("history.json") for model in models]
    arguments = ["--settings", json.dumps({"titles": titles or {}}), "--gates", *gates, "--models", *models]
    arguments += ["--histories", *histories]
    main([str(item) for item in [*arguments, "--output", *outputs]])
    return list(csv.DictReader(outputs[0].open())), outputs[1].read_text()


def test_rows_come_in_the_order_of_the_gates_with_all_stages_of_each(tmp_path: Path) -> None:
    gates = [write_gates(tmp_path, "gen3", B), write_gates(tmp_path, "gen1", A)]
    models = [
        write_stage(tmp_path, "gen1", "main", A, epochs=6),
        write_stage(tmp_path, "gen3", "a1", A, epochs=4),
        write_stage(tmp_path, "gen3", "a2", B, epochs=5),
    ]
    rows, text = run(tmp_path, gates, models, {"gen3": "two stages"})
    assert [(row["generation"], row["stages"], row["epochs"]) for row in rows] == [
        ("gen3", "a1+a2", "4+5"),
        ("gen1", "main", "6"),
    ]
    assert [row["minutes"] for row in rows] == ["5.0", "2.5"]
    assert (rows[0]["title"], rows[0]["best_epoch"], rows[0]["model_sha256"]) == ("two stages", "2", B)
    lines = text.splitlines()
    assert "a1 4 (2) + a2 5 (2)" in lines[2]
    assert "`gen3`: two stages" in lines[2]
    assert "0.550 [0.540, 0.560] pass" in lines[2]


def test_what_was_not_measured_is_empty_and_says_why(tmp_path: Path) -> None:
    rows, text = run(
        tmp_path, [write_gates(tmp_path, "gen1", A)], [write_stage(tmp_path, "gen1", "main", A, minutes=None)]
    )
    assert (rows[0]["G5"], rows[0]["G5_low"], rows[0]["G5_passed"], rows[0]["minutes"]) == ("", "", "False", "")
    assert "too few (n = 100) **fail**" in text
    assert "unknown" in text


def test_gates_of_other_weights_than_the_last_stage_has_are_refused(tmp_path: Path) -> None:
    models = [write_stage(tmp_path, "gen3", "a1", A), write_stage(tmp_path, "gen3", "a2", B)]
    with pytest.raises(BadInputError, match="gen3 are those of other weights than its stage a2"):
        run(tmp_path, [write_gates(tmp_path, "gen3", A)], models)


def test_gates_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no best\.json"):
        run(tmp_path, [write_gates(tmp_path, "gen2", A)], [write_stage(tmp_path, "gen1", "main", A)])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dataset": "others"}, "dataset"),
        ({"settings": {"confidence": 0.9}}, "settings"),
        ({"inputs": {"packed": {"sha256": "1" * 64}}}, "packed images"),
    ],
)
def test_gates_that_do_not_compare_are_left_out_and_the_row_says_so(tmp_path: Path, changes: dict, what: str) -> None:
    """Also where the odd one comes first."""
    names = ("gen1", "gen2", "gen3")
    gates = [write_gates(tmp_path, name, A, **(changes if name == "gen1" else {})) for name in names]
    models = [write_stage(tmp_path, name, "main", A) for name in names]
    rows, text = run(tmp_path, gates, models)
    assert [row["gated_otherwise"] for row in rows] == [what, "", ""]
    assert [(row["auc"], row["G1"], row["G1_n"]) for row in rows] == [("", "", ""), *[("0.93", "0.5", "100")] * 2]
    assert [row["verdict"] for row in rows] == ["fail"] * 3
    lines = text.splitlines()
    assert f"**fail** (gated otherwise: {what})" in lines[2]
    assert "0.500" not in lines[2]
    assert "0.500 [0.490, 0.510] pass" in lines[3]
    assert "Gated otherwise: on other pairs" in text
    assert "gated otherwise" not in lines[3]


def test_a_table_in_which_all_compare_says_nothing_of_others(tmp_path: Path) -> None:
    _, text = run(tmp_path, [write_gates(tmp_path, "gen1", A)], [write_stage(tmp_path, "gen1", "main", A)])
    assert "ated otherwise" not in text


def test_an_edited_gate_is_refused(tmp_path: Path) -> None:
    gates = write_gates(tmp_path, "gen1", A)
    write_json(gates, read_json(gates) | {"verdict": "pass"})
    with pytest.raises(CorruptDataError, match="not what measure_gates wrote"):
        run(tmp_path, [gates], [write_stage(tmp_path, "gen1", "main", A)])


def test_a_generation_given_twice_is_refused(tmp_path: Path) -> None:
    gates = write_gates(tmp_path, "gen1", A)
    with pytest.raises(BadInputError, match="give each once"):
        run(tmp_path, [gates, gates], [write_stage(tmp_path, "gen1", "main", A)])
