"""What the stamp codec promises."""

import contextlib
import gzip
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dark_halo_scope.core.errors import DarkHaloScopeError
from dark_halo_scope.core.npz import MAX_MEMBER_BYTES
from dark_halo_scope.images.codec import NpzError, decode_stamp, encode_stamp, stamp_bands


def _savez(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _stamp(size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.01, (3, size, size)).astype(np.float32)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8).map(lambda s: (3, s[0], s[0])),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    st.sampled_from([0, 1, 6]),
)
def test_every_float32_stamp_comes_back_bit_for_bit(image: np.ndarray, level: int) -> None:
    assert decode_stamp(encode_stamp(image, level=level)).tobytes() == image.tobytes()


def test_numpy_opens_what_is_written() -> None:
    image = _stamp()
    with np.load(io.BytesIO(encode_stamp(image)), allow_pickle=False) as archive:
        assert sorted(archive) == ["image_g", "image_r", "image_z"]
        np.testing.assert_array_equal(archive["image_r"], image[1])
        assert archive["image_r"].dtype == np.float32


def test_equal_pixels_give_equal_bytes() -> None:
    assert encode_stamp(_stamp()) == encode_stamp(_stamp().copy(order="F"))
    assert encode_stamp(_stamp()) != encode_stamp(_stamp(seed=1))


def test_blobs_of_the_earlier_pipeline_are_read_also_in_a_gzip_wrapper() -> None:
    image = _stamp()
    blob = _savez(image_g=image[0], image_r=image[1], image_z=image[2])
    np.testing.assert_array_equal(decode_stamp(blob), image)
    np.testing.assert_array_equal(decode_stamp(gzip.compress(blob)), image)


def test_bands_come_in_the_order_asked_for() -> None:
    image = _stamp()
    np.testing.assert_array_equal(decode_stamp(encode_stamp(image), bands="zr"), image[[2, 1]])
    assert stamp_bands(encode_stamp(image)) == "grz"
    assert stamp_bands(_savez(image_r=image[1])) == "r"


def test_a_failed_row_that_holds_only_r_is_refused_when_three_bands_are_wanted() -> None:
    with pytest.raises(NpzError, match="lacks image_g"):
        decode_stamp(_savez(image_r=np.zeros((64, 64), np.float32)))


def test_a_bomb_is_refused_from_the_zip_directory_without_inflating_it() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for band in "grz":
            archive.writestr(f"image_{band}.npy", b"\0" * (MAX_MEMBER_BYTES + 1))
    # The member's bytes are destroyed: had the reader begun to inflate them, the complaint would be another one.
    blob = buffer.getvalue()
    broken = blob[:60] + b"\xff" * 200 + blob[260:]
    with pytest.raises(NpzError, match="refused"):
        decode_stamp(broken)


def test_a_directory_that_lies_about_the_size_is_refused() -> None:
    blob = bytearray(_savez(image_g=np.zeros((512, 512), np.float32)))
    true_size = (512 * 512 * 4 + 128).to_bytes(4, "little")
    assert blob.count(true_size) >= 1
    with pytest.raises(NpzError):
        decode_stamp(bytes(blob).replace(true_size, (64).to_bytes(4, "little")), bands="g")


def test_a_gzip_bomb_is_refused_before_it_fills_memory() -> None:
    with pytest.raises(NpzError, match="more than"):
        decode_stamp(gzip.compress(b"\0" * (200 * 1024 * 1024), compresslevel=9))


class _Canary:
    """Unpickling this would leave a mark."""

    touched = False

    def __reduce__(self) -> tuple:
        return (_mark, ())


def _mark() -> None:
    _Canary.touched = True


def test_an_object_array_is_a_value_error_and_nothing_is_unpickled() -> None:
    blob = _savez(image_g=np.array([[_Canary()]], dtype=object))
    with pytest.raises(ValueError, match="dtype object"):
        decode_stamp(blob, bands="g")
    assert not _Canary.touched


@pytest.mark.parametrize(
    "arrays",
    [
        {"image_g": np.zeros((64, 64), np.int32)},
        {"image_g": np.zeros((64, 63), np.float32)},
        {"image_g": np.zeros((4, 64, 64), np.float32)},
        {"image_g": np.zeros((0, 0), np.float32)},
        {"image_g": np.zeros((64, 64), np.complex64)},
    ],
)
def test_other_dtypes_and_shapes_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(NpzError):
        decode_stamp(_savez(**arrays), bands="g")


def test_bands_of_different_size_and_an_unexpected_size_are_refused() -> None:
    with pytest.raises(NpzError, match="equal"):
        decode_stamp(_savez(image_g=np.zeros((8, 8), np.float32), image_r=np.zeros((9, 9), np.float32)), bands="gr")
    with pytest.raises(NpzError, match=r"\(101, 101\)"):
        decode_stamp(encode_stamp(_stamp()), size=101)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_bytes_give_an_error_sentence_or_a_stamp_never_another_exception(position: int, value: int) -> None:
    blob = bytearray(encode_stamp(_stamp(16)))
    blob[position % len(blob)] = value
    image = None
    with contextlib.suppress(DarkHaloScopeError):
        image = decode_stamp(bytes(blob))
    assert image is None or image.shape == (3, 16, 16)


# Without the time of day in their headers: two workers that collect at different seconds must find the same tests.
_WRAPPED, _CUT = gzip.compress(b"no zip", mtime=0), gzip.compress(b"x" * 99, mtime=0)[:-9]


@pytest.mark.parametrize(
    "blob", [b"", b"PK", b"\x1f\x8b", _WRAPPED, _CUT], ids=["empty", "PK", "gzip", "wrapped", "cut"]
)
def test_what_is_not_an_archive_is_refused(blob: bytes) -> None:
    with pytest.raises(NpzError):
        decode_stamp(blob)
