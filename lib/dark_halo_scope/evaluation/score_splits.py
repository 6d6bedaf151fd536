"""Scores of one network on two splits: thresholds and calibrations are chosen on val and reported on test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest
from dark_halo_scope.evaluation.score_table import KIND, KINDS, POSITIVE, ScoreTable

LOGIT = "logit"


@dataclass(frozen=True)
class Labelled:
    """Images with the two labels, each once.

    logit: raw, (N,) float64.
    label: 1 for positives, (N,).
    host: number of the galaxy, (N,).
    """

    logit: NDArray[np.float64]
    label: NDArray[np.int8]
    host: NDArray[np.int32]

    @property
    def positives(self) -> int:
        """How many have label 1."""
        return int(self.label.sum())

    @property
    def negatives(self) -> int:
        """How many have label 0."""
        return len(self.label) - self.positives

    @property
    def prevalence(self) -> float:
        """Share of positives."""
        return self.positives / len(self.label)

    def counts(self) -> dict[str, Any]:
        """What a JSON result says about the sample."""
        return {
            "n": len(self.label),
            "positives": self.positives,
            "negatives": self.negatives,
            "prevalence": self.prevalence,
            "hosts": len(np.unique(self.host)),
        }


def load_splits(val: Path, test: Path) -> tuple[Manifest, Manifest]:
    """Manifests of the scores of both splits.

    Raises:
        BadInputError: a file is of another split, or they are of different networks.
    """
    manifests = {}
    for split, path in (("val", val), ("test", test)):
        manifest = manifests[split] = load_manifest(path, KIND)
        if manifest.facts.get("split") != split:
            raise BadInputError(
                f"{path} holds scores of split {manifest.facts.get('split')!r}; give those of {split!r}."
            )
    weights = {manifest.facts.get("model_sha256") for manifest in manifests.values()}
    if len(weights) > 1:
        raise BadInputError(f"{val} and {test} are scores of different networks; score both splits with one.")
    return manifests["val"], manifests["test"]


def subject(manifest: Manifest) -> dict[str, Any]:
    """Whose scores they are, for a JSON result."""
    facts: Mapping[str, Any] = manifest.facts
    return {key: facts.get(key) for key in ("generation", "model_sha256", "packed_sha256")}


def labelled(table: ScoreTable, negatives: Sequence[str]) -> Labelled:
    """Positives and some kinds of negatives of a score table that was read with its logits.

    The control of a galaxy that bears several arcs counts once.

    Raises:
        BadInputError: the scores have no logits.
    """
    if LOGIT not in table.numbers:
        raise BadInputError("The scores have no logits; score the images again.")
    wanted = np.isin(table.kind, [POSITIVE, *(KINDS.index(name) for name in negatives)]) & ~table.repeated
    return Labelled(
        table.numbers[LOGIT][wanted].astype(float),
        (table.kind[wanted] == POSITIVE).astype(np.int8),
        table.host[wanted],
    )
