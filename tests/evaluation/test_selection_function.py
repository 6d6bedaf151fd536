"""The selection function gives a finder of known completeness its completeness back, and nothing of another finder."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.evaluation import measure_selection_function
from dark_halo_scope.evaluation.completeness import Injections, Sky, mean_entries
from dark_halo_scope.evaluation.completeness_config import AXES
from dark_halo_scope.evaluation.completeness_lookup import SelectionFunction, load_selection_function
from dark_halo_scope.evaluation.freeze import FrozenChangedError, load_frozen
from dark_halo_scope.evaluation.recovered import found_by, read_recovered
from dark_halo_scope.evaluation.selection_config import SelectionFunctionSettings
from dark_halo_scope.evaluation.selection_export import read_parquet
from dark_halo_scope.evaluation.selection_function import share_of, tabulate
from dark_halo_scope.injection.recovery_config import RecoverySettings

from .recovery_files import FAMILIES, RANGES, THRESHOLDS, draw_recovery, true_logit, write_frozen, write_recovery

OUTPUTS = {
    "--output": "selection_function.json",
    "--parquet": "selection_function.parquet",
    "--fits": "selection_function.fits",
    "--cells": "selection_cells.csv",
    "--surface": "selection_surface.csv",
}
QUICK = {"bootstraps": 20, "surface": {"bootstraps": 2, "grid": [6, 5], "fine_cells": [10, 8], "knots": [3, 3]}}
DRAWS = 20_000


def run(folder: Path, **settings: object) -> dict:
    """Measure the selection function of what lies in a folder."""
    inputs = {"--recovery": "recovery.json", "--frozen": "frozen.json", "--model": "best.json"}
    given = [part for option, name in (inputs | OUTPUTS).items() for part in (option, str(folder / name))]
    measure_selection_function.main([*given, "--settings", json.dumps(QUICK | settings)])
    return read_json(folder / "selection_function.json")


def prepare(folder: Path, rows: dict[str, np.ndarray], thresholds: dict[str, float | None] | None = None) -> None:
    card, _ = write_frozen(folder, thresholds)
    frozen = load_frozen(card)
    facts = {"frozen_sha256": frozen.sha256, "model_sha256": frozen.weights_sha256}
    write_recovery(folder / "recovery.json", rows, **facts)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is measured of a finder whose completeness is an analytic function of all six axes."""
    folder = tmp_path_factory.mktemp("known")
    prepare(folder, draw_recovery(DRAWS, seed=1)[0])
    run(folder, surface={"bootstraps": 20, "grid": [11, 9], "fine_cells": [20, 16]})
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Few injections, to be measured by the test."""
    prepare(tmp_path, draw_recovery(300, seed=2)[0])
    return tmp_path


def truth_in_cells(family: str, threshold: str, edges: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles and true completeness of cells in Einstein radius and redshift: the mean of the analytic function."""
    rng = np.random.default_rng(0)
    middles = [np.array([(low + high) / 2 for low, high in pairwise(edges[name])]) for name in AXES[:2]]
    points = 8_000
    truth = np.empty([len(part) for part in middles])
    for i in range(truth.shape[0]):
        for j in range(truth.shape[1]):
            axes = {name: rng.uniform(*RANGES[name], points) for name in AXES}
            axes["theta_e_arcsec"] = rng.uniform(*edges["theta_e_arcsec"][i : i + 2], points)
            axes["z_phot"] = rng.uniform(*edges["z_phot"][j : j + 2], points)
            truth[i, j] = expit(true_logit(axes, np.array([family]))[:] - THRESHOLDS[threshold]).mean()
    theta_e, z = np.meshgrid(*middles, indexing="ij")
    return theta_e, z, truth


@pytest.fixture(scope="module")
def truths(known: Path) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    edges = load_selection_function(known / "selection_function.parquet").facts["edges"]
    return {(family, name): truth_in_cells(family, name, edges) for family in FAMILIES for name in THRESHOLDS}


def test_a_known_completeness_lies_within_the_intervals_of_cells_as_often_as_they_promise(known: Path, truths) -> None:
    completeness = load_selection_function(known / "selection_function.parquet")
    inside, widths = [], []
    for (family, threshold), (theta_e, z, truth) in truths.items():
        got = completeness(theta_e=theta_e, z=z, family=family, threshold=threshold)
        assert (got.flag == "").all()
        inside += ((got.low <= truth) & (truth <= got.high)).ravel().tolist()
        widths += (got.high - got.low).ravel().tolist()
        assert np.abs(got.value - truth).max() < 0.12
    assert len(inside) == 168
    assert np.mean(inside) >= 0.92
    assert 0.01 < np.mean(widths) < 0.1, "and the intervals say something"


def test_all_families_together_have_the_mean_and_the_envelope_holds_each_of_them(known: Path, truths) -> None:
    completeness = load_selection_function(known / "selection_function.parquet")
    for threshold in THRESHOLDS:
        parts = [truths[family, threshold] for family in FAMILIES]
        theta_e, z, _ = parts[0]
        got = completeness(theta_e=theta_e, z=z, threshold=threshold)
        mean = np.mean([truth for _, _, truth in parts], axis=0)
        assert np.mean((got.low <= mean) & (mean <= got.high)) >= 0.93
        # Three of 28 cells may miss the family at the envelope's end, whose interval holds 95%.
        for _, _, truth in parts:
            assert np.sum((got.envelope_low <= truth) & (truth <= got.envelope_high)) >= 25
        assert (got.envelope_low <= got.family_low).all()
        assert (got.family_low <= got.value).all()
        assert (got.value <= got.family_high).all()
        assert (got.family_high <= got.envelope_high).all()
        assert np.median(got.family_high - got.family_low) > 0.1, "the families differ, and it shows"


def test_intervals_of_all_six_axes_cover_too(known: Path) -> None:
    columns, facts = read_parquet(known / "selection_function.parquet")
    rows, true = draw_recovery(DRAWS, seed=1)
    for family in FAMILIES:
        chosen = rows["family"] == family
        wanted = (columns["family"] == family) & (columns["threshold"] == "p0.5") & (columns["n"] > 4)
        wanted &= columns["flag"] != "outside"
        lows = np.stack([columns[f"{name}_low"][wanted] for name in AXES], axis=1)
        cell = np.stack(
            [
                np.array(facts["edges"][name])[np.searchsorted(facts["edges"][name], rows[name][chosen], "right") - 1]
                for name in AXES
            ],
            axis=1,
        )
        keys = {tuple(low): place for place, low in enumerate(lows.tolist())}
        place = np.array([keys.get(tuple(low), -1) for low in cell.tolist()])
        inside = place >= 0
        n = np.bincount(place[inside], minlength=len(lows))
        truth = np.bincount(place[inside], weights=true["p0.5"][chosen][inside], minlength=len(lows)) / n
        assert np.array_equal(n, columns["n"][wanted])
        assert len(n) > 500
        covered = (columns["low"][wanted] <= truth) & (truth <= columns["high"][wanted])
        assert covered.mean() >= 0.95


def test_the_smooth_surface_lies_on_the_known_completeness(known: Path) -> None:
    with open(known / "selection_surface.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["threshold"] == "p0.5"]
    rng = np.random.default_rng(5)
    others = {name: rng.uniform(*RANGES[name], 20_000) for name in AXES}
    errors, inside = [], []
    for row in rows:
        axes = others | {"theta_e_arcsec": float(row["theta_e_arcsec"]), "z_phot": float(row["z"])}
        truth = np.mean([expit(true_logit(axes, np.array([family]))).mean() for family in FAMILIES])
        errors.append(float(row["value"]) - truth)
        inside.append(float(row["low"]) <= truth <= float(row["high"]))
    assert len(rows) == 99
    assert np.abs(errors).max() < 0.05
    assert np.mean(inside) > 0.8


def test_area_weighting_gives_the_completeness_of_the_survey_and_not_of_the_injections() -> None:
    rows, _ = draw_recovery(60_000, seed=3, families=("image",))
    edges = SelectionFunctionSettings().edges
    # All of the survey has the worst seeing.
    area = np.zeros((2, 2))
    area[1] = 100.0, 50.0
    completeness = lookup_of(rows, Sky(("psfsize_r", "psfdepth_r"), area.ravel()))
    rng = np.random.default_rng(4)
    axes = {name: rng.uniform(*RANGES[name], 300_000) for name in AXES}
    axes["psfsize_r"] = rng.uniform(1.2, 1.6, 300_000)
    axes["psfdepth_r"] = np.where(
        rng.uniform(size=300_000) < 2 / 3, *rng.uniform([[23.5], [24.2]], [[24.2], [25.0]], (2, 300_000))
    )
    everywhere = expit(true_logit(axes, np.array(["image"])))
    sky = completeness(over="sky")
    assert sky.low < everywhere.mean() < sky.high
    assert sky.high - sky.low < 0.025
    assert completeness().low > sky.high
    inside = [
        got.low <= everywhere[(axes["theta_e_arcsec"] >= low) & (axes["theta_e_arcsec"] < high)].mean() <= got.high
        for low, high in pairwise(edges["theta_e_arcsec"])
        for got in [completeness(theta_e=(low + high) / 2, over="sky")]
    ]
    assert sum(inside) >= 6
    with pytest.raises(BadInputError, match="PSF or depth is given"):
        completeness(psfsize=1.2, over="sky")


@pytest.mark.parametrize("families", [("image",), ("clumpy", "image")])
def test_a_mean_over_the_sky_says_how_much_of_it_has_injections(families: tuple[str, ...]) -> None:
    rows, _ = draw_recovery(20_000, seed=3, families=families)
    shape = [len(SelectionFunctionSettings().edges[name]) - 1 for name in ("psfsize_r", "psfdepth_r")]
    area = np.full(shape, 100.0)
    area[-1, -1] = 10.0
    completeness = lookup_of(rows, Sky(("psfsize_r", "psfdepth_r"), area.ravel()))
    everywhere = completeness(theta_e=[0.3, 1.1, 2.2], over="sky")
    assert everywhere.flag.tolist() == ["outside", "", ""]
    assert everywhere.area_covered == pytest.approx([np.nan, 1.0, 1.0], nan_ok=True)
    assert np.isnan(completeness(theta_e=1.1).area_covered), "no mean over the sky"
    # One family suffices: its share is in the envelope.
    for sums in completeness._sums["p0.5", "image"].values():
        sums[1, :, shape[0] - 1, shape[1] - 1] = 0
        sums[3, :, 0, 0] = 0
    missing = np.array([0.0, 10.0, 100.0]) / area.sum()
    got = completeness(theta_e=[1.1, 0.8, 1.3], over="sky")
    assert got.area_covered == pytest.approx(1 - missing)
    assert got.flag.tolist() == ["", "", "part of the sky"]
    assert np.isfinite(got.value).all()
    for sums in completeness._sums.values():
        for values in sums.values():
            values[1] = 0
    gone = completeness(theta_e=0.8, over="sky")
    assert gone.flag == "empty"
    assert np.isnan(gone.area_covered)


def lookup_of(rows: dict[str, np.ndarray], sky: Sky | None = None) -> SelectionFunction:
    """The function of injections in memory, at p0.5."""
    import tempfile

    edges = SelectionFunctionSettings().edges
    with tempfile.TemporaryDirectory() as folder:
        recovered = read_recovered(load_manifest(write_recovery(Path(folder) / "recovery.json", rows)))
    found = found_by(recovered, {"p0.5": 0.0})
    columns = tabulate(recovered, found, edges, sky, 200, 0.95)
    facts = {"thresholds": {"p0.5": 0.0}, "families": list(recovered.families), "edges": edges, "min_cell": 200}
    return SelectionFunction(columns, facts | {"confidence": 0.95, "rows_per_draw": recovered.rows_per_draw})


def test_a_file_without_a_survey_knows_no_sky() -> None:
    completeness = lookup_of(draw_recovery(50, seed=3)[0])
    with pytest.raises(BadInputError, match="knows no area"):
        completeness(over="sky")


def test_weights_give_the_completeness_under_the_prior() -> None:
    """The proposal is uniform in the lensed magnitude; the prior rises towards faint arcs."""
    rows, true = draw_recovery(40_000, seed=6, families=("image",))
    rows["weight"] = 10 ** (0.4 * (rows["lensed_mag_r"] - 22))
    completeness = lookup_of(rows)
    rng = np.random.default_rng(7)
    axes = {name: rng.uniform(*RANGES[name], 400_000) for name in AXES}
    weight = 10 ** (0.4 * (axes["lensed_mag_r"] - 22))
    truth = np.average(expit(true_logit(axes, np.array(["image"]))), weights=weight)
    prior, drawn = completeness(), completeness(weights="none")
    assert prior.low < truth < prior.high
    assert drawn.low < true["p0.5"].mean() < drawn.high
    assert prior.high < drawn.low, "most lenses have faint arcs, and those are missed"
    assert prior.high - prior.low > drawn.high - drawn.low, "unequal weights are worth fewer injections"


def test_half_a_draw_that_was_found_bounds_a_cell_by_less_than_a_whole_one() -> None:
    half, whole = (share_of(np.array([k]), np.array([10.0]), np.array([10.0]), 0.95) for k in (0.5, 1.0))
    assert 0 < half.low[0] < whole.low[0]
    assert half.low[0] == pytest.approx(beta.ppf(0.025, 0.5, 10.5))


def test_families_share_draws_and_their_rows_count_as_one() -> None:
    rows, _ = draw_recovery(2000, seed=8)
    # The finder sees no difference between families: three rows of a draw say what one says.
    for name in ("logit", *AXES):
        rows[name] = np.repeat(rows[name][::3], 3)
    together = lookup_of(rows)(weights="none")
    apart = lookup_of(rows)(weights="none", family="clumpy")
    assert together.n == 3 * apart.n == 6000
    for name in ("value", "low", "high"):
        assert float(getattr(together, name)) == pytest.approx(float(getattr(apart, name)))


def test_json_csv_and_parquet_count_draws_of_all_families_alike(small: Path) -> None:
    rows, _ = draw_recovery(300, seed=2)
    rows["weight"] = np.repeat(np.random.default_rng(3).uniform(0.2, 2.0, 300), 3)
    prepare(small, rows)
    edges = {name: [low, high] for name, (low, high) in RANGES.items()} | {"theta_e_arcsec": [0.5, 1.0, 1.6, 2.2, 3.0]}
    result = run(small, edges=edges, min_cell=75)
    with open(small / "selection_cells.csv", newline="") as stream:
        cells = [row for row in csv.DictReader(stream) if row["threshold"] == "p0.5"]
    columns, _ = read_parquet(small / "selection_function.parquet")
    chosen = (columns["family"] == "all") & (columns["threshold"] == "p0.5")
    full = [row for row in cells if row["axes"] == " x ".join(AXES)]
    flags = columns["flag"][chosen].tolist()
    assert set(flags) == {"too few", ""}
    assert columns["n"][chosen].min() > 75, "rows of one family would be enough"
    assert [row["flag"] for row in full] == flags
    assert result["full_grid"]["p0.5"]["too_few"] == flags.count("too few")
    for name in ("n_effective", "low", "high", "weighted_low", "weighted_high"):
        assert [float(row[name]) for row in full] == pytest.approx(columns[name][chosen].tolist())
    bins = [row for row in cells if row["axes"] == "theta_e_arcsec"]
    for entry, row, share in zip(result["marginals"]["theta_e_arcsec"]["p0.5"], bins, full, strict=True):
        assert entry["flag"] == row["flag"] == share["flag"]
        assert entry["n_effective"] == float(row["n_effective"]) == pytest.approx(float(share["n_effective"]))
    [whole] = (row for row in cells if row["axes"] == "all")
    overall = result["overall"]["p0.5"]
    assert overall["as_injected"]["n_effective"] == pytest.approx(300)
    assert overall["prior_weighted"]["n_effective"] == pytest.approx(float(whole["n_effective"]))


def test_the_sky_counts_draws_of_all_families_too() -> None:
    injections = Injections({name: np.full(60, 1.0) for name in AXES}, np.ones(60), np.arange(60) // 3)
    edges = {name: (0.0, 0.5, 2.0) for name in AXES}
    sky = Sky(("psfsize_r", "psfdepth_r"), np.ones(4))
    for shared, draws in ((1.0, 60), (3.0, 20)):
        rng = np.random.default_rng(0)
        found = mean_entries(injections, np.arange(60) < 30, edges, sky, 0.95, 5, rng, shared)
        assert [entry["n_effective"] for entry in found.values()] == pytest.approx([draws] * 4)


def test_cells_partition_the_injections_also_those_of_unknown_redshift(small: Path) -> None:
    rows, _ = draw_recovery(300, seed=2)
    rows["z_phot"][:30] = np.nan
    rows["theta_e_arcsec"][60:66] = 9.0
    prepare(small, rows)
    result = run(small)
    columns, _ = read_parquet(small / "selection_function.parquet")
    for family, count in [*((name, 300) for name in FAMILIES), ("all", 900)]:
        chosen = (columns["family"] == family) & (columns["threshold"] == "p0.5")
        assert columns["n"][chosen].sum() == count
        found = (rows["logit"] >= 0) & ((rows["family"] == family) | (family == "all"))
        assert columns["k"][chosen].sum() == found.sum()
    outside = columns["flag"] == "outside"
    assert np.isnan(columns["z_phot_low"][outside & (columns["family"] == "all")]).any()
    assert result["not_in_cells"]["z_phot"]["unknown"] == 30
    completeness = load_selection_function(small / "selection_function.parquet")
    assert completeness().n == 900
    assert completeness(psfsize=np.array([0.9, 1.4])).n.sum() == 900


def test_every_cell_of_the_grid_is_listed_and_empty_ones_say_so(small: Path) -> None:
    run(small)
    columns, facts = read_parquet(small / "selection_function.parquet")
    cells = int(np.prod([len(edges) - 1 for edges in facts["edges"].values()]))
    chosen = (columns["family"] == "image") & (columns["threshold"] == "p0.5") & (columns["flag"] != "outside")
    assert chosen.sum() == cells == 896
    empty = chosen & (columns["n"] == 0)
    assert set(columns["flag"][empty]) == {"empty"}
    assert np.isnan(columns["value"][empty]).all()
    assert set(columns["flag"][chosen & ~empty]) == {"too few"}


def test_the_lookup_flags_what_it_does_not_know(known: Path) -> None:
    completeness = load_selection_function(known / "selection_function.parquet")
    got = completeness(theta_e=[0.3, 1.1, np.nan, 3.0], z=0.5)
    assert got.flag.tolist() == ["outside", "", "outside", ""]
    assert np.isnan(got.value).tolist() == [True, False, True, False]
    assert got.n.tolist()[0] == 0
    cell = {"psfsize": 0.9, "psfdepth": 23.7, "rmag": 20.5, "lensed_mag": 21.5}
    assert completeness(theta_e=1.1, z=0.5, **cell).flag == "too few"
    assert completeness(rmag=16.5).n > 0
    assert completeness(theta_e=np.ones((4, 1)), z=np.full(3, 0.3)).value.shape == (4, 3)
    with pytest.raises(BadInputError, match=r"no threshold 'p0\.9' here; there are: fpr0\.01, p0\.5"):
        completeness(threshold="p0.9")
    with pytest.raises(BadInputError, match="no family 'rings'"):
        completeness(family="rings")


def test_the_lookup_says_where_nothing_was_injected(small: Path) -> None:
    run(small, surface={"bootstraps": 2, "grid": [5, 5], "fine_cells": [8, 8]})
    completeness = load_selection_function(small / "selection_function.parquet")
    got = completeness(theta_e=[0.6, 1.1, 2.7], z=0.1, psfsize=0.9, psfdepth=23.7, rmag=18.0, lensed_mag=24.5)
    assert "empty" in got.flag.tolist()
    assert np.isnan(got.value).tolist() == [flag == "empty" for flag in got.flag]
    assert got.n[got.flag == "empty"].tolist() == [0] * int(np.sum(got.flag == "empty"))


def test_the_result_has_each_family_apart_and_what_is_systematic(known: Path) -> None:
    result = read_json(known / "selection_function.json")
    mean = result["overall"]["p0.5"]["as_injected"]
    assert mean["systematic"] == [min(mean["families"].values()), max(mean["families"].values())]
    assert mean["envelope"][0] < mean["systematic"][0] < mean["value"] < mean["systematic"][1] < mean["envelope"][1]
    assert set(result["families"]) == set(FAMILIES)
    assert result["injections"]["n"] == 3 * DRAWS
    assert result["injections"]["rows_per_draw"] == 3
    assert result["overall"]["p0.5"]["area_weighted"]["value"] is None
    entry = result["marginals"]["theta_e_arcsec"]["p0.5"][0]
    got = load_selection_function(known / "selection_function.parquet")(theta_e=0.6, threshold="p0.5", weights="none")
    assert entry["value"] == pytest.approx(float(got.value))
    assert entry["interval"] == pytest.approx([float(got.low), float(got.high)])


def test_rungs_of_the_ladder_do_not_count(small: Path) -> None:
    rows, _ = draw_recovery(300, seed=2)
    extra = {name: np.concatenate([values, values[:50]]) for name, values in rows.items()}
    extra["selection"][900:] = False
    prepare(small, extra)
    assert run(small)["injections"]["n"] == 900


def test_thresholds_that_were_not_measurable_are_said_and_left_out(small: Path) -> None:
    prepare(small, draw_recovery(300, seed=2)[0], {"p0.5": 0.0, "fpr0.001": None})
    result = run(small)
    assert result["thresholds"]["fpr0.001"] == {"logit": None, "status": "not measurable: 3 negatives pass"}
    assert list(result["overall"]) == ["p0.5"]
    with pytest.raises(BadInputError, match="without any threshold"):
        run(small, thresholds=["fpr0.001"])
    with pytest.raises(BadInputError, match=r"no threshold p0\.7"):
        run(small, thresholds=["p0.7"])


def test_a_finder_that_changed_since_it_was_frozen_has_no_selection_function(small: Path) -> None:
    (small / "weights.safetensors").write_bytes(b"one more epoch")
    with pytest.raises(FrozenChangedError, match="not those that were frozen"):
        run(small)
    assert not (small / "selection_function.json").exists()


def test_injections_scored_at_other_thresholds_or_by_other_weights_are_refused(small: Path) -> None:
    write_frozen(small, {"p0.5": 0.0, "fpr0.01": 1.3})
    with pytest.raises(FrozenChangedError, match="measured with the card"):
        run(small)
    frozen = load_frozen(small / "frozen.json")
    rows, _ = draw_recovery(300, seed=2)
    write_recovery(small / "recovery.json", rows, frozen_sha256=frozen.sha256, model_sha256="0" * 64)
    with pytest.raises(FrozenChangedError, match="scored with the weights 0000"):
        run(small)


@pytest.mark.parametrize(
    ("column", "value", "error", "sentence"),
    [
        ("split", "val", BadInputError, "splits test, val"),
        ("logit", np.nan, CorruptDataError, "logits that are no numbers"),
        ("weight", -1.0, CorruptDataError, "unknown or negative"),
    ],
)
def test_rows_that_cannot_count_are_refused(
    small: Path, column: str, value: object, error: type[Exception], sentence: str
) -> None:
    rows, _ = draw_recovery(300, seed=2)
    rows[column][7] = value
    prepare(small, rows)
    with pytest.raises(error, match=sentence):
        run(small)


def test_only_ladder_rows_are_refused(small: Path) -> None:
    rows, _ = draw_recovery(300, seed=2)
    rows["selection"][:] = False
    prepare(small, rows)
    with pytest.raises(BadInputError, match="no row that counts"):
        run(small)


def test_the_same_injections_give_the_same_bytes(small: Path) -> None:
    def contents() -> list[bytes]:
        run(small)
        return [(small / name).read_bytes() for name in OUTPUTS.values()]

    assert contents() == contents()


def test_the_default_number_of_injections_fills_the_default_cells() -> None:
    cells, recovery = SelectionFunctionSettings(), RecoverySettings()
    assert recovery.replicates == 1, "draws of one host are not independent"
    assert recovery.max_hosts / np.prod([len(edges) - 1 for edges in cells.edges.values()]) > 1.5 * cells.min_cell


def test_grids_too_large_to_list_are_refused() -> None:
    edges = SelectionFunctionSettings().edges | {"rmag": tuple(np.linspace(16, 23, 60).tolist())}
    with pytest.raises(ValueError, match="every one is listed"):
        SelectionFunctionSettings(edges=edges)
