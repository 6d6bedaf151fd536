"""A client of the Legacy Surveys' cutout service: one request at a time, each answer checked before it is kept.

    /viewer/fits-cutout?ra=&dec=&layer=ls-dr10-south&pixscale=0.262&size=&bands=grz

An answer is a float32 cube (band, y, x) in nanomaggies per pixel, resampled onto a tangent plane about the target. The
service does not conserve flux at another pixel scale, so only the survey's own is asked for. Pixels without data are 0.

Resampling smooths and correlates noise, which a classifier sees, while the stamps that networks learn from are cut out
of coadds. On 400 galaxies of the embedded survey, the service's noise at random shifts has 0.89 of the rms and its
corners are told from the stamps' with AUC 0.89. So a plane is asked for whose pixels are those of the target's brick
(`on_brick_pixels`): interpolation at whole pixels changes nothing (1.00, AUC 0.50 on 250), and the target lies, as in a
stamp, at most half a pixel off the centre along each axis.

Answers are cached as they came, under a name that holds the checksum of their content: what is killed goes on where it
was, and a damaged file is fetched again.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from dark_halo_scope.core import http, software
from dark_halo_scope.core.errors import BadInputError, CorruptDataError, StorageError
from dark_halo_scope.core.files import write_bytes
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.core.redaction import redact
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.survey.description import SurveyDescription
from dark_halo_scope.survey.grid import brick_at
from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE
from dark_halo_scope.survey.resample import target_header

PATH = "/viewer/fits-cutout"
SCALE_TOLERANCE = 1e-3
"""Arcsec per pixel by which an answer may differ from what was asked for."""
CENTRE_TOLERANCE = 0.51
"""Pixels by which the target may lie off the centre: half of one, and what addresses are rounded by."""
BRICK_PIXELS = 3600
"""Side of a brick's images; smaller ones of an embedded survey have the same pixels about the same centre."""

_DECIMALS = 7  # of degrees in an address: a thousandth of a pixel

_DIGEST = 16
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutout:
    """One answer.

    image_3HW: nanomaggies per pixel, bands g, r, z; finite; 0 where there are no data.
    invvar_3HW: 1/nanomaggy^2, None where it was not asked for.
    maskbits_HW: bits of MASKBITS, None where they were not asked for.
    ra, dec: degrees, the centre of the tangent plane.
    pixel_scale: arcsec.
    release: what the header calls its version, such as DR10.
    """

    image_3HW: NDArray[np.float32]
    invvar_3HW: NDArray[np.float32] | None
    maskbits_HW: NDArray[np.int32] | None
    ra: float
    dec: float
    pixel_scale: float
    release: str

    @property
    def zero_fraction(self) -> dict[str, float]:
        """Share of pixels without data (exactly 0) in each band."""
        return {band: float(np.mean(plane == 0)) for band, plane in zip(BANDS, self.image_3HW, strict=True)}


@dataclass(frozen=True)
class NoCutout:
    """Why a target has no usable cutout.

    by_service: a fault of the service, which another day may not have; otherwise a fact of the sky or of the list.
    broken: what is wrong with an answer that is no cutout at all, or with getting one: such in a row stop a list.
    """

    reason: str
    by_service: bool = False
    broken: str | None = None


class OutsideFootprintError(BadInputError):
    """The service has no image of that place (404)."""


class UnusablePixelsError(CorruptDataError):
    """A cutout as it was asked for, but of bands or pixels that cannot be used: of that place, perhaps of its brick."""


class ServiceError(StorageError):
    """The service refuses a request, or fails in all attempts at it."""


def position_reason(ra: float, dec: float) -> str | None:
    """Why degrees are no position, None where they are one."""
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return "position is not finite"
    return None if 0.0 <= ra < 360.0 and abs(dec) <= 90.0 else "position is out of range"


def centre_on_pixels(ra: float, dec: float, size: int) -> tuple[float, float]:
    """The position (degrees) nearest to a target at which a plane of `size` pixels lies on the pixels of its brick.

    A brick's images are a tangent plane about the brick's centre (legacypipe's wcs_for_brick). The plane asked for is
    one about its own, turned against the brick's by at most 0.125 deg sin(Dec): a twentieth of a pixel at the corners.
    """
    brick = brick_at(ra, dec)
    wcs = WCS(target_header(float(brick.ra), float(brick.dec), BRICK_PIXELS, PIXEL_SCALE))
    middle = (size - 1) / 2
    # As `coadds.BrickCoadds.cutout` places a stamp.
    x, y = (np.floor(float(c) - middle + 0.5) + middle for c in wcs.all_world2pix(ra, dec, 0))
    centre_ra, centre_dec = wcs.all_pix2world(x, y, 0)
    return float(centre_ra), float(centre_dec)


def unusable(cutout: Cutout, max_zero_fraction: float) -> str | None:
    """Why a cutout must not be scored, None where it may."""
    for band, share in cutout.zero_fraction.items():
        if share == 1.0:
            return f"no data in {band}"
        if share > max_zero_fraction:
            return f"too many pixels without data in {band}"
    centre = cutout.image_3HW.shape[-1] // 2
    for band, plane in zip(BANDS, cutout.image_3HW, strict=True):
        if not np.any(plane[centre - 1 : centre + 1, centre - 1 : centre + 1]):
            return f"no data at the target in {band}"
    return None


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_cutout(
    data: bytes,
    where: str,
    target: tuple[float, float] | None = None,
    size: int | None = None,
    pixel_scale: float = PIXEL_SCALE,
) -> Cutout:
    """Read and check a cutout in the service's format.

    Args:
        data: a FITS file.
        where: what the sentences call it.
        target: right ascension and declination (degrees) that must lie at the centre; None takes any.
        size: side that it must have, pixels; None takes any square that is not empty.
        pixel_scale: arcsec that it must have.

    Returns:
        bands g, r, z, picked by name where the file has others too.

    Raises:
        CorruptDataError: not FITS, or not what was asked for; the sentence says in what it differs.
        OutsideFootprintError: an answer without an image.
    """
    try:
        with fits.open(BytesIO(data), memmap=False) as file:
            first, *others = list(file)
            planes = {str(hdu.header.get("IMAGETYP", "")).strip().lower(): hdu for hdu in others}
            if first.data is None:
                raise OutsideFootprintError(f"{where} holds no image: the survey does not reach there.")
            image = _bands_of(np.asarray(first.data), first.header, where)
            invvar = planes.get("invvar")
            maskbits = planes.get("maskbits")
            invvar_3HW = None if invvar is None else _bands_of(np.asarray(invvar.data), first.header, where)
            maskbits_HW = None if maskbits is None else np.asarray(maskbits.data).astype(np.int32)
            header = first.header
    except (CorruptDataError, OutsideFootprintError):
        raise
    except Exception as error:  # whatever a FITS reader raises on bytes that are none
        raise CorruptDataError(f"{where} is no FITS image ({' '.join(str(error).split())}); ask again.") from error
    _check_shape(image, size, where)
    for plane in (None if invvar_3HW is None else invvar_3HW[0], maskbits_HW):
        if plane is not None and plane.shape != image.shape[1:]:
            raise CorruptDataError(f"{where} has planes of {plane.shape} beside images of {image.shape[1:]} pixels.")
    if not np.isfinite(image).all():
        raise UnusablePixelsError(f"{where} holds {int((~np.isfinite(image)).sum())} pixels that are not finite.")
    scale = _check_wcs(header, image.shape[-1], target, pixel_scale, where)
    return Cutout(
        image_3HW=image,
        invvar_3HW=invvar_3HW,
        maskbits_HW=maskbits_HW,
        ra=float(header["CRVAL1"]),
        dec=float(header["CRVAL2"]),
        pixel_scale=scale,
        release=str(header.get("VERSION", "")).strip(),
    )


def _bands_of(cube: NDArray[Any], header: fits.Header, where: str) -> NDArray[np.float32]:
    """The planes of g, r, z of a cube (band, y, x), by the names in its header."""
    names = [str(header[f"BAND{i}"]).strip() for i in range(100) if f"BAND{i}" in header]
    if names and "".join(names) != str(header.get("BANDS", "".join(names))).strip():
        raise CorruptDataError(f"{where} contradicts itself: BANDS is {header['BANDS']!r}, BAND0... {names}.")
    names = names or list(str(header.get("BANDS", "")).strip())
    if cube.ndim != 3 or cube.dtype.kind != "f" or cube.dtype.itemsize != 4:
        raise CorruptDataError(f"{where} holds {cube.dtype} of shape {cube.shape}, not a float32 cube (band, y, x).")
    missing = [band for band in BANDS if band not in names]
    if missing or len(names) != len(cube):
        raise UnusablePixelsError(f"{where} has {len(cube)} planes of bands {names}, and g, r, z are needed.")
    return np.stack([cube[names.index(band)] for band in BANDS]).astype(np.float32)


def _check_shape(image: NDArray[np.float32], size: int | None, where: str) -> None:
    height, width = image.shape[1:]
    wanted = size if size is not None else width
    if height != width or width != wanted or width == 0:
        raise CorruptDataError(f"{where} is {height} x {width} pixels, not {wanted} x {wanted}.")


def _check_wcs(
    header: fits.Header, side: int, target: tuple[float, float] | None, pixel_scale: float, where: str
) -> float:
    try:
        wcs = WCS(header, naxis=2)
        scales = proj_plane_pixel_scales(wcs) * 3600.0
        if not wcs.has_celestial:
            raise ValueError("no celestial axes")
    except Exception as error:  # astropy raises what wcslib says, by many names
        raise CorruptDataError(f"{where} has no usable WCS ({' '.join(str(error).split())}).") from error
    if np.any(np.abs(scales - pixel_scale) > SCALE_TOLERANCE):
        raise CorruptDataError(
            f"{where} has pixels of {scales[0]:.4f} x {scales[1]:.4f} arcsec where {pixel_scale} is needed; "
            "fluxes of another scale are not comparable."
        )
    if target is not None:
        x, y = (float(value) for value in wcs.all_world2pix(*target, 0))
        centre = (side - 1) / 2
        if not max(abs(x - centre), abs(y - centre)) <= CENTRE_TOLERANCE:
            raise CorruptDataError(f"{where} has its target at ({x:.1f}, {y:.1f}), not at its centre.")
    return float(scales[0])


# --- Asking -----------------------------------------------------------------------------------------------------------


class CutoutClient:
    """Asks one service, one request at a time, and keeps good answers in a cache.

    Args:
        settings: of the service.
        url: its address, such as https://www.legacysurvey.org.
        cache: folder of answers; None keeps none.
        name: of the service in the cache; its host by default. Answers of different surveys must not mix.
        asking: how politely; the defaults' way by default.
    """

    def __init__(
        self,
        settings: CutoutServiceSettings,
        url: str,
        cache: Path | None = None,
        name: str | None = None,
        asking: AskingSettings | None = None,
    ) -> None:
        self.settings = settings
        self.asking = asking or AskingSettings()
        self.url = url.rstrip("/")
        self.host = urlsplit(url).netloc
        self.requests = 0
        """Cutouts that were not in the cache."""
        folder = (name or self.host.rpartition("@")[2]).replace(":", "_")
        self._cache = None if cache is None else cache / folder / settings.layer
        self._last_start = -np.inf
        self._session = http.open_session()
        version = software.version("dark_halo_scope")
        self._session.headers["User-Agent"] = self.asking.user_agent + (f"/{version}" if version else "")

    def close(self) -> None:
        self._session.close()

    def centre(self, ra: float, dec: float, size: int) -> tuple[float, float]:
        """The centre (degrees) of the plane that is asked for in place of a target's."""
        if self.settings.on_brick_pixels:
            ra, dec = centre_on_pixels(ra, dec, size)
        return round(ra, _DECIMALS) % 360.0, round(dec, _DECIMALS)

    def query(self, ra: float, dec: float, size: int, invvar: bool = False, maskbits: bool = False) -> str:
        """Path and query of the request for a target (degrees), the same at whatever address."""
        centre_ra, centre_dec = self.centre(ra, dec, size)
        values = {
            "ra": f"{centre_ra:.{_DECIMALS}f}",
            "dec": f"{centre_dec:.{_DECIMALS}f}",
            "layer": self.settings.layer,
            "pixscale": PIXEL_SCALE,
            "size": size,
            "bands": "".join(BANDS),
        }
        return f"{PATH}?{urlencode(values)}{'&invvar' if invvar else ''}{'&maskbits' if maskbits else ''}"

    def fetch(self, ra: float, dec: float, size: int, invvar: bool = False, maskbits: bool = False) -> Cutout:
        """The cutout of a target, from the cache where it is there and whole.

        Args:
            ra, dec: degrees.
            size: side, pixels of 0.262 arcsec.
            invvar, maskbits: whether to ask for these too.

        Raises:
            OutsideFootprintError: the service has no image there (404); it is asked once.
            CorruptDataError: the answer is not what was asked for; nothing of it is kept.
            ServiceError: the service refuses, or fails in all attempts.
        """
        query = self.query(ra, dec, size, invvar, maskbits)
        where = redact(f"{self.url}{query}")
        place = "_".join(f"{value:.{_DECIMALS}f}" for value in self.centre(ra, dec, size))
        stem = f"cutout_{place}_{size}_{''.join(BANDS)}{'_iv' if invvar else ''}{'_mb' if maskbits else ''}"
        kept = self._kept(stem)
        if kept is not None:
            return read_cutout(kept, where, (ra, dec), size)
        data = self._ask(f"{self.url}{query}")
        cutout = read_cutout(data, where, (ra, dec), size)
        if (invvar and cutout.invvar_3HW is None) or (maskbits and cutout.maskbits_HW is None):
            raise CorruptDataError(f"{where} lacks the inverse variances or mask bits that were asked for.")
        self._keep(stem, data)
        return cutout

    def _folder(self, stem: str) -> Path | None:
        # 256 folders: a directory of half a million names is slow to look into.
        return None if self._cache is None else self._cache / hashlib.sha256(stem.encode()).hexdigest()[:2]

    def _kept(self, stem: str) -> bytes | None:
        folder = self._folder(stem)
        for path in [] if folder is None else sorted(folder.glob(f"{stem}-*.fits")):
            data = path.read_bytes()
            if path.stem.rpartition("-")[2] == hashlib.sha256(data).hexdigest()[:_DIGEST]:
                return data
            _logger.warning("%s differs from the checksum in its name; fetching it again", path)
            path.unlink()
        return None

    def _keep(self, stem: str, data: bytes) -> None:
        folder = self._folder(stem)
        if folder is not None:
            write_bytes(folder / f"{stem}-{hashlib.sha256(data).hexdigest()[:_DIGEST]}.fits", data)

    def _ask(self, uri: str) -> bytes:
        """One answer, after bounded retries with backoff and jitter.

        The rules of what is retried, and for how long a server may make us wait, are those of every fetch
        (`core.http`); here each host is moreover asked by one thread at a time, and not faster than `interval_s`.
        """
        self.requests += 1
        with http.turnstile(self.host), TemporaryDirectory(prefix="dark_halo_scope-") as directory:
            path = Path(directory) / "answer.fits"
            try:
                for attempt in http.attempts(self.asking.attempts, self.asking.deadline_s):
                    with attempt:
                        self._wait()
                        http.get_once(self._session, uri, path)
            except http.RetryError as error:
                raise ServiceError(
                    f"{redact(uri)} cannot be fetched in {self.asking.attempts} attempts or "
                    f"{self.asking.deadline_s:.0f} s ({error}); try again later."
                ) from error
            except StorageError as error:
                # Our own disk, on which the answer lands; what the network raises comes as RetryError.
                if isinstance(error.__cause__, OSError):
                    raise
                raise ServiceError(str(error)) from error
            except BadInputError as error:
                # With a cause, the address could not even be asked for.
                if error.__cause__ is not None:
                    raise
                raise OutsideFootprintError(str(error)) from error
            return path.read_bytes()

    def _wait(self) -> None:
        time.sleep(max(0.0, self._last_start + self.asking.interval_s - time.monotonic()))
        self._last_start = time.monotonic()


@contextmanager
def open_client(
    settings: CutoutServiceSettings,
    survey: SurveyDescription | None = None,
    cache: Path | None = None,
    asking: AskingSettings | None = None,
) -> Iterator[CutoutClient]:
    """A client of the service that the settings name; of an embedded one, with a local server over `survey`.

    That server is asked without pauses, any other as `asking` says.

    Raises:
        BadInputError: an embedded service without a survey.
    """
    if not settings.is_embedded:
        client = CutoutClient(settings, settings.service, cache, asking=asking)
        try:
            yield client
        finally:
            client.close()
        return
    if survey is None:
        raise BadInputError("An embedded cutout service serves a survey's own files: give survey.json.")
    # Not above: the server reads coadds, which a client of a real service need not be able to.
    from dark_halo_scope.survey.cutout_server import CutoutServer

    with CutoutServer(survey) as server:
        # Named by content: its port differs from run to run, and another survey has other pixels.
        name = f"embedded-{survey.manifest.sha256[:12]}"
        client = CutoutClient(settings, server.url, cache, name, (asking or AskingSettings()).without_pauses())
        try:
            yield client
        finally:
            client.close()


def fetch_cutout(
    client: CutoutClient, ra: float, dec: float, size: int, invvar: bool = False, maskbits: bool = False
) -> Cutout | NoCutout:
    """The usable cutout of one target, or why there is none.

    Args:
        ra, dec: degrees; anything that is no position is a reason, not an error.

    Raises:
        ServiceError: the service refuses, or fails in all attempts.
        StorageError: the disk of the cache refuses.
    """
    no_position = position_reason(ra, dec)
    if no_position is not None:
        return NoCutout(no_position)
    try:
        cutout = client.fetch(ra, dec, size, invvar, maskbits)
    except OutsideFootprintError:
        return NoCutout("outside the footprint of the service")
    except CorruptDataError as error:
        _logger.warning("%s", error)
        broken = None if isinstance(error, UnusablePixelsError) else str(error)
        return NoCutout("the answer of the service was rejected", by_service=True, broken=broken)
    reason = unusable(cutout, client.settings.max_zero_fraction)
    return cutout if reason is None else NoCutout(reason)


def fetch_list(
    client: CutoutClient, ra: Iterable[float], dec: Iterable[float], size: int, progress: Progress | None = None
) -> Iterator[Cutout | NoCutout]:
    """The cutouts of many targets, one after another and in their order.

    A target that the service fails to give in all attempts, or for which it gives what is no cutout (a web page,
    another size), is passed over with a reason; so many in a row that the service itself must be broken end it. Places
    without images and cutouts with unusable bands or pixels are answers of a service that works. What came is in the
    cache: another run goes on from there.

    Args:
        client: from `open_client`.
        ra, dec: (N,) degrees.
        size: side, pixels.
        progress: advanced by one for each target.

    Raises:
        ServiceError: `max_failures_in_a_row` targets in a row cannot be had.
        StorageError: the disk of the cache refuses.
    """
    in_a_row = 0
    for ra_deg, dec_deg in zip(ra, dec, strict=True):
        before = client.requests
        outcome: Cutout | NoCutout
        try:
            outcome = fetch_cutout(client, float(ra_deg), float(dec_deg), size)
        except ServiceError as error:
            _logger.warning("%s", error)
            outcome = NoCutout("the service failed", by_service=True, broken=str(error))
        broken = outcome.broken if isinstance(outcome, NoCutout) else None
        if broken is not None:
            in_a_row += 1
            if in_a_row >= client.asking.max_failures_in_a_row:
                raise ServiceError(
                    f"The cutout service fails {in_a_row} times in a row ({broken}); cutouts so far are kept, "
                    "run this step again later."
                )
        elif client.requests > before:
            # The cache, and a position that is none, say nothing of the service.
            in_a_row = 0
        if progress is not None:
            progress.advance()
        yield outcome
