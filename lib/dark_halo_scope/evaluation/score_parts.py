"""Images of a packed split scored in parts that a kill leaves behind and a rerun skips: batches of one kind each."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path

from dark_halo_scope.evaluation.pairs import Predict
from dark_halo_scope.evaluation.parts import Scored, in_parts
from dark_halo_scope.evaluation.scores import score_batches
from dark_halo_scope.images.packed import ImageBatch

#: Images of a part at most: what a kill can lose, a minute's work of two cores.
PART_IMAGES = 20_000


def score_in_parts(
    predict: Predict,
    batches: Iterable[ImageBatch],
    split: str,
    folder: Path,
    made_on: str,
    resumed: Callable[[int], None] = lambda images: None,
) -> Iterator[Scored]:
    """Score images as `score_batches` does, from the parts in `folder` where they are done and into it where not.

    Args:
        predict: the network.
        batches: images of a packed split, none of which is read where its part is done.
        split: its name.
        folder, made_on, resumed: see `in_parts`.

    Yields:
        For each batch, scored rows and rows that are left out.
    """
    return in_parts(_parts(batches), lambda part: score_batches(predict, part, split), folder, made_on, resumed)


def _parts(batches: Iterable[ImageBatch]) -> Iterator[tuple[str, list[ImageBatch]]]:
    """Name and batches of each part; no image of theirs is in memory."""
    for kind, of_kind in groupby(batches, key=lambda batch: batch.kind):
        while part := _next_part(of_kind):
            yield f"{kind}-{part[0].first:09d}", part


def _next_part(batches: Iterator[ImageBatch]) -> list[ImageBatch]:
    """The next batches, as many as a part has of the first one's size."""
    first = next(batches, None)
    if first is None:
        return []
    return [first, *islice(batches, max(1, PART_IMAGES // max(1, first.rows.num_rows)) - 1)]
