"""Scored real images of one split: lenses and galaxies that are none, with what is known of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import Manifest
from dark_halo_scope.evaluation.intervals import FloatArray
from dark_halo_scope.evaluation.score_splits import LOGIT, Labelled
from dark_halo_scope.evaluation.score_table import NEGATIVE, POSITIVE, ScoreTable, read_scores

Mask = NDArray[np.bool_]

NUMBERS = (LOGIT, "psfsize_r", "psfdepth_r", "nobs_z", "healpix_128", "sampling_prob")
LABELS = ("tier", "discovery", "pool", "confuser_category", "type", "nobs_z_bin")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class FinderImages:
    """N scored images.

    logit: raw, (N,) float64.
    positive: (N,) whether the image is of a lens.
    host: (N,) number of the galaxy.
    weight: (N,) 1 / sampling_prob of negatives, NaN where unknown and of positives.
    cell: (N,) HEALPix cell of nside 128, nested; -1 where unknown.
    numbers: (N,) columns of NUMBERS that there are.
    texts: (N,) codes into their names of columns of LABELS that there are; -1 is null.
    """

    logit: FloatArray
    positive: Mask
    host: NDArray[np.integer]
    weight: FloatArray
    cell: NDArray[np.int64]
    numbers: dict[str, FloatArray]
    texts: dict[str, tuple[NDArray[np.integer], tuple[str, ...]]]

    def __len__(self) -> int:
        return len(self.logit)

    def is_text(self, column: str, value: str) -> Mask:
        """(N,) whether a column of text has this value; nowhere where there is no such column."""
        codes, names = self.texts.get(column, (np.full(len(self), -1), ()))
        if value == UNKNOWN:
            return codes < 0
        return codes == names.index(value) if value in names else np.zeros(len(self), bool)

    def values(self, column: str, among: Mask) -> list[str]:
        """Distinct values of a column of text among some images, sorted; `unknown` where one is null."""
        codes, names = self.texts.get(column, (np.full(len(self), -1), ()))
        present = np.unique(codes[among])
        return sorted(UNKNOWN if code < 0 else names[code] for code in present)

    def labelled(self) -> Labelled:
        """As calibration wants them."""
        return Labelled(np.asarray(self.logit, np.float64), self.positive.astype(np.int8), self.host.astype(np.int32))


def read_images(manifest: Manifest) -> FinderImages:
    """The positives and negatives of a scores manifest.

    Raises:
        BadInputError: a class is missing, or the scores have no logits.
        CorruptDataError: a negative has a sampling probability that is none.
    """
    images = from_table(read_scores(manifest, NUMBERS, LABELS))
    positives = int(images.positive.sum())
    if not positives or positives == len(images):
        raise BadInputError(
            f"{manifest.uri} has {positives} positives and {len(images) - positives} negatives; a finder of real "
            "images is validated on both: score a dataset with source: real."
        )
    drawn = images.numbers.get("sampling_prob", np.empty(0))
    known = np.isfinite(drawn)
    if ((drawn[known] <= 0) | (drawn[known] > 1)).any():
        raise CorruptDataError(
            f"{manifest.uri} has sampling probabilities outside of (0, 1]; sample the negatives again."
        )
    return images


def from_table(table: ScoreTable) -> FinderImages:
    """The positives and negatives of a score table; images of other kinds are left out.

    Raises:
        BadInputError: the scores have no logits.
    """
    if LOGIT not in table.numbers:
        raise BadInputError("The scores have no logits; score the images again.")
    chosen = np.isin(table.kind, [POSITIVE, NEGATIVE])
    positive = table.kind[chosen] == POSITIVE
    numbers = {name: values[chosen].astype(float) for name, values in table.numbers.items()}
    probability = numbers.get("sampling_prob", np.full(len(positive), np.nan))
    with np.errstate(divide="ignore"):
        weight = np.where(positive, np.nan, 1 / probability)
    cell = numbers.get("healpix_128", np.full(len(positive), np.nan))
    return FinderImages(
        numbers[LOGIT],
        positive,
        table.host[chosen],
        weight,
        np.where(np.isfinite(cell), cell, -1).astype(np.int64),
        numbers,
        {name: (codes[chosen], names) for name, (codes, names) in table.labels.items()},
    )


def refuse_shared_cells(val: FinderImages, test: FinderImages, where: Path) -> None:
    """Refuse splits that share a cell of the sky: what is measured on the one was chosen on the other.

    Raises:
        CorruptDataError: they do.
    """
    shared = np.intersect1d(val.cell[val.cell >= 0], test.cell[test.cell >= 0])
    if len(shared):
        raise CorruptDataError(
            f"{len(shared)} HEALPix cells (nside 128; the first: {shared[0]}) are in val and in test ({where}); make "
            "the dataset again."
        )
