"""Anchors: known lenses in the survey's footprint, on which a finder is tried: lenses.json and lists -> list.json.

What the lens catalogues say is joined by users' own lists; one lens within the merge radius is one row. Both tier
schemes are kept apart by name (`tier_grade` of lenscat's grades, `tier_gen5_prime`), users' own are `tier_<scheme>`.
`discovery` says how a lens was found: recall on what machine learning found in these very images is circular. Rows that
are no anchors are kept with their reason.
"""

import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.anchor_config import AnchorListSettings, AnchorSettings
from dark_halo_scope.catalogue.crossmatch import groups_within, nearest
from dark_halo_scope.catalogue.lenses import tier_gen5_prime
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import attempt, load_manifest, verified_paths
from dark_halo_scope.survey.conditions import CONDITIONS, BrickConditions, read_conditions
from dark_halo_scope.survey.description import SurveyDescription, load_survey
from dark_halo_scope.survey.fitsfile import native, open_fits
from dark_halo_scope.survey.sweeps import read_sweep
from dark_halo_scope.survey.units import magnitude

MODULE = "dark_halo_scope.catalogue.anchors"
KIND = "anchors"
FILE = "anchors.parquet"

#: Where rows of the lens catalogues come from.
CATALOGUE = "catalogue"
#: What is known of a lens before it is looked up: its columns, in order; tiers of lists follow `tier_gen5_prime`.
_TEXT, _F64 = pa.string(), pa.float64()
_BEFORE_TIERS = (
    pa.field("name", _TEXT, nullable=False),
    pa.field("names", pa.list_(_TEXT), nullable=False),
    pa.field("lists", pa.list_(_TEXT), nullable=False),
    # Where it is cut out: the matched object's position, else the listed one. Degrees.
    pa.field("ra", _F64, nullable=False),
    pa.field("dec", _F64, nullable=False),
    pa.field("ra_listed", _F64, nullable=False),
    pa.field("dec_listed", _F64, nullable=False),
    pa.field("zlens", _F64),
    pa.field("lens_type", _TEXT, nullable=False),
    pa.field("grading", _TEXT),
    pa.field("refs", pa.list_(_TEXT), nullable=False),
    pa.field("discovery", _TEXT, nullable=False),
    pa.field("tier_grade", _TEXT),
    pa.field("tier_gen5_prime", _TEXT),
)
_AFTER_TIERS = (
    pa.field("stress", pa.bool_(), nullable=False),
    pa.field("theta_e_arcsec", _F64),
    pa.field("healpix_128", pa.int64(), nullable=False),
    pa.field("split", _TEXT, nullable=False),
    pa.field("brickname", _TEXT, nullable=False),
    *(pa.field(name, _F64) for name in CONDITIONS),
    # Of the nearest object in the sweeps, where they were asked. Magnitudes as observed, AB; shape_r in arcsec.
    pa.field("galaxy_id", _TEXT),
    pa.field("objid", pa.int64()),
    pa.field("type", _TEXT),
    *(pa.field(name, _F64) for name in ("gmag", "rmag", "zmag", "shape_r", "sersic", "separation_arcsec")),
    *(pa.field(f"nobs_{band}", pa.int32()) for band in "grz"),
)
_REASON = "quarantine_reason"

_SWEEP_COLUMNS = ("BRICKNAME", "OBJID", "TYPE", "RA", "DEC", *(f"FLUX_{band}" for band in "GRZ"))
_SWEEP_COLUMNS += ("SHAPE_R", "SERSIC", *(f"NOBS_{band}" for band in "GRZ"))
_SWEEP_NAME = re.compile(r"sweep-(\d{3})([pm])(\d{3})-(\d{3})([pm])(\d{3})")

Row = dict[str, Any]
_logger = logging.getLogger(__name__)


def anchor_schema(settings: AnchorSettings) -> pa.Schema:
    """Columns of the list; each scheme of a user's tiers has one."""
    tiers = list(dict.fromkeys(item.tier_column for item in settings.lists))
    return pa.schema([*_BEFORE_TIERS, *(pa.field(name, _TEXT) for name in tiers), *_AFTER_TIERS])


def catalogue_rows(lenses: pa.Table) -> list[Row]:
    """Rows of lenses.json as anchors."""
    return [
        {name: lens[name] for name in ("name", "names", "ra", "dec", "zlens", "grading", "refs", "discovery")}
        | {name: lens[name] for name in ("tier_grade", "theta_e_arcsec")}
        | {"lens_type": lens["type"], "lists": [CATALOGUE], "tiers": {}, "is_stress_list": None}
        for lens in lenses.to_pylist()
    ]


def read_list(text: str, settings: AnchorListSettings) -> list[Row]:
    """Rows of a user's list as anchors; numbers that are none are NaN.

    Raises:
        BadInputError: a column is missing, or the table has none.
    """
    reader = csv.DictReader(StringIO(text.removeprefix("\ufeff")))
    missing = [name for name in ("name", "ra", "dec") if name not in (reader.fieldnames or ())]
    if missing:
        raise BadInputError(f"{settings.path} lacks the columns {', '.join(missing)}; add them to the list of lenses.")
    return [
        {
            "name": (row["name"] or "").strip(),
            "names": [(row["name"] or "").strip()],
            "ra": _number(row["ra"]),
            "dec": _number(row["dec"]),
            "zlens": _number_or_none(row.get("zlens")),
            "grading": None,
            "refs": [],
            "discovery": (row.get("discovery") or "").strip() or "other",
            "tier_grade": None,
            "theta_e_arcsec": _number_or_none(row.get("theta_e_arcsec")),
            "lens_type": "galaxy",
            "lists": [settings.name],
            "tiers": {settings.tier_column: (row.get("tier") or "").strip() or None},
            "is_stress_list": settings.stress,
        }
        for row in reader
    ]


def bad_reason(row: Row, types: Sequence[str]) -> str | None:
    """Why a row cannot be an anchor wherever the survey reaches, None where it can."""
    if not row["name"]:
        return "no name"
    if not (math.isfinite(row["ra"]) and math.isfinite(row["dec"])):
        return "position is not finite"
    if not (0.0 <= row["ra"] < 360.0 and abs(row["dec"]) <= 90.0):
        return "position is out of range"
    return None if row["lens_type"] in types else f"a lens of type {row['lens_type']}"


def merge(rows: Sequence[Row], radius: float) -> tuple[list[Row], list[Row]]:
    """One row per lens, the first of each group with what it lacks from the others; and the rows that went into it.

    Args:
        rows: in the order of precedence.
        radius: arcsec.
    """
    if not rows:
        return [], []
    group_N = groups_within([row["ra"] for row in rows], [row["dec"] for row in rows], radius)
    kept: dict[int, Row] = {}
    merged: list[Row] = []
    for row, group in zip(rows, group_N.tolist(), strict=True):
        if group not in kept:
            kept[group] = dict(row)
            continue
        first = kept[group]
        merged.append(row | {_REASON: f"merged into {first['name']}"})
        for name in ("zlens", "theta_e_arcsec", "grading", "tier_grade"):
            first[name] = row[name] if first[name] is None else first[name]
        if first["discovery"] == "other":
            first["discovery"] = row["discovery"]
        for name in ("names", "refs", "lists"):
            first[name] = list(dict.fromkeys([*first[name], *row[name]]))
        first["tiers"] = row["tiers"] | {k: v for k, v in first["tiers"].items() if v is not None}
        # None of a catalogue's row: its references say what it is.
        stress = [one["is_stress_list"] for one in (first, row) if one["is_stress_list"] is not None]
        first["is_stress_list"] = all(stress) if stress else None
    return list(kept.values()), merged


def is_stress(row: Row, stress_refs: Sequence[str]) -> bool:
    """Whether a lens is known from nowhere but stress lists: users' own, or references such as SLACS."""
    if row["is_stress_list"] is False:
        return False
    if CATALOGUE not in row["lists"]:
        return bool(row["is_stress_list"])
    # A catalogue's row that a user's stress list has too stays what its references make it.
    return bool(row["refs"]) and all(any(mark in ref for mark in stress_refs) for ref in row["refs"])


def read_radii(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions (degrees) and Einstein radii (arcsec) of a table, each (M,); rows without a radius are left out.

    Raises:
        BadInputError: a column is missing or a value is no number.
        CorruptDataError: damaged FITS.
    """
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            try:
                rows = [
                    [float(row[name]) for name in ("ra", "dec", "theta_e_arcsec")] for row in csv.DictReader(stream)
                ]
            except (KeyError, TypeError, ValueError) as error:
                raise BadInputError(
                    f"{path} must have the columns ra, dec and theta_e_arcsec with a number in each ({error})."
                ) from error
        table_M3 = np.array(rows, np.float64).reshape(-1, 3)
    else:
        with open_fits(path) as file:
            names = {name.upper(): name for name in file[1].get_colnames()}
            wanted = ("RA", "DEC", "THETA_E")
            missing = [name for name in wanted if name not in names]
            if missing:
                raise BadInputError(f"{path} lacks the columns {', '.join(missing)} of a table of Einstein radii.")
            data = file[1].read(columns=[names[name] for name in wanted])
            table_M3 = np.stack([native(data[names[name]]).astype(np.float64) for name in wanted], axis=-1)
    # NaN compares false.
    ra_M, dec_M, theta_M = table_M3[table_M3[:, 2] > 0].T
    return ra_M, dec_M, theta_M


def survey_path(text: str, survey: SurveyDescription) -> Path:
    """Local path of a table that settings name; `{survey}/` stands for an embedded survey's own files.

    Raises:
        BadInputError: the survey is not embedded, or has no such file.
    """
    below = text.removeprefix("{survey}/")
    if below == text:
        return survey.verified(text) if not survey.embedded else storage.local_path(text)
    if not survey.embedded:
        raise BadInputError(f"{text} is a file of an embedded survey, and {survey.name} is none; give a path or URI.")
    return survey.verified(storage.join(survey.manifest.uri, below))


def fill_theta_e(rows: Sequence[Row], tables: Sequence[Path], radius: float) -> None:
    """Set the Einstein radius (arcsec) of rows that have none from the nearest row of the tables."""
    if not rows or not tables:
        return
    parts = [read_radii(path) for path in tables]
    ra_M, dec_M, theta_M = (np.concatenate(values) for values in zip(*parts, strict=True))
    index_N, _ = nearest([row["ra"] for row in rows], [row["dec"] for row in rows], ra_M, dec_M, radius)
    for row, index in zip(rows, index_N.tolist(), strict=True):
        if row["theta_e_arcsec"] is None and index >= 0:
            row["theta_e_arcsec"] = float(theta_M[index])


def sweeps_of(
    pairs: Sequence[tuple[str, str | None]], ra: NDArray[np.float64], dec: NDArray[np.float64], margin: float
) -> list[str]:
    """Sweep files whose box, as their name says it, holds one of the positions or comes within `margin` deg of it."""
    chosen = []
    for uri, _ in pairs:
        match = _SWEEP_NAME.search(PurePosixPath(uri).name)
        if match is None:
            chosen.append(uri)
            continue
        r1, s1, d1, r2, s2, d2 = match.groups()
        low, high = int(d1) * (-1 if s1 == "m" else 1), int(d2) * (-1 if s2 == "m" else 1)
        wide = margin / np.maximum(np.cos(np.radians(dec)), 1e-3)
        # Differences of angle from the box's middle, so that RA 0/360 needs no care.
        off = np.abs((ra - (int(r1) + int(r2)) / 2 + 180.0) % 360.0 - 180.0)
        inside = (off <= (int(r2) - int(r1)) / 2 + wide) & (dec >= low - margin) & (dec <= high + margin)
        if inside.any():
            chosen.append(uri)
    return chosen


def match_tractor(rows: Sequence[Row], survey: SurveyDescription, radius: float) -> None:
    """Give each row the nearest object of the sweeps within `radius` arcsec, and its position to be cut out at."""
    if not rows:
        return
    ra, dec = (np.array([row[name] for row in rows], np.float64) for name in ("ra", "dec"))
    best = np.full(len(rows), np.inf)
    for uri in sweeps_of(survey.sweep_pairs(), ra, dec, radius / 3600):
        for part in read_sweep(survey.verified(uri), _SWEEP_COLUMNS, None, survey.releases):
            # DUP stands for a Gaia star inside a galaxy: it has no light of its own.
            real = part.filter(pc.not_equal(part["TYPE"], "DUP"))
            index, arcsec = nearest(ra, dec, real["RA"].to_numpy(), real["DEC"].to_numpy(), radius)
            for number in np.flatnonzero(arcsec < best).tolist():
                best[number] = arcsec[number]
                rows[number].update(_tractor(real.slice(int(index[number]), 1).to_pylist()[0], arcsec[number]))


def _tractor(entry: Mapping[str, Any], arcsec: float) -> Row:
    mags = {f"{band.lower()}mag": float(magnitude(entry[f"FLUX_{band}"])) for band in "GRZ"}
    return {
        "ra": float(entry["RA"]),
        "dec": float(entry["DEC"]),
        "galaxy_id": f"{entry['BRICKNAME']}_{entry['OBJID']}",
        "objid": int(entry["OBJID"]),
        "type": entry["TYPE"],
        **{name: value if math.isfinite(value) else None for name, value in mags.items()},
        "shape_r": float(entry["SHAPE_R"]),
        "sersic": float(entry["SERSIC"]),
        "separation_arcsec": float(arcsec),
        **{f"nobs_{band.lower()}": int(entry[f"NOBS_{band}"]) for band in "GRZ"},
    }


def in_footprint(rows: Sequence[Row], conditions: BrickConditions) -> tuple[list[Row], list[Row]]:
    """Rows in bricks of the release with exposures in g, r and z, and the others with their reason."""
    if not rows:
        return [], []
    _, brick_N = conditions.rows_at([row["ra"] for row in rows], [row["dec"] for row in rows])
    inside: list[Row] = []
    outside: list[Row] = []
    for row, brick in zip(rows, brick_N.tolist(), strict=True):
        if brick < 0:
            outside.append(row | {_REASON: "outside the survey's footprint"})
        elif not conditions.exposed[brick]:
            outside.append(row | {_REASON: "not observed in all of g, r, z"})
        else:
            inside.append(row)
    return inside, outside


def to_table(rows: Sequence[Row], conditions: BrickConditions, settings: AnchorSettings) -> pa.Table:
    """`anchor_schema`, ordered by RA, Dec and name."""
    ordered = sorted(rows, key=lambda row: (row["ra"], row["dec"], row["name"]))
    schema = anchor_schema(settings)
    if not ordered:
        return schema.empty_table()
    ra, dec = (np.array([row[name] for row in ordered], np.float64) for name in ("ra", "dec"))
    cell = healpix_cell(ra, dec)
    looked_up = conditions.at(ra, dec).to_pylist()
    values = [
        row
        | row["tiers"]
        | {
            "tier_gen5_prime": tier_gen5_prime(row["refs"], row["theta_e_arcsec"], settings.tier_a_theta_e_arcsec),
            "stress": is_stress(row, settings.stress_refs),
            "healpix_128": int(pixel),
            "split": str(split),
        }
        | found
        for row, pixel, split, found in zip(
            ordered, cell, split_of_cells(cell, settings.split_seed), looked_up, strict=True
        )
    ]
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in values], schema=schema)


def list_anchors(
    lenses: pa.Table, lists: Mapping[str, str], survey: SurveyDescription, settings: AnchorSettings
) -> tuple[pa.Table, pa.Table]:
    """Anchors, and the rows that are none: name, ra, dec, lists and `quarantine_reason`.

    Args:
        lenses: of lenses.json.
        lists: text of each user's list by its name.
        survey: whose footprint counts.

    Raises:
        BadInputError: a list or a table lacks a column.
    """
    rows = catalogue_rows(lenses)
    for item in settings.lists:
        rows += read_list(lists[item.name], item)
    reasons = [bad_reason(row, settings.types) for row in rows]
    dropped = [row | {_REASON: reason} for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    good, merged = merge(
        [row for row, reason in zip(rows, reasons, strict=True) if reason is None], settings.merge_radius_arcsec
    )
    conditions = read_conditions(survey)
    inside, outside = in_footprint(good, conditions)
    for row in inside:
        row |= {"ra_listed": row["ra"], "dec_listed": row["dec"]}
    tables = [survey_path(text, survey) for text in settings.theta_e_tables]
    fill_theta_e(inside, tables, settings.theta_e_radius_arcsec)
    if settings.tractor:
        match_tractor(inside, survey, settings.tractor_radius_arcsec)
    schema = pa.schema([("name", _TEXT), ("ra", _F64), ("dec", _F64), ("lists", pa.list_(_TEXT)), (_REASON, _TEXT)])
    others = [{name: row[name] for name in schema.names} for row in [*dropped, *merged, *outside]]
    return to_table(inside, conditions, settings), pa.Table.from_pylist(others, schema=schema)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `list_anchors`."""
    parser = argument_parser("List the known lenses that the survey has images of.")
    parser.add_argument("--survey", type=Path, required=True, help="survey.json")
    parser.add_argument("--lenses", type=Path, required=True, help="lenses.json")
    parser.add_argument("--output", type=Path, required=True, help="list.json")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, AnchorSettings)
    survey = load_survey(args.survey)
    lenses = load_manifest(args.lenses, "lenses")
    local = [Path(item.path) for item in settings.lists if storage.is_local(item.path)]
    with attempt(args.output, KIND, MODULE, settings, [args.survey, args.lenses, *local]) as work:
        [path] = verified_paths(lenses)
        texts = {item.name: storage.read_bytes(item.path).decode() for item in settings.lists}
        anchors, others = list_anchors(pq.read_table(path), texts, survey, settings)
        pq.write_table(anchors, work.prefix / FILE, compression="zstd")
        (work.prefix / "quarantine").mkdir()
        pq.write_table(others, work.prefix / "quarantine" / FILE, compression="zstd")
        reasons = Counter(re.sub(r"^merged into .*", "merged with another row", r) for r in others[_REASON].to_pylist())
        facts = {
            "reasons": dict(sorted(reasons.items())),
            "stress": sum(anchors["stress"].to_pylist()),
            "with_theta_e": anchors.num_rows - anchors["theta_e_arcsec"].null_count,
            "matched_with_sweeps": anchors.num_rows - anchors["objid"].null_count,
            **{
                name: dict(sorted(Counter(str(value) for value in anchors[name].to_pylist()).items()))
                for name in anchors.column_names
                if name.startswith("tier_") or name in ("discovery", "split")
            },
        }
        work.publish(
            rows_in=anchors.num_rows + others.num_rows,
            rows_out=anchors.num_rows,
            rows_quarantined=others.num_rows,
            columns={field.name: str(field.type) for field in anchors.schema},
            facts=facts,
        )
    _logger.info("%d anchors; others: %s", anchors.num_rows, dict(reasons))


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _number_or_none(text: str | None) -> float | None:
    value = _number(text)
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    run(main)
