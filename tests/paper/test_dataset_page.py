"""What the page of a dataset promises: all is drawn or said to be lacking, the same data give the same bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.evaluation.arc_light import LENSES, LIGHT
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.evaluation.measure_arc_light import LENS_SCHEMA, LIGHT_SCHEMA, describe
from dark_halo_scope.injection.schema import encode_stamp
from dark_halo_scope.paper import page_panels as panels
from dark_halo_scope.paper.config import PageSettings
from dark_halo_scope.paper.dataset_page import draw, gather, main
from dark_halo_scope.paper.page_panels import Curve
from stamp_scene import SIZE, as_control, stamp_rows, write_negatives, write_stamps

SETTINGS = PageSettings(examples=4, min_arc_snr=10.0, min_curve_rows=5)
AUC = {"value": 0.8, "n": 100, "hosts": 50, "interval": [0.7, 0.9], "null": {}}


def _rows(count: int = 40) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    rows = stamp_rows(count)
    for row, theta_e in zip(rows, np.linspace(0.5, 2.5, count), strict=True):
        row |= {"theta_e_arcsec": float(theta_e), "theta_e_arcsec_true": float(theta_e)}
        row |= {"src_gr": float(rng.normal(0.4, 0.3)), "src_rz": float(rng.normal(0.4, 0.3))}
        row |= {"arc_snr": float(rng.uniform(10, 80)), "lensed_mag_r": float(rng.uniform(20, 23))}
        row |= {"sampling_weight": float(rng.uniform(0, 1)), "psfsize_r": float(rng.uniform(1.1, 1.5))}
        row |= {"src_reff_arcsec": float(rng.uniform(0.1, 0.6)), "psfdepth_r": float(rng.uniform(23.6, 24.5))}
    return rows


def _arc_light(folder: Path, rows: list[dict[str, Any]], lenses: int = 6, stamps: str = "") -> Path:
    light = []
    for row in rows:
        for kind, mag in (("positive", row["lensed_mag_r"]), ("control", 24.0)):
            light.append({"kind": kind, "name": row["task_id"], "mag_g": mag, "mag_r": mag - 0.4, "psfsize_r": 1.2})
            light[-1] |= {"theta_e_arcsec": 1.5, "flux_g": 1.0, "sampling_weight": row["sampling_weight"]}
        light[-2]["true_mag_g"] = row["lensed_mag_r"]
    known = []
    for index in range(lenses):
        light.append({"kind": "lens", "name": f"J{index}", "grading": "confident", "mag_g": 22.0 - index / 10})
        known.append({"name": f"J{index}", "brickname": "0001p000", "grading": "confident", "discovery": "other"})
        stamp = np.full((3, SIZE, SIZE), 0.01 * index, np.float32)
        known[-1] |= {"ra": 1.0, "dec": 2.0, "psfsize_r": 1.2, "stamp_npz": encode_stamp(stamp)}
        known[-1] |= {"host_offset_x_arcsec": 0.0, "host_offset_y_arcsec": 0.0}
    table = pa.Table.from_pylist(light, schema=LIGHT_SCHEMA)
    output = folder / "arc_light.json"
    with attempt(output, "arc_light", "dark_halo_scope.evaluation.measure_arc_light", {}, []) as work:
        pq.write_table(table, work.prefix / LIGHT)
        pq.write_table(pa.Table.from_pylist(known, schema=LENS_SCHEMA), work.prefix / LENSES)
        facts = {"lenses": lenses, "lenses_skipped": {"off the edge of the brick": 3}, "stamps_sha256": stamps}
        work.publish(facts=describe(table, ArcLightSettings()) | facts)
    return output


def _quality(sha256: str, **changes: Any) -> dict[str, Any]:
    features = {name: {"logistic": AUC, "boosting": AUC} for name in ("core", "radial", "annulus", "corner_noise")}
    split = {"rows": 1234, "usable": 40, "pairs": 40, "controls": 0, "hosts": 20, "cells": 7}
    split |= {"strata": {"x < 0.5": 11, "0.5 <= x < 1": 12, "x >= 1": 17, "all": 40}}
    return {
        "stamps_sha256": sha256,
        "negatives_sha256": [],
        "counts": dict.fromkeys(("test", "train", "val"), split),
        "failures": {"no weight in r": 5},
        "shortcuts": {"pairs": 40, "auc": {"control": features, "hard_negative": features}},
        "verdict": "accepted",
        "reasons": [],
    } | changes


def _page(
    folder: Path,
    rows: list[dict[str, Any]],
    drop: tuple[str, ...] = (),
    lenses: int = 6,
    negatives: list[dict[str, Any]] | None = None,
    settings: PageSettings = SETTINGS,
    **quality: Any,
) -> Figure:
    change = (lambda table: table.drop_columns(list(drop))) if drop else None
    path, stamps = write_stamps(folder, rows, change=change)
    positives = [row for row in rows if not row["is_control"]]
    arc_light = load_manifest(_arc_light(folder, positives, lenses), "arc_light")
    report = _quality(stamps.sha256, **quality)
    paths = verified_paths(load_manifest(path, "stamps"))
    others = verified_paths(write_negatives(folder, negatives)[1]) if negatives else []
    return draw(gather("v9", paths, others, report, arc_light, settings), settings)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    return _page(tmp_path_factory.mktemp("page"), _rows())


def test_every_axis_of_a_distribution_has_a_label_with_its_unit(paired: Figure) -> None:
    top = paired.subfigs[0]
    labels = [axes.get_xlabel() for axes in top.axes]
    assert len(labels) == 12
    assert all(labels)
    with_unit = [label for label in labels if "[" in label]
    # x is a ratio, and a signal to noise too.
    assert len(with_unit) == 10


def test_a_paired_dataset_shows_pairs_counts_failures_and_lenses(paired: Figure) -> None:
    texts = _texts(paired)
    for text in ("Dataset v9", "positive", "its control", "hard negative", "known lens", "verdict: accepted", "1,234"):
        assert text in texts
    assert "  no weight in r" in texts
    assert "  off the edge of the brick" in texts
    assert "pairs: both classes alike" in texts
    assert "injections: 40 of 40" in texts
    assert not any("not in this dataset" in text for text in texts)
    assert "unpaired negative" not in texts


def test_splits_and_strata_stand_in_their_own_order(paired: Figure) -> None:
    table = next(axes for axes in paired.subfigs[1].axes if axes.get_title(loc="left") == "rows")
    texts = [text.get_text() for text in table.texts]
    assert texts[1:4] == ["train", "val", "test"]
    assert [text for text in texts if text[:1] in "x0" and "x" in text] == ["x < 0.5", "0.5 ≤ x < 1", "x ≥ 1"]


def test_examples_are_spread_in_theta_e_and_lenses_in_brightness(paired: Figure) -> None:
    texts = _texts(paired)
    radii = [float(text.split()[1].rstrip("″")) for text in texts if "\nS/N" in text]
    assert radii == sorted(radii)
    assert radii[-1] - radii[0] > 1.0
    arcs = [float(text.split()[2]) for text in texts if text.startswith("arc g ") and "confident" in text]
    assert arcs == sorted(arcs)
    assert len(arcs) == SETTINGS.examples


def test_columns_that_stored_data_lack_are_said_and_the_rest_is_drawn(tmp_path: Path) -> None:
    drop = ("arc_snr", "src_gr", "lensed_mag_r", "sampling_weight", "theta_e_arcsec_true", "hardneg_stamp_npz")
    rows = [row | {"ctrl_stamp_npz": None, "hardneg_stamp_npz": None} for row in _rows()]
    figure = _page(tmp_path, rows, drop[:-1], lenses=0)
    texts = _texts(figure)
    assert texts.count("not in this dataset") == 3
    assert "positive" in texts
    assert not {"its control", "hard negative", "known lens"} & set(texts)
    assert any(text.startswith("θ$_E$ ") and "S/N" not in text for text in texts)


def test_rows_of_no_stratum_are_drawn_together(tmp_path: Path) -> None:
    figure = _page(tmp_path, [row | {"psfsize_r": None} for row in _rows()])
    theta_e = figure.subfigs[0].axes[0]
    assert [text.get_text() for text in theta_e.get_legend().get_texts()] == ["all"]
    # x itself, and psfsize_r.
    assert _texts(figure).count("not in this dataset") == 2


def test_a_stratum_of_a_handful_of_rows_has_no_curve_and_is_named(tmp_path: Path) -> None:
    rows = _rows()
    thin = [row for row in rows if row["theta_e_arcsec"] / row["psfsize_r"] < 0.5]
    assert 0 < len(thin) < 8
    figure = _page(tmp_path, rows, settings=SETTINGS.model_copy(update={"min_curve_rows": 8}))
    theta_e = figure.subfigs[0].axes[0]
    assert [text.get_text() for text in theta_e.get_legend().get_texts()] == ["0.5 ≤ x < 1", "x ≥ 1"]
    assert any(f"too few injections for a curve: x < 0.5 ({len(thin)})" in text for text in _texts(figure))


def test_weights_that_are_all_alike_are_not_drawn_as_weights(paired: Figure, tmp_path: Path) -> None:
    assert _texts(paired).count("all, weighted to the prior") == 1
    alike = [row | {"sampling_weight": 1.0} for row in _rows()]
    assert not any("weighted" in text for text in _texts(_page(tmp_path, alike)))


def test_no_legend_hides_an_auc_and_no_text_another(paired: Figure) -> None:
    """Extents on the page, in pixels: of the legend of classifiers and panels, and of all labels among themselves."""
    FigureCanvasAgg(paired).draw()
    middle = paired.subfigs[1]
    (legend,) = middle.legends
    assert not any(legend.get_window_extent().overlaps(axes.bbox) for axes in middle.axes)
    labels = [
        text
        for axes in (*paired.subfigs[0].axes, *middle.axes)
        for text in (*((axes.xaxis.label, axes.yaxis.label) if axes.axison else ()), axes.title, *axes.texts)
        if text.get_text()
    ]
    extents = [text.get_window_extent() for text in labels]
    overlapping = [
        (one.get_text(), other.get_text())
        for index, one in enumerate(labels)
        for number, other in enumerate(labels[:index])
        if extents[index].overlaps(extents[number])
    ]
    assert len(labels) > 50
    assert overlapping == []


def test_the_errors_panel_holds_errors_of_any_size() -> None:
    axes = Figure().subplots()
    true = np.linspace(17, 24, 200)
    panels.errors(axes, true, true + np.linspace(0, 5, 200), [])
    low, high = axes.get_ylim()
    assert low <= -1.0
    assert high > 4.9


def test_unpaired_controls_and_confusers_have_their_own_curves_and_examples(tmp_path: Path) -> None:
    rows = _rows()
    for row in rows[::4]:
        as_control(row)
    confusers = [as_control(row) | {"control_kind": "ring_proxy"} for row in stamp_rows(6, seed=5)]
    figure = _page(tmp_path, rows, negatives=confusers)
    texts = _texts(figure)
    assert {"unpaired negative", "unpaired controls", "confusers", "unpaired", "ring proxy"} <= set(texts)
    assert any("16 unpaired negatives" in text for text in texts)


def test_comparisons_with_other_galaxies_get_panels_and_what_was_not_measured_is_said(tmp_path: Path) -> None:
    few = {"metadata": {"logistic": "too few", "boosting": AUC}}
    auc = {"control": {"core": {"logistic": AUC, "boosting": AUC}}, "unpaired": few, "something_new": few}
    figure = _page(tmp_path, _rows(), shortcuts={"pairs": 1, "auc": auc})
    titles = [axes.get_title() for axes in figure.subfigs[1].axes]
    assert titles[:4] == ["vs own control", "vs hard negative", "vs unpaired control", "vs something new"]
    texts = _texts(figure)
    assert texts.count("too few") == 2
    # Core and metadata: one of them in three panels, both in that of hard negatives.
    assert texts.count("not measured") == 5


def test_a_refusal_and_its_reason_are_on_the_page(tmp_path: Path) -> None:
    texts = _texts(_page(tmp_path, _rows(), verdict="refused", reasons=["3 hosts lie in more than one split"]))
    assert "verdict: refused" in texts
    assert "refused: 3 hosts lie in more than one split" in texts


def test_warnings_are_on_the_page_and_those_without_room_are_counted(tmp_path: Path) -> None:
    told = [f"cells of the grid are uneven in stratum {number}, which is long to say" for number in range(9)]
    texts = _texts(_page(tmp_path, _rows(), warnings=told))
    assert "warning: cells of the grid are uneven in" in texts
    assert "  … 9 in all: see quality.json" in texts
    assert len([text for text in texts if text.startswith("warning: ")]) < 9


def test_the_command_line_writes_the_same_bytes_every_time_in_both_formats(tmp_path: Path) -> None:
    stamps, manifest = write_stamps(tmp_path, _rows())
    arc_light = _arc_light(tmp_path, _rows(), stamps=manifest.sha256)
    (tmp_path / "quality.json").write_text(json.dumps(_quality(manifest.sha256)))
    options = ["--name", "v9", "--stamps", str(stamps), "--quality", str(tmp_path / "quality.json")]
    options += ["--arc-light", str(arc_light), "--settings", '{"examples": 4}', "--output"]
    pages = [[tmp_path / f"{name}.{suffix}" for suffix in ("png", "pdf")] for name in "ab"]
    for paths in pages:
        main([*options, *map(str, paths)])
    for first, second in zip(*pages, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert len(first.read_bytes()) > 10_000


@pytest.mark.parametrize("mixed", ["quality", "negatives", "no negatives", "arc_light"])
def test_numbers_of_other_stamps_or_negatives_are_refused(tmp_path: Path, mixed: str) -> None:
    stamps, manifest = write_stamps(tmp_path, _rows())
    confusers = [as_control(row) | {"control_kind": "ring_proxy"} for row in stamp_rows(6, seed=5)]
    path, negatives = write_negatives(tmp_path, confusers)
    quality = _quality("others" if mixed == "quality" else manifest.sha256, negatives_sha256=[negatives.sha256])
    if mixed == "negatives":
        quality["negatives_sha256"] = ["others"]
    (tmp_path / "quality.json").write_text(json.dumps(quality))
    arc_light = _arc_light(tmp_path, _rows(), stamps="others" if mixed == "arc_light" else manifest.sha256)
    options = ["--name", "v9", "--stamps", str(stamps), "--quality", str(tmp_path / "quality.json")]
    options += [] if mixed == "no negatives" else ["--negatives", str(path)]
    name, of = ("arc_light", "stamps") if mixed == "arc_light" else ("quality", mixed.split()[-1])
    of = "stamps" if of == "quality" else of
    with pytest.raises(BadInputError, match=rf"{name}\.json was made from other {of}"):
        main([*options, "--arc-light", str(arc_light), "--output", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_stamps_without_arcs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to show"):
        _page(tmp_path, [row | {"is_control": 1} for row in _rows()])


def _heights(curve: Curve) -> np.ndarray:
    axes = Figure().subplots()
    panels.distributions(axes, "x [arcsec]", [curve], bins=10)
    values, edges, _ = axes.patches[0].get_data()
    return values * np.diff(edges)


def test_a_histogram_has_unit_area_and_follows_its_weights() -> None:
    values = np.repeat([0.0, 1.0], 500)
    plain = _heights(Curve("", values, "black"))
    assert plain.sum() == pytest.approx(1.0)
    assert plain[0] == pytest.approx(0.5)
    weighted = _heights(Curve("", values, "black", weights=np.repeat([1.0, 3.0], 500)))
    assert weighted[0] == pytest.approx(0.25)


def test_an_outlier_does_not_squeeze_a_histogram_but_counts_in_its_norm() -> None:
    values = np.append(np.linspace(0, 1, 999), 1e6)
    heights = _heights(Curve("", values, "black"))
    assert (heights > 0.05).all()
    assert heights.sum() < 1.0


def test_values_that_are_missing_are_left_out() -> None:
    axes = Figure().subplots()
    panels.distributions(axes, "x", [Curve("none", np.full(5, np.nan), "black")], bins=5)
    assert [text.get_text() for text in axes.texts] == ["not in this dataset"]
