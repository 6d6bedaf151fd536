"""What `inject_brick` and its files promise: pairs that differ by the arc alone, and failures that are never lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, PSFSIZE, SIDE, open_brick, planes, row, table, write_brick
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.injection import inject, stamp_parquet
from dark_halo_scope.injection.config import ArcSnrRange, ManifestSettings, PerSplit
from dark_halo_scope.injection.inject import inject_brick
from dark_halo_scope.injection.priors import magnitude_weight
from dark_halo_scope.injection.schema import stamp_schema
from dark_halo_scope.injection.stamp_config import HardNegativeSettings, ShotNoiseSettings, StampSettings
from dark_halo_scope.injection.stamp_parquet import parquet_bytes, write_parquet
from dark_halo_scope.survey.coadds import BrickCoadds

SETTINGS = StampSettings()
QUIET = StampSettings(shot_noise=ShotNoiseSettings(enabled=False))
MANIFEST = ManifestSettings(replicates=PerSplit(train=1, val=1, test=1))


def _one(stamps: pa.Table, index: int = 0) -> dict:
    return stamps.slice(index, 1).to_pylist()[0]


def test_a_pair_differs_by_the_arc_and_its_control_is_the_coadd(tmp_path: Path) -> None:
    content = planes()
    with open_brick(tmp_path, content) as coadds:
        stamps = inject_brick(table(row(151.3, 140.8)), coadds, None, QUIET, MANIFEST)
    assert stamps.schema == stamp_schema()
    found = _one(stamps)
    control, positive, hard = (
        decode_stamp(found[name]) for name in ("ctrl_stamp_npz", "stamp_npz", "hardneg_stamp_npz")
    )
    x0, y0 = round(151.3 - 31.5), round(140.8 - 31.5)
    cut = np.stack([content[f"image-{band}"][y0 : y0 + 64, x0 : x0 + 64] for band in "grz"])
    np.testing.assert_array_equal(control, cut)
    arc = positive - control
    invvar = np.stack([content[f"invvar-{band}"][:64, :64] for band in "grz"])
    assert found["arc_snr"] == pytest.approx(np.sqrt((arc.astype(float) ** 2 * invvar).sum()), rel=1e-3)
    # The same light, elsewhere.
    assert (hard - control).sum() == pytest.approx(arc.sum(), rel=0.01)
    assert np.abs(hard - positive).max() > 0.1 * arc.max()
    assert found["cutout_ok"] == 1
    assert found["cutout_reason"] is None
    assert found["psf_fwhm_used_r"] == pytest.approx(0.8113 * PSFSIZE["r"], rel=1e-3)


def test_the_edge_of_a_pair_is_the_same_but_for_the_arcs_faint_wings(tmp_path: Path) -> None:
    with open_brick(tmp_path) as coadds:
        found = _one(inject_brick(table(row(150, 150)), coadds, None, QUIET, MANIFEST))
    difference = decode_stamp(found["stamp_npz"]) - decode_stamp(found["ctrl_stamp_npz"])
    assert np.abs(difference[:, :4]).max() < 1e-3 * difference.max()


@pytest.mark.parametrize(("x", "y"), [(150.0, 150.0), (150.4, 149.7), (149.51, 150.49), (151.5, 148.5)])
def test_the_arc_is_centred_on_the_host_to_a_fraction_of_a_pixel(tmp_path: Path, x: float, y: float) -> None:
    """A ring around a host anywhere in its pixel: its centroid is the host's position in the brick."""
    ring = {"src_x_arcsec": 0.0, "src_y_arcsec": 0.0, "lens_e": 0.0, "shear": 0.0, "src_e": 0.0, "src_mag_r": 19.0}
    with open_brick(tmp_path) as coadds:
        found = _one(inject_brick(table(row(x, y, **ring)), coadds, None, QUIET, MANIFEST))
    arc = (decode_stamp(found["stamp_npz"]) - decode_stamp(found["ctrl_stamp_npz"]))[1].astype(float)
    rows, columns = np.indices(arc.shape)
    offset = found["host_offset_x_arcsec"] / 0.262, found["host_offset_y_arcsec"] / 0.262
    centroid = (columns * arc).sum() / arc.sum() - 31.5, (rows * arc).sum() / arc.sum() - 31.5
    assert centroid == pytest.approx(offset, abs=0.01)
    assert max(map(abs, offset)) <= 0.5 + 1e-6
    assert (x - 31.5 - offset[0]) == pytest.approx(round(x - 31.5 - offset[0]), abs=1e-6)


def test_the_weight_of_a_reweighted_magnitude_is_recorded(tmp_path: Path) -> None:
    reweighted = MANIFEST.model_copy(update={"target_arc_snr": ArcSnrRange(low=10, high=100)})
    with open_brick(tmp_path) as coadds:
        rows = table(row(150, 150, target_arc_snr=40.0, sampling_weight=None))
        found = _one(inject_brick(rows, coadds, None, SETTINGS, reweighted))
    assert found["arc_snr"] == 40.0
    expected = magnitude_weight(found["src_mag_r"], reweighted, found["src_reff_arcsec"])
    assert found["sampling_weight"] == pytest.approx(float(expected))


def _nan(content: dict, product: str) -> None:
    content[product][:] = np.nan


def _zero(content: dict, product: str) -> None:
    content[product][:] = 0


def _mostly_zero(content: dict, product: str) -> None:
    content[product][:, :170] = 0


@pytest.mark.parametrize(
    ("break_it", "product", "reason"),
    [
        (_nan, "image-g", "no finite pixel in g"),
        (_zero, "invvar-r", "no weight in r"),
        (_zero, "psfsize-g", "psfsize 0 in g"),
        (_nan, "psfsize-z", "psfsize nan in z"),
        (_mostly_zero, "invvar-z", "too few usable pixels in z"),
    ],
)
def test_a_broken_cutout_is_recorded_with_its_reason_and_has_no_stamp(
    tmp_path: Path, break_it: Callable[[dict, str], None], product: str, reason: str
) -> None:
    content = planes()
    break_it(content, product)
    with open_brick(tmp_path, content) as coadds:
        stamps = inject_brick(table(row(150, 150), row(150, 150, number=1)), coadds, None, SETTINGS, MANIFEST)
    assert stamps.num_rows == 2
    for index in range(2):
        found = _one(stamps, index)
        assert (found["cutout_ok"], found["cutout_reason"]) == (0, reason)
        assert found["stamp_npz"] is found["ctrl_stamp_npz"] is found["hardneg_stamp_npz"] is None


def test_a_stamp_off_the_edge_and_a_brick_that_is_missing_are_recorded(tmp_path: Path) -> None:
    rows = table(row(20, 150), row(150, 150, number=1))
    with open_brick(tmp_path) as coadds:
        stamps = inject_brick(rows, coadds, None, SETTINGS, MANIFEST)
    assert stamps["cutout_ok"].to_pylist() == [0, 1]
    assert stamps["cutout_reason"].to_pylist() == ["off the edge of the brick", None]
    assert inject_brick(rows, None, None, SETTINGS, MANIFEST)["cutout_reason"].to_pylist() == ["coadds missing"] * 2


def test_an_arc_that_no_pixel_sees_is_recorded_when_a_target_is_set(tmp_path: Path) -> None:
    content = planes()
    for band in "grz":
        content[f"invvar-{band}"][140:161, 140:161] = 0
    tiny = {"theta_e_arcsec": 0.0, "src_x_arcsec": 300.0, "target_arc_snr": 20.0}
    with open_brick(tmp_path, content) as coadds:
        stamps = inject_brick(table(row(150, 150, **tiny)), coadds, None, SETTINGS, MANIFEST)
    assert _one(stamps)["cutout_reason"] == "no signal of the arc"


def test_a_few_bad_pixels_become_zero_and_never_nan(tmp_path: Path) -> None:
    content = planes()
    content["image-r"][150, 150] = np.nan
    content["invvar-r"][151, 151] = np.nan
    content["maskbits"][140:150, 140:150] = 1 << 1
    content["maskbits"][150:160, 140:150] = 1 << 8
    with open_brick(tmp_path, content) as coadds:
        found = _one(inject_brick(table(row(150, 150)), coadds, None, SETTINGS, MANIFEST))
    for name in ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz"):
        assert np.isfinite(decode_stamp(found[name])).all()
    assert found["bad_pixel_frac"] == pytest.approx(100 / 64**2)
    assert found["wise_brightmask_frac"] == pytest.approx(100 / 64**2)


def test_a_control_row_is_its_cutout_and_has_no_arc(tmp_path: Path) -> None:
    control = row(150, 150, is_control=1, source_mode=None, src_mag_r=None, lens_model="CONTROL", theta_e_arcsec=0.0)
    with open_brick(tmp_path) as coadds:
        stamps = inject_brick(table(control, row(150, 150, number=1)), coadds, None, SETTINGS, MANIFEST)
    found, pair = _one(stamps, 0), _one(stamps, 1)
    assert found["stamp_npz"] == pair["ctrl_stamp_npz"]
    assert found["arc_snr"] is found["psf_fwhm_used_r"] is found["hardneg_stamp_npz"] is None


@pytest.mark.parametrize("place", [150, -500])
def test_a_negative_keeps_its_kind_also_where_its_cutout_fails(place: int, tmp_path: Path) -> None:
    confuser = row(place, 150, is_control=1, source_mode=None, src_mag_r=None, control_kind="edge_on_proxy")
    with open_brick(tmp_path) as coadds:
        found = _one(inject_brick(table(confuser), coadds, None, SETTINGS, MANIFEST))
    assert (found["control_kind"], found["cutout_ok"]) == ("edge_on_proxy", int(place == 150))


def test_rows_come_back_in_their_order_and_do_not_depend_on_each_other(tmp_path: Path) -> None:
    rows = [row(100 + 10 * k, 200 - 9 * k, number=9 - k) for k in range(5)]
    with open_brick(tmp_path) as coadds:
        together = inject_brick(table(*rows), coadds, None, SETTINGS, MANIFEST)
        alone = [inject_brick(table(one), coadds, None, SETTINGS, MANIFEST) for one in reversed(rows)]
    assert together["task_id"].to_pylist() == [one["task_id"] for one in rows]
    assert together.equals(pa.concat_tables(reversed(alone)))


def test_extra_kinds_of_hard_negatives_have_columns_of_their_own(tmp_path: Path) -> None:
    more = StampSettings(hard_negatives=HardNegativeSettings(extra=("blocks",)))
    with open_brick(tmp_path) as coadds:
        plain = _one(inject_brick(table(row(150, 150)), coadds, None, SETTINGS, MANIFEST))
        rich = _one(inject_brick(table(row(150, 150)), coadds, None, more, MANIFEST))
    assert plain["hardneg_stamp_npz"] == rich["hardneg_stamp_npz"]
    assert decode_stamp(rich["hardneg_blocks_stamp_npz"]).shape == (3, 64, 64)


def test_stamp_files_are_bytes_that_follow_from_their_rows(tmp_path: Path) -> None:
    with open_brick(tmp_path) as coadds:
        stamps = inject_brick(table(row(150, 150), row(100, 100, number=1)), coadds, None, SETTINGS, MANIFEST)
    data = parquet_bytes(stamps)
    assert data == parquet_bytes(pa.concat_tables([stamps.slice(0, 1), stamps.slice(1, 1)]))
    path = tmp_path / "stamps.parquet"
    path.write_bytes(data)
    assert pq.read_table(path).equals(stamps)
    assert pq.read_schema(path).equals(stamp_schema())


def test_the_brick_in_the_scene_is_the_one_that_rows_lie_on() -> None:
    assert row(1, 1)["brickname"] == BRICK
    assert planes()["image-g"].shape == (SIDE, SIDE)


def test_a_brick_streams_in_bounded_batches_and_its_rows_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inject, "_BATCH_ROWS", 3)
    rows = table(*[row(60 + 17 * k % 180, 60 + 41 * k % 180, number=k) for k in range(7)], row(5, 5, number=7))
    with open_brick(tmp_path) as coadds:
        order = inject.host_order(rows, coadds)
        batches = list(inject.inject_rows(rows.take(pa.array(order)), coadds, None, SETTINGS, MANIFEST))
        whole = inject_brick(rows, coadds, None, SETTINGS, MANIFEST)
    assert [batch.num_rows for batch in batches] == [3, 3, 2]
    assert pa.concat_tables(batches).equals(whole.take(pa.array(order)))


def test_a_file_is_the_same_bytes_however_its_rows_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp_parquet, "_ROW_GROUP", 4)
    with open_brick(tmp_path) as coadds:
        stamps = inject_brick(table(*[row(150, 150, number=k) for k in range(10)]), coadds, None, SETTINGS, MANIFEST)
    path = tmp_path / "pieces.parquet"
    write_parquet(path, (stamps.slice(start, 3) for start in range(0, 10, 3)), stamps.schema)
    assert path.read_bytes() == parquet_bytes(stamps)
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [4, 4, 2]
    assert pq.read_table(path).equals(stamps)


def test_stored_stamps_compressed_by_their_file_take_no_more_bytes_than_deflated_ones(tmp_path: Path) -> None:
    """RICE-compressed coadds have few distinct values; a host's control is the same for all its rows."""
    sizes = {}
    with BrickCoadds(write_brick(tmp_path, planes(), lossless=False), BRICK) as coadds:
        for level in (0, 1):
            rows = table(*[row(150, 150, number=k) for k in range(4)])
            settings = StampSettings(npz_level=level)
            sizes[level] = len(parquet_bytes(inject_brick(rows, coadds, None, settings, MANIFEST)))
    assert sizes[0] < sizes[1]
