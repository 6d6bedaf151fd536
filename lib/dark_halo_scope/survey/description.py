"""survey.json: which survey results are of and where its files lie. Every later stage starts from it."""

from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from dark_halo_scope.core import storage
from dark_halo_scope.core.errors import CorruptDataError
from dark_halo_scope.core.manifest import Manifest, load_manifest, scratch_directory, verified_path
from dark_halo_scope.survey.config import SurveyFiles
from dark_halo_scope.survey.names import CoaddLayout
from dark_halo_scope.survey.sweeps import RELEASES, check_one_version

KIND = "survey"


class SurveyDescription(BaseModel):
    """A survey whose files are named by full URIs; of an embedded one, `manifest` lists every file and its checksum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    release: str
    region: str
    coadd_layout: CoaddLayout
    files: SurveyFiles
    embedded: bool
    manifest: Manifest

    @property
    def releases(self) -> tuple[str, ...]:
        """Keys of `sweeps.RELEASES` that its sweeps may be of."""
        return tuple(key for key in RELEASES if key == self.release.partition(".")[0])

    def sweep_pairs(self) -> list[tuple[str, str | None]]:
        """URIs of each sweep and of its photo-z sweep (None where there is none), sorted by name.

        Raises:
            BadInputError: sweeps of different versions are mixed, or a directory cannot be listed.
        """
        sweeps = [uri for uri in _listed(self.files.sweeps) if not _stem(uri).endswith("-pz")]
        check_one_version(sweeps)
        photoz = {_stem(uri).removesuffix("-pz"): uri for uri in _listed(self.files.photoz)}
        return [(uri, photoz.get(_stem(uri))) for uri in sorted(sweeps, key=_stem)]

    def verified(self, uri: str) -> Path:
        """Local path of one of this survey's files, given as `files` names it.

        Of an embedded survey it is checked against its checksum on first use; a remote file is fetched.

        Raises:
            CorruptDataError: the file is missing or changed.
            StorageError: it cannot be fetched.
        """
        if self.embedded:
            return verified_path(self.manifest, uri.removeprefix(f"{self.manifest.uri}/"))
        if storage.is_local(uri):
            path = storage.local_path(uri)
            if not path.is_file():
                raise CorruptDataError(f"{path}, a file of survey {self.name}, is missing; correct config/surveys.")
            return path
        path = scratch_directory() / "survey" / self.name / uri.partition("://")[2]
        if not path.exists():
            storage.fetch(uri, path)
        return path


def load_survey(path: Path) -> SurveyDescription:
    """Read survey.json.

    Raises:
        BadInputError: no such file, or a manifest of something else.
        CorruptDataError: damaged.
    """
    manifest = load_manifest(path, kind=KIND)
    facts = dict(manifest.facts)
    try:
        if facts["embedded"]:
            facts["files"] = {key: _below(manifest.uri, value) for key, value in facts["files"].items()}
        return SurveyDescription(**facts, manifest=manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"{path} does not describe a survey ({error}); make it again.") from error


def _below(root: str, value: str | list[str]) -> str | list[str]:
    return [storage.join(root, item) for item in value] if isinstance(value, list) else storage.join(root, value)


def _listed(where: str | list[str]) -> list[str]:
    if isinstance(where, list):
        return where
    return [uri for uri in storage.list_files(where) if uri.endswith((".fits", ".fits.gz"))]


def _stem(uri: str) -> str:
    return PurePosixPath(uri).name.removesuffix(".gz").removesuffix(".fits")
