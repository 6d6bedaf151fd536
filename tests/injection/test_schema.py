"""What the stamp schema promises: every column of phase 4c, as readers of it expect them."""

import io

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.npz import NpzError
from dark_halo_scope.injection.schema import (
    BLOB_COLUMNS,
    PHASE_4C_FIELDS,
    encode_stamp,
    require_columns,
    stamp_schema,
)

# The columns that phase 5 of the earlier pipeline required.
REQUIRED_BY_PHASE_5 = set(
    """
    task_id experiment_id selection_set_id ranking_mode selection_strategy region_id region_split brickname ra dec
    pipeline_version config_id stamp_npz stamp_size bandset ab_zp_nmgy lens_model is_control theta_e_arcsec src_dmag
    src_reff_arcsec psf_fwhm_used_r psfsize_r psfdepth_r bad_pixel_frac wise_brightmask_frac cutout_ok
    """.split()  # noqa: SIM905
)


def test_phase_4c_has_53_columns_and_all_that_phase_5_required() -> None:
    names = [field.name for field in PHASE_4C_FIELDS]
    assert len(names) == len(set(names)) == 53
    assert set(names) >= REQUIRED_BY_PHASE_5
    assert stamp_schema().names[:53] == names


def test_types_are_those_of_the_stored_data() -> None:
    schema = stamp_schema()
    assert schema.field("task_seed64").type == pa.int64()
    assert schema.field("cutout_ok").type == pa.int32()
    assert schema.field("arc_snr").type == pa.float64()
    assert schema.field("stamp_npz").type == pa.binary()
    assert not schema.field("ra").nullable
    assert schema.field("magnification").nullable


def test_added_columns_follow_and_extra_hard_negatives_come_last() -> None:
    schema = stamp_schema(("blocks",))
    added = {"split", "healpix_128", "sampling_weight", "z_phot", "arc_snr_maxpix", "lensed_mag_r", *BLOB_COLUMNS}
    assert added <= set(schema.names)
    assert schema.names[-1] == "hardneg_blocks_stamp_npz"
    assert len(schema.names) == len(set(schema.names))


def test_a_stamp_is_an_npz_of_one_float32_array_a_band() -> None:
    image = np.arange(3 * 16, dtype=np.float64).reshape(3, 4, 4)
    with np.load(io.BytesIO(encode_stamp(image)), allow_pickle=False) as archive:
        for index, band in enumerate("grz"):
            np.testing.assert_array_equal(archive[f"image_{band}"], image[index].astype(np.float32))
    with pytest.raises(NpzError):
        encode_stamp(image[:2])


def test_missing_columns_are_all_named() -> None:
    with pytest.raises(BadInputError, match=r"stamps\.parquet lacks the columns b, d"):
        require_columns(["a", "c"], ("a", "b", "c", "d"), "stamps.parquet")
