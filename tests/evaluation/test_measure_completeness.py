"""completeness.json and its tables: thresholds from val, injections from test, hosts from the parent sample."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import attempt, load_manifest
from dark_halo_scope.evaluation import measure_completeness
from dark_halo_scope.evaluation.performance import operating_point
from dark_halo_scope.evaluation.performance_config import PerformanceSettings
from dark_halo_scope.evaluation.score_table import read_scores

from .split_scores import draw_rows, write_scores

QUICK = {"bootstraps": 20, "min_cell": 20, "surface": {"bootstraps": 5, "grid": [5, 4]}}
OUTPUTS = ["--output", "completeness.json", "--cells", "cells.csv", "--surface", "surface.csv"]


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """val.json, test.json, and parent.json that knows the magnitudes of all hosts but the first ten."""
    monkeypatch.chdir(tmp_path)
    write_scores(Path("val.json"), draw_rows(1500, 1, "val"), "val")
    rows = draw_rows(600, 2, "test", arcs_per_host=2)
    write_scores(Path("test.json"), rows, "test")
    hosts = rows.filter(pa.array(rows["kind"].to_numpy(zero_copy_only=False) == "control")).slice(20)
    columns = ("brickname", "objid", "ra", "dec")
    parent = hosts.select(columns).append_column("rmag", pa.array(np.full(hosts.num_rows, 19.7, np.float32)))
    with attempt(Path("parent.json"), "parent", "dark_halo_scope.catalogue.parent", {}, []) as work:
        pq.write_table(parent, work.prefix / "parent.parquet")
        work.publish(rows_out=parent.num_rows)


def run(*more: str, **settings: object) -> dict:
    given = ["--settings", json.dumps({**QUICK, **settings})]
    measure_completeness.main(["--val", "val.json", "--test", "test.json", *OUTPUTS, *given, *more])
    return read_json(Path("completeness.json"))


def rows_of(name: str) -> list[dict[str, str]]:
    with open(name, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("scores")
def test_thresholds_come_from_val_and_rates_that_val_cannot_carry_have_none() -> None:
    points = {point["name"]: point for point in run()["operating_points"]}
    assert list(points) == ["p=0.5", "FPR=0.1", "FPR=0.01", "FPR=0.001"]
    assert points["p=0.5"]["score"] == 0.5
    val = draw_rows(1500, 1, "val")
    controls = val.filter(pa.array(val["kind"].to_numpy(zero_copy_only=False) == "control"))["logit"].to_numpy()
    assert np.mean(controls >= points["FPR=0.01"]["logit"]) == pytest.approx(0.01, abs=1e-3)
    assert points["FPR=0.01"]["val_fpr"]["k"] == 15
    low, high = points["FPR=0.01"]["test_fpr"]["interval"]
    assert low < 0.01 < high
    assert points["FPR=0.001"]["logit"] is None
    assert "1 of 1500 controls of val pass, 10 are needed" in points["FPR=0.001"]["status"]


@pytest.mark.usefixtures("scores")
def test_labels_of_test_negatives_do_not_move_a_threshold() -> None:
    before = run()["operating_points"]
    rows = draw_rows(600, 9, "test", offset=3.0)
    write_scores(Path("test.json"), rows, "test")
    assert [point["logit"] for point in run()["operating_points"]] == [point["logit"] for point in before]


@pytest.mark.usefixtures("scores")
def test_a_false_positive_rate_means_the_threshold_that_it_means_in_performance() -> None:
    """Also where val holds images that are in no pair, which score higher than controls."""
    rows = draw_rows(1500, 1, "val")
    extra = draw_rows(800, 5, "val", offset=2.0)
    chosen = extra.filter(pa.array(extra["kind"].to_numpy(zero_copy_only=False) == "control"))
    place = chosen.schema.get_field_index("kind")
    chosen = chosen.set_column(place, "kind", pa.array(["negative"] * chosen.num_rows))
    for name in ("ra", "dec"):
        moved = pa.compute.add(chosen[name], 20.0)
        chosen = chosen.set_column(chosen.schema.get_field_index(name), name, moved)
    write_scores(Path("val.json"), pa.concat_tables([rows, chosen]), "val")
    points = {point["name"]: point for point in run()["operating_points"]}
    val, test = (read_scores(load_manifest(Path(f"{split}.json"), "scores")) for split in ("val", "test"))
    other = operating_point(test, val, 0.01, PerformanceSettings(bootstraps=0))
    assert points["FPR=0.01"]["score"] == pytest.approx(other["threshold"])
    assert points["FPR=0.01"]["val_fpr"]["n"] == other["val"]["fpr"]["n"] == 1500


@pytest.mark.usefixtures("scores")
def test_tables_say_the_same_as_the_scores() -> None:
    result = run("--parent", "parent.json")
    rows = draw_rows(600, 2, "test", arcs_per_host=2)
    chosen = rows.filter(pa.array(rows["kind"].to_numpy(zero_copy_only=False) == "positive"))
    found = chosen["logit"].to_numpy() >= 0
    whole = result["overall"]["p=0.5"]["as_injected"]
    assert (whole["value"], whole["n"], whole["hosts"]) == (found.mean(), 1200, 600)
    theta_e = chosen["theta_e_arcsec"].to_numpy()
    cell = next(
        row
        for row in rows_of("cells.csv")
        if (row["threshold"], row["axes"], row["theta_e_arcsec_low"]) == ("p=0.5", "theta_e_arcsec", "1.0")
    )
    inside = (theta_e >= 1.0) & (theta_e < 1.25)
    assert (int(cell["n"]), int(cell["k"])) == (inside.sum(), found[inside].sum())
    entry = result["marginals"]["theta_e_arcsec"]["p=0.5"][2]
    assert (entry["low"], entry["n"], entry["value"]) == (1.0, int(cell["n"]), float(cell["value"]))
    grid = result["full_grid"]["p=0.5"]
    full = [row for row in rows_of("cells.csv") if row["threshold"] == "p=0.5" and row["axes"].count(" x ") == 5]
    assert grid["cells"] - grid["empty"] == len(full) > 100


@pytest.mark.usefixtures("scores")
def test_magnitudes_of_hosts_come_from_the_parent_sample_and_unknown_ones_are_counted() -> None:
    assert run()["not_in_cells"]["rmag"]["unknown"] == 1200
    result = run("--parent", "parent.json")
    assert result["not_in_cells"]["rmag"] == {"unknown": 20, "outside": 0}
    assert [entry["n"] for entry in result["marginals"]["rmag"]["p=0.5"]] == [0, 0, 0, 1180, 0, 0, 0, 0]


@pytest.mark.usefixtures("scores")
def test_the_surface_is_one_grid_for_each_threshold() -> None:
    result = run()
    rows = rows_of("surface.csv")
    for name in ("p=0.5", "FPR=0.1", "FPR=0.01"):
        assert result["surface"][name]["status"] == "measured"
        points = {(row["theta_e_arcsec"], row["z"]) for row in rows if row["threshold"] == name}
        assert len(points) == 20
    assert "FPR=0.001" not in result["surface"]
    assert all(0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1 for row in rows)


@pytest.mark.usefixtures("scores")
def test_the_same_input_gives_the_same_bytes() -> None:
    def contents() -> list[bytes]:
        run("--parent", "parent.json")
        return [Path(name).read_bytes() for name in OUTPUTS[1::2]]

    assert contents() == contents()


@pytest.mark.usefixtures("scores")
def test_a_stored_theta_e_counts_by_its_true_value() -> None:
    rows = draw_rows(600, 2, "test")
    stored = pa.array(rows["theta_e_arcsec"].to_numpy() * 1.5)
    rows = rows.set_column(rows.column_names.index("theta_e_arcsec"), "theta_e_arcsec", stored)
    write_scores(Path("test.json"), rows, "test")
    assert run()["not_in_cells"]["theta_e_arcsec"] == {"unknown": 0, "outside": 0}


@pytest.mark.usefixtures("scores")
def test_unknown_weights_are_refused() -> None:
    rows = draw_rows(600, 2, "test")
    bad = pa.array(np.where(np.arange(rows.num_rows) == 5, np.nan, 1.0))
    write_scores(
        Path("test.json"), rows.set_column(rows.column_names.index("sampling_weight"), "sampling_weight", bad), "test"
    )
    with pytest.raises(BadInputError, match="sampling_weight"):
        run()


@pytest.mark.usefixtures("scores")
def test_a_survey_without_parents_is_refused() -> None:
    with pytest.raises(BadInputError, match="--survey needs --parent"):
        run("--survey", "survey.json")
