"""A packed dataset and an untrained small network on disk, in the real formats."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dark_halo_scope.core.files import write_json
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.weights import save_model

from . import toys

MODEL = {"backbone": "small_cnn", "width": 4, "hidden": 8, "pretrained": False}


def write_packed(
    path: Path, splits: dict[str, toys.ToySplit], negatives: dict[str, tuple[np.ndarray, pa.Table]] | None = None
) -> None:
    """Write packed.json and its arrays; `negatives` are images of no pair and their rows, by split."""
    others = {name: (split.control[:0], split.rows[:0]) for name, split in splits.items()} | (negatives or {})
    kinds = ("positive", "control", "hard_negative")
    with attempt(path, "packed", "dark_halo_scope.evaluation.scores", {}, []) as work:
        for name, split in splits.items():
            (work.prefix / name).mkdir()
            for kind in kinds:
                np.save(work.prefix / name / f"{kind}.npy", getattr(split, kind))
            pq.write_table(split.rows, work.prefix / name / "rows.parquet")
            np.save(work.prefix / name / "negative.npy", others[name][0])
            pq.write_table(others[name][1], work.prefix / name / "negative_rows.parquet")
        counts = {name: split.rows.num_rows for name, split in splits.items()}
        work.publish(
            facts={
                "splits": counts,
                "negatives": {name: rows.num_rows for name, (_, rows) in others.items()},
                "size": toys.SIZE,
                "bands": "grz",
                "kinds": list(kinds),
            }
        )


def write_model(path: Path, **preprocessing: object) -> None:
    """Write best.json of a small network with random weights."""
    torch.manual_seed(0)
    preprocess = Preprocess6CH(PreprocessSettings.model_validate(preprocessing), toys.SIZE)
    model = LensFinder6CH(ModelSettings.model_validate(MODEL), preprocess.channels)
    write_json(path, save_model(path, model, preprocess, {"generation": "gen5_prime", "stage": "main", "epoch": 1}))
