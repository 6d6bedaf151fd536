"""What a stored row becomes: the same pixels, its control to the bit, and columns that mean what they are called."""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brick_scene import PSFSIZE, brick_wcs, open_brick, planes, write_brick
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.injection.adopt import FAILED_BEFORE, Adopted, adopt_brick
from dark_halo_scope.injection.schema import decode_stamp, encode_stamp
from dark_halo_scope.injection.stored_audit import check_audit, check_ratio, ratio_summary, summarise
from dark_halo_scope.injection.stored_config import AuditSettings, StoredSettings, Variant
from dark_halo_scope.survey.coadds import BrickCoadds
from stored_scene import BRICKS, SCALE, brick_planes, stored_row

BRICK = BRICKS["train"]


@pytest.fixture(scope="module")
def coadds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrickCoadds]:
    folder = tmp_path_factory.mktemp("coadds")
    with BrickCoadds(write_brick(folder, brick_planes(BRICK), BRICK), BRICK) as opened:
        yield opened


def _row(variant: Variant = "v4_sota", x: float = 150.3, y: float = 140.8, **changes: Any) -> dict:
    return stored_row(variant, BRICK, x, y, **changes) | {"split": "train", "healpix_128": 77}


def _adopt(
    row: dict, coadds: BrickCoadds | None, variant: Variant = "v4_sota", audited: float = 0.0, **settings: Any
) -> Adopted:
    (adopted,) = adopt_brick([row], coadds, StoredSettings(uri="x", variant=variant, **settings), audited)
    return adopted


def test_pixels_are_taken_over_as_they_are_and_the_control_is_the_coadd(coadds: BrickCoadds) -> None:
    row = _row()
    found = _adopt(row, coadds).values
    positive, control, hard = (
        decode_stamp(found[name]) for name in ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz")
    )
    np.testing.assert_array_equal(positive, decode_stamp(row["stamp_npz"]))
    content = brick_planes(BRICK)
    x0, y0 = 150 - 32, 141 - 32
    np.testing.assert_array_equal(control[1], content["image-r"][y0 : y0 + 64, x0 : x0 + 64])
    assert found["edge_difference"] == 0.0
    assert (found["cutout_ok"], found["cutout_reason"]) == (1, None)
    arc = positive - control
    weights = np.stack([content[f"invvar-{band}"][:64, :64] for band in "grz"])
    assert found["arc_snr"] == pytest.approx(math.sqrt((arc.astype(float) ** 2 * weights).sum()), rel=1e-6)
    assert found["lensed_mag_r"] == pytest.approx(22.5 - 2.5 * math.log10(arc[1].sum(dtype=float)), abs=1e-3)
    # The same light, elsewhere.
    assert (hard - control).sum() == pytest.approx(arc.sum(), rel=1e-4)
    assert np.abs(hard - positive).max() > 0.3 * arc.max()
    assert found["hard_negative_kind"] == "pixels"
    assert found["psfsize_g"] == pytest.approx(PSFSIZE["g"])


@pytest.mark.parametrize("first", [(-32, -32), (-31, -31), (-32, -31), (-33, -32)])
@pytest.mark.parametrize(("x", "y"), [(150.0, 150.0), (150.49, 149.51), (151.5, 148.5)])
def test_a_stamps_own_pixel_grid_is_found_whatever_origin_it_was_cut_about(
    coadds: BrickCoadds, x: float, y: float, first: tuple[int, int]
) -> None:
    ring = {"src_x_arcsec": 0.0, "src_y_arcsec": 0.0, "lens_e": 0.0, "shear": 0.0, "src_e": 0.0}
    found = _adopt(_row(x=x, y=y, first=first, **ring), coadds).values
    assert found["cutout_reason"] is None
    arc = (decode_stamp(found["stamp_npz"]) - decode_stamp(found["ctrl_stamp_npz"]))[1].astype(float)
    rows, columns = np.indices(arc.shape)
    centroid = (columns * arc).sum() / arc.sum() - 31.5, (rows * arc).sum() / arc.sum() - 31.5
    assert (found["host_offset_x_arcsec"] / SCALE, found["host_offset_y_arcsec"] / SCALE) == pytest.approx(
        centroid, abs=0.02
    )


def test_a_stamp_that_lies_nowhere_in_its_brick_is_recorded_as_failed(coadds: BrickCoadds) -> None:
    elsewhere = planes(seed=12345)
    assert _adopt(_row(content=elsewhere), coadds).values["cutout_reason"] == "no pixel offset gives the stamp's edge"
    farther = _adopt(_row(first=(-27, -32)), coadds, search_pixels=2).values
    assert (farther["cutout_ok"], farther["stamp_npz"]) == (0, None)
    assert _adopt(_row(first=(-27, -32)), coadds, search_pixels=6).values["cutout_ok"] == 1
    assert _adopt(_row(x=40.0), coadds).values["cutout_ok"] == 1
    ra, _ = brick_wcs(brick=BRICK).all_pix2world(5.0, 140.8, 0)
    near_edge = _row() | {"ra": float(ra)}
    assert _adopt(near_edge, coadds).values["cutout_reason"] == "off the edge of the brick"


def test_a_stamp_of_blank_sky_that_fits_anywhere_is_not_given_a_place(tmp_path: Path) -> None:
    content = planes()
    for band in "grz":
        content[f"image-{band}"][:] = 0.01
    row = stored_row("v4_sota", "0001p000", 150.0, 150.0, content=content) | {"split": "train", "healpix_128": 77}
    with open_brick(tmp_path, content) as coadds:
        assert _adopt(row, coadds).values["cutout_reason"] == "several pixel offsets give the stamp's edge"


def test_light_of_an_arc_at_the_edge_fails_the_row_unless_wings_are_allowed(coadds: BrickCoadds) -> None:
    row = _row("v4_sota_moffat")
    stamp = decode_stamp(row["stamp_npz"])
    stamp[:, 0, :] += 2e-5
    row["stamp_npz"] = encode_stamp(stamp)
    strict = _adopt(row, coadds, "v4_sota_moffat").values
    assert strict["cutout_reason"] == "light of the arc at the stamp's edge"
    allowed = _adopt(row, coadds, "v4_sota_moffat", max_edge_difference=1e-4).values
    assert allowed["cutout_ok"] == 1
    assert allowed["edge_difference"] == pytest.approx(2e-5, rel=0.01)


def test_the_edge_of_a_stored_pair_must_be_the_same_to_the_bit(coadds: BrickCoadds) -> None:
    good = _row("v5_cosmos_paired")
    found = _adopt(good, coadds, "v5_cosmos_paired").values
    assert found["edge_difference"] == 0.0
    np.testing.assert_array_equal(decode_stamp(found["ctrl_stamp_npz"]), decode_stamp(good["ctrl_stamp_npz"]))
    content = brick_planes(BRICK)
    shifted = np.stack([content[f"image-{band}"][109:173, 119:183] for band in "grz"])
    bad = good | {"ctrl_stamp_npz": encode_stamp(shifted)}
    for opened in (coadds, None):
        reason = _adopt(bad, opened, "v5_cosmos_paired").values["cutout_reason"]
        assert reason == "positive and control differ at the edge"


def test_without_coadds_a_stored_pair_is_whole_and_what_they_would_tell_is_null() -> None:
    found = _adopt(_row("v5_cosmos_paired"), None, "v5_cosmos_paired").values
    assert found["cutout_ok"] == 1
    assert found["hardneg_stamp_npz"] is not None
    assert found["arc_snr"] is found["host_offset_x_arcsec"] is found["psfsize_g"] is None
    assert _adopt(_row(), None).values["cutout_reason"] == "coadds missing"


def test_stored_controls_alone_need_no_coadds_and_make_none(coadds: BrickCoadds) -> None:
    assert _adopt(_row(), coadds, controls="stored").values["cutout_reason"] == "no stored control"
    other_sky = _row("v5_cosmos_paired", content=planes(seed=3))
    found = _adopt(other_sky, coadds, "v5_cosmos_paired", controls="stored").values
    assert (found["cutout_ok"], found["host_offset_x_arcsec"]) == (1, None)
    assert _adopt(other_sky, coadds, "v5_cosmos_paired").values["cutout_ok"] == 0


def test_an_arc_that_an_uncentred_kernel_moved_is_noticed_and_refuses_the_dataset(coadds: BrickCoadds) -> None:
    audits = []
    for number in range(6):
        row = _row("v4_sota_moffat", 120 + 9.3 * number, 150.4, number=number, moved=(-5, -3))
        audit = _adopt(row, coadds, "v4_sota_moffat", audited=1.0).audit
        assert audit is not None
        audits.append(audit)
    summary = summarise(audits, "lacks_sqrt_q")
    assert summary["shift_x_pixels"]["p50"] == pytest.approx(-5, abs=0.1)
    assert summary["shift_y_pixels"]["p50"] == pytest.approx(-3, abs=0.1)
    assert summary["median_shift_pixels"] == pytest.approx(math.hypot(5, 3), abs=0.1)
    with pytest.raises(BadInputError, match=r"lie 5\.8 pixels"):
        check_audit(summary, AuditSettings(), "s3://stored")
    warning = check_audit(summary, AuditSettings(on_failure="flag"), "s3://stored")
    assert warning is not None
    assert "not centred" in warning


@pytest.mark.parametrize("variant", ["v3_color_relaxed", "v4_sota", "v4_sota_moffat"])
def test_an_arc_where_its_parameters_put_it_has_no_shift_and_its_own_flux(
    coadds: BrickCoadds, variant: Variant
) -> None:
    audit = _adopt(_row(variant, 151.4, 149.6), coadds, variant, audited=1.0).audit
    assert audit is not None
    summary = summarise([audit], "lacks_sqrt_q")
    assert summary["median_shift_pixels"] < 0.05
    assert summary["correlation"]["p50"] > 0.999
    assert summary["flux_ratio"]["p50"] == pytest.approx(1.0, rel=1e-4)
    assert check_audit(summary, AuditSettings(), "x") is None


def test_theta_e_without_the_root_of_q_becomes_the_true_radius_and_the_pixels_say_which_it_is(
    coadds: BrickCoadds,
) -> None:
    row = _row(lens_e=0.5, theta_e_arcsec=1.0)
    adopted = _adopt(row, coadds, audited=1.0)
    # q = 1/3: the factor of up to 1.73.
    assert adopted.values["theta_e_arcsec_true"] == pytest.approx(math.sqrt(3.0))
    assert adopted.values["theta_e_arcsec"] == 1.0
    assert adopted.audit is not None
    assert summarise([adopted.audit], "lacks_sqrt_q")["convention_that_fits"] == "lacks_sqrt_q"
    paired = _adopt(_row("v5_cosmos_paired", lens_e=0.5), coadds, "v5_cosmos_paired").values
    assert paired["theta_e_arcsec_true"] == paired["theta_e_arcsec"]
    round_lens = _adopt(_row(lens_model="SIS", lens_e=0.5), coadds).values
    assert round_lens["theta_e_arcsec_true"] == round_lens["theta_e_arcsec"]
    chosen = _adopt(row, coadds, theta_e_convention="product_average").values
    assert chosen["theta_e_arcsec_true"] == 1.0


def test_a_stamp_with_a_pixel_that_is_not_finite_is_never_used(coadds: BrickCoadds) -> None:
    row = _row()
    stamp = decode_stamp(row["stamp_npz"])
    stamp[0, 30, 30] = np.nan
    found = _adopt(row | {"stamp_npz": encode_stamp(stamp)}, coadds).values
    assert (found["cutout_ok"], found["cutout_reason"]) == (0, "pixels not finite")
    assert found["stamp_npz"] is found["ctrl_stamp_npz"] is found["hardneg_stamp_npz"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stamp_npz": None}, "stamp missing"),
        ({"stamp_npz": b"not a zip"}, "stamp not readable"),
        ({"stamp_size": 101}, "stamp not readable"),
        ({"stamp_npz": encode_stamp(np.zeros((1, 64, 64), np.float32), bands="r")}, "stamp not readable"),
        ({"stamp_npz": encode_stamp(np.zeros((3, 64, 64), np.float32))}, "every pixel 0 in g, r, z"),
        ({"cutout_ok": 0, "stamp_npz": encode_stamp(np.zeros((1, 64, 64), np.float32), bands="r")}, FAILED_BEFORE),
        ({"lens_e": None}, "no Einstein radius or psfsize_r"),
    ],
)
def test_a_stamp_that_cannot_be_used_says_why(coadds: BrickCoadds, change: dict, reason: str) -> None:
    found = _adopt(_row() | change, coadds).values
    assert (found["cutout_ok"], found["cutout_reason"]) == (0, reason)
    assert found["stamp_npz"] is None


def test_a_gzip_wrapper_around_a_stamp_changes_nothing(coadds: BrickCoadds) -> None:
    row = _row()
    wrapped = row | {"stamp_npz": gzip.compress(row["stamp_npz"])}
    assert _adopt(wrapped, coadds).values == _adopt(row, coadds).values


def test_a_stored_arc_snr_of_0_is_a_masked_stamp_and_another_unit_is_seen(coadds: BrickCoadds) -> None:
    masked = _adopt(_row(arc_snr=0.0), coadds, audited=1.0)
    assert masked.fully_masked
    assert masked.values["arc_snr_maxpix"] is None
    assert masked.values["arc_snr"] > 0
    right = _adopt(_row(), coadds, audited=1.0)
    assert right.maxpix_ratio == pytest.approx(1.0, rel=1e-5)
    assert right.values["arc_snr_maxpix"] == _row()["arc_snr"]
    wrong = _adopt(_row(arc_snr=_row()["arc_snr"] / 0.03**2), coadds, audited=1.0)
    assert wrong.maxpix_ratio == pytest.approx(1 / 0.03**2, rel=1e-5)
    assert check_ratio(ratio_summary([right.maxpix_ratio or 0.0] * 3), "s3://stored") is None
    sentence = check_ratio(ratio_summary([wrong.maxpix_ratio or 0.0] * 3), "s3://stored")
    assert "s3://stored is 1.11e+03 times (median of 3)" in (sentence or "")
    assert check_ratio(ratio_summary([]), "s3://stored") is None


def test_what_stored_rows_do_not_tell_stays_null(coadds: BrickCoadds) -> None:
    found = _adopt(_row(), coadds).values
    assert found["magnification"] is None
    assert found["src_mag_r"] is found["z_phot"] is found["rmag"] is found["objid"] is None


def test_columns_that_never_reached_a_pixel_are_not_taken_over(coadds: BrickCoadds) -> None:
    row = _row("v5_cosmos_paired", number=9)
    found = _adopt(row, coadds, "v5_cosmos_paired").values
    assert row["src_gr"] == 0.3
    assert found["src_gr"] is found["src_rz"] is found["src_e"] is found["src_phi_rad"] is None
    assert (found["src_reff_arcsec"], found["source_mode"], found["source_id"]) == (0.4, "image", "9")


def test_an_unpaired_control_is_its_stamp_and_has_no_arc(coadds: BrickCoadds) -> None:
    row = _row(is_control=True)
    found = _adopt(row, coadds, audited=1.0).values
    np.testing.assert_array_equal(decode_stamp(found["stamp_npz"]), decode_stamp(row["stamp_npz"]))
    assert (found["control_kind"], found["cutout_ok"]) == ("unpaired", 1)
    assert (
        found["theta_e_arcsec_true"] is found["arc_snr"] is found["hardneg_stamp_npz"] is found["source_mode"] is None
    )


def test_every_row_keeps_its_place_beside_one_that_fails(coadds: BrickCoadds) -> None:
    """No neighbour stands in for a row that cannot be read."""
    rows = [_row(x=120.0 + 7 * k, number=k) for k in range(4)]
    rows[2] = rows[2] | {"stamp_npz": rows[2]["stamp_npz"][:-50]}
    adopted = adopt_brick(rows, coadds, StoredSettings(uri="x", variant="v4_sota"), 0.0)
    assert [one.values["task_id"] for one in adopted] == [row["task_id"] for row in rows]
    assert [one.values["cutout_ok"] for one in adopted] == [1, 1, 0, 1]
    for row, one in zip(rows, adopted, strict=True):
        if one.values["cutout_ok"]:
            np.testing.assert_array_equal(decode_stamp(one.values["stamp_npz"]), decode_stamp(row["stamp_npz"]))
