"""Check item by item that a generation can be trained here, before hours are spent finding out that it cannot.

Phase 1 of the execution plan of 2026-02-05: coadds, pipeline, one batch, a forward pass, and gates without a model.
What is absent or broken is reported with what to do about it; the other items are checked all the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.config import Settings
from dark_halo_scope.core.errors import BadInputError, DarkHaloScopeError
from dark_halo_scope.core.manifest import load_manifest, verified_path, verified_paths, write_result
from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.hybrids import geometry
from dark_halo_scope.evaluation.pairs import (
    column,
    host_labels,
    resolved_stratum,
    stratum_masks,
    theta_e_over_psf,
    true_theta_e,
)
from dark_halo_scope.evaluation.shortcuts import PairSample, measure_shortcuts
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.images.control_sources import control_library
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.samplers import KINDS, NEGATIVE, BatchPlan, class_mix, epoch_plan
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.survey.cache_coadds import FILES, load_brick
from dark_halo_scope.survey.description import load_survey
from dark_halo_scope.training.config import TrainSettings
from dark_halo_scope.training.data import Batch, TrainingData
from dark_halo_scope.training.metadata_guard import refuse_leaks

MODULE = "dark_halo_scope.training.preflight"

#: The plan's pass criterion for x = theta_E / psfsize_r of a batch, and the share of a batch that must meet it.
X_RANGE = (0.4, 2.0)
X_SHARE = 0.8

#: Images of a kind that a batch should have on average before its absence is no chance (0.7%).
DUE = 5

MODEL_FREE_PAIRS = 500
BRICKS_OPENED = 2
CUTOUT_PIXELS = 64
STAMPS_DECODED = 16

#: Columns of text where the table does not go to a terminal.
_FILE_WIDTH = 160

#: Columns of stamps that hold images.
STAMP_BLOBS = ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz")

#: What training imports at some point; an environment that lacks one fails here and not in its third hour.
COMPONENTS = (
    "dark_halo_scope.survey.coadds",
    "dark_halo_scope.images.codec",
    "dark_halo_scope.images.packed",
    "dark_halo_scope.images.preprocess",
    "dark_halo_scope.images.augment",
    "dark_halo_scope.models.lens_finder",
    "dark_halo_scope.evaluation.gates",
    "dark_halo_scope.training.train",
)


@dataclass(frozen=True)
class Inputs:
    """What the checks read."""

    survey: Path
    coadds: Path
    stamps: Path
    packed: Path
    settings: TrainSettings


class PreflightSettings(Settings):
    """What is to be trained: the settings of each stage by name."""

    stages: dict[str, TrainSettings] = Field(min_length=1)


@dataclass(frozen=True)
class Item:
    """One check: what was found, or what went wrong and what to do."""

    name: str
    ok: bool
    found: str
    remedy: str | None


Check = Callable[[Inputs], str]


def check_components(inputs: Inputs) -> str:
    """Every module that training uses can be imported."""
    for name in COMPONENTS:
        import_module(name)
    return f"{len(COMPONENTS)} modules import; torch {torch.__version__}, {_device()}"


def check_survey(inputs: Inputs) -> str:
    """The survey's description can be read."""
    survey = load_survey(inputs.survey)
    return f"{survey.name}, {survey.release}"


def check_coadds(inputs: Inputs) -> str:
    """Coadds are there, and a few bricks open and give pixels."""
    manifest = load_manifest(inputs.coadds, "coadds")
    files = pq.read_table(verified_path(manifest, FILES), columns=["brickname", "bytes"])
    bricks = sorted(set(files["brickname"].to_pylist()))
    missing = len(manifest.facts["missing"])
    if not bricks:
        raise BadInputError(f"{inputs.coadds} has no bricks; {missing} are missing.")
    for brick in bricks[:BRICKS_OPENED]:
        with load_brick(manifest, brick) as coadds:
            rows, columns = coadds.shape
            cutout = coadds.cutout(columns / 2, rows / 2, CUTOUT_PIXELS)
            if not (np.isfinite(cutout.image).all() and np.any(cutout.invvar > 0)):
                raise BadInputError(f"Brick {brick} has no good pixels at its centre.")
    gigabytes = sum(files["bytes"].to_pylist()) / 1e9
    return f"{len(bricks)} bricks, {gigabytes:.2f} GB, {missing} missing; {min(len(bricks), BRICKS_OPENED)} opened"


def check_stamps(inputs: Inputs) -> str:
    """Stamps decode to finite images, positive, control and hard negative alike."""
    manifest = load_manifest(inputs.stamps, "stamps")
    paths = verified_paths(manifest)
    decoded = 0
    sizes = set()
    for path in paths:
        columns = ["task_id", "cutout_ok", *STAMP_BLOBS]
        for batch in pq.ParquetFile(path).iter_batches(STAMPS_DECODED, columns=columns):
            for row in batch.to_pylist():
                if decoded < STAMPS_DECODED and row["cutout_ok"]:
                    sizes |= {_decoded_size(row["task_id"], blob, row[blob]) for blob in STAMP_BLOBS}
                    decoded += 1
            break
        if decoded >= STAMPS_DECODED:
            break
    if not decoded:
        raise BadInputError(f"{inputs.stamps} holds no good stamp.")
    return f"{manifest.rows_out} rows in {len(paths)} files; {decoded} decoded, {sorted(sizes)} pixels"


def check_batch(inputs: Inputs) -> str:
    """One batch as training makes it: shape, classes, and theta_E over PSF."""
    data, preprocess, batch, plan = _first_batch(inputs)
    x_B6HW = preprocess(batch.images, batch.controls)
    shape = (len(plan), preprocess.channels, data.size, data.size)
    if tuple(x_B6HW.shape) != shape or not bool(torch.isfinite(x_B6HW).all()):
        raise BadInputError(f"A batch has shape {tuple(x_B6HW.shape)} where {shape} is due, or is not finite.")
    counts = dict(zip(KINDS, np.bincount(plan.kind_B, minlength=len(KINDS)).tolist(), strict=True))
    mix = class_mix(inputs.settings.sampler, 0, (len(data.pairs_N), len(data.pool_M)))
    absent = [kind for kind, share in zip(KINDS, mix, strict=True) if share * len(plan) >= DUE and not counts[kind]]
    if absent:
        raise BadInputError(f"A batch of {len(plan)} images has no {' and no '.join(absent)}.")
    rows = data.rows.take(pa.array(np.unique(plan.row_B[plan.kind_B != NEGATIVE])))
    x = theta_e_over_psf(rows)
    inside = np.mean((x >= X_RANGE[0]) & (x <= X_RANGE[1]))
    if inside < X_SHARE:
        raise BadInputError(
            f"Only {inside:.0%} of a batch have theta_E / psfsize_r in {X_RANGE[0]}-{X_RANGE[1]} "
            f"(it is {x.min():.2f}-{x.max():.2f})."
        )
    classes = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"shape {tuple(x_B6HW.shape)}; {classes}; x {x.min():.2f}-{x.max():.2f}, {inside:.0%} in range"


def check_forward(inputs: Inputs) -> str:
    """The configured network gives one finite logit per image."""
    settings = inputs.settings
    _, preprocess, batch, plan = _first_batch(inputs)
    model = LensFinder6CH(settings.model, preprocess.channels).to(_device())
    model.eval()
    with torch.inference_mode():
        logits = model(preprocess(batch.images, batch.controls), batch.meta)
    if tuple(logits.shape) != (len(plan),) or not bool(torch.isfinite(logits).all()):
        raise BadInputError(f"{settings.model.backbone} gave logits {tuple(logits.shape)}, or not finite ones.")
    p = torch.sigmoid(logits)
    return (
        f"{settings.model.backbone}, {model.parameters_count:,} parameters on {_device()}; "
        f"{len(logits)} logits, p {float(p.min()):.3f}-{float(p.max()):.3f}"
    )


def check_gates_without_model(inputs: Inputs) -> str:
    """Data-level AUCs of 500 pairs are computed, and the strata of the gates have enough pairs."""
    split = open_packed(inputs.packed, "train")
    gates = inputs.settings.validation.gates
    chosen = _random_rows(split.rows.num_rows, MODEL_FREE_PAIRS, inputs.settings.seed)
    rows = split.rows.take(pa.array(chosen))
    strata = {name: int(mask.sum()) for name, mask in stratum_masks(theta_e_over_psf(rows), gates.strata).items()}
    resolved = resolved_stratum(gates.strata)
    if strata[resolved] < gates.min_pairs:
        raise BadInputError(
            f"Only {strata[resolved]} of {len(chosen)} pairs have {resolved}, fewer than the gates' {gates.min_pairs}."
        )
    sample = _pair_sample(split, chosen, rows, gates)
    few = ShortcutSettings.model_validate({"max_pairs": MODEL_FREE_PAIRS, "bootstraps": 20, "permutations": 20})
    aucs = measure_shortcuts(sample, few, inputs.settings.seed)
    numbers = ", ".join(f"{name} {_auc_text(aucs['control'][name])}" for name in ("core", "annulus", "radial"))
    counted = ", ".join(f"{name}: {n}" for name, n in strata.items())
    return f"AUC against controls: {numbers}; pairs {counted}"


#: Item, check, and what to do where it fails; a new check is one function and one line. These ask about the machine and
#: the data, once.
CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("components", check_components, "Install the environment again: make setup."),
    ("survey", check_survey, "Describe the survey: snakemake results/survey.json."),
    (
        "coadds",
        check_coadds,
        "Run cache_coadds; on Lambda, sync the cache first: "
        "rclone copy s3://darkhaloscope/dr10/coadd_cache/ /lambda/nfs/darkhaloscope-training-dc/dr10/coadd_cache/.",
    ),
    ("stamps", check_stamps, "Run inject_stamps again."),
)

#: And these about the settings of each stage.
STAGE_CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("batch", check_batch, "Run pack_images again; check theta_E of the injection grid, and the sampler's settings."),
    (
        "forward",
        check_forward,
        "Check the model's settings; without a network set pretrained: false or give checkpoint_path.",
    ),
    ("gates without a model", check_gates_without_model, "Build a dataset with more resolved pairs; see quality.json."),
)


def run_checks(inputs: Inputs, stages: Mapping[str, TrainSettings]) -> list[Item]:
    """Every item, whatever became of the others; where there are several stages, those of each by name."""
    items = [_item(name, check, remedy, inputs) for name, check, remedy in CHECKS]
    for stage, settings in stages.items():
        suffix = f" ({stage})" if len(stages) > 1 else ""
        of_stage = replace(inputs, settings=settings)
        items += [_item(name + suffix, check, remedy, of_stage) for name, check, remedy in STAGE_CHECKS]
    return items


def _item(name: str, check: Check, remedy: str, inputs: Inputs) -> Item:
    try:
        return Item(name, True, check(inputs), None)
    except DarkHaloScopeError as error:
        return Item(name, False, str(error), remedy)
    except Exception as error:  # a preflight exists to report what it did not foresee
        return Item(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)


def main(argv: Sequence[str] | None = None) -> None:
    """Write preflight.json and print its table; exits non-zero where an item failed."""
    parser = argument_parser("Check item by item that a generation can be trained here.")
    for name in ("survey", "coadds", "stamps", "packed"):
        parser.add_argument(f"--{name}", required=True, type=Path, help=f"{name}.json")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever is found")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    started = datetime.now(UTC)
    settings = load_settings(arguments.settings, PreflightSettings)
    paths = {name: getattr(arguments, name) for name in ("survey", "coadds", "stamps", "packed")}
    first = next(iter(settings.stages.values()))
    items = run_checks(Inputs(**paths, settings=first), settings.stages)
    failed = [item.name for item in items if not item.ok]
    result: dict[str, Any] = {
        "ok": not failed,
        "items": [asdict(item) for item in items],
    }
    present = [path for path in paths.values() if path.is_file()]
    write_result(arguments.output, result, MODULE, settings, present, started)
    console = Console(stderr=True)
    (console if console.is_terminal else Console(stderr=True, width=_FILE_WIDTH)).print(_table(items))
    if failed and not arguments.report_only:
        raise BadInputError(f"Preflight failed in {', '.join(failed)}; do what the table and {arguments.output} say.")


def _table(items: Sequence[Item]) -> Table:
    table = Table(title="Preflight")
    for heading in ("item", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for item in items:
        state = Text("ok", style="green") if item.ok else Text("failed", style="red")
        # As Text, so that brackets in what was found are not read as markup.
        table.add_row(item.name, state, Text(item.found), Text(item.remedy or ""))
    return table


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _first_batch(inputs: Inputs) -> tuple[TrainingData, Preprocess6CH, Batch, BatchPlan]:
    """The first batch of epoch 0, as training would draw it without mined negatives, and its plan."""
    settings, split = inputs.settings, open_packed(inputs.packed, "train")
    preprocess = Preprocess6CH(settings.preprocessing, int(split.positive.shape[-1])).to(_device())
    data = TrainingData(split, settings, _device(), controls=preprocess.needs_controls)
    labels, rows = data.labels_and_meta()
    refuse_leaks(settings.model.meta_columns, rows, labels, settings.model.meta_auc_limit)
    if preprocess.needs_library:
        rng = np.random.default_rng(settings.seed)
        preprocess.set_library(control_library(split.control, settings.preprocessing.library_size, rng))
    plan = epoch_plan(settings.sampler, data.pairs_N, data.pool_M, data.variants, settings.seed, epoch=0)[0]
    return data, preprocess, data.batch(plan), plan


def _decoded_size(task_id: str, name: str, blob: bytes | None) -> int:
    if blob is None:
        raise BadInputError(f"Task {task_id} has no {name}.")
    image = decode_stamp(blob)
    if not np.isfinite(image).all():
        raise BadInputError(f"{name} of task {task_id} holds pixels that are not finite.")
    return int(image.shape[-1])


def _random_rows(n: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def _pair_sample(split: Any, chosen: NDArray[np.int64], rows: pa.Table, gates: GateSettings) -> PairSample:
    read = partial(np.asarray, dtype=np.float32)
    positive = read(split.positive[chosen])
    where = geometry(
        true_theta_e(rows),
        column(rows, "psfsize_r"),
        positive.shape[-2:],
        annulus_factor=gates.annulus_factor,
        core_pixels=gates.core_pixels,
        pixel_scale=gates.pixel_scale,
    )
    return PairSample(
        positive=positive,
        control=read(split.control[chosen]),
        hard_negative=read(split.hard_negative[chosen]),
        where=where,
        host=host_labels(rows),
        cell=column(rows, "healpix_128").astype(np.int64),
    )


def _auc_text(entry: Any) -> str:
    value = entry["logistic"]
    return value if isinstance(value, str) else f"{value['value']:.2f}"


if __name__ == "__main__":
    run(main)
