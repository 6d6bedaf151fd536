"""The paper's tables: what was measured, whole and with its conditions, as CSV, Markdown and TeX."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import Manifest
from dark_halo_scope.evaluation.gate_check import sealed
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.paper import (
    anchor_table,
    dataset_table,
    gate_strata_table,
    hyperparameter_table,
    prior_work_table,
    target_table,
)
from dark_halo_scope.paper.prior_work import PRIOR_RESULTS
from dark_halo_scope.paper.tables import tex_escaped, tex_text
from dark_halo_scope.training.config import TrainSettings

WEIGHTS = "a" * 64


def run(main: Callable[[list[str]], None], folder: Path, *arguments: Any) -> tuple[list[dict[str, str]], str, str]:
    """Rows of the CSV file, the Markdown and the TeX that a command writes."""
    outputs = [folder / f"table.{suffix}" for suffix in ("csv", "md", "tex")]
    main([str(item) for item in [*arguments, "--output", *outputs]])
    with outputs[0].open() as file:
        return list(csv.DictReader(file)), outputs[1].read_text(), outputs[2].read_text()


def entry(value: float | None, low: float = 0.1, high: float = 0.9, n: int = 100, **more: Any) -> dict[str, Any]:
    status = "not measurable: too few" if value is None else "measured"
    return {"value": value, "interval": None if value is None else [low, high], "n": n, "status": status} | more


def manifest(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    return Manifest(kind=kind, uri=kind, objects=0, bytes=0, sha256="0" * 64, facts=facts).model_dump()


# --- TeX --------------------------------------------------------------------------------------------------------------


def test_tex_prints_every_character_and_keeps_emphasis() -> None:
    assert tex_escaped("50% of `gen5_prime` & **fail**") == r"50\% of \texttt{gen5\_prime} \& \textbf{fail}"
    assert tex_escaped("θ_E ≥ 1, x < 2 − 1") == r"$\theta_\mathrm{E}$ $\ge$ 1, x $<$ 2 $-$ 1"
    assert tex_escaped("\\input{x}") == r"\textbackslash{}input\{x\}"


def test_a_tabular_has_a_column_a_heading_and_its_notes_below() -> None:
    text = tex_text([{"a": "1", "b": "2"}], ["n > 1"])
    assert text.splitlines()[:3] == [r"\begin{tabular}{ll}", r"\toprule", r"a & b \\"]
    assert text.splitlines()[-2:] == [r"\end{tabular}", r"\par\smallskip n $>$ 1"]


# --- 1: datasets ------------------------------------------------------------------------------------------------------


def write_dataset(folder: Path, pairs: dict[str, int], kinds: list[str]) -> list[Any]:
    facts = {"splits": pairs, "negatives": {"train": 7, "val": 0, "test": 0}, "kinds": kinds}
    ends = {"n": 1, "p00": 0.5, "p50": 1.25, "p100": 2.5}
    counts = {"confusers": {"merger": 3}, "hosts": 1234, "cells": 5, "strata": {"x >= 1": 4}, "rows": 12, "usable": 10}
    columns = ("theta_e_arcsec", "psfsize_r", "psfdepth_r", "arc_snr")
    quality = {
        "counts": dict.fromkeys(pairs, counts),
        "distributions": {split: {column: ends if n else {"n": 0} for column in columns} for split, n in pairs.items()},
    }
    write_json(folder / "packed.json", manifest("packed", facts))
    write_json(folder / "quality.json", quality)
    return ["--names", "d1", "--packed", folder / "packed.json", "--quality", folder / "quality.json"]


def test_datasets_are_counted_by_split_and_what_they_lack_is_empty(tmp_path: Path) -> None:
    arguments = write_dataset(tmp_path, {"train": 1000, "val": 20, "test": 0}, ["positive", "control"])
    rows, markdown, tex = run(dataset_table.main, tmp_path, *arguments)
    assert [(row["split"], row["positives"], row["controls"], row["hard_negatives"]) for row in rows] == [
        ("train", "1000", "1000", "0"),
        ("val", "20", "20", "0"),
    ]
    assert (rows[0]["theta_e_arcsec_min"], rows[0]["theta_e_arcsec_max"], rows[0]["not_usable"]) == ("0.5", "2.5", "2")
    assert "| 1,000 |" in markdown
    assert "0.50 / 1.25 / 2.50" in markdown
    assert r"$\theta_\mathrm{E}$" in tex


def test_a_split_of_negatives_alone_has_no_ranges(tmp_path: Path) -> None:
    arguments = write_dataset(tmp_path, {"train": 0, "val": 0, "test": 0}, ["positive"])
    rows, _, _ = run(dataset_table.main, tmp_path, *arguments)
    assert [(row["split"], row["other_negatives"], row["theta_e_arcsec_min"]) for row in rows] == [("train", "7", "")]


def test_as_many_files_as_names_are_needed(tmp_path: Path) -> None:
    arguments = write_dataset(tmp_path, {"train": 1, "val": 0, "test": 0}, ["positive"])
    with pytest.raises(BadInputError, match=r"one packed\.json and one quality\.json for each name"):
        run(dataset_table.main, tmp_path, "--names", "d1", "d2", *arguments[2:])


# --- 2: hyperparameters -----------------------------------------------------------------------------------------------


def write_card(folder: Path, generation: str, stage: str, training: dict[str, Any], **changes: Any) -> Path:
    settings = TrainSettings.model_validate(training).model_dump(mode="json")
    card = {
        "generation": generation,
        "stage": stage,
        "dataset": "d1",
        "in_channels": 6,
        "stamp_size": 64,
        "parameters": 231_417,
        "meta": {"columns": ["psfsize_r"], "mean": [1.2], "std": [0.1]},
        "model": settings["model"],
        "preprocessing": settings["preprocessing"],
        "training": settings,
        "start_sha256": None,
        "hard_negatives_sha256": None,
        "epoch": 3,
    }
    path = folder / generation / stage / "best.json"
    write_json(path, card | changes)
    return path


def test_every_setting_is_a_row_and_what_tells_stages_apart_is_printed(tmp_path: Path) -> None:
    paths = [
        write_card(tmp_path, "gen3", "a1", {"selection": {"min_theta_over_psf": 0.8, "min_arc_snr_maxpix": 7.0}}),
        write_card(tmp_path, "gen3", "a2", {"loss": {"kind": "focal"}}, start_sha256=WEIGHTS),
        write_card(tmp_path, "gen4", "main", {"optimizer": {"lr": 0.004}}, hard_negatives_sha256=WEIGHTS),
    ]
    rows, markdown, _ = run(hyperparameter_table.main, tmp_path, "--models", *paths)
    settings = {row["setting"]: row for row in rows}
    assert list(rows[0]) == ["setting", "gen3 a1", "gen3 a2", "gen4"]
    assert settings["training.optimizer.lr"]["gen4"] == "0.004"
    assert settings["training.selection.min_theta_over_psf"]["gen3 a1"] == "0.8"
    assert len(settings) > 100
    lines = markdown.splitlines()[2:5]
    assert "θ_E/PSF ≥ 0.8, peak S/N ≥ 7" in lines[0]
    assert "from a stage" in lines[1]
    assert "focal (0.25, 2)" in lines[1]
    assert "mined" in lines[2]
    assert "0.004 cosine" in lines[2]


def test_a_stage_given_twice_is_refused(tmp_path: Path) -> None:
    path = write_card(tmp_path, "gen2", "main", {})
    with pytest.raises(BadInputError, match="has a stage twice"):
        run(hyperparameter_table.main, tmp_path, "--models", path, path)


# --- 3: gates ---------------------------------------------------------------------------------------------------------


def write_gates(folder: Path, generation: str, **changes: Any) -> Path:
    null = {"low": 0.48, "high": 0.52, "mean": 0.5, "p_value": 0.001}
    strata = {
        name: entry(0.4 + 0.1 * i, 0.35 + 0.1 * i, 0.45 + 0.1 * i, null=null)
        for i, name in enumerate(gate_strata_table.STRATA)
    }
    strata["x < 0.5"] = {"value": None, "interval": None, "n": 12, "status": "too few", "null": None}
    gate = {
        **strata["x >= 1"],
        "title": "core",
        "bound": "at most",
        "threshold": 0.6,
        "weight": "critical",
        "stratum": "x >= 1",
        "passed": True,
        "strata": strata,
    }
    result = {
        "generation": generation,
        "dataset": "pairs",
        "split": "test",
        "model_sha256": WEIGHTS,
        "settings": {"confidence": 0.95, "permutations": 1000},
        "inputs": {"packed": {"sha256": "0" * 64}},
        "gates": {"G1": gate},
        "verdict": "pass",
    }
    path = folder / generation / "gates.json"
    write_json(path, sealed(result | changes))
    return path


def test_gates_stand_in_every_stratum_from_unresolved_to_all(tmp_path: Path) -> None:
    rows, markdown, tex = run(gate_strata_table.main, tmp_path, "--gates", write_gates(tmp_path, "gen2"))
    assert [row["stratum"] for row in rows] == list(gate_strata_table.STRATA)
    assert [row["judged"] for row in rows] == ["False", "False", "True", "False"]
    assert (rows[0]["value"], rows[0]["status"], rows[0]["n"]) == ("", "too few", "12")
    assert (rows[2]["null_low"], rows[2]["passed"], rows[1]["passed"]) == ("0.48", "True", "")
    assert "| too few (n = 12) |" in markdown
    assert "**0.600 [0.550, 0.650]**" in markdown
    assert "95% of 1000 permutations" in markdown
    assert r"\textbf{0.600 [0.550, 0.650]}" in tex


def test_gates_measured_otherwise_are_named_below(tmp_path: Path) -> None:
    paths = [write_gates(tmp_path, name) for name in ("gen2", "gen3")]
    paths.append(write_gates(tmp_path, "gen4", dataset="others"))
    _, markdown, _ = run(gate_strata_table.main, tmp_path, "--gates", *paths)
    assert "Measured on other pairs or with other settings than most: gen4." in markdown


# --- 4: anchors -------------------------------------------------------------------------------------------------------


def share(k: int, n: int, threshold: float | None = 0.5) -> dict[str, Any]:
    if threshold is None:
        return {"value": None, "k": None, "n": n, "interval": None, "threshold": None, "status": "not measurable: few"}
    low, high = clopper_pearson(k, n)
    return entry(k / n if n else None, float(low), float(high), n, k=k, threshold=threshold)


def write_anchors(folder: Path, generation: str, cuts: tuple[str, ...] = ("p0.5", "fpr0.001")) -> Path:
    def shares(k: int, n: int) -> dict[str, Any]:
        return {cut: share(k, n, 0.5 if cut == "p0.5" else None) for cut in cuts}

    result = {
        "generation": generation,
        "model_sha256": WEIGHTS,
        "confidence": 0.95,
        "thresholds": {cut: {} for cut in cuts},
        "recall": {
            "overall": {"headline": shares(30, 60)},
            "tier_gen5_prime": {"A": shares(20, 50), "B": shares(10, 10)},
            "theta_e": {"[0.5,0.75)": shares(1, 4)},
        },
        "auc": {"tier_gen5_prime": {"A": entry(0.91, 0.88, 0.94, 50)}},
        "contamination": {"control": shares(8, 800)},
    }
    path = folder / generation / "anchors.json"
    write_json(path, result)
    return path


def test_recall_of_20_of_50_has_its_exact_interval(tmp_path: Path) -> None:
    rows, markdown, _ = run(anchor_table.main, tmp_path, "--anchors", write_anchors(tmp_path, "gen5_prime"))
    line = next(line for line in markdown.splitlines() if "tier_gen5_prime: A" in line)
    assert "| 0.40 [0.26, 0.55] (20) | not measurable | 0.91 [0.88, 0.94] |" in line
    assert "not a lens: control" in markdown
    assert "theta_e" not in markdown
    found = {(row["scheme"], row["group"], row["threshold"]): row for row in rows}
    assert found["theta_e", "[0.5,0.75)", "p0.5"]["k"] == "1"
    assert found["tier_gen5_prime", "A", "auc"]["value"] == "0.91"
    assert found["tier_gen5_prime", "A", "fpr0.001"]["status"] == "not measurable: few"


def test_anchors_at_other_thresholds_are_refused(tmp_path: Path) -> None:
    paths = [write_anchors(tmp_path, "gen2"), write_anchors(tmp_path, "gen3", ("p0.5", "fpr0.01"))]
    with pytest.raises(BadInputError, match="have different thresholds"):
        run(anchor_table.main, tmp_path, "--anchors", *paths)
    with pytest.raises(BadInputError, match="as is another"):
        run(anchor_table.main, tmp_path, "--anchors", paths[0], paths[0])


# --- 5: prior work ----------------------------------------------------------------------------------------------------


def write_performance(folder: Path, generation: str) -> Path:
    rates = [
        {"fpr_target": 1e-2, **entry(0.5, 0.47, 0.52)},
        {"fpr_target": 1e-3, **entry(None)},
        {"fpr_target": 1e-4, **entry(None)},
    ]
    pairs = {
        "auroc": entry(0.92, 0.91, 0.93),
        "tpr_at_fpr": rates,
        "fpr_at_tpr": [{"tpr_target": 0.85, **entry(0.17, 0.14, 0.2)}],
    }
    result = {"generation": generation, "model_sha256": WEIGHTS, "positives_vs_controls": pairs}
    path = folder / generation / "performance.json"
    write_json(path, result)
    return path


def prior_arguments(folder: Path) -> list[Any]:
    write_json(folder / "survey.json", manifest("survey", {"name": "mini", "embedded": True}))
    paths = [writer(folder, "gen5_prime") for writer in (write_gates, write_performance, write_anchors)]
    return ["--survey", folder / "survey.json", "--artifacts", *paths]


def test_generations_stand_beside_prior_work_with_conditions_and_sources(tmp_path: Path) -> None:
    rows, markdown, _ = run(prior_work_table.main, tmp_path, *prior_arguments(tmp_path))
    assert len(rows) == 1 + len(PRIOR_RESULTS)
    own, others = rows[0], {row["who"]: row for row in rows[1:]}
    assert (own["auroc"], own["auroc_low"], own["source"]) == ("0.92", "0.91", "this run")
    assert (own["tpr_at_fpr_1e-3"], own["tpr_at_fpr_1e-3_status"]) == ("", "not measurable: too few")
    assert own["recall"] == "0.5"
    assert others["CMU DeepLens"]["tpr_at_fpr_1e-2"] == "0.9"
    ensemble = others["Bayesian ensemble"]
    assert (ensemble["tpr_at_fpr_1e-3_low"], ensemble["tpr_at_fpr_1e-3_high"]) == ("0.34", "0.46")
    assert all(row["measured_on"] and row["source"] for row in rows)
    assert "drawn with the embedded survey" in markdown
    assert "| not measurable |" in markdown.splitlines()[2]


def test_a_generation_that_lacks_a_measurement_is_refused(tmp_path: Path) -> None:
    arguments = prior_arguments(tmp_path)
    with pytest.raises(BadInputError, match="lacks anchors of gen5_prime"):
        run(prior_work_table.main, tmp_path, *arguments[:-1])


# --- Targets ----------------------------------------------------------------------------------------------------------


def test_targets_print_both_verdicts_where_the_interval_is_undecided(tmp_path: Path) -> None:
    common = {"source": "plan", "what": "AUC", "bound": "above", "threshold": 0.97, "due": "> 0.97"}
    common |= {"condition": "test", "metric": "performance.json: auroc"}
    results = [
        {"target": "a", "generation": "g", **common, **entry(0.975, 0.96, 0.98)}
        | {"verdict": "undecided", "by_value": "met"},
        {"target": "b", "generation": "g", **common, **entry(None)} | {"verdict": "not measurable", "by_value": None},
        {"target": "c", "generation": "g", **common, **entry(0.9)} | {"verdict": "not met", "by_value": "not met"},
    ]
    survey = {"name": "mini", "embedded": True, "condition": "a drawn sky"}
    write_json(tmp_path / "targets.json", {"survey": survey, "verdicts": {}, "targets": results})
    rows, markdown, _ = run(target_table.main, tmp_path, "--targets", tmp_path / "targets.json")
    lines = markdown.splitlines()[2:5]
    assert lines[0].endswith("| > 0.97 | 0.975 [0.96, 0.98] | 100 | undecided (met) |")
    assert lines[1].endswith("|  | 100 | not measurable: too few |")
    assert lines[2].endswith("| **not met** |")
    assert "Measured on mini: a drawn sky." in markdown
    assert [row["verdict"] for row in rows] == ["undecided", "not measurable", "not met"]


def test_a_table_is_written_in_no_other_format(tmp_path: Path) -> None:
    path = write_gates(tmp_path, "gen2")
    with pytest.raises(BadInputError, match=r"let it end in \.csv or \.md or \.tex"):
        gate_strata_table.main(["--gates", str(path), "--output", str(tmp_path / "table.html")])


def test_tables_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    arguments = prior_arguments(tmp_path)
    first = run(prior_work_table.main, tmp_path, *arguments)
    assert json.dumps(first) == json.dumps(run(prior_work_table.main, tmp_path, *arguments))
