"""NPZ files by the plan's keys: written to load without pickle, read without believing them."""

import io
import zipfile

import numpy as np
import pytest

from dark_halo_scope.core.npz import MAX_MEMBER_BYTES, NpzError
from dark_halo_scope.images.codec import decode_stamp, encode_stamp, stamp_bands
from dark_halo_scope.injection.cutout_npz import decode_cutout, encode_cutout

IMAGE = np.random.default_rng(1).normal(0, 0.1, (3, 101, 101)).astype(np.float32)
META = {"galaxy_id": "0001m002_17", "label": 1, "psfsize_r": 1.25, "pool": "", "ebv": None}


def test_numpy_opens_all_of_it_without_pickle() -> None:
    with np.load(io.BytesIO(encode_cutout(IMAGE, META)), allow_pickle=False) as archive:
        assert archive["cutout"].shape == (101, 101, 3)
        assert archive["cutout"].dtype == np.float32
        np.testing.assert_array_equal(archive["cutout"][..., 2], IMAGE[2])
        assert str(archive["meta_galaxy_id"]) == "0001m002_17"
        assert archive["meta_galaxy_id"].dtype.kind == "U"
        assert int(archive["meta_label"]) == 1
        assert float(archive["meta_psfsize_r"]) == 1.25
        assert np.isnan(archive["meta_ebv"])


def test_the_stamps_reader_takes_this_layout_and_that_of_injections() -> None:
    for blob in (encode_cutout(IMAGE, META), encode_cutout(IMAGE, META, level=1), encode_stamp(IMAGE)):
        np.testing.assert_array_equal(decode_stamp(blob, size=101), IMAGE)
        np.testing.assert_array_equal(decode_stamp(blob, "zr"), IMAGE[[2, 1]])
        assert stamp_bands(blob) == "grz"
    with pytest.raises(NpzError, match=r"\(64, 64\)"):
        decode_stamp(encode_cutout(IMAGE, META), size=64)


def test_equal_cutouts_give_equal_bytes() -> None:
    assert encode_cutout(IMAGE, META) == encode_cutout(IMAGE.copy(order="F"), dict(META))
    assert encode_cutout(IMAGE, META) != encode_cutout(IMAGE, META | {"label": 0})


class _Mark:
    touched = False

    def __reduce__(self) -> tuple:
        return (_touch, ())


def _touch() -> None:
    _Mark.touched = True


@pytest.mark.parametrize("first", ["cutout", "meta_tier"])
def test_pixels_of_a_stored_file_are_read_and_its_pickled_metadata_never_opened(first: str) -> None:
    arrays = {"cutout": np.moveaxis(IMAGE, 0, 2), "meta_tier": np.array([_Mark()], dtype=object)}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays, key=lambda name: name != first)})
    np.testing.assert_array_equal(decode_stamp(buffer.getvalue()), IMAGE)
    assert not _Mark.touched
    with pytest.raises(ValueError, match="pickle"):
        np.load(io.BytesIO(buffer.getvalue()), allow_pickle=False)["meta_tier"]


def test_pickled_pixels_are_a_value_error_and_nothing_is_unpickled() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, cutout=np.array([_Mark()], dtype=object))
    with pytest.raises(ValueError, match="dtype object"):
        decode_stamp(buffer.getvalue())
    assert not _Mark.touched


def test_a_bomb_and_other_shapes_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cutout.npy", b"\0" * (3 * MAX_MEMBER_BYTES + 1))
    with pytest.raises(NpzError, match="refused"):
        decode_cutout(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, cutout=IMAGE)
    with pytest.raises(NpzError, match="H, W, 3"):
        decode_cutout(buffer.getvalue())
    with pytest.raises(NpzError, match=r"\(3, H, W\)"):
        encode_cutout(IMAGE[:2], META)
