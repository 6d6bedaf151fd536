"""One page on a dataset: what is in it, how real it looks beside known lenses, what gives its classes away.

    stamps.json, quality.json, arc_light.json, perhaps negatives.json -> a PNG and a PDF of one page

It looks for itself at nothing but a random choice of rows and a few stamps; every other number is that of the JSON
files. Columns that a dataset lacks, as those of earlier pipelines do, are said to be lacking.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path, verified_paths
from dark_halo_scope.evaluation.arc_light import KIND as ARC_LIGHT
from dark_halo_scope.evaluation.arc_light import LENSES, LIGHT
from dark_halo_scope.evaluation.pairs import ALL, column, stratum_masks, theta_e_over_psf, true_theta_e
from dark_halo_scope.evaluation.stamp_sample import draw_rows, read_images
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.images.packed import SPLITS
from dark_halo_scope.paper import page_panels as panels
from dark_halo_scope.paper.config import PageSettings
from dark_halo_scope.paper.page_panels import Curve
from dark_halo_scope.paper.style import COLOURS, RC_PARAMS, save_figure
from dark_halo_scope.paper.training_examples import choose_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_COLUMNS = (
    *("split", "cutout_ok", "is_control", "control_kind", "stamp_size", "theta_e_arcsec", "theta_e_arcsec_true"),
    *("psfsize_r", "psfdepth_r", "arc_snr", "sampling_weight", "lensed_mag_r", "src_reff_arcsec", "src_gr", "src_rz"),
)
_A4_INCHES = (8.27, 11.69)
_VERDICT_INCHES = 1.9
# At most: the distributions need the rest.
_EXAMPLES_INCHES = 5.2
_LEFT, _RIGHT = 0.045, 0.985
_VERDICT_LEFT = 0.09
_STRATUM_COLOURS = tuple(COLOURS[name] for name in ("purple", "green", "blue", "orange", "red"))
_SPLIT_COLOURS = {"train": COLOURS["blue"], "val": COLOURS["green"], "test": COLOURS["orange"]}
# Of the table of the verdict: lines, and letters in a line.
_LINES, _WIDTH = 11, 44
_PAIRED = ("control", "hard_negative")
_COMPARISONS = {
    "control": "vs own control",
    "hard_negative": "vs hard negative",
    "unpaired": "vs unpaired control",
    "confusers": "vs confuser",
}


@dataclass(frozen=True)
class Strip:
    """A row of example stamps: (N, 3, H, W) and a label for each."""

    title: str
    images: NDArray[np.float32]
    labels: Sequence[str]


@dataclass(frozen=True)
class Content:
    """Everything that the page shows.

    Attributes:
        name: of the dataset.
        positives, negatives: some rows, and how many there are in all.
        quality: quality.json.
        light, facts: of arc_light.json.
        strips: example stamps.
    """

    name: str
    positives: pa.Table
    positives_in_all: int
    negatives: pa.Table
    negatives_in_all: int
    quality: Mapping[str, Any]
    light: pa.Table
    facts: Mapping[str, Any]
    strips: Sequence[Strip]


def gather(
    name: str,
    stamps: Sequence[Path],
    negatives: Sequence[Path],
    quality: Mapping[str, Any],
    arc_light: Manifest,
    settings: PageSettings,
) -> Content:
    """Read what the page shows.

    Args:
        name: of the dataset.
        stamps, negatives: stamp files.
        quality: quality.json.
        arc_light: arc_light.json.
        settings: how much of it.

    Raises:
        BadInputError: the dataset has no positive.
    """
    positives, in_all = draw_rows(stamps, _COLUMNS, lambda rows: _usable(rows, control=False), settings.max_rows)
    if not positives.num_rows:
        raise BadInputError("No stamp of the dataset has an arc, so there is nothing to show; inject again.")
    others = [*stamps, *negatives]
    controls, controls_in_all = draw_rows(others, _COLUMNS, lambda rows: _usable(rows, control=True), settings.max_rows)
    light = pq.read_table(verified_path(arc_light, LIGHT))
    strips = _injection_strips(stamps, positives, settings)
    strips += [_negative_strip(others, controls, settings)]
    strips += [_lens_strip(pq.read_table(verified_path(arc_light, LENSES)), light, settings)]
    shown = [strip for strip in strips if len(strip.images)]
    return Content(name, positives, in_all, controls, controls_in_all, quality, light, arc_light.facts, shown)


def draw(content: Content, settings: PageSettings) -> "Figure":
    """The page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    small = {"font.size": 6, "axes.titlesize": 6.5, "axes.labelsize": 6, "xtick.labelsize": 5.5, "ytick.labelsize": 5.5}
    ticks = {"xtick.major.size": 2, "ytick.major.size": 2, "axes.labelpad": 1.5, "xtick.major.pad": 1.5}
    with mpl.rc_context(RC_PARAMS | small | ticks | {"axes.linewidth": 0.5, "axes.titlepad": 3}):
        figure = Figure(figsize=_A4_INCHES)
        side = _A4_INCHES[0] * (_RIGHT - _LEFT) / settings.examples
        examples = min(side * len(content.strips) + 0.1, _EXAMPLES_INCHES)
        rest = _A4_INCHES[1] - examples - _VERDICT_INCHES
        heights = (rest, _VERDICT_INCHES, examples)
        top, middle, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=heights, hspace=0.0)[:, 0]
        _draw_distributions(top, content, settings, rest)
        _draw_verdict(middle, content, settings)
        _draw_examples(bottom, content, settings)
    return figure


def _relation(name: str) -> str:
    return name.replace("<=", "≤").replace(">=", "≥")


def _usable(rows: pa.Table, control: bool) -> NDArray[np.bool_]:
    return (column(rows, "cutout_ok") == 1) & ((column(rows, "is_control") == 1) == control)


def _values(rows: pa.Table, name: str) -> NDArray[np.float64]:
    return column(rows, name) if name in rows.column_names else np.full(rows.num_rows, np.nan)


def _draw_distributions(figure: "SubFigure", content: Content, settings: PageSettings, inches: float) -> None:
    rows = content.positives
    axes = figure.subplots(3, 4)
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=1 - 0.62 / inches, bottom=0.07, wspace=0.2, hspace=0.45)
    masks = stratum_masks(theta_e_over_psf(rows), settings.strata)
    # Without theta_E or psfsize there are no strata, but there are still injections.
    found = {name: mask for name, mask in masks.items() if mask.any() and name != ALL}
    strata = {name: mask for name, mask in found.items() if mask.sum() >= settings.min_curve_rows} or {ALL: masks[ALL]}
    weights = _values(rows, "sampling_weight")

    def by_stratum(values: NDArray[np.float64]) -> list[Curve]:
        colours = zip(strata.items(), _STRATUM_COLOURS, strict=False)
        return [Curve(_relation(name), values[mask], colour) for (name, mask), colour in colours]

    def panel(place: int, label: str, curves: list[Curve], logarithmic: bool = False) -> None:
        panels.distributions(axes.flat[place], label, curves, settings.bins, logarithmic, place in _WITH_LEGEND)

    panel(0, "Einstein radius θ$_E$ [arcsec]", by_stratum(true_theta_e(rows)))
    split = rows["split"].to_numpy(zero_copy_only=False).astype(str)
    x = theta_e_over_psf(rows)
    panel(1, "x = θ$_E$ / psfsize$_r$", [Curve(name, x[split == name], c) for name, c in _SPLIT_COLOURS.items()])
    panel(2, "arc S/N (matched filter, grz)", by_stratum(_values(rows, "arc_snr")), logarithmic=True)
    magnitude = _values(rows, "lensed_mag_r")
    prior = [Curve("all, weighted to the prior", magnitude, "black", weights, dashed=True)] if _vary(weights) else []
    panel(3, "true lensed r [mag]", [*by_stratum(magnitude), *prior])
    panel(4, "source half-light radius [arcsec]", by_stratum(_values(rows, "src_reff_arcsec")))
    panel(5, "source g − r [mag]", by_stratum(_values(rows, "src_gr")))
    panel(6, "source r − z [mag]", by_stratum(_values(rows, "src_rz")))
    for place, (name, label) in enumerate(
        (("psfsize_r", "psfsize$_r$ [arcsec]"), ("psfdepth_r", "5σ depth r [mag]")), start=7
    ):
        panel(place, label, _classes(content, name))
    light = {kind: content.light.filter(pc.equal(content.light["kind"], kind)) for kind in _LIGHT}
    panel(9, "measured arc g [mag]", _light_curves(light, "mag_g"))
    panel(10, "measured arc g − r [mag]", _light_curves(light, "colour"))
    injected = light["positive"]
    panels.errors(axes.flat[11], column(injected, "true_mag_g"), column(injected, "mag_g"), content.facts["bias"])
    for row in axes:
        row[0].set_ylabel("relative density")
    axes.flat[0].set_title("injections, by stratum of x", loc="left")
    axes.flat[9].set_title("one estimator for all three", loc="left")
    total, drawn = content.positives_in_all, rows.num_rows
    shown = f"{total:,} injections" if total == drawn else f"{drawn:,} of {total:,} injections, drawn at random"
    figure.suptitle(f"Dataset {content.name}", x=_LEFT, y=1 - 0.1 / inches, ha="left", fontsize=10, fontweight="bold")
    few = [f"{_relation(name)} ({mask.sum()})" for name, mask in found.items() if name not in strata]
    left_out = f"; too few injections for a curve: {', '.join(few)}" if few else ""
    text = f"{shown}; {content.negatives_in_all:,} unpaired negatives; areas under curves are equal{left_out}"
    figure.text(_LEFT, 1 - 0.4 / inches, text)


# Where arcs are resolved, in x = theta_E / psfsize_r.
_RESOLVED = 1.0
# Panels that need a legend of their own; the others' curves are the strata of the first.
_WITH_LEGEND = (0, 1, 3, 7, 9, 10)
_LIGHT = {
    "positive": ("injections", COLOURS["blue"]),
    "control": ("controls (floor)", COLOURS["orange"]),
    "lens": ("known lenses", COLOURS["red"]),
}


def _classes(content: Content, name: str) -> list[Curve]:
    """Observing conditions of positives and of every class of unpaired negatives."""
    curves = [Curve("positives", _values(content.positives, name), COLOURS["blue"])]
    rows = content.negatives
    if rows.num_rows and name in rows.column_names:
        kinds = np.array([kind or "unpaired" for kind in rows["control_kind"].to_pylist()])
        unpaired = kinds == "unpaired"
        values = column(rows, name)
        groups = (("unpaired controls", unpaired, COLOURS["orange"]), ("confusers", ~unpaired, COLOURS["green"]))
        curves += [Curve(label, values[mask], colour) for label, mask, colour in groups if mask.any()]
    elif not rows.num_rows:
        curves[0] = Curve("pairs: both classes alike", curves[0].values, curves[0].colour)
    return curves


def _vary(weights: NDArray[np.float64]) -> bool:
    """Whether weights change anything: those of a grid are all alike."""
    return len(np.unique(weights[np.isfinite(weights)])) > 1


def _light_curves(light: Mapping[str, pa.Table], name: str) -> list[Curve]:
    curves = []
    for kind, (label, colour) in _LIGHT.items():
        rows = light[kind]
        values = column(rows, "mag_g") - (column(rows, "mag_r") if name == "colour" else 0.0)
        measured = int(np.isfinite(values).sum())
        curves.append(Curve(f"{label}: {measured} of {rows.num_rows}", values, colour))
        weights = _values(rows, "sampling_weight")
        if kind == "positive" and _vary(weights):
            curves.append(Curve("injections, weighted to the prior", values, "black", weights, dashed=True))
    return curves


def _draw_verdict(figure: "SubFigure", content: Content, settings: PageSettings) -> None:
    quality = content.quality
    comparisons = quality.get("shortcuts", {}).get("auc", {})
    names = sorted({*_PAIRED, *comparisons}, key=lambda name: [*_COMPARISONS, name].index(name))
    axes = figure.subplots(1, len(names) + 2, width_ratios=[2.8 / len(names)] * len(names) + [1.25, 1.2])
    figure.subplots_adjust(left=_VERDICT_LEFT, right=_RIGHT, top=0.88, bottom=0.22, wspace=0.12)
    found = [name for comparison in comparisons.values() for name in comparison]
    features = [name for name in panels.FEATURES if name in found or not found]
    features += sorted(set(found) - set(panels.FEATURES))
    for place, name in enumerate(names):
        title = _COMPARISONS.get(name, f"vs {name.replace('_', ' ')}")
        panels.shortcut_aucs(axes[place], title, comparisons.get(name, {}), features)
        if place:
            axes[place].set_yticklabels([])
    panels.classifiers_legend(figure, _VERDICT_LEFT)
    # JSON sorts its keys: splits and strata go back to their own order.
    counts = {name: quality["counts"][name] for name in SPLITS if name in quality.get("counts", {})}
    lines = [["", *counts]]
    keys = ("rows", "usable", "pairs", "controls", "hosts", "cells")
    lines += [[key, *(f"{split[key]:,}" for split in counts.values())] for key in keys]
    strata = [name for name in stratum_masks(np.empty(0), settings.strata) if name != ALL]
    for name in strata:
        lines += [[_relation(name), *(f"{split['strata'].get(name, 0):,}" for split in counts.values())]]
    panels.table(axes[-2], "rows", lines, [0.34, 0.22, 0.22, 0.22])
    panels.table(axes[-1], f"verdict: {quality.get('verdict', 'none')}", _problems(content), [0.82, 0.18])


def _problems(content: Content) -> list[list[str]]:
    failures = content.quality.get("failures", {})
    lines = [["failed cutouts", f"{sum(failures.values()):,}"]]
    most = sorted(failures.items(), key=lambda item: (-item[1], item[0]))[:3]
    lines += [[f"  {reason}", f"{count:,}"] for reason, count in most]
    lines += [["known lenses measured", f"{content.facts['lenses']:,}"]]
    lines += [[f"  {reason}", f"{count:,}"] for reason, count in list(content.facts["lenses_skipped"].items())[:3]]
    share = content.facts["recovered"].get(f"x >= {_RESOLVED:g}", {}).get("p50")
    if share is not None:
        lines += [[f"arc g light found, x ≥ {_RESOLVED:g} (median)", f"{share:.0%}"]]
    told = [f"refused: {reason}" for reason in content.quality.get("reasons", [])]
    told += [f"warning: {warning}" for warning in content.quality.get("warnings", [])]
    wrapped = [line for sentence in told for line in textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ")]
    room = _LINES - len(lines)
    if len(wrapped) > room:
        wrapped[room - 1 :] = [f"  … {len(told)} in all: see quality.json"]
    return lines + [[line, ""] for line in wrapped]


def _draw_examples(figure: "SubFigure", content: Content, settings: PageSettings) -> None:
    axes = figure.subplots(len(content.strips), settings.examples, squeeze=False)
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=0.99, bottom=0.01, wspace=0.03, hspace=0.03)
    for line, strip in enumerate(content.strips):
        for place in range(settings.examples):
            if place < len(strip.images):
                label = strip.labels[place]
                panels.picture(axes[line, place], strip.images[place], label, settings)
                if line == place == 0:
                    panels.scale_bar(axes[0, 0])
            else:
                axes[line, place].set_axis_off()
        axes[line, 0].set_ylabel(strip.title)


def _injection_strips(paths: Sequence[Path], rows: pa.Table, settings: PageSettings) -> list[Strip]:
    """Positive, control and hard negative of the same rows, spread in theta_E."""
    theta_e, snr = true_theta_e(rows), _values(rows, "arc_snr")
    known = np.isfinite(snr).any()
    # Where nobody measured arc_snr, every arc may be shown.
    strength = np.nan_to_num(snr) if known else np.full(len(snr), np.inf)
    count = min(settings.examples, int((strength >= settings.min_arc_snr).sum()))
    if not count:
        return []
    chosen = rows.take(pa.array(choose_rows(theta_e, strength, count, settings.min_arc_snr)))
    size = int(chosen["stamp_size"][0].as_py())
    labels = [
        f"θ$_E$ {radius:.2f}″" + (f"\nS/N {value:.0f}" if known else "")
        for radius, value in zip(true_theta_e(chosen), _values(chosen, "arc_snr"), strict=True)
    ]
    kinds = (("positive", "stamp_npz"), ("its control", "ctrl_stamp_npz"), ("hard negative", "hardneg_stamp_npz"))
    strips = [Strip(title, read_images(paths, chosen, blob, size), labels) for title, blob in kinds]
    plain = [Strip(strip.title, strip.images, [""] * count) for strip in strips[1:]]
    return [strips[0], *(strip for strip in plain if np.isfinite(strip.images).any())]


def _negative_strip(paths: Sequence[Path], rows: pa.Table, settings: PageSettings) -> Strip:
    """Unpaired negatives, classes in turn."""
    if not rows.num_rows:
        return Strip("unpaired negative", np.empty((0, 3, 1, 1), np.float32), [])
    kinds = np.array([kind or "unpaired" for kind in rows["control_kind"].to_pylist()])
    # The first of every class, then the second of every class, and so on.
    turn = np.empty(len(kinds), dtype=np.intp)
    for kind in np.unique(kinds):
        turn[kinds == kind] = np.arange((kinds == kind).sum())
    order = np.lexsort((kinds, turn))[: settings.examples]
    chosen = rows.take(pa.array(order))
    size = int(chosen["stamp_size"][0].as_py())
    labels = [kind.replace("_", " ") for kind in kinds[order].tolist()]
    return Strip("unpaired negative", read_images(paths, chosen, "stamp_npz", size), labels)


def _lens_strip(lenses: pa.Table, light: pa.Table, settings: PageSettings) -> Strip:
    """Known lenses spread in rank of their arcs' light, confident ones where there are enough."""
    magnitude = dict(zip(light["name"].to_pylist(), column(light, "mag_g").tolist(), strict=True))
    found = np.array([magnitude.get(name, np.nan) for name in lenses["name"].to_pylist()], dtype=float)
    confident = np.array([grade == "confident" for grade in lenses["grading"].to_pylist()], dtype=bool)
    shown = np.flatnonzero(np.isfinite(found) & confident)
    if len(shown) < settings.examples:
        shown = np.flatnonzero(np.isfinite(found))
    count = min(settings.examples, len(shown))
    if not count:
        return Strip("known lens", np.empty((0, 3, 1, 1), np.float32), [])
    ordered = shown[np.argsort(found[shown], kind="stable")]
    chosen = ordered[((np.arange(count) + 0.5) / count * len(ordered)).astype(int)]
    images = np.stack([decode_stamp(blob.as_py()) for blob in lenses["stamp_npz"].take(pa.array(chosen))])
    grades = lenses["grading"].take(pa.array(chosen)).to_pylist()
    labels = [f"arc g {value:.1f}\n{grade}" for value, grade in zip(found[chosen], grades, strict=True)]
    return Strip("known lens", images, labels)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, draw, write."""
    parser = argument_parser("Draw one page on a dataset: distributions, realism, shortcuts, examples.")
    parser.add_argument("--name", required=True, help="of the dataset, for the title")
    parser.add_argument("--stamps", type=Path, required=True, help="stamps.json")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="negatives.json of the same dataset")
    parser.add_argument("--quality", type=Path, required=True, help="quality.json of these stamps")
    parser.add_argument("--arc-light", type=Path, required=True, help="arc_light.json of these stamps")
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="PNG or PDF; several are the same page")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, PageSettings)
    stamps = load_manifest(arguments.stamps, "stamps")
    negatives = [load_manifest(path, "negatives") for path in arguments.negatives]
    quality = read_json(arguments.quality)
    if not isinstance(quality, dict) or quality.get("stamps_sha256") != stamps.sha256:
        raise BadInputError(f"{arguments.quality} was made from other stamps than these; run check_dataset again.")
    if quality.get("negatives_sha256") != [manifest.sha256 for manifest in negatives]:
        raise BadInputError(f"{arguments.quality} was made from other negatives than these; run check_dataset again.")
    arc_light = load_manifest(arguments.arc_light, ARC_LIGHT)
    if arc_light.facts.get("stamps_sha256") != stamps.sha256:
        raise BadInputError(
            f"{arguments.arc_light} was made from other stamps than these; run measure_arc_light again."
        )
    others = [path for manifest in negatives for path in verified_paths(manifest)]
    figure = draw(gather(arguments.name, verified_paths(stamps), others, quality, arc_light, settings), settings)
    for path in arguments.output:
        save_figure(figure, path)


if __name__ == "__main__":
    run(main)
