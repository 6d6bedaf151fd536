"""Arrays as NPZ bytes: equal arrays give equal bytes, and whatever is wrong with bytes is an NpzError."""

import gzip
import io
import random
import zipfile
from collections.abc import Sequence

import numpy as np
import pytest

from dark_halo_scope.core.npz import MAX_MEMBERS, NpzError, decode_npz, encode_npz, npz_names, open_npz, read_array

PIXELS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def savez(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("level", [0, 1])
def test_numpy_opens_what_is_written_and_scalars_and_text_stay_what_they_are(level: int) -> None:
    blob = encode_npz({"a": PIXELS, "n": np.array(1.5), "t": np.array("text")}, level)
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["a"], PIXELS)
        assert archive["n"].shape == archive["t"].shape == ()
        assert (archive["n"], archive["t"]) == (1.5, "text")
    assert npz_names(blob) == ["a", "n", "t"]


def test_equal_arrays_give_equal_bytes_however_they_lie_in_memory() -> None:
    wide = np.repeat(PIXELS, 2, axis=1)
    for same in (PIXELS.copy(order="F"), wide[:, ::2], PIXELS.T.copy().T):
        assert encode_npz({"a": same}) == encode_npz({"a": PIXELS})


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (4, 3, 2), (0, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_any_shape_is_read_in_its_own_dtype(shape: Sequence[int], order: str) -> None:
    array = np.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float16), order=order)
    with open_npz(savez(a=array, b=PIXELS)) as archive:
        found = read_array(archive, "a")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, array)


def test_planes_come_as_float32_from_a_gzip_wrapper_too() -> None:
    blob = savez(a=PIXELS.astype(np.float64), b=PIXELS)
    for given in (blob, gzip.compress(blob)):
        for plane in decode_npz(given, ["b", "a"]):
            assert plane.dtype == np.float32
            np.testing.assert_array_equal(plane, PIXELS)


def test_what_is_no_plane_is_refused() -> None:
    for array in (PIXELS[None], PIXELS[0], PIXELS[:0]):
        with pytest.raises(NpzError, match=r"a has shape .*\(H, W\) is needed"):
            decode_npz(savez(a=array), ["a"])
    with pytest.raises(NpzError, match=r"lacks c; it holds a\.npy, b\.npy"):
        decode_npz(savez(b=PIXELS, a=PIXELS), ["c"])
    with pytest.raises(NpzError, match="not a stamp"):
        decode_npz(savez(**{f"a{n}": PIXELS for n in range(MAX_MEMBERS + 1)}), ["a0"])


def test_only_as_many_bytes_are_read_as_are_allowed() -> None:
    with open_npz(savez(a=PIXELS)) as archive:
        with pytest.raises(NpzError, match=r"a says it inflates to 268 bytes: refused, above 267\."):
            read_array(archive, "a", 267)
        np.testing.assert_array_equal(read_array(archive, "a", 268), PIXELS)


def test_a_header_of_another_length_or_of_negative_lengths_is_refused() -> None:
    for claimed in ("(5, 8)", "(-5, -7)", "(-35, -1)"):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, PIXELS, version=(1, 0))
        claim = f"{claimed}, }}".encode()
        start = buffer.getvalue().index(b"(5, 7), }")
        header = buffer.getvalue()[:start] + claim + buffer.getvalue()[start + len(claim) :]
        archived = io.BytesIO()
        with zipfile.ZipFile(archived, "w") as archive:
            archive.writestr("a.npy", header)
        with open_npz(archived.getvalue()) as archive, pytest.raises(NpzError, match="they disagree"):
            read_array(archive, "a")


def test_a_directory_that_points_to_before_the_file_is_damage() -> None:
    blob = bytearray(encode_npz({"a": PIXELS}))
    blob[-6:-2] = (int.from_bytes(blob[-6:-2], "little") + 1000).to_bytes(4, "little")
    with pytest.raises(NpzError, match="damaged"):
        decode_npz(bytes(blob), ["a"])


@pytest.mark.parametrize("level", [0, 1])
def test_bytes_with_some_of_them_changed_are_the_same_array_or_an_npz_error(level: int) -> None:
    blob, rng = encode_npz({"a": PIXELS}, level), random.Random(3)
    for _ in range(3000):
        changed = bytearray(blob)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(blob))] = rng.randrange(256)
        try:
            [found] = decode_npz(bytes(changed), ["a"])
        except NpzError:
            continue
        np.testing.assert_array_equal(found, PIXELS)
