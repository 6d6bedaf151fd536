"""Score manifests that a measurement reads: of the right split, and of one network and one dataset."""

from pathlib import Path

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest
from dark_halo_scope.evaluation.score_table import KIND


def load_scores(path: Path, split: str) -> Manifest:
    """A scores manifest.

    Raises:
        BadInputError: it is of another split.
    """
    manifest = load_manifest(path, KIND)
    if manifest.facts.get("split") != split:
        raise BadInputError(f"{path} holds scores of the split {manifest.facts.get('split')}, not of {split}.")
    return manifest


def refuse_unlike(first: Manifest, second: Manifest, where: str) -> None:
    """Refuse scores that are of two networks or of two datasets.

    Raises:
        BadInputError: they are.
    """
    for fact, what in (("model_sha256", "another network"), ("packed_sha256", "other images")):
        if first.facts.get(fact) != second.facts.get(fact):
            raise BadInputError(f"{where} are scores of {what} than those beside them; score both splits again.")
