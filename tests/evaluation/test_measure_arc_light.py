"""What `measure_arc_light` promises: injections, controls and known lenses measured alike, the rest counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, PSFSIZE, SIDE, SIGMA, brick_wcs, planes, write_brick
from dark_halo_scope.catalogue.lenses import SCHEMA as CATALOGUE_SCHEMA
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import sha256_file
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_path
from dark_halo_scope.evaluation.arc_light import LENSES, LIGHT
from dark_halo_scope.evaluation.measure_arc_light import main
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.injection.schema import encode_stamp
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.psf import Psf
from dark_halo_scope.lensing.render import convolve_bands, render_fine
from dark_halo_scope.lensing.sources import SersicSource
from dark_halo_scope.survey.cache_coadds import FILES, FILES_SCHEMA
from stamp_scene import stamp_rows, write_stamps

SIZE = 64
SCALE = 0.262
GALAXY = np.array([2.5, 10.0, 25.0])
COLOUR = 10 ** (-0.4 * np.array([0.3, 0.0, -0.3]))
ARC_MAG_R = 20.5


def _galaxy(rows: int, x: float, y: float) -> np.ndarray:
    """(3, rows, rows) of a galaxy at a pixel."""
    axis = np.arange(rows)
    radius = np.sqrt((axis - x) ** 2 + (axis[:, None] - y) ** 2 + 2.3**2) * SCALE
    light = np.exp(-7.67 * radius**0.25)
    return GALAXY[:, None, None] * light / light.sum()


def _arc() -> np.ndarray:
    """(3, 64, 64) of an arc of that lensed r magnitude."""
    fine = render_fine(Lens(1.5, 0.8, 0.3), SersicSource(0.5, 0.1, 0.2, 1.0, 0.8, 0.5), SIZE, SCALE)
    image = convolve_bands(fine, [Psf("moffat", 0.811 * PSFSIZE[band]) for band in "grz"], COLOUR)
    return (image / image[1].sum() * 10 ** (0.4 * (22.5 - ARC_MAG_R))).astype(np.float32)


def _pairs(count: int, arc: bool = True) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    sigma = np.array([SIGMA[band] for band in "grz"])[:, None, None]
    rows = stamp_rows(count)
    for row in rows:
        control = (rng.normal(0, 1, (3, SIZE, SIZE)) * sigma + _galaxy(SIZE, 31.5, 31.5)).astype(np.float32)
        row |= {"stamp_size": SIZE, "ctrl_stamp_npz": encode_stamp(control), "hardneg_stamp_npz": None}
        row |= {"stamp_npz": encode_stamp(control + arc * _arc()), "theta_e_arcsec_true": 1.5}
        row |= {"lensed_mag_r": ARC_MAG_R, "lensed_mag_g": ARC_MAG_R + 0.3}
    return rows


def _write_lenses(folder: Path, places: list[tuple[float, float]], **changes: Any) -> Path:
    """lenses.json of lenses at pixels of the brick."""
    rows = []
    for number, (x, y) in enumerate(places):
        ra, dec = (float(value) for value in brick_wcs().all_pix2world(x, y, 0))
        row = {"name": f"J{number}", "names": [f"J{number}"], "ra": ra, "dec": dec, "zlens_is_certain": False}
        row |= {"type": "galaxy", "grading": "confident" if number % 2 else "probable", "refs": [], "n_merged": 1}
        row |= {"discovery": "other", "tier_grade": "A", "is_desi_named": False}
        rows.append(row | changes)
    output = folder / "lenses.json"
    with attempt(output, "lenses", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA), work.prefix / "lenses.parquet")
        work.publish()
    return output


def _write_coadds(folder: Path, places: list[tuple[float, float]]) -> Path:
    """coadds.json of one brick with a lens at each of the pixels."""
    content = planes()
    half = SIZE // 2
    for x, y in places:
        light = _galaxy(SIDE, x, y)
        light[:, int(y) - half : int(y) + half, int(x) - half : int(x) + half] += _arc()
        for band, plane in zip("grz", light, strict=True):
            content[f"image-{band}"] += plane.astype(np.float32)
    paths = write_brick(folder, content)
    rows = [
        {
            "brickname": BRICK,
            "product": product,
            "path": str(path),
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
            "finite_fraction": 1.0,
            "zero_fraction": 0.0,
        }
        for product, path in paths.items()
    ]
    output = folder / "coadds.json"
    with attempt(output, "coadds", "dark_halo_scope.survey.cache_coadds", {}, []) as work:
        pq.write_table(pa.Table.from_pylist(rows, schema=FILES_SCHEMA), work.prefix / FILES)
        work.publish(facts={"missing": []})
    return output


INSIDE = [(80.0, 80.0), (80.0, 220.0), (220.0, 80.0), (220.0, 220.0)]


def _measure(folder: Path, rows: list[dict[str, Any]], lenses: Path, settings: dict[str, Any] | None = None):
    stamps, _ = write_stamps(folder, rows)
    output = folder / "arc_light.json"
    coadds = _write_coadds(folder / "bricks", INSIDE)
    paths = {"stamps": stamps, "lenses": lenses, "coadds": coadds, "output": output}
    options = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    main([*options, "--settings", json.dumps(settings or {})])
    return load_manifest(output, "arc_light")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("arc_light")
    lenses = _write_lenses(folder, [*INSIDE, (10.0, 150.0), (-4000.0, 150.0)])
    return _measure(folder, _pairs(40), lenses)


def test_the_same_arc_has_the_same_light_in_an_injection_and_in_a_real_lens(measured) -> None:
    kinds = measured.facts["kinds"]
    assert kinds["positive"]["seen"] == kinds["positive"]["n"] == 40
    assert kinds["lens"]["seen"] == kinds["lens"]["n"] == 4
    assert kinds["lens"]["mag_g"]["p50"] == pytest.approx(kinds["positive"]["mag_g"]["p50"], abs=0.2)
    assert kinds["lens"]["colour_gr"]["p50"] == pytest.approx(kinds["positive"]["colour_gr"]["p50"], abs=0.3)
    assert {"lens confident", "lens probable"} <= set(kinds)


def test_controls_are_the_floor(measured) -> None:
    control = measured.facts["kinds"]["control"]
    assert control["n"] == 40
    assert control["seen_fraction"] < 0.3


def test_it_says_of_which_stamps_it_is(tmp_path: Path) -> None:
    facts = _measure(tmp_path, _pairs(3), _write_lenses(tmp_path, [])).facts
    assert facts["stamps_sha256"] == load_manifest(tmp_path / "stamps.json", "stamps").sha256


def test_the_estimators_error_is_recorded(measured) -> None:
    facts = measured.facts
    bias = {item["low"]: item for item in facts["bias"]}
    assert bias[20.0]["n"] == 40
    # Light is lost, not made: arcs come out fainter, by less than a magnitude.
    assert 0.1 < bias[20.0]["median"] < 0.8
    assert bias[22.0] == {"low": 22.0, "high": 23.0, "n": 0, "seen": 0}
    share = facts["recovered"]["x >= 1"]
    assert share["n"] == 40
    assert 0.45 < share["p50"] < 0.9
    assert facts["recovered"]["x < 0.5"]["n"] == 0
    assert facts["true_mag_r"]["p50"] == facts["true_mag_r"]["weighted"]["p50"] == ARC_MAG_R


def test_lenses_that_cannot_be_cut_out_are_counted_by_reason(measured) -> None:
    assert measured.facts["lenses_skipped"] == {"not in the dataset's bricks": 1, "off the edge of the brick": 1}


def test_stamps_of_the_lenses_are_kept_for_the_figure(measured) -> None:
    lenses = pq.read_table(verified_path(measured, LENSES))
    assert lenses.num_rows == 4
    image = decode_stamp(lenses["stamp_npz"][0].as_py())
    assert image.shape == (3, SIZE, SIZE)
    assert np.unravel_index(image[2].argmax(), (SIZE, SIZE)) == pytest.approx((31.5, 31.5), abs=1.5)
    light = pq.read_table(verified_path(measured, LIGHT))
    assert light.num_rows == 40 + 40 + 4


def test_unpaired_controls_are_measured_and_broken_stamps_counted(tmp_path: Path) -> None:
    rows = _pairs(30)
    for row in rows[::3]:
        row |= {"is_control": 1, "stamp_npz": row["ctrl_stamp_npz"], "ctrl_stamp_npz": None, "lensed_mag_g": None}
    rows[1]["stamp_npz"] = rows[1]["stamp_npz"][:-50]
    rows[2]["ctrl_stamp_npz"] = None
    facts = _measure(tmp_path, rows, _write_lenses(tmp_path, [])).facts
    assert facts["positives"] == 20
    assert facts["kinds"]["positive"]["n"] == 19
    assert facts["kinds"]["control"]["n"] == 19 + 10
    assert facts["without_finite_pixels"] == {"control, ctrl_stamp_npz": 1, "positive, stamp_npz": 1}
    assert facts["lenses"] == 0
    assert "lens" not in facts["kinds"]


def test_of_many_rows_and_lenses_some_are_measured_the_same_however_they_lie_in_files(tmp_path: Path) -> None:
    settings = {"max_injections": 10, "max_lenses": 2}
    light = []
    for name, reverse in (("a", False), ("b", True)):
        folder = tmp_path / name
        folder.mkdir()
        rows = _pairs(25)
        manifest = _measure(folder, rows[::-1] if reverse else rows, _write_lenses(folder, INSIDE), settings)
        light.append(pq.read_table(verified_path(manifest, LIGHT)))
        assert manifest.facts["positives"] == 25
        assert manifest.facts["lenses_skipped"] == {"not drawn": 2}
    assert light[0].num_rows == 10 + 10 + 2
    assert light[0].equals(light[1])


def test_lenses_of_clusters_are_left_out(tmp_path: Path) -> None:
    facts = _measure(tmp_path, _pairs(5), _write_lenses(tmp_path, INSIDE, type="cluster")).facts
    assert facts["lenses_skipped"] == {"not the lens of a galaxy": 4}


def test_stamps_without_any_arc_are_refused(tmp_path: Path) -> None:
    rows = [row | {"is_control": 1} for row in _pairs(3)]
    with pytest.raises(BadInputError, match="No stamp of the dataset has an arc"):
        _measure(tmp_path, rows, _write_lenses(tmp_path, []))
