"""Cutouts of a list of positions through the cutout service: list.json (or a CSV) -> cutouts.json.

Answers are cached: what is killed, or stopped because the service is down, goes on where it was. A position without a
usable cutout keeps its row, with the reason; what fails by fault of the service is limited by `max_failed`. An embedded
service is a local server over the survey's own files, asked over HTTP as any other.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError, StorageError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.core.redaction import redact
from dark_halo_scope.images.cutouts import KIND, Stored, write_cutouts
from dark_halo_scope.survey.cutout_config import AskingSettings, CutoutServiceSettings
from dark_halo_scope.survey.cutout_service import CutoutClient, NoCutout, fetch_list, open_client, position_reason
from dark_halo_scope.survey.description import load_survey
from dark_halo_scope.survey.names import BANDS, PIXEL_SCALE
from dark_halo_scope.survey.text_table import read_text_table

MODULE = "dark_halo_scope.images.fetch_cutouts"

_logger = logging.getLogger(__name__)


def read_positions(path: Path) -> pa.Table:
    """The rows of a list with columns ra and dec in degrees: a manifest of one Parquet file, or a CSV.

    Raises:
        BadInputError: neither, or without these columns as numbers.
    """
    if path.suffix == ".csv":
        rows = _typed(read_text_table(path))
    else:
        files = verified_paths(load_manifest(path))
        if len(files) != 1:
            raise BadInputError(f"{path} names {len(files)} Parquet files, and a list of positions is one.")
        rows = pq.read_table(files[0])
    for name in ("ra", "dec"):
        if name not in rows.column_names:
            raise BadInputError(f"{path} has no column {name}; positions are ra and dec in degrees.")
        try:
            column = rows[name].cast(pa.float64())
        except pa.ArrowInvalid as error:
            raise BadInputError(f"{path} holds a {name} that is no number ({error}).") from error
        # No number becomes NaN, and then a row with a reason.
        rows = rows.set_column(rows.column_names.index(name), name, column.fill_null(float("nan")))
    return rows


def _typed(table: pa.Table) -> pa.Table:
    """Columns of text as whole numbers, else as numbers, where every cell is one."""
    for index, name in enumerate(table.column_names):
        text = pc.utf8_trim_whitespace(table[name])
        for kind in (pa.int64(), pa.float64()):
            try:
                table = table.set_column(index, name, text.cast(kind))
                break
            except pa.ArrowInvalid:
                continue
    return table


def fetched(client: CutoutClient, rows: pa.Table, size: int, address: str, failed: Counter[str]) -> Iterator[Stored]:
    """What becomes of each row.

    Args:
        client: of the service.
        rows: with ra and dec, degrees.
        size: side, pixels.
        address: what the rows call the service; of an embedded one, not the port that it has today.
        failed: filled with reasons that are the service's fault -> how many.
    """
    ra, dec = (rows[name].to_pylist() for name in ("ra", "dec"))
    with Progress(rows.num_rows, "Fetching cutouts") as progress:
        outcomes = fetch_list(client, ra, dec, size, progress)
        for ra_deg, dec_deg, outcome in zip(ra, dec, outcomes, strict=True):
            # Of a position that is none, nothing was asked.
            asked = position_reason(ra_deg, dec_deg) is None
            url = f"{address}{client.query(ra_deg, dec_deg, size)}" if asked else None
            if isinstance(outcome, NoCutout):
                failed.update([outcome.reason] if outcome.by_service else [])
                yield Stored(None, outcome.reason, url, None)
            else:
                yield Stored(outcome.image_3HW, None, url, max(outcome.zero_fraction.values()))


def check_failed(failed: Counter[str], rows: int, limit: float) -> None:
    """Refuse a result of which the service kept back too much.

    Raises:
        StorageError: more than the share `limit` of the rows.
    """
    if sum(failed.values()) > limit * rows:
        raise StorageError(
            f"{sum(failed.values())} of {rows} cutouts failed by fault of the service ({_listed(failed)}) and "
            f"{limit:.1%} may; those that came are kept, run this step again later."
        )


def _listed(reasons: Counter[str]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))


def _reasons(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `fetch_cutouts`."""
    parser = argument_parser("Fetch the cutouts of a list of positions through the cutout service.")
    parser.add_argument("--list", type=Path, required=True, help="list.json, or a CSV with columns ra and dec")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, which an embedded service serves")
    parser.add_argument("--output", type=Path, required=True, help="cutouts.json")
    parser.add_argument("--cache", type=Path, help="folder of answers (default: cutout_cache beside the output)")
    parser.add_argument("--asking", default="{}", help="how politely the service is asked, as JSON or a path")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, CutoutServiceSettings)
    asking = load_settings(args.asking, AskingSettings, "--asking")
    survey = load_survey(args.survey)
    rows = read_positions(args.list)
    cache = args.cache or args.output.parent / "cutout_cache"
    failed: Counter[str] = Counter()
    with attempt(args.output, KIND, MODULE, settings, [args.list, args.survey]) as work:
        with open_client(settings, survey, cache, asking) as client:
            # What goes into a Parquet file is redacted by nobody else.
            address = redact(settings.service if settings.is_embedded else client.url)
            written = write_cutouts(
                work.prefix, rows, fetched(client, rows, settings.size, address, failed), settings.size
            )
        check_failed(failed, rows.num_rows, settings.max_failed)
        usable = sum(written["cutout_ok"].to_pylist())
        reasons = _reasons(written["cutout_reason"].to_pylist())
        work.publish(
            rows_in=rows.num_rows,
            rows_out=rows.num_rows,
            rows_quarantined=0,
            columns={field.name: str(field.type) for field in written.schema},
            facts={
                "rows": rows.num_rows,
                "usable": usable,
                "reasons": reasons,
                "size": settings.size,
                "bands": list(BANDS),
                "pixel_scale": PIXEL_SCALE,
                "service": settings.service,
                "layer": settings.layer,
                "on_brick_pixels": settings.on_brick_pixels,
            },
        )
    _logger.info("%d of %d cutouts are usable; others: %s", usable, rows.num_rows, reasons)


if __name__ == "__main__":
    run(main)
