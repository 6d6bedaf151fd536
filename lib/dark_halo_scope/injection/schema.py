"""Columns of stamp files: those of phase 4c, in its order, types and nullability, and the ones added since.

A reader of phase 4c's stamps reads these files; files of the earlier pipeline have a subset of these columns, every
field nullable after a Spark re-read, and an `arc_snr` that means what `arc_snr_maxpix` means here.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.npz import NpzError, decode_npz, encode_npz, npz_names
from dark_halo_scope.injection.cutout_npz import CUTOUT, decode_cutout

BANDS = "grz"

_STRING, _INT32, _INT64, _FLOAT64, _BINARY = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.binary()


def _fields(names: str, dtype: pa.DataType, nullable: bool) -> list[pa.Field]:
    return [pa.field(name, dtype, nullable) for name in names.split()]


# Of a zip's first member.
_FIRST_NAME = slice(30, 36)

# The 53 columns of phase 4c.
PHASE_4C_FIELDS: tuple[pa.Field, ...] = (
    *_fields(
        "task_id experiment_id selection_set_id ranking_mode selection_strategy region_split brickname bandset "
        "config_id",
        _STRING,
        False,
    ),
    *_fields("region_id stamp_size replicate is_control cutout_ok metrics_only", _INT32, False),
    *_fields("ra dec theta_e_arcsec src_dmag src_reff_arcsec src_e shear", _FLOAT64, False),
    *_fields("task_seed64", _INT64, True),
    *_fields(
        "src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz ab_zp_nmgy psfsize_r psfdepth_r ebv arc_snr "
        "bad_pixel_frac wise_brightmask_frac psf_fwhm_used_g psf_fwhm_used_r psf_fwhm_used_z lens_e lens_phi_rad "
        "magnification tangential_stretch radial_stretch expected_arc_radius",
        _FLOAT64,
        True,
    ),
    *_fields("psf_bin depth_bin metrics_ok physics_valid", _INT32, True),
    *_fields("pipeline_version lens_model physics_warnings", _STRING, True),
    *_fields("stamp_npz", _BINARY, True),
)

# Added: the pair, the split, what the gates stratify by, why a cutout failed, and what sets classes of negatives apart.
# `theta_e_arcsec_true` is theta_E as the physics here means it, where stored data mean something else by their own.
ADDED_FIELDS: tuple[pa.Field, ...] = (
    *_fields("split", _STRING, False),
    *_fields("healpix_128", _INT64, False),
    *_fields("objid", _INT64, True),
    *_fields("galaxy_id source_mode source_id cutout_reason control_kind hard_negative_kind", _STRING, True),
    *_fields(
        "sampling_weight z_phot arc_snr_maxpix src_mag_r src_n lensed_mag_g lensed_mag_r lensed_mag_z psfsize_g "
        "psfsize_z psfdepth_g psfdepth_z gmag rmag zmag w1mag host_offset_x_arcsec host_offset_y_arcsec "
        "theta_e_arcsec_true edge_difference",
        _FLOAT64,
        True,
    ),
    *_fields("ctrl_stamp_npz hardneg_stamp_npz", _BINARY, True),
)

# `control_kind` of an unpaired dataset's controls; other negatives have the name of their class.
UNPAIRED = "unpaired"
# `hard_negative_kind`: where the arc's light was shuffled, before the PSF or after it.
SHUFFLED_IN_RINGS = "rings"
SHUFFLED_PIXELS = "pixels"

BLOB_COLUMNS = ("stamp_npz", "ctrl_stamp_npz", "hardneg_stamp_npz")


def array_name(band: str) -> str:
    """Name of a band's array in a stamp's NPZ."""
    return f"image_{band}"


def encode_stamp(image: npt.NDArray[np.floating], bands: str = BANDS, level: int = 1) -> bytes:
    """Pack a stamp as NPZ bytes that depend on its pixels alone, so that equal stamps have equal bytes.

    Args:
        image: (bands, size, size) nanomaggies per pixel; stored as float32.
        bands: one letter per plane.
        level: zlib level, 0 to store.

    Raises:
        NpzError: the planes do not match `bands`.
    """
    image = np.asarray(image, dtype=np.float32)
    if image.ndim != 3 or len(image) != len(bands):
        raise NpzError(f"A stamp of bands {bands} must have shape ({len(bands)}, size, size), not {image.shape}.")
    return encode_npz({array_name(band): plane for band, plane in zip(bands, image, strict=True)}, level)


def decode_stamp(blob: bytes, bands: str = BANDS, size: int | None = None) -> npt.NDArray[np.float32]:
    """Unpack a stamp into (bands, size, size) float32 nanomaggies per pixel.

    Args:
        blob: NPZ bytes, or those inside one gzip wrapper; or those of the real-image plan, with one array `cutout`.
        bands: the planes wanted, in this order.
        size: the size expected; None accepts any square.

    Raises:
        NpzError: (also a ValueError) not a stamp, too large, an object array, a missing band, or another shape.
    """
    planes = _planes(blob, bands)
    shapes = {plane.shape for plane in planes}
    shape = planes[0].shape
    if len(shapes) != 1 or shape[0] != shape[1] or (size is not None and shape[0] != size):
        wanted = "square and equal" if size is None else f"({size}, {size})"
        raise NpzError(f"A stamp has planes of shape {sorted(shapes)}; they must be {wanted}.")
    return np.stack(planes)


def _planes(blob: bytes, bands: str) -> list[npt.NDArray[np.float32]]:
    # The name of the first array tells an injected stamp without a look into the directory, for every one of millions.
    if blob[_FIRST_NAME] != b"image_" and CUTOUT in npz_names(blob):
        image = decode_cutout(blob)
        return [image[BANDS.index(band)] for band in bands]
    return decode_npz(blob, [array_name(band) for band in bands])


def hard_negative_column(kind: str) -> str:
    """Blob column of an extra kind of hard negative."""
    return f"hardneg_{kind}_stamp_npz"


@lru_cache
def stamp_schema(extra_hard_negatives: tuple[str, ...] = ()) -> pa.Schema:
    """Arrow schema of a stamp file with these extra kinds of hard negatives."""
    extra = [pa.field(hard_negative_column(kind), _BINARY, True) for kind in extra_hard_negatives]
    return pa.schema([*PHASE_4C_FIELDS, *ADDED_FIELDS, *extra])


def require_columns(names: list[str], required: tuple[str, ...], where: str) -> None:
    """Check that a table has what a step reads.

    Raises:
        BadInputError: the first sentence names the file and every missing column.
    """
    missing = [name for name in required if name not in names]
    if missing:
        raise BadInputError(f"{where} lacks the columns {', '.join(missing)}; it is not a file of injected stamps.")
