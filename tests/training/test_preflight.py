"""Preflight reports each item on its own, and says what to do about those that fail."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dark_halo_scope.core.errors import BadInputError, ConfigError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.training import preflight
from dark_halo_scope.training.config import TrainSettings

from ..evaluation import toys
from ..evaluation.packed_files import MODEL, write_packed

SETTINGS = TrainSettings.model_validate({"model": MODEL, "sampler": {"batch_pairs": 16}})


def blob(value: float) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{f"image_{band}": np.full((8, 8), value, dtype=np.float32) for band in "grz"})
    return stream.getvalue()


def write_stamps(path: Path, value: float = 1.0) -> None:
    rows = {"task_id": ["a", "b"], "cutout_ok": pa.array([1, 0], pa.int32())}
    rows |= {name: [blob(value), None] for name in preflight.STAMP_BLOBS}
    with attempt(path, "stamps", "dark_halo_scope.evaluation.scores", {}, []) as work:
        pq.write_table(pa.table(rows), work.prefix / "stamps-train-0000.parquet")
        work.publish(rows_out=2)


class Brick:
    """Coadds of one value, all good."""

    shape = (100, 100)

    def __init__(self, value: float) -> None:
        self.value = value

    def __enter__(self) -> "Brick":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def cutout(self, x: float, y: float, size: int) -> SimpleNamespace:
        image = np.full((3, size, size), self.value)
        return SimpleNamespace(image=image, invvar=np.ones_like(image))


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> preflight.Inputs:
    monkeypatch.chdir(tmp_path)
    write_packed(Path("packed.json"), {"train": toys.make_split(120)})
    write_stamps(Path("stamps.json"))
    return preflight.Inputs(*(Path(f"{name}.json") for name in ("survey", "coadds", "stamps", "packed")), SETTINGS)


def found(check: preflight.Check, inputs: preflight.Inputs) -> str:
    return check(inputs)


def test_a_batch_is_made_as_training_makes_it(inputs: preflight.Inputs) -> None:
    text = found(preflight.check_batch, inputs)
    assert f"shape (15, 6, {toys.SIZE}, {toys.SIZE})" in text
    assert "hard_negative" in text
    assert "x 1.50-1.50, 100% in range" in text


def test_a_batch_of_arcs_far_below_the_psf_fails(inputs: preflight.Inputs) -> None:
    split = toys.make_split(120)
    place = split.rows.column_names.index("psfsize_r")
    split.rows = split.rows.set_column(place, "psfsize_r", pa.array(np.full(120, 10.0)))
    write_packed(Path("packed.json"), {"train": split})
    with pytest.raises(BadInputError, match=r"Only 0% of a batch have theta_E / psfsize_r in 0\.4-2\.0"):
        preflight.check_batch(inputs)


def test_the_configured_network_runs(inputs: preflight.Inputs) -> None:
    assert found(preflight.check_forward, inputs).startswith("small_cnn, ")
    assert "15 logits" in found(preflight.check_forward, inputs)


@pytest.mark.parametrize("source", ["azimuthal_median_self", "paired_oracle", "matched_lrg"])
def test_a_paired_network_gets_the_control_channels_that_training_gives_it(
    inputs: preflight.Inputs, source: str
) -> None:
    paired = SETTINGS.model_copy(
        update={"preprocessing": PreprocessSettings.model_validate({"control_source": source})}
    )
    inputs = replace(inputs, settings=paired)
    assert f"shape (15, 9, {toys.SIZE}, {toys.SIZE})" in found(preflight.check_batch, inputs)
    assert "15 logits" in found(preflight.check_forward, inputs)


def test_metadata_that_know_the_label_stop_a_run_before_it_starts(inputs: preflight.Inputs) -> None:
    leaking = SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"meta_columns": ("arc_snr",)})})
    with pytest.raises(ConfigError, match=r"arc_snr .* would leak the label"):
        preflight.check_batch(replace(inputs, settings=leaking))


def test_gates_run_without_a_model(inputs: preflight.Inputs) -> None:
    text = found(preflight.check_gates_without_model, inputs)
    assert "core 1.00, annulus 1.00, radial 1.00" in text, "the toys' controls lack the light of an arc"
    assert "x >= 1: 120" in text


def test_too_few_resolved_pairs_are_reported(inputs: preflight.Inputs) -> None:
    write_packed(Path("packed.json"), {"train": toys.make_split(40)})
    with pytest.raises(BadInputError, match="Only 40 of 40 pairs have x >= 1, fewer than the gates' 50"):
        preflight.check_gates_without_model(inputs)


def test_good_stamps_decode_and_bad_ones_are_named(inputs: preflight.Inputs) -> None:
    assert found(preflight.check_stamps, inputs) == "2 rows in 1 files; 1 decoded, [8] pixels"
    write_stamps(Path("stamps.json"), value=np.nan)
    with pytest.raises(BadInputError, match="stamp_npz of task a holds pixels that are not finite"):
        preflight.check_stamps(inputs)


def test_absent_inputs_are_reported_item_by_item_and_do_not_crash(
    inputs: preflight.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last takes seconds, and is tested above.
    monkeypatch.setattr(preflight, "STAGE_CHECKS", preflight.STAGE_CHECKS[:-1])
    arguments = [part for name in ("survey", "coadds", "stamps", "packed") for part in (f"--{name}", f"{name}.json")]
    stages = {"stages": {"main": SETTINGS.model_dump(mode="json")}}
    arguments += ["--settings", json.dumps(stages), "--output", "preflight.json"]
    with pytest.raises(BadInputError, match=r"Preflight failed in survey, coadds; do what the table .* say"):
        preflight.main(arguments)
    report = read_json(Path("preflight.json"))
    assert not report["ok"]
    assert [item["name"] for item in report["items"]] == [
        *(name for name, _, _ in (*preflight.CHECKS, *preflight.STAGE_CHECKS))
    ]
    assert [item["name"] for item in report["items"] if not item["ok"]] == ["survey", "coadds"]
    assert "rclone copy s3://darkhaloscope/dr10/coadd_cache/" in report["items"][2]["remedy"]
    preflight.main([*arguments, "--report-only"])


def test_what_nobody_foresaw_is_an_item_too(inputs: preflight.Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(inputs: preflight.Inputs) -> str:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr(preflight, "CHECKS", (("new", breaks, "Do this."), ("stamps", preflight.check_stamps, "")))
    monkeypatch.setattr(preflight, "STAGE_CHECKS", ())
    broken, fine = preflight.run_checks(inputs, {"main": SETTINGS})
    assert broken == preflight.Item("new", False, "ZeroDivisionError: division by zero", "Do this.")
    assert fine.ok


def test_every_stage_is_checked_and_one_that_cannot_be_trained_is_named(
    inputs: preflight.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "CHECKS", ())
    monkeypatch.setattr(preflight, "STAGE_CHECKS", preflight.STAGE_CHECKS[:1])
    selection = SETTINGS.selection.model_copy(update={"min_theta_over_psf": 9.0})
    stages = {"a1": SETTINGS, "a2": SETTINGS.model_copy(update={"selection": selection})}
    first, second = preflight.run_checks(inputs, stages)
    assert (first.name, first.ok) == ("batch (a1)", True)
    assert (second.name, second.ok) == ("batch (a2)", False)
    assert "No pair is left" in second.found


def test_bricks_are_opened_and_must_hold_good_pixels(inputs: preflight.Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    bricks = ["0001m002", "0001p000", "0003p000"]
    with attempt(Path("coadds.json"), "coadds", "dark_halo_scope.evaluation.scores", {}, []) as work:
        files = {"brickname": np.repeat(bricks, 2), "bytes": np.full(6, 10**8)}
        pq.write_table(pa.table(files), work.prefix / preflight.FILES)
        work.publish(facts={"missing": [{"brickname": "0005p000", "reason": "404"}]})
    monkeypatch.setattr(preflight, "load_brick", lambda manifest, brick: Brick(1.0))
    assert found(preflight.check_coadds, inputs) == "3 bricks, 0.60 GB, 1 missing; 2 opened"
    monkeypatch.setattr(preflight, "load_brick", lambda manifest, brick: Brick(np.nan))
    with pytest.raises(BadInputError, match="Brick 0001m002 has no good pixels"):
        preflight.check_coadds(inputs)


def test_it_starts_where_fitsio_has_no_wheels(project_root: Path) -> None:
    """The GH200 is Arm: its environment lacks fitsio and GalSim."""
    program = "import sys; sys.modules.update(fitsio=None, galsim=None); import dark_halo_scope.training.preflight"
    environment = {**os.environ, "PYTHONPATH": str(project_root / "lib")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
