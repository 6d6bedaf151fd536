"""Table 1 of the paper: what each dataset holds, by split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.paper.tables import markdown_text, tex_text, write_tables

SPLITS = ("train", "val", "test")

#: Column of the quality report -> its heading, with unit, and its digits.
_RANGES = {
    "theta_e_arcsec": ('θ_E ["]', 2),
    "psfsize_r": ('PSF FWHM, r ["]', 2),
    "psfdepth_r": ("depth, r [mag]", 2),
    "arc_snr": ("arc S/N", 0),
}

_NOTES = (
    "A control is the galaxy of a positive without its arc, a hard negative the same galaxy with the arc's light "
    "spread in azimuth; other negatives are other galaxies, confusers among them. Ranges are of the positives: least, "
    "median, greatest. Cells are HEALPix cells (nside 128), each of one split.",
    "Images that could not be cut out or are not usable are in no count but the last.",
)


def split_row(name: str, split: str, packed: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, Any]:
    """One split of a dataset as numbers; a range without positives is empty.

    Args:
        name: of the dataset.
        split: train, val or test.
        packed: facts of its packed.json, for what a network is shown.
        quality: its quality.json, for what is known of that.
    """
    pairs = packed["splits"][split]
    counts = quality["counts"][split]
    row = {
        "dataset": name,
        "split": split,
        "positives": pairs,
        "controls": pairs * ("control" in packed["kinds"]),
        "hard_negatives": pairs * ("hard_negative" in packed["kinds"]),
        "other_negatives": packed["negatives"][split],
        "confusers": sum(counts["confusers"].values()),
        "hosts": counts["hosts"],
        "cells": counts["cells"],
        "resolved": counts["strata"]["x >= 1"],
    }
    for column in _RANGES:
        found = quality["distributions"][split].get(column) or {}
        for end, percentile in (("min", "p00"), ("median", "p50"), ("max", "p100")):
            row[f"{column}_{end}"] = found.get(percentile) if pairs else None
    return row | {"not_usable": counts["rows"] - counts["usable"]}


def table(
    datasets: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of numbers, and the same as text.

    Args:
        datasets: by name, the facts of packed.json and the content of quality.json.
    """
    rows = [
        split_row(name, split, packed, quality)
        for name, (packed, quality) in datasets.items()
        for split in SPLITS
        if packed["splits"][split] or packed["negatives"][split]
    ]
    return rows, [_text(row) for row in rows]


def _text(row: Mapping[str, Any]) -> dict[str, str]:
    counts = {
        "positives": "positives",
        "controls": "controls",
        "hard_negatives": "hard negatives",
        "other_negatives": "other negatives",
        "hosts": "hosts",
        "cells": "cells",
        "resolved": "θ_E ≥ PSF",
    }
    return {
        "dataset": f"`{row['dataset']}`",
        "split": row["split"],
        **{heading: f"{row[key]:,}" for key, heading in counts.items()},
        **{heading: _range_text(row, column, digits) for column, (heading, digits) in _RANGES.items()},
        "not usable": f"{row['not_usable']:,}",
    }


def _range_text(row: Mapping[str, Any], column: str, digits: int) -> str:
    ends = [row[f"{column}_{end}"] for end in ("min", "median", "max")]
    return "" if None in ends else " / ".join(f"{end:.{digits}f}" for end in ends)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of datasets."""
    parser = argument_parser("Write what each dataset holds, by split, as a table.")
    parser.add_argument("--names", nargs="+", required=True, help="of the datasets, in the order of the rows")
    parser.add_argument("--packed", nargs="+", required=True, type=Path, help="packed.json of each")
    parser.add_argument("--quality", nargs="+", required=True, type=Path, help="quality.json of each")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    if not len(arguments.names) == len(arguments.packed) == len(arguments.quality):
        raise BadInputError("The table needs one packed.json and one quality.json for each name, in the same order.")
    paths = zip(arguments.names, arguments.packed, arguments.quality, strict=True)
    rows, lines = table({name: (load_manifest(p, "packed").facts, read_json(q)) for name, p, q in paths})
    write_tables(arguments.output, rows, markdown_text(lines, _NOTES), tex_text(lines, _NOTES))


if __name__ == "__main__":
    run(main)
