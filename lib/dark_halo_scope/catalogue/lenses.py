"""Known and candidate lenses, from a catalogue in lenscat's format: parsed, filtered, merged and graded.

What lenscat needs care with: names, redshifts and references can be lists; redshifts hold words and question marks;
almost half of the probable galaxies come from catalogues of clusters, X-ray sources and occulting pairs; some lenses
are in it twice. A grade is not spectroscopy, and most DESI entries were found by machine learning on this survey.
"""

import csv
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.config import LensSettings
from dark_halo_scope.catalogue.crossmatch import groups_within, nearest
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt
from dark_halo_scope.core.quarantine import check_fraction
from dark_halo_scope.survey.description import load_survey

logger = logging.getLogger(__name__)

COLUMNS = ("name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref")

NOT_LENSES = (
    "Lopes et al. (2004)",  # optical clusters, NSCS
    "Gonzalez et al. (2001)",  # optical clusters, LCDCS
    "Gioia et al. (1990)",  # X-ray sources, EMSS
    'B\\"ohringer et al. (2000)',  # X-ray clusters, NORAS
    'B\\"ohringer et al. (2004)',  # X-ray clusters, REFLEX
    "Gladders et al. (2005)",  # optical clusters, RCS
    "Holwerda et al. (2015)",  # occulting galaxy pairs
    "Ebeling et al. (1998)",  # X-ray clusters, BCS
    "Ebeling et al. (2000)",  # X-ray clusters, extended BCS
    "Olsen et al. (2006)",  # optical clusters, CFHTLS
    "Popesso et al. (2004)",  # X-ray clusters, RASS-SDSS
    "Menanteau et al. (2010)",  # optical clusters, SCS
)
"""References of catalogues that do not list lenses. With these, 13,925 of lenscat's 29,717 probable galaxies go."""

# How a lens was found, by reference; the first rule that fits any of a row's references counts. Recall on what machine
# learning found in these very images is circular.
_DISCOVERY: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "machine_learning_this_survey",
        ("1906.00970", "2005.04730", "2206.02764", "2110.00023", "2210.10802", "2109.00014", "1811.03786", "ab26b6"),
    ),
    (
        "machine_learning_other_survey",
        ("1812.03168", "2004.13048", "2107.07829", "2201.11135", "2110.11972", "2110.01905", "2312.07333"),
    ),
    ("spectroscopy", ("0805.1931", "1112.3683", "2007.09006", "2206.09902", "1803.03604", "1604.01842")),
)

# Gen5-Prime's own tiers, kept apart from lenscat's grades.
_TIER_A_REFS = ("1811.03786", "ab26b6", "1906.00970")  # Jacobs et al. (2019, two papers), Huang et al. (2020)
_TIER_A_WITH_THETA_E = "2206.02764"  # Storfer et al. (2022), beyond a minimal Einstein radius
_TIER_B_REFS = ("0805.1931", "1112.3683", "1604.01842", "0911.2471")  # SLACS, BELLS and kin: known from HST images

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("names", pa.list_(pa.string()), nullable=False),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("zlens", pa.float64()),
        pa.field("zlens_is_certain", pa.bool_(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("grading", pa.string(), nullable=False),
        pa.field("refs", pa.list_(pa.string()), nullable=False),
        pa.field("discovery", pa.string(), nullable=False),
        pa.field("tier_grade", pa.string(), nullable=False),
        pa.field("tier_gen5_prime", pa.string()),
        pa.field("theta_e_arcsec", pa.float64()),
        pa.field("is_desi_named", pa.bool_(), nullable=False),
        pa.field("n_merged", pa.int32(), nullable=False),
    ]
)

_NUMBER = re.compile(r"(\d+(?:\.\d*)?)\s*([?*]?)")
_GRADES = ("confident", "probable")


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue, parsed.

    Attributes:
        catalogue: which file it is from.
        line: row number in the file, from 0.
        names, refs: each list split, in order, without repeats.
        ra, dec: degrees; NaN where the text is no number.
        zlens: first number of the list, None where there is none.
        zlens_is_certain: that number carries no mark of doubt (? or *).
    """

    catalogue: str
    line: int
    names: tuple[str, ...]
    ra: float
    dec: float
    zlens: float | None
    zlens_is_certain: bool
    kind: str
    grading: str
    refs: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """A row that is not in the result, and why."""

    entry: Entry
    reason: str
    is_bad: bool


def parse_list(text: str) -> tuple[str, ...]:
    """Split a list joined by `|`; brackets around a name go, empty parts and repeats too."""
    parts = (part.strip().removeprefix("[").removesuffix("]").strip() for part in text.split("|"))
    return tuple(dict.fromkeys(part for part in parts if part))


def parse_refs(text: str) -> tuple[str, ...]:
    """Split references: joined by `|`, and bare addresses also by blanks."""
    refs: list[str] = []
    for part in parse_list(text):
        words = part.split()
        refs.extend(words if sum("://" in word for word in words) > 1 else [part])
    return tuple(dict.fromkeys(refs))


def parse_zlens(text: str) -> tuple[float | None, bool]:
    """First redshift of a list, and whether it is free of doubt; words, `-` and `nan` are none."""
    for part in parse_list(text):
        match = _NUMBER.match(part)
        if match:
            return float(match.group(1)), match.group(2) == ""
    return None, False


def read_lenscat(path: Path, catalogue: str = "lenscat") -> list[Entry]:
    """Parse a catalogue in lenscat's format; `catalogue` names it in what is recorded.

    Raises:
        BadInputError: a column is missing.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise BadInputError(f"{path} lacks the columns {', '.join(missing)}; give a catalogue in lenscat's format.")
        return [_entry(catalogue, line, row) for line, row in enumerate(reader)]


def is_not_lens_catalogue(entry: Entry) -> str | None:
    """The catalogue of clusters, X-ray sources or occulting pairs that lists this row, if one does."""
    return next((name for ref in entry.refs for name in NOT_LENSES if ref.startswith(name)), None)


def bad_reason(entry: Entry) -> str | None:
    """Why a row cannot be used, None where it can."""
    if not (math.isfinite(entry.ra) and math.isfinite(entry.dec)):
        return "position is not finite"
    if not (0.0 <= entry.ra < 360.0 and abs(entry.dec) <= 90.0):
        return "position is out of range"
    if entry.grading not in _GRADES:
        return f"grading is {entry.grading!r}"
    return None if entry.names else "no name"


def select(entries: Sequence[Entry], settings: LensSettings) -> tuple[list[list[Entry]], list[Dropped]]:
    """Group the usable rows into lenses, best row of each first, and say which rows were dropped and why.

    The best row is confident before probable, has a certain redshift, then any, then is the first to come.
    """
    dropped: list[Dropped] = []
    kept: list[Entry] = []
    for entry in entries:
        if reason := bad_reason(entry):
            dropped.append(Dropped(entry, reason, is_bad=True))
        elif settings.drop_cluster_catalogues and (catalogue := is_not_lens_catalogue(entry)):
            dropped.append(Dropped(entry, f"listed by {catalogue}, no catalogue of lenses", is_bad=False))
        else:
            kept.append(entry)
    if not kept:
        return [], dropped
    group_N = groups_within([e.ra for e in kept], [e.dec for e in kept], settings.merge_radius_arcsec)
    groups: list[list[Entry]] = [[] for _ in range(int(group_N.max()) + 1)]
    for entry, group in zip(kept, group_N, strict=True):
        groups[group].append(entry)
    for members in groups:
        members.sort(key=lambda e: (e.grading != "confident", not e.zlens_is_certain, e.zlens is None))  # stable
        dropped.extend(Dropped(e, f"merged into {members[0].names[0]}", is_bad=False) for e in members[1:])
    return groups, dropped


def tier_grade(grading: str) -> str:
    """Tier of the calibration plan, by lenscat's grade: A is confident, B probable."""
    return "A" if grading == "confident" else "B"


def tier_gen5_prime(refs: Sequence[str], theta_e: float | None, minimum: float) -> str | None:
    """Tier of Gen5-Prime: A from Jacobs 2019, Huang 2020, or Storfer 2022 beyond `minimum` arcsec; B known from HST."""
    if _mentions(refs, _TIER_A_REFS):
        return "A"
    if _mentions(refs, (_TIER_A_WITH_THETA_E,)) and theta_e is not None and theta_e > minimum:
        return "A"
    return "B" if _mentions(refs, _TIER_B_REFS) else None


def discovery_method(refs: Sequence[str]) -> str:
    """How a lens was found: one of the rules' names, else "other"."""
    return next((method for method, marks in _DISCOVERY if _mentions(refs, marks)), "other")


def to_table(groups: Sequence[Sequence[Entry]], theta_e_G: NDArray[np.float64], settings: LensSettings) -> pa.Table:
    """One row per lens, ordered by RA then Dec; theta_e_G is (G,) arcsec, NaN where unknown."""
    rows = []
    for members, theta_e in zip(groups, theta_e_G, strict=True):
        best = members[0]
        refs = tuple(dict.fromkeys(ref for e in members for ref in e.refs))
        names = tuple(dict.fromkeys(name for e in members for name in e.names))
        with_z = [e for e in members if e.zlens is not None]
        known = None if math.isnan(theta_e) else float(theta_e)
        rows.append(
            {
                "name": best.names[0],
                "names": names,
                "ra": best.ra,
                "dec": best.dec,
                "zlens": with_z[0].zlens if with_z else None,
                "zlens_is_certain": bool(with_z) and with_z[0].zlens_is_certain,
                "type": best.kind,
                "grading": best.grading,
                "refs": refs,
                "discovery": discovery_method(refs),
                "tier_grade": tier_grade(best.grading),
                "tier_gen5_prime": tier_gen5_prime(refs, known, settings.tier_a_theta_e_arcsec),
                "theta_e_arcsec": known,
                "is_desi_named": any("DESI" in name for name in names),
                "n_merged": len(members),
            }
        )
    rows.sort(key=lambda row: (row["ra"], row["dec"], row["name"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_theta_e(paths: Sequence[Path]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions (degrees) and Einstein radii (arcsec) of the source tables, each (M,).

    Raises:
        BadInputError: a column is missing or a value is no number.
    """
    values: list[tuple[float, float, float]] = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as stream:
            try:
                for row in csv.DictReader(stream):
                    values.append((float(row["ra"]), float(row["dec"]), float(row["theta_e_arcsec"])))
            except (KeyError, TypeError, ValueError) as error:
                raise BadInputError(
                    f"{path} must have the columns ra, dec and theta_e_arcsec with a number in each ({error})."
                ) from error
    table_M3 = np.array(values, dtype=np.float64).reshape(-1, 3)
    return table_M3[:, 0], table_M3[:, 1], table_M3[:, 2]


def match_theta_e(groups: Sequence[Sequence[Entry]], settings: LensSettings) -> NDArray[np.float64]:
    """(G,) Einstein radius of each lens in arcsec from the source tables, NaN where none is near."""
    ra_M, dec_M, theta_M = read_theta_e([Path(p) for p in settings.theta_e_tables])
    index_G, _ = nearest(
        [members[0].ra for members in groups],
        [members[0].dec for members in groups],
        ra_M,
        dec_M,
        settings.theta_e_radius_arcsec,
    )
    padded_M = np.append(theta_M, np.nan)  # index -1, no match, takes the last
    return padded_M[index_G]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `match_lenses`."""
    parser = argument_parser("Read, filter, merge and grade a list of known and candidate lenses.")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, whose `lenses` are read")
    parser.add_argument("--output", type=Path, required=True, help="lenses.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, LensSettings)
    survey = load_survey(args.survey)
    with attempt(
        args.output, "lenses", "dark_halo_scope.catalogue.lenses", settings, [args.survey], args.data_root
    ) as work:
        entries = [entry for uri in survey.files.lenses for entry in read_lenscat(survey.verified(uri), uri)]
        groups, dropped = select(entries, settings)
        table = to_table(groups, match_theta_e(groups, settings), settings)
        pq.write_table(table, work.prefix / "lenses.parquet", compression="zstd")
        (work.prefix / "quarantine").mkdir()
        pq.write_table(_dropped_table(dropped), work.prefix / "quarantine" / "lenses.parquet", compression="zstd")
        bad = sum(d.is_bad for d in dropped)
        check_fraction(len(entries), bad, where=f"The reading of {args.output}")
        work.publish(
            rows_in=len(entries),
            rows_out=table.num_rows,
            rows_quarantined=len(dropped),
            columns={field.name: str(field.type) for field in SCHEMA},
            facts={
                "bad": bad,
                "from_catalogues_of_others": sum("no catalogue of lenses" in d.reason for d in dropped),
                "merged": sum(d.reason.startswith("merged") for d in dropped),
                "confident": sum(members[0].grading == "confident" for members in groups),
            },
        )
    logger.info("%d lenses of %d rows (%d dropped)", table.num_rows, len(entries), len(dropped))


def _entry(catalogue: str, line: int, row: dict[str, str]) -> Entry:
    zlens, certain = parse_zlens(row["zlens"])
    return Entry(
        catalogue=catalogue,
        line=line,
        names=parse_list(row["name"]),
        ra=_number(row["RA [deg]"]),
        dec=_number(row["DEC [deg]"]),
        zlens=zlens,
        zlens_is_certain=certain,
        kind=row["type"].strip(),
        grading=row["grading"].strip(),
        refs=parse_refs(row["ref"]),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _mentions(refs: Sequence[str], marks: Sequence[str]) -> bool:
    return any(mark in ref for ref in refs for mark in marks)


def _dropped_table(dropped: Sequence[Dropped]) -> pa.Table:
    ordered = sorted(dropped, key=lambda d: (d.entry.catalogue, d.entry.line))
    return pa.table(
        {
            "catalogue": pa.array([d.entry.catalogue for d in ordered], pa.string()),
            "line": pa.array([d.entry.line for d in ordered], pa.int64()),
            "name": pa.array([" | ".join(d.entry.names) for d in ordered], pa.string()),
            "ra": pa.array([d.entry.ra for d in ordered], pa.float64()),
            "dec": pa.array([d.entry.dec for d in ordered], pa.float64()),
            "grading": pa.array([d.entry.grading for d in ordered], pa.string()),
            "refs": pa.array([" | ".join(d.entry.refs) for d in ordered], pa.string()),
            "quarantine_reason": pa.array([d.reason for d in ordered], pa.string()),
        }
    )


if __name__ == "__main__":
    run(main)
