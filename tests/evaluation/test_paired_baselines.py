"""What flux alone and variance alone tell of pairs, beside a network that sees stamp and control."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation import measure_gates, score
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.gates import measured_pairs
from dark_halo_scope.evaluation.paired_baselines import measure_paired_baselines, paired_features
from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.predict import predictor

from . import toys
from .gates_files import SETTINGS
from .packed_files import write_model, write_packed

FEW = GateSettings.model_validate({"min_pairs": 20, "bootstraps": 40, "permutations": 40, "batch_pairs": 32})


def paired(source: str, **changes: object) -> Preprocess6CH:
    given = {"annulus_inner_pix": 24, "residual": False, "control_source": source, **changes}
    return Preprocess6CH(PreprocessSettings.model_validate(given), toys.SIZE)


def measure(split: toys.ToySplit, source: str = "paired_oracle", settings: GateSettings = FEW) -> dict:
    return measure_with(paired(source), split, settings)


def measure_with(preprocess: Preprocess6CH, split: toys.ToySplit, settings: GateSettings = FEW) -> dict:
    pairs_N = measured_pairs(split.rows, settings, np.random.default_rng(0))
    return measure_paired_baselines(preprocess, split, pairs_N, settings, np.random.default_rng(0))


def test_features_are_the_mean_difference_of_each_band_and_the_variance_of_each_channel() -> None:
    split = toys.make_split(6)
    preprocess = paired("paired_oracle", stretch="asinh")
    stamps, controls = split.positive.astype(np.float32), split.control.astype(np.float32)
    features = paired_features(preprocess, stamps, controls)
    x = preprocess(torch.from_numpy(stamps), torch.from_numpy(controls)).double().numpy()
    np.testing.assert_allclose(features["flux"], x[:, :3].mean((2, 3)) - x[:, 3:].mean((2, 3)), rtol=1e-4)
    np.testing.assert_allclose(features["variance"], x.reshape(6, 6, -1).var(axis=2, ddof=1), rtol=1e-4)


def test_against_its_own_control_flux_alone_finds_every_arc() -> None:
    """Why a network that is given the oracle has learned nothing by an AUC of 1."""
    entry = measure(toys.make_split(120))["control"]["flux"]
    assert entry["value"] > 0.99
    assert entry["null"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert (entry["n"], entry["hosts"], entry["status"]) == (120, 60, "measured")
    assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]


def test_a_hard_negative_has_the_arcs_flux_and_cannot_be_told_by_it_unless_its_peaks_are_clipped() -> None:
    # Both add the same light to the same control, an arc more of it to fewer pixels.
    split = toys.make_split(160)
    linear = paired("paired_oracle", clip_low=-1e6, clip_high=1e6)
    entry = measure_with(linear, split)["hard_negative"]["flux"]
    assert entry["interval"][0] < 0.5
    assert entry["value"] < 0.7
    assert measure(split)["hard_negative"]["flux"]["value"] > 0.95


def test_duplicated_stamps_have_no_difference_and_flux_is_a_coin_toss() -> None:
    assert measure(toys.make_split(120), "duplicate_self")["control"]["flux"]["value"] == 0.5


def test_pure_noise_is_a_coin_toss_because_no_host_judges_itself() -> None:
    split = toys.make_split(120)
    noise = np.random.default_rng(5).normal(0, 0.05, (3, 120, 3, toys.SIZE, toys.SIZE)).astype(np.float16)
    result = measure(toys.ToySplit(*noise, split.rows), "azimuthal_median_self")
    for comparison in ("control", "hard_negative"):
        for entry in result[comparison].values():
            assert 0.3 < entry["value"] < 0.7


def test_pairs_that_gates_leave_out_are_left_out_and_too_few_say_so() -> None:
    split = toys.make_split(24)
    split.positive[3, 0, 0, 0] = np.nan
    entry = measure(split, settings=FEW.model_copy(update={"min_pairs": 12}))["control"]["flux"]
    assert entry["n"] == 23
    few = measure(split)["control"]["variance"]
    assert (few["value"], few["status"], few["n"]) == (None, "too few", 23)
    unmeasurable = split.rows.set_column(split.rows.column_names.index("psfsize_r"), "psfsize_r", pa.array([0.0] * 24))
    nothing = toys.ToySplit(split.positive, split.control, split.hard_negative, unmeasurable)
    assert measure(nothing)["control"]["flux"]["status"] == "too few"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("packed.json"), {"test": toys.make_split(120)})


def gates(settings: GateSettings = SETTINGS) -> dict:
    arguments = ["--model", "best.json", "--packed", "packed.json", "--output", "gates.json", "--device", "cpu"]
    measure_gates.main([*arguments, "--settings", settings.model_dump_json()])
    return read_json(Path("gates.json"))


def test_the_baselines_stand_beside_the_gates_of_a_paired_network_only(inputs: None) -> None:
    write_model(Path("best.json"))
    assert "paired_baselines" not in gates()["diagnostics"]
    write_model(Path("best.json"), control_source="azimuthal_median_self", residual=False)
    baselines = gates()["diagnostics"]["paired_baselines"]
    assert set(baselines) == {"control", "hard_negative"}
    assert baselines["control"]["flux"]["n"] == 120


def test_the_baselines_are_of_the_very_pairs_that_the_gates_are_of(
    inputs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(Path("best.json"), control_source="azimuthal_median_self", residual=False)
    gated: list[pa.Table] = []
    asked: list[np.ndarray] = []

    def recording_predictor(*given: Any, **options: Any) -> Predict:
        predict = predictor(*given, **options)

        def recorded(images: np.ndarray, rows: pa.Table, /, controls: np.ndarray | None = None) -> np.ndarray:
            gated.append(rows)
            return predict(images, rows, controls=controls)

        return recorded

    def recording_features(*given: np.ndarray) -> dict:
        asked.append(given[2])
        return paired_features(*given)

    monkeypatch.setattr("dark_halo_scope.models.deploy.predictor", recording_predictor)
    monkeypatch.setattr("dark_halo_scope.evaluation.paired_baselines.paired_features", recording_features)
    result = gates(SETTINGS.model_copy(update={"max_pairs": 70}))
    assert result["diagnostics"]["paired_baselines"]["control"]["flux"]["n"] == 70
    names = np.unique(pa.concat_tables(gated)["task_id"].to_numpy())
    split = toys.make_split(120)
    chosen = np.isin(split.rows["task_id"].to_numpy(), names)
    assert chosen.sum() == 70
    np.testing.assert_array_equal(np.unique(np.concatenate(asked), axis=0), np.unique(split.control[chosen], axis=0))


def test_a_diagnostic_network_is_gated_with_each_pairs_control_and_refuses_to_score(inputs: None) -> None:
    write_model(Path("best.json"), control_source="paired_oracle", residual=False)
    result = gates()
    assert result["diagnostics"]["paired_baselines"]["control"]["flux"]["value"] > 0.99
    with pytest.raises(BadInputError, match=r"paired_oracle.*never deployed.*azimuthal_median_self"):
        score.main(["--model", "best.json", "--packed", "packed.json", "--output", "scores.json", "--device", "cpu"])
    assert not Path("scores.json").exists()
