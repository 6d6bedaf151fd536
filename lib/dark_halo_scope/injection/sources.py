"""Real galaxies as lensed sources, whatever the format of the bank that they come in.

Formats: GalSim's RealGalaxyCatalog (`galsim_bank`: COSMOS 23.5 and 25.2, AEGIS, the embedded survey's own bank) and
the earlier pipeline's HDF5 file (`hdf5_bank`). A bank is known by its content, not by its name.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import has_sha256
from dark_halo_scope.core.manifest import object_list
from dark_halo_scope.injection.galaxy_images import GalaxyImage
from dark_halo_scope.injection.galsim_bank import Folder, GalsimBank
from dark_halo_scope.injection.hdf5_bank import SIGNATURE as HDF5_SIGNATURE
from dark_halo_scope.injection.hdf5_bank import Hdf5Bank
from dark_halo_scope.injection.source_config import SourceBankSettings
from dark_halo_scope.survey.description import SurveyDescription

# Of images kept: those of a bank take 5 to 500 kB each.
_CACHE_BYTES = 100_000_000

_FITS_SIGNATURES = (b"SIMPLE  =", b"\x1f\x8b")  # plain, and gzipped


class BankFile(Protocol):
    """What a format's reader offers; galaxies are rows 0 to N - 1.

    `read` raises ValueError with a short reason where this galaxy alone is at fault, else a DarkHaloScopeError.
    """

    format: str
    path: Path
    idents: npt.NDArray[np.int64]  # (N,)
    magnitudes: npt.NDArray[np.float64]  # (N,) NaN where the bank gives none
    half_light_arcsec: npt.NDArray[np.float64]  # (N,) the catalogue's; NaN where it gives none
    file_names: list[str]  # (N,) which file holds the image
    places: npt.NDArray[np.int64]  # (N,) the HDU or row in it
    bands: list[str]  # that its images were taken in, as it names them

    def read(self, row: int) -> GalaxyImage: ...

    def files(self) -> dict[str, Path]: ...


class SourceBank:
    """Galaxies by IDENT; an image is read when it is first asked for, and the latest ones are kept."""

    def __init__(self, file: BankFile) -> None:
        """Index the galaxies.

        Raises:
            BadInputError: a repeated IDENT.
        """
        self._file = file
        self._index = {ident: row for row, ident in enumerate(file.idents.tolist())}
        if len(self._index) != len(self):
            raise BadInputError(f"Source catalogue {file.path} repeats an IDENT; remove the duplicates.")
        self._cache: OrderedDict[int, GalaxyImage] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self._file.idents)

    @property
    def file(self) -> BankFile:
        """The catalogue's columns and its uncached images."""
        return self._file

    @property
    def idents(self) -> npt.NDArray[np.int64]:
        """All IDENTs, in the catalogue's order."""
        return self._file.idents

    def galaxy(self, ident: int) -> GalaxyImage:
        """The galaxy of this IDENT.

        Raises:
            BadInputError: unknown IDENT, unreadable image, or no light above the noise.
        """
        if ident in self._cache:
            self._cache.move_to_end(ident)
            return self._cache[ident]
        if ident not in self._index:
            raise BadInputError(f"Source {ident} is not in {self._file.path}; the manifest was made from another bank.")
        try:
            galaxy = self._file.read(self._index[ident])
        except ValueError as error:
            raise BadInputError(
                f"Source {ident} of {self._file.path} is unusable ({error}); run measure_sources, which leaves it out."
            ) from error
        self._cache[ident] = galaxy
        self._cached_bytes += galaxy.image.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].image.nbytes
        return galaxy


@dataclass(frozen=True)
class LocalFolder:
    """A bank's folder on this machine."""

    path: Path

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def locate(self, name: str) -> Path:
        return self.path / name


@dataclass(frozen=True)
class SurveyFolder:
    """The folder of a survey's bank: its files are checked or fetched on first use."""

    survey: SurveyDescription
    uri: str

    def has(self, name: str) -> bool:
        uri = storage.join(self.uri, name)
        if self.survey.embedded:
            return uri.removeprefix(f"{self.survey.manifest.uri}/") in {
                entry.name for entry in object_list(self.survey.manifest)
            }
        return storage.exists(uri)

    def locate(self, name: str) -> Path:
        return self.survey.verified(storage.join(self.uri, name))


@dataclass(frozen=True)
class UnchangedFolder:
    """A bank's folder, each file's checksum compared on first use in this process."""

    folder: Folder
    sha256: Mapping[str, str]

    def has(self, name: str) -> bool:
        return self.folder.has(name)

    def locate(self, name: str) -> Path:
        return unchanged(self.folder.locate(name), self.sha256)


def unchanged(path: Path, sha256: Mapping[str, str]) -> Path:
    """The path of a bank's file, if its content is what `measure_sources` found.

    Raises:
        CorruptDataError: it is another one, or was not there then.
    """
    if path.name not in sha256 or not has_sha256(path, sha256[path.name]):
        raise CorruptDataError(f"Source bank {path} changed since sources.json; run measure_sources again.")
    return path


def open_bank(path: Path, settings: SourceBankSettings, folder: Folder | None = None) -> SourceBank:
    """Open the bank at `path`: an HDF5 bank, a catalogue in GalSim's format, or the folder that holds exactly one.

    Args:
        path: local path.
        settings: how images become sources.
        folder: of the catalogue, which holds the files that it names; None takes it from `path`.

    Raises:
        BadInputError: none or several catalogues, or one that cannot be read: no such file, another format, a missing
            column, a repeated IDENT, a file name that leaves the folder.
    """
    if path.is_dir():
        # `*_fits.fits` beside a catalogue holds GalSim's parametric fits, not images.
        found = sorted(p for p in path.glob("*catalog*.fits") if not p.name.endswith(("_fits.fits", "_selection.fits")))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise BadInputError(
                f"{path} must hold one source catalogue (*catalog*.fits); found {names}: name the file."
            )
        path = found[0]
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise BadInputError(f"Source bank {path} cannot be read ({error}).") from error
    if start.startswith(HDF5_SIGNATURE):
        return SourceBank(Hdf5Bank(path, settings))
    if start.startswith(_FITS_SIGNATURES):
        return SourceBank(GalsimBank(path, settings, folder or LocalFolder(path.parent)))
    raise BadInputError(
        f"Source bank {path} is neither a FITS catalogue in GalSim's real-galaxy format nor an HDF5 file; "
        "correct `sources` of the survey."
    )


def open_survey_bank(
    survey: SurveyDescription, settings: SourceBankSettings, sha256: Mapping[str, str] | None = None
) -> SourceBank:
    """The survey's source bank, every file checked or fetched on first use.

    Args:
        sha256: of each of its files, as sources.json has them; None before there is one.

    Raises:
        BadInputError: see `open_bank`.
        CorruptDataError: a file is missing, or is not the one that was measured; later also where an image is read.
    """
    uri = survey.files.sources
    path, folder = survey.verified(uri), SurveyFolder(survey, uri.rpartition("/")[0])
    if sha256 is None:
        return open_bank(path, settings, folder)
    return open_bank(unchanged(path, sha256), settings, UnchangedFolder(folder, sha256))
