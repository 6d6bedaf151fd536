"""Sweeps of DR9 and DR10, and the photometric redshifts beside them, as Arrow tables with upper-case names."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.survey.fitsfile import native, open_fits
from dark_halo_scope.survey.grid import bricks_of_ids

RELEASES = {
    "dr9": frozenset(range(9010, 9013)),
    "dr10": frozenset({10000, 10001}),
}
"""RELEASE codes that each data release's catalogues may hold together."""

IDENTITY = ("RELEASE", "BRICKID", "OBJID")
"""What identifies an object of the Legacy Surveys; a photo-z row belongs to the sweep row in the same place."""

PHOTO_Z = ("Z_PHOT_MEDIAN", "Z_PHOT_STD")

PART_ROWS = 100_000
"""Rows of a sweep that are held at once; whoever selects needs about 1 kB for each, and a sweep has millions."""

_PRE_DR9 = (
    "{path} is a catalogue of DR8 or before ({what}): its galaxy models have no Sersic index, so types and fluxes do "
    "not compare with DR9 and DR10; use the sweeps of one of those."
)


def read_sweep(
    path: Path,
    columns: Sequence[str],
    photoz: Path | None = None,
    releases: Collection[str] | None = None,
    part_rows: int = PART_ROWS,
) -> Iterator[pa.Table]:
    """Read some columns of a sweep (or Tractor) file, `part_rows` rows at a time.

    Args:
        path: a whole local FITS file; upper- or lower-case column names.
        columns: names of the DR10 data model. An `_I` column that the file lacks (DR9 has no i band) comes back null.
        photoz: its `-pz.fits`; adds Z_PHOT_MEDIAN and Z_PHOT_STD, null where the file says -99.
        releases: accepted data releases, keys of `RELEASES`; all of them by default.
        part_rows: most rows of a table. A file with `.gz` is nevertheless held whole, unpacked, by CFITSIO.

    Yields:
        at least one table; one row per object in file order; strings are stripped, vectors are fixed-size lists.

    Raises:
        CorruptDataError: the file is truncated or not FITS.
        BadInputError: another release, releases mixed, a column is missing, or the photo-z rows are of other objects.
    """
    with open_fits(path) as file:
        table = file[1]
        stored = {name.upper(): name for name in table.get_colnames()}
        if "SERSIC" not in stored:
            raise BadInputError(_PRE_DR9.format(path=path, what="there is no SERSIC column"))
        wanted = [name.upper() for name in columns]
        read = list(dict.fromkeys([*(n for n in wanted if n in stored), *IDENTITY, "BRICKNAME"]))
        missing = [n for n in [*wanted, *read] if n not in stored and not _of_i_band(n)]
        if missing:
            raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; it is not a sweep of DR9 or DR10.")
        count = table.get_nrows()
        redshifts = None if photoz is None else _Redshifts(photoz, path, count)
        codes = np.empty(0, np.int64)
        for first in range(0, max(count, 1), part_rows):
            number_N = np.arange(first, min(first + part_rows, count))
            rows = table.read(columns=[stored[n] for n in read], rows=number_N)
            data = {name: native(rows[stored[name]]) for name in read}
            codes = np.union1d(codes, data["RELEASE"])
            check_releases(codes, path, releases)
            _check_bricks(data["BRICKID"], data["BRICKNAME"], path, first)
            arrow = {n: _arrow(data[n]) if n in data else pa.nulls(len(rows), pa.float32()) for n in wanted}
            if redshifts is not None:
                arrow |= redshifts.read(number_N, data)
            yield pa.table(arrow)


def data_release(codes: Iterable[int]) -> str:
    """Data release, a key of `RELEASES`, that all RELEASE codes belong to.

    Raises:
        BadInputError: unknown codes, or codes of more than one release.
    """
    found = {int(code) for code in codes}
    for name, known in RELEASES.items():
        if found <= known:
            return name
    if found and max(found) < min(RELEASES["dr9"]):
        raise BadInputError(_PRE_DR9.format(path="The file", what=f"RELEASE {sorted(found)}"))
    raise BadInputError(f"RELEASE codes {sorted(found)} are not of one data release: {_listed()}; separate the files.")


def check_releases(codes: NDArray[np.integer], path: Path, accepted: Collection[str] | None = None) -> None:
    """Refuse a file whose rows are of another release than accepted, or of several.

    Raises:
        BadInputError: names the file and the codes.
    """
    found = np.unique(codes)
    if not len(found):
        return
    try:
        release = data_release(found)
    except BadInputError as error:
        raise BadInputError(f"{path} is refused: {error}") from error
    if accepted is not None and release not in accepted:
        raise BadInputError(
            f"{path} is a catalogue of {release} (RELEASE {found.tolist()}) where {' or '.join(sorted(accepted))} is "
            "expected; give the sweeps of one release."
        )


def check_one_version(paths: Iterable[str]) -> None:
    """Refuse sweeps of 10.0 beside those of 10.1: only the directory tells them apart, their RELEASE is the same.

    Raises:
        BadInputError: names one file of each.
    """
    versions: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        version = next((part for part in reversed(parts[:-1]) if part in ("10.0", "10.1")), None)
        if version:
            versions.setdefault(version, path)
    if len(versions) > 1:
        raise BadInputError(
            f"Sweeps of different versions are mixed, {' and '.join(sorted(versions.values()))}: 10.0 has defective "
            "sub-blobs; give only those of 10.1."
        )


def _check_bricks(brickid: NDArray[np.int32], brickname: NDArray[np.str_], path: Path, first: int) -> None:
    """Refuse a file in which a brick has another one's name: its pixels would be looked up in the wrong place.

    Args:
        first: number of the first of these rows in the file, for the error.
    """
    ids, inverse = np.unique(brickid, return_inverse=True)
    expected = bricks_of_ids(ids).name[inverse]
    wrong = np.flatnonzero(expected != brickname)
    if len(wrong):
        row = int(wrong[0])
        raise BadInputError(
            f"{path} row {first + row} has BRICKNAME {str(brickname[row])!r} but BRICKID {brickid[row]}, which is "
            f"{expected[row]}; fetch the file again."
        )


class _Redshifts:
    """A photo-z sweep beside its sweep: the same objects, row by row."""

    def __init__(self, path: Path, sweep: Path, count: int) -> None:
        self.path, self.sweep = path, sweep
        with open_fits(path) as file:
            self.stored = {name.upper(): name for name in file[1].get_colnames()}
            rows = file[1].get_nrows()
        missing = [n for n in PHOTO_Z if n not in self.stored]
        if missing:
            raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; it is not a photo-z sweep.")
        if rows != count:
            raise BadInputError(f"{path} has {rows} rows where {sweep} has {count}; they are not of one version.")

    def read(self, number_N: NDArray[np.int64], data: dict[str, NDArray]) -> dict[str, pa.Array]:
        """Redshifts of these rows, whose identity is in the sweep's `data`."""
        identity = [n for n in IDENTITY if n in self.stored]
        with open_fits(self.path) as file:
            rows = file[1].read(columns=[self.stored[n] for n in (*PHOTO_Z, *identity)], rows=number_N)
        for name in identity:
            differs = np.flatnonzero(rows[self.stored[name]] != data[name])
            if len(differs):
                raise BadInputError(
                    f"{self.path} and {self.sweep} are not row by row: {name} differs in row {number_N[differs[0]]}."
                )
        return {n: _valid_or_null(native(rows[self.stored[n]]).astype(np.float32)) for n in PHOTO_Z}


def _valid_or_null(values: NDArray[np.float32]) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values) | (values < -1))


def _of_i_band(name: str) -> bool:
    return name.endswith("_I")


def _arrow(column: NDArray) -> pa.Array:
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(column).ravel()), column.shape[1])


def _listed() -> str:
    return "; ".join(f"{name} is {', '.join(map(str, sorted(codes)))}" for name, codes in RELEASES.items())
