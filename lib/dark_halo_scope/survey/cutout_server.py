"""A local server of a survey's own files in the format of the Legacy Surveys' cutout service.

It stands in for the service where the survey is embedded, and in tests, where it can be told to fail:

    python -m dark_halo_scope.survey.cutout_server --survey results/survey.json --port 8080

answers /viewer/fits-cutout?ra=&dec=&layer=ls-dr10-south&pixscale=0.262&size=&bands=grz[&invvar][&maskbits] with the
headers of the service's own files (SURVEY, VERSION, IMAGETYP, BANDS, BAND0..., a target-centred TAN, IMAGEW, IMAGEH)
and, like it, with 0 where there are no data and with 404 where there is no overlap. How pixels are made:
`survey.resample`.
"""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import object_list
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE, coadd_file, products
from dark_halo_scope.survey.resample import Mosaic, mosaic, target_header

PATH = "/viewer/fits-cutout"
LAYER = "ls-dr10-south"
FAULTS = ("ok", "429", "500", "truncated", "html", "wrong_size", "wrong_scale")

_LARGEST = 3000  # as the service: more is cut down to this without a word
_OPEN_BRICKS = 4  # 20 MB of tiles each

_logger = logging.getLogger(__name__)


class SurveyPixels:
    """Cutouts of a survey's coadds; one thread at a time."""

    def __init__(self, survey: SurveyDescription) -> None:
        self._survey = survey
        self._root = storage.normalise(survey.files.coadds)
        self._bricks: OrderedDict[str, BrickCoadds | None] = OrderedDict()
        self._lock = threading.Lock()
        # What an embedded survey has, its list says; elsewhere the storage is asked.
        self._known = (
            {f"{survey.manifest.uri}/{entry.name}" for entry in object_list(survey.manifest)}
            if survey.embedded
            else None
        )

    def mosaic(self, ra: float, dec: float, size: int, pixel_scale: float) -> Mosaic | None:
        """See `resample.mosaic`."""
        with self._lock:
            return mosaic(ra, dec, size, pixel_scale, self._open)

    def close(self) -> None:
        with self._lock:
            for brick in self._bricks.values():
                if brick is not None:
                    brick.close()
            self._bricks.clear()

    def _open(self, name: str) -> BrickCoadds | None:
        if name in self._bricks:
            self._bricks.move_to_end(name)
            return self._bricks[name]
        uris = {
            product: storage.join(self._root, coadd_file(name, product, self._survey.coadd_layout))
            for product in products()
        }
        first = next(iter(uris.values()))
        exists = storage.exists(first) if self._known is None else first in self._known
        brick = (
            BrickCoadds({product: self._survey.verified(uri) for product, uri in uris.items()}, name)
            if exists
            else None
        )
        self._bricks[name] = brick
        if len(self._bricks) > _OPEN_BRICKS:
            _, oldest = self._bricks.popitem(last=False)
            if oldest is not None:
                oldest.close()
        return brick


def encode_cutout(
    pixels: Mosaic, header: fits.Header, release: str, invvar: bool = False, maskbits: bool = False
) -> bytes:
    """A FITS file as the service writes it: the image cube first, then what else was asked for.

    Args:
        header: of `target_header`.
        release: such as dr10.1; the service's VERSION has no minor number.
    """
    planes: list[tuple[str, NDArray]] = [("IMAGE", pixels.image_3HW)]
    planes += [("INVVAR", pixels.invvar_3HW)] if invvar else []
    planes += [("MASKBITS", pixels.maskbits_HW)] if maskbits else []
    hdus: list[fits.PrimaryHDU | fits.ImageHDU] = []
    for kind, data in planes:
        cards = fits.Header(
            [
                ("SURVEY", "LegacySurvey"),
                ("VERSION", release.partition(".")[0].upper()),
                ("IMAGETYP", kind),
                ("BANDS", "".join(BANDS)),
                *((f"BAND{i}", band) for i, band in enumerate(BANDS)),
            ]
        )
        cards.extend(header.cards)
        hdus.append((fits.ImageHDU if hdus else fits.PrimaryHDU)(np.ascontiguousarray(data), cards))
    stream = BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


class CutoutServer:
    """The server on a port of this machine, from the start of a `with` block to its end.

    Args:
        survey: whose coadds are served.
        port: 0 takes a free one.
        faults: what to do with the first requests, one each, of `FAULTS`; a number after a colon is the Retry-After of
            a 429. All later ones are answered well.

    Attributes:
        requests, user_agents: path with query, and who asked, of every request so far.
        most_at_once: requests that were being answered at the same time.
    """

    def __init__(self, survey: SurveyDescription, port: int = 0, faults: Iterable[str] = ()) -> None:
        self.faults = deque(_checked_fault(fault) for fault in faults)
        self.requests: list[str] = []
        self.user_agents: list[str] = []
        self.most_at_once = 0
        self._release = survey.release
        self._pixels = SurveyPixels(survey)
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._pixels.close()

    def serve(self) -> None:
        """Answer until interrupted."""
        try:
            self._server.serve_forever()
        finally:
            self._server.server_close()
            self._pixels.close()

    def begin(self, path: str, user_agent: str) -> str:
        """Note a request, and say what to do with it."""
        with self._lock:
            self.requests.append(path)
            self.user_agents.append(user_agent)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return self.faults.popleft() if self.faults else "ok"

    def end(self) -> None:
        """Note that a request has been answered."""
        with self._lock:
            self._at_once -= 1

    def answer(self, path: str, fault: str) -> tuple[int, bytes]:
        """Status and body of a request.

        Raises:
            BadInputError: the query is not one of the service.
        """
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path != PATH or query.get("layer") != LAYER:
            return 404, f"There is nothing but {PATH}?layer={LAYER} here.".encode()
        try:
            ra, dec = (float(query[name]) for name in ("ra", "dec"))
            scale = float(query.get("pixscale", PIXEL_SCALE))
            size = min(int(query.get("size", 256)), _LARGEST)
        except (KeyError, ValueError) as error:
            raise BadInputError(f"The query {parts.query!r} has no usable ra, dec, pixscale and size.") from error
        if not (0.0 <= ra < 360.0 and abs(dec) <= 90.0 and 0.0 < scale < 60.0 and size > 0):
            raise BadInputError(f"The query {parts.query!r} is out of range.")
        size += 2 * (fault == "wrong_size")
        scale *= 2.0 if fault == "wrong_scale" else 1.0
        pixels = self._pixels.mosaic(ra, dec, size, scale)
        if pixels is None:
            return 404, b"No overlap"
        header = target_header(ra, dec, size, scale)
        # As the service, which goes back to its own bands where it does not know those asked for.
        return 200, encode_cutout(pixels, header, self._release, "invvar" in query, "maskbits" in query)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, owner: CutoutServer, *arguments: object) -> None:
        self._owner = owner
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        fault, _, after = self._owner.begin(self.path, self.headers.get("User-Agent", "")).partition(":")
        try:
            if fault in ("429", "500"):
                self._send(int(fault), b"", {"Retry-After": after} if after else {})
            elif fault == "html":
                self._send(200, b"<!DOCTYPE html><html>Down for maintenance</html>", {"Content-Type": "text/html"})
            else:
                self._cutout(fault)
        finally:
            self._owner.end()

    def _cutout(self, fault: str) -> None:
        try:
            status, body = self._owner.answer(self.path, fault)
        except BadInputError as error:
            status, body = 400, str(error).encode()
        except Exception:
            _logger.exception("A request failed: %s", self.path)
            status, body = 500, b""
        if fault == "truncated":
            self._send(status, body[: len(body) // 2], {}, announced=len(body))
            self.close_connection = True
        else:
            self._send(status, body, {"Content-Type": "image/fits" if status == 200 else "text/plain"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *arguments: object) -> None:
        _logger.debug(text, *arguments)


def _checked_fault(fault: str) -> str:
    name, _, after = fault.partition(":")
    if name not in FAULTS or (after and not (name == "429" and after.isdecimal())):
        raise BadInputError(f"{fault!r} is no fault; there are {', '.join(FAULTS)}, and 429:<seconds>.")
    return fault


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the local cutout service."""
    parser = argument_parser("Serve a survey's coadds in the format of the Legacy Surveys' cutout service.")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--port", type=int, default=8080, help="port of this machine; 0 takes a free one")
    parser.add_argument(
        "--faults", default="", help=f"comma-separated: what the first requests get, of {', '.join(FAULTS)}"
    )
    args = parser.parse_args(argv)
    server = CutoutServer(load_survey(args.survey), args.port, filter(None, args.faults.split(",")))
    _logger.info("Serving %s at %s%s", args.survey, server.url, PATH)
    server.serve()


if __name__ == "__main__":
    run(main)
