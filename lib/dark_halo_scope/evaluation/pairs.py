"""Which pairs of a packed split can be measured, how they are grouped, and what a network says about each."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.evaluation.config import GateSettings
from dark_halo_scope.evaluation.hybrids import Geometry, Images, geometry
from dark_halo_scope.evaluation.intervals import FloatArray

#: A gate's input from positives, controls and where core and annulus lie.
Hybrid = Callable[[Images, Images, Geometry], Images]

ALL = "all"


class Predict(Protocol):
    """Raw logits (N,) of float32 images (N, 3, H, W) in nanomaggies per pixel, and the packed rows they belong to.

    `controls` are the same stamps without arcs, which only a diagnostic network looks at.
    """

    def __call__(
        self, images: NDArray[np.float32], rows: pa.Table, /, controls: NDArray[np.float32] | None = None
    ) -> NDArray[np.floating]: ...


class Pairs(Protocol):
    """A packed split: arrays (N, 3, H, W) of nanomaggies per pixel and their rows, aligned."""

    @property
    def positive(self) -> NDArray[np.floating]: ...

    @property
    def control(self) -> NDArray[np.floating]: ...

    @property
    def hard_negative(self) -> NDArray[np.floating]: ...

    @property
    def rows(self) -> pa.Table: ...


@dataclass(frozen=True)
class ScoredPairs:
    """Raw logits of every kind of image for the pairs that were scored.

    logits: kind (`positive`, `control`, `hard_negative`, or a gate's name) -> (N,).
    x: theta_E / psfsize_r, (N,).
    host: index of the host galaxy, (N,).
    excluded: why pairs were left out -> how many.
    """

    logits: Mapping[str, FloatArray]
    x: FloatArray
    host: NDArray[np.intp]
    excluded: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.x)


def column(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as float64, nulls as NaN."""
    return np.asarray(rows.column(name).to_numpy(), dtype=float)


def true_theta_e(rows: pa.Table) -> NDArray[np.float64]:
    """(N,) Einstein radii in arcsec as the physics here means them, NaN where unknown.

    Stored data may mean something else by `theta_e_arcsec`; whoever adopted them wrote `theta_e_arcsec_true`, and rows
    without that column mean what this project means.
    """
    name = "theta_e_arcsec_true" if "theta_e_arcsec_true" in rows.column_names else "theta_e_arcsec"
    return column(rows, name)


def theta_e_over_psf(rows: pa.Table) -> NDArray[np.float64]:
    """(N,) x = theta_E / psfsize_r, which strata are made of; NaN where theta_E or a positive psfsize_r is missing."""
    psfsize = column(rows, "psfsize_r")
    return true_theta_e(rows) / np.where(psfsize > 0, psfsize, np.nan)


def lens_centres(rows: pa.Table) -> NDArray[np.float64] | None:
    """(N, 2) lens positions (x, y) from the stamps' centres in arcsec; None where rows do not say: at the centre.

    Adopted pairs whose place in the coadds is not known have nulls: they count as centred too.
    """
    names = ("host_offset_x_arcsec", "host_offset_y_arcsec")
    if not set(names) <= set(rows.column_names):
        return None
    return np.nan_to_num(np.stack([column(rows, name) for name in names], axis=1))


def host_labels(rows: pa.Table) -> NDArray[np.intp]:
    """Index of the host galaxy of each row: brick and object id, or the position where rows have no object id."""
    bricks = pd.factorize(rows.column("brickname").to_numpy())[0]
    known = "objid" in rows.column_names and rows.column("objid").null_count == 0
    objid = rows.column("objid").to_numpy() if known else None
    return host_numbers(bricks, objid, *([] if known else [column(rows, "ra"), column(rows, "dec")]))


def host_numbers(
    brick: NDArray[np.integer],
    objid: NDArray[np.integer] | None,
    *position: NDArray[np.float64],
) -> NDArray[np.intp]:
    """(N,) numbers of hosts, in order of first appearance: of brick and object id, or of RA and Dec without ids."""
    # Six decimals of a degree (4 mas), as task ids have them.
    keys = dict(enumerate([brick, objid] if objid is not None else [np.round(degrees, 6) for degrees in position]))
    return pd.DataFrame(keys).groupby(list(keys), sort=False).ngroup().to_numpy().astype(np.intp)


def stratum_masks(x: FloatArray, edges: tuple[float, ...]) -> dict[str, NDArray[np.bool_]]:
    """Masks by x = theta_E / psfsize_r: below the first edge, between edges (lower one included), above, and all."""
    masks = {f"x < {edges[0]:g}": x < edges[0]}
    for low, high in pairwise(edges):
        masks[f"{low:g} <= x < {high:g}"] = (low <= x) & (x < high)
    masks[resolved_stratum(edges)] = x >= edges[-1]
    masks[ALL] = np.ones(len(x), dtype=bool)
    return masks


def resolved_stratum(edges: tuple[float, ...]) -> str:
    """Name of the stratum of resolved arcs, above the last edge."""
    return f"x >= {edges[-1]:g}"


def measurable_rows(rows: pa.Table) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which rows hold a good pair, and why the others do not."""
    theta_e, psfsize = true_theta_e(rows), column(rows, "psfsize_r")
    problems = {
        "theta_E or psfsize_r not positive": ~((theta_e > 0) & (psfsize > 0) & np.isfinite(theta_e + psfsize)),
        "cutout not ok": _flag(rows, "cutout_ok", default=1) != 1,
        "a control, not a pair": _flag(rows, "is_control", default=0) == 1,
    }
    good = np.ones(len(theta_e), dtype=bool)
    excluded = {}
    for reason, bad in problems.items():
        if np.any(bad & good):
            excluded[reason] = int(np.sum(bad & good))
        good &= ~bad
    return good, excluded


def choose_pairs(
    rows: pa.Table, settings: GateSettings, rng: np.random.Generator
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """Rows of good pairs, `max_pairs` of them at random where there are more, and why others are not good."""
    good, excluded = measurable_rows(rows)
    chosen = np.flatnonzero(good)
    if settings.max_pairs is not None and len(chosen) > settings.max_pairs:
        chosen = np.sort(rng.choice(chosen, settings.max_pairs, replace=False))
    return chosen, excluded


def score_pairs(
    predict: Predict,
    split: Pairs,
    hybrids: Mapping[str, Hybrid],
    settings: GateSettings,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda count: None,
) -> ScoredPairs:
    """Score positives, controls, hard negatives and every hybrid of the split's good pairs.

    A pair with a pixel that is not finite is left out and counted, never scored.

    Args:
        predict: the network.
        split: the pairs.
        hybrids: gate name -> its input.
        settings: batch size, annulus, strata and the largest number of pairs.
        rng: chooses pairs where there are more than `max_pairs`.
        advance: told how many pairs were dealt with.
    """
    rows = split.rows
    chosen, excluded = choose_pairs(rows, settings, rng)
    counts: Counter[str] = Counter(excluded)
    logits: dict[str, list[FloatArray]] = {kind: [] for kind in ("positive", "control", "hard_negative", *hybrids)}
    kept: list[NDArray[np.intp]] = []
    for start in range(0, len(chosen), settings.batch_pairs):
        batch = chosen[start : start + settings.batch_pairs]
        images = {
            "positive": np.asarray(split.positive[batch], dtype=np.float32),
            "control": np.asarray(split.control[batch], dtype=np.float32),
            "hard_negative": np.asarray(split.hard_negative[batch], dtype=np.float32),
        }
        finite = np.all([np.isfinite(values).all(axis=(1, 2, 3)) for values in images.values()], axis=0)
        if not finite.all():
            counts["pixels not finite"] += int(np.sum(~finite))
            images = {kind: values[finite] for kind, values in images.items()}
        advance(len(batch))
        batch = batch[finite]
        if not len(batch):
            continue
        batch_rows = rows.take(pa.array(batch))
        where = geometry(
            true_theta_e(batch_rows),
            column(batch_rows, "psfsize_r"),
            images["positive"].shape[-2:],
            centre_N2=lens_centres(batch_rows),
            annulus_factor=settings.annulus_factor,
            core_pixels=settings.core_pixels,
            pixel_scale=settings.pixel_scale,
        )
        for kind in logits:
            build = hybrids.get(kind)
            pixels = images[kind] if build is None else build(images["positive"], images["control"], where)
            logits[kind].append(_logits(predict, pixels, batch_rows, images["control"]))
        kept.append(batch)
    index = np.concatenate(kept) if kept else np.empty(0, dtype=np.intp)
    kept_rows = rows.take(pa.array(index))
    scored = {kind: np.concatenate(parts) if parts else np.empty(0) for kind, parts in logits.items()}
    return ScoredPairs(scored, theta_e_over_psf(kept_rows), host_labels(kept_rows), dict(counts))


def _flag(rows: pa.Table, name: str, default: int) -> NDArray[np.float64]:
    return column(rows, name) if name in rows.column_names else np.full(rows.num_rows, float(default))


def _logits(predict: Predict, pixels: Images, rows: pa.Table, controls: Images) -> FloatArray:
    values = np.asarray(predict(pixels, rows, controls=controls), dtype=float)
    if values.shape != (len(pixels),):
        raise ValueError(f"predict returned shape {values.shape} for {len(pixels)} images; one logit per image is due")
    # An infinite logit would become a probability of 0 or 1, as if it had been measured.
    return np.where(np.isfinite(values), values, np.nan)
