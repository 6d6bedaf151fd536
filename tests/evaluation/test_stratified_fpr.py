"""The table of rates by stratum counts every image in its strata, ties right, and claims what its counts carry."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.evaluation import metrics, stratify_fpr
from dark_halo_scope.evaluation.fpr_config import FprSettings
from dark_halo_scope.evaluation.score_table import ScoreTable
from dark_halo_scope.evaluation.stratified_fpr import columns, stratified_rates

from .score_rows import negative_rows, pair_rows, write_scores

PAIRS, NEGATIVES = pair_rows(600, seed=1), negative_rows(900)
ALL_ROWS = pa.concat_tables([PAIRS, NEGATIVES])


def table_of(folder: Path, rows: pa.Table, galaxies: list[Path] | None = None, **given_settings: object) -> dict:
    scores = write_scores(folder / "scores.json", rows)
    arguments = ["--scores", str(scores), "--output", str(folder / "stratified_fpr.csv")]
    if galaxies:
        arguments += ["--galaxies", *map(str, galaxies)]
    chosen = json.dumps({"min_rows": 100, "bootstraps": 100, **given_settings})
    stratify_fpr.main([*arguments, "--settings", chosen])
    with open(folder / "stratified_fpr.csv", newline="") as stream:
        return {row["stratum"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return table_of(tmp_path_factory.mktemp("fpr"), ALL_ROWS)


def select(rows: pa.Table, kind: str) -> pa.Table:
    return rows.filter(pa.compute.equal(rows["kind"], kind))


def distinct_controls(rows: pa.Table) -> pa.Table:
    controls = select(rows, "control")
    return controls.take(list(range(0, controls.num_rows, 2)))


POSITIVE = select(PAIRS, "positive")
CONTROL = distinct_controls(PAIRS)
NEGATIVE_SCORES = np.concatenate([CONTROL["score"].to_numpy(), NEGATIVES["score"].to_numpy()])


def check_rates(row: dict, positive: np.ndarray, negative: np.ndarray) -> None:
    """All rates of a row against the metrics that they are named after."""
    assert (int(row["P"]), int(row["N"]), int(row["n"])) == (
        len(positive),
        len(negative),
        len(positive) + len(negative),
    )
    assert row["status"] == "measured"
    for target in ("0.80", "0.85", "0.90", "0.95"):
        point = metrics.precision_at_recall(positive, negative, float(target))
        assert float(row[f"thr@TPR{target}"]) == point.threshold
        assert int(row[f"FPR@TPR{target}_k"]) == point.fpr.successes
        low, high = float(row[f"FPR@TPR{target}_low"]), float(row[f"FPR@TPR{target}_high"])
        assert (low, high) == pytest.approx((point.fpr.interval.low, point.fpr.interval.high))
        measurable = point.fpr.successes >= 10
        assert row[f"FPR@TPR{target}_measurable"] == str(measurable).lower()
        assert row[f"FPR@TPR{target}"] == (f"{point.fpr.value:.17g}" if measurable else "")
    for target in ("1e-05", "0.0001", "0.001", "0.01"):
        point = metrics.tpr_at_fpr(positive, negative, float(target))
        assert row[f"TPR@FPR{target}_measurable"] == str(point.measurable).lower()
        if point.measurable:
            assert float(row[f"TPR@FPR{target}"]) == point.tpr.value
            assert float(row[f"TPR@FPR{target}_fpr"]) == point.fpr.value
            assert float(row[f"thr@FPR{target}"]) == point.threshold
        else:
            assert row[f"TPR@FPR{target}"] == row[f"thr@FPR{target}"] == ""


def test_the_whole_sample_has_every_positive_and_every_negative_once(found: dict) -> None:
    check_rates(found["ALL"], POSITIVE["score"].to_numpy(), NEGATIVE_SCORES)
    assert (int(found["ALL"]["hosts_P"]), int(found["ALL"]["hosts_N"])) == (600, 1500)


@pytest.mark.parametrize(
    ("stratum", "column", "low", "high"),
    [
        ("theta[1,1.25)", "theta_e_arcsec", 1.0, 1.25),
        ("res[0.5,0.7)", "theta_e_over_psf", 0.5, 0.7),
        ("arc_snr[20,40)", "arc_snr", 20, 40),
    ],
)
def test_strata_of_the_arc_restrict_positives_and_have_all_negatives(
    found: dict, stratum: str, column: str, low: float, high: float
) -> None:
    values = POSITIVE[column].to_numpy()
    check_rates(found[stratum], POSITIVE["score"].to_numpy()[(values >= low) & (values < high)], NEGATIVE_SCORES)


def test_radii_on_the_edge_of_a_bin_are_in_the_bin_above_whatever_the_seeing(tmp_path: Path) -> None:
    """A grid of radii has them there, and x times PSF in single precision is below in one of ten."""
    positives = select(PAIRS, "positive")
    x = 1.0 / positives["psfsize_r"].to_numpy()
    place = positives.column_names.index("theta_e_over_psf")
    rows = pa.concat_tables([positives.set_column(place, "theta_e_over_psf", pa.array(x)), select(PAIRS, "control")])
    assert (x.astype(np.float32) * positives["psfsize_r"].to_numpy().astype(np.float32) < 1).any()
    strata = table_of(tmp_path, rows, bootstraps=0)
    assert int(strata["theta[1,1.25)"]["P"]) == positives.num_rows
    assert "theta[0.75,1)" not in strata


def test_the_threshold_of_nine_positives_gives_no_false_positive_rate(tmp_path: Path) -> None:
    positives = select(PAIRS, "positive")
    for count, measurable in ((9, "false"), (10, "true")):
        row = table_of(tmp_path, pa.concat_tables([positives.slice(0, count), CONTROL]), bootstraps=0)["ALL"]
        assert int(row["FPR@TPR0.95_k"]) >= 10
        assert row["FPR@TPR0.95_measurable"] == measurable
        assert (row["FPR@TPR0.95"] == "") == (measurable == "false")


def test_strata_of_seeing_and_depth_restrict_both_classes(found: dict) -> None:
    for stratum, column, low, high in (
        ("psf[1.2,1.3)", "psfsize_r", 1.2, 1.3),
        ("depth[24,24.5)", "psfdepth_r", 24, 24.5),
    ):
        sides = []
        for rows in (POSITIVE, pa.concat_tables([CONTROL, NEGATIVES])):
            values = rows[column].to_numpy()
            sides.append(rows["score"].to_numpy()[(values >= low) & (values < high)])
        check_rates(found[stratum], *sides)


def test_strata_of_negatives_are_their_kinds_and_the_classes_of_confusers(found: dict) -> None:
    positive = POSITIVE["score"].to_numpy()
    check_rates(found["kind control"], positive, CONTROL["score"].to_numpy())
    check_rates(found["kind hard_negative"], positive, select(PAIRS, "hard_negative")["score"].to_numpy())
    for name in ("ring_proxy", "edge_on_proxy"):
        chosen = NEGATIVES.filter(pa.compute.equal(NEGATIVES["control_kind"], name))
        check_rates(found[f"control_kind {name}"], positive, chosen["score"].to_numpy())


def test_negatives_of_no_known_class_are_counted_beside_those_that_have_one(tmp_path: Path) -> None:
    pools = pa.array([None if place % 3 == 0 else "N2" if place % 3 == 1 else "N1" for place in range(900)])
    rows = pa.concat_tables(
        [PAIRS.append_column("pool", pa.nulls(PAIRS.num_rows, pa.string())), NEGATIVES.append_column("pool", pools)]
    )
    found = table_of(tmp_path, rows, bootstraps=0)
    assert [(name, found[name]["N"]) for name in found if name.startswith("pool")] == [
        ("pool N1", "300"),
        ("pool N2", "300"),
        ("pool unknown", "300"),
    ]
    assert "confuser_category unknown" not in found


@pytest.mark.parametrize("axis", ["theta", "res", "arc_snr", "psf", "depth"])
def test_bins_with_what_is_outside_and_unknown_hold_every_positive_once(found: dict, axis: str) -> None:
    names = [name for name in found if name.startswith((f"{axis}[", f"{axis} "))]
    assert sum(int(found[name]["P"]) for name in names) == POSITIVE.num_rows


def test_intervals_over_hosts_surround_the_rates(found: dict) -> None:
    for name in ("ALL", "res[1.4,2)", "psf[1.2,1.3)"):
        for target in ("0.80", "0.95"):
            row = found[name]
            low, high = (float(row[f"FPR@TPR{target}_boot_{end}"]) for end in ("low", "high"))
            assert low < float(row[f"FPR@TPR{target}"]) < high
    low, value, high = (float(found["ALL"][f"TPR@FPR0.01{end}"]) for end in ("_boot_low", "", "_boot_high"))
    assert low < value < high


def test_a_stratum_with_few_rows_says_so_and_gives_its_counts(tmp_path: Path) -> None:
    rows = table_of(tmp_path, pair_rows(60), min_rows=150, bootstraps=0)
    assert rows["ALL"]["status"] == "measured"
    few = rows["psf[1.2,1.3)"]
    assert few["status"] == f"not measurable: {few['n']} rows, fewer than 150"
    assert int(few["P"]) > 0
    assert few["FPR@TPR0.80"] == few["FPR@TPR0.80_low"] == ""
    assert rows["ALL"]["FPR@TPR0.80_boot_low"] == ""


def test_exposures_and_magnitudes_come_from_catalogues_and_the_rest_is_unknown_and_counted(tmp_path: Path) -> None:
    # Hosts 0 to 99 are in the first brick and have the ids of those in the second.
    catalogue = pa.table(
        {
            "brickname": ["0101m050"] * 100,
            "objid": np.arange(100),
            "nobs_z": np.repeat(np.array([2, 12], np.int32), 50),
            "rmag": np.full(100, 19.5, np.float32),
        }
    )
    with attempt(tmp_path / "parent.json", "parent", "dark_halo_scope.evaluation.scores", {}, []) as work:
        pq.write_table(catalogue, work.prefix / "parent-0.parquet")
        work.publish()
    rows = table_of(tmp_path, pair_rows(150), [tmp_path / "parent.json"], bootstraps=0)
    found = {name: (int(row["P"]), int(row["N"])) for name, row in rows.items() if name.startswith(("nobs_z", "rmag"))}
    assert found == {
        "nobs_z 1-2": (100, 50),
        "nobs_z 11+": (100, 50),
        "nobs_z unknown": (100, 50),
        "rmag[19,20)": (200, 100),
        "rmag unknown": (100, 50),
    }


def test_rates_of_negatives_drawn_unevenly_stand_beside_those_of_the_survey(tmp_path: Path) -> None:
    """Galaxies of which one in a hundred was drawn count a hundred times."""
    rng = np.random.default_rng(8)
    probability = rng.choice([0.01, 1.0], 900)
    others = negative_rows(900, sampling_prob=probability)
    pairs = PAIRS.append_column("sampling_prob", pa.nulls(PAIRS.num_rows, pa.float64()))
    row = table_of(tmp_path, pa.concat_tables([pairs, others]))["ALL"]
    passed = others["score"].to_numpy() >= float(row["thr@TPR0.90"])
    weight = 1 / probability.astype(np.float32)
    expected = weight[passed].sum() / weight.sum()
    assert float(row["FPR@TPR0.90_survey"]) == pytest.approx(expected, rel=1e-6)
    assert float(row["FPR@TPR0.90_survey_boot_low"]) < expected < float(row["FPR@TPR0.90_survey_boot_high"])
    assert int(row["N_survey"]) == 900
    assert float(row["N_survey_effective"]) == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=1e-6)


def test_without_sampling_probabilities_there_is_no_rate_of_the_survey(found: dict) -> None:
    assert found["ALL"]["N_survey"] == "0"
    assert found["ALL"]["FPR@TPR0.90_survey"] == ""


def plain_table(positive: np.ndarray, negative: np.ndarray) -> ScoreTable:
    """Scores of images that each have a host of their own."""
    n = len(positive) + len(negative)
    return ScoreTable(
        np.concatenate([positive, negative]),
        np.repeat(np.array([0, 3], np.int8), [len(positive), len(negative)]),
        np.arange(n, dtype=np.int32),
        np.zeros(n, bool),
        np.arange(n),
        {},
        {},
        {},
    )


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60),
    st.lists(st.integers(0, 12), min_size=30, max_size=90),
    st.floats(0.4, 0.99),
    st.floats(0.2, 0.9),
)
@settings(max_examples=150, deadline=None)
def test_tied_scores_pass_together(pos: list[int], neg: list[int], tpr: float, fpr: float) -> None:
    """Against exhaustion over every threshold; scores come in thirteen values."""
    positive, negative = np.array(pos) / 12, np.array(neg) / 12
    chosen = FprSettings(min_rows=1, bootstraps=0, tpr_targets=(tpr,), fpr_targets=(fpr,))
    row = next(iter(stratified_rates(plain_table(positive, negative), chosen)))
    thresholds = [*np.unique(np.concatenate([positive, negative])), 2.0]
    reaching = [np.sum(negative >= t) for t in thresholds if np.mean(positive >= t) >= tpr - 1e-12]
    assert row[f"FPR@TPR{tpr:.2f}_k"] == min(reaching)
    allowed = [t for t in thresholds if np.mean(negative >= t) <= fpr + 1e-12]
    best = max(allowed, key=lambda t: np.mean(positive >= t))
    if row[f"TPR@FPR{fpr:g}_measurable"]:
        assert row[f"TPR@FPR{fpr:g}"] == np.mean(positive >= best)
    else:
        assert max(np.sum(negative >= t) for t in allowed) < 10


def test_three_tied_negatives_at_the_top_do_not_hide_nine_hundred_positives() -> None:
    """The old evaluator kept the first of ties, and TPR at FPR 1e-3 collapsed to one count."""
    positive = np.concatenate([np.full(900, 0.9), np.zeros(100)])
    negative = np.concatenate([np.full(30, 0.9), np.full(29_970, 0.1)])
    row = next(iter(stratified_rates(plain_table(positive, negative), FprSettings(bootstraps=0))))
    assert row["TPR@FPR0.001"] == 0.9
    assert row["FPR@TPR0.85"] == 0.001


def test_columns_are_those_of_the_earlier_evaluator_and_their_intervals() -> None:
    names = columns(FprSettings())
    assert names[0] == "stratum"
    assert {"n", "P", "N", "FPR@TPR0.80", "thr@TPR0.80", "TPR@FPR1e-05", "thr@FPR1e-05", "TPR@FPR0.01"} <= set(names)
    assert len(names) == len(set(names))


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        table_of(tmp_path / name, PAIRS)
    first, second = (tmp_path / name / "stratified_fpr.csv" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
