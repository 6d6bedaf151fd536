"""The selection function as files for others: Parquet with VOTable metadata, and FITS, with units, UCDs and a text.

Both hold the same columns. `completeness_lookup` reads the Parquet file; whoever works without this package finds in
either file what each column is.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import atomic_path

#: Key of the Parquet file's metadata that holds the facts as JSON, and of the one that holds the text.
FACTS = "dark_halo_scope.selection_function"
README = "README"

#: Of the facts' layout.
VERSION = 1

#: As the IVOA's convention names them ("VOTable in Parquet", version 1.0), which astropy and STILTS read.
_VOTABLE, _VOTABLE_VERSION = "IVOA.VOTable-Parquet.content", "IVOA.VOTable-Parquet.version"
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


@dataclass(frozen=True)
class Column:
    """What a column is: unit as the VO writes it (empty: none), UCD1+, and a sentence."""

    unit: str
    ucd: str
    description: str


def _edge_columns() -> dict[str, Column]:
    axes = {
        "theta_e_arcsec": ("arcsec", "phys.angSize", "Einstein radius (product average of the axes)"),
        "z_phot": ("", "src.redshift.phot", "photometric redshift of the host galaxy (DR10 Z_PHOT_MEDIAN)"),
        "psfsize_r": ("arcsec", "instr.det.psf;em.opt.R", "PSF size in r (noise-equivalent-area FWHM of the brick)"),
        "psfdepth_r": ("mag", "instr.sensitivity;em.opt.R", "5-sigma AB depth in r for a point source"),
        "rmag": ("mag", "phot.mag;em.opt.R", "AB magnitude of the host galaxy in r"),
        "lensed_mag_r": ("mag", "phot.mag;em.opt.R", "AB magnitude of the lensed source's images together in r"),
    }
    columns = {}
    for name, (unit, ucd, what) in axes.items():
        for end, kind in (("low", "stat.min"), ("high", "stat.max")):
            edge = "lower" if end == "low" else "upper"
            text = f"{what}: {edge} edge of the cell; NaN in cells of what is unknown or beyond the edges"
            columns[f"{name}_{end}"] = Column(unit, f"{ucd};{kind}", text)
    return columns


_INTERVAL = "end of its Clopper-Pearson interval"
COLUMNS: dict[str, Column] = {
    "threshold": Column("", "meta.id", "name of the detection threshold; its logit is in the facts"),
    "family": Column("", "meta.id;src.class", "family of injected sources; `all`: all families together"),
    **_edge_columns(),
    "sky_area_deg2": Column(
        "deg2",
        "phys.angArea",
        "area of the bricks with parent galaxies that have the PSF and depth of this cell, injected into or not",
    ),
    "n": Column("", "meta.number", "injections"),
    "k": Column("", "meta.number", "injections that the finder found"),
    "hosts": Column("", "meta.number", "distinct galaxies that bear the injections"),
    "value": Column("", "stat.probability", "completeness of the injections as they were drawn, k / n"),
    "low": Column("", "stat.probability;stat.min", f"completeness as drawn: lower {_INTERVAL}"),
    "high": Column("", "stat.probability;stat.max", f"completeness as drawn: upper {_INTERVAL}"),
    "weight": Column("", "stat.weight", "sum of weights, prior over proposal, of the injections"),
    "weight_found": Column("", "stat.weight", "sum of weights of the injections that the finder found"),
    "weight_squared": Column("", "stat.weight", "sum of squared weights of the injections"),
    "n_effective": Column("", "meta.number", "unweighted injections of one family that say as much (Kish 1965)"),
    "weighted_value": Column("", "stat.probability", "completeness under the prior, weight_found / weight"),
    "weighted_low": Column("", "stat.probability;stat.min", f"completeness under the prior: lower {_INTERVAL}"),
    "weighted_high": Column("", "stat.probability;stat.max", f"completeness under the prior: upper {_INTERVAL}"),
    "families": Column("", "meta.number", "in rows of `all`: families with injections here"),
    "family_low": Column("", "stat.probability;stat.min", "in rows of `all`: lowest weighted_value of a family"),
    "family_high": Column("", "stat.probability;stat.max", "in rows of `all`: highest weighted_value of a family"),
    "envelope_low": Column(
        "", "stat.probability;stat.min", "in rows of `all`: lowest weighted_low of a family, systematic and statistical"
    ),
    "envelope_high": Column(
        "",
        "stat.probability;stat.max",
        "in rows of `all`: highest weighted_high of a family, systematic and statistical",
    ),
    "flag": Column("", "meta.code.status", "empty; `too few` injections; `outside`: beyond the edges; or nothing"),
}


def readme(facts: Mapping[str, Any]) -> str:
    """What the files are, for who has nothing but them; ASCII, as FITS headers are.

    Args:
        facts: as `write_parquet` takes them.
    """
    names = ", ".join(f"{name} (logit {logit:.6g})" for name, logit in facts["thresholds"].items())
    return "\n".join(
        [
            f"Selection function of the strong-lens finder {facts['generation']}: the share of injected lensed sources",
            "that the finder detects, C(Einstein radius, redshift, PSF, depth, magnitudes).",
            f"The finder was frozen before (card {facts['frozen_sha256']}, weights {facts['model_sha256']}).",
            f"Injections are in galaxies of the test split, which the finder has not seen: {facts['injections']}",
            f"in {facts['hosts']} galaxies, with sources of the families {', '.join(facts['families'])}.",
            f"Thresholds: {names}.",
            "",
            "One row for each threshold, family and cell. The cells partition all injections (those of unknown or",
            "extreme values have rows of their own, flagged `outside`): sum n and k, or weight_found and weight, over",
            "cells for the completeness over fewer axes. Do not average the values of cells.",
            "value is of injections as drawn; weighted_value is under the prior of Einstein radius and magnitude.",
            f"Intervals are Clopper-Pearson at {facts['confidence']:g}. Families share draws of lens, host and source:",
            f"intervals of `all` count {facts['rows_per_draw']:.6g} rows as one. Injections into one galaxy share its",
            "pixels, which these intervals do not know.",
            f"Flags: `too few`, fewer than {facts['min_cell']} injections of a family on average; `empty`, none;",
            "`outside`, beyond the edges. C says nothing of cells that are empty, and of lenses unlike those injected.",
            "sky_area_deg2 is of all bricks in which the parent sample has galaxies, also of those without coadds at",
            "hand, where nothing could be injected.",
            "",
            "from dark_halo_scope.evaluation.completeness_lookup import load_selection_function",
            'C = load_selection_function("selection_function.parquet")',
            "found = C(theta_e=[0.8, 1.2, 2.0], z=[0.3, 0.5, 0.7])",
            "print(found.value, found.low, found.high, found.flag)",
        ]
    )


def write_parquet(path: Path, columns: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write the table with its facts, text and VOTable metadata; equal content is equal bytes.

    Args:
        path: the file.
        columns: those of COLUMNS.
        facts: what `completeness_lookup` needs: edges, thresholds, families, confidence, min_cell, rows_per_draw.
    """
    table = pa.table({name: _arrow(columns[name]) for name in COLUMNS})
    metadata = {
        FACTS: json.dumps({"version": VERSION, **facts}, sort_keys=True, allow_nan=False),
        README: readme(facts),
        _VOTABLE_VERSION: "1.0",
        _VOTABLE: _votable(columns),
    }
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_parquet(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Columns and facts of a file that `write_parquet` wrote.

    Raises:
        BadInputError: there is no such file, or it is of a later layout.
        CorruptDataError: it is no selection function.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise BadInputError(f"{path} does not exist; measure the selection function, or correct the name.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptDataError(f"{path} is no readable Parquet file ({error}); get it again.") from error
    metadata = table.schema.metadata or {}
    if FACTS.encode() not in metadata or set(COLUMNS) - set(table.column_names):
        raise CorruptDataError(f"{path} is not the selection function of a finder; give selection_function.parquet.")
    facts = json.loads(metadata[FACTS.encode()])
    if facts["version"] != VERSION:
        raise BadInputError(f"{path} has layout {facts['version']}, and this code reads {VERSION}; update the code.")
    return {name: table[name].to_numpy() for name in COLUMNS}, facts


def write_fits(
    path: Path, columns: Mapping[str, NDArray[Any]], surface: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> None:
    """Write the table, and the smooth surface where there is one, as FITS extensions SELECTION and SURFACE.

    Args:
        path: the file.
        columns: those of COLUMNS.
        surface: those of SURFACE_COLUMNS; none where no surface was fitted.
        facts: as for `write_parquet`.
    """
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header["GENERAT"] = (facts["generation"], "finder")
    for name, logit in facts["thresholds"].items():
        primary.header.add_comment(f"threshold {name}: logit {logit:.17g}")
    for line in readme(facts).splitlines():
        primary.header.add_comment(line)
    tables = [_fits_table("SELECTION", columns, COLUMNS)]
    if surface:
        tables.append(_fits_table("SURFACE", surface, SURFACE_COLUMNS))
    with atomic_path(path) as temporary:
        fits.HDUList([primary, *tables]).writeto(temporary)


SURFACE_COLUMNS: dict[str, Column] = {
    "threshold": COLUMNS["threshold"],
    "family": COLUMNS["family"],
    "theta_e_arcsec": Column("arcsec", "phys.angSize", "Einstein radius"),
    "z": Column("", "src.redshift.phot", "photometric redshift of the host galaxy"),
    "value": Column("", "stat.probability", "smooth completeness of the injections as drawn"),
    "low": Column("", "stat.probability;stat.min", "lower end of its interval, from resampling hosts"),
    "high": Column("", "stat.probability;stat.max", "upper end of its interval, from resampling hosts"),
    "sd": Column("", "stat.stdev", "standard deviation over resampled hosts"),
    "n": Column("", "meta.number", "injections in the cell around"),
}


def _fits_table(name: str, columns: Mapping[str, NDArray[Any]], described: Mapping[str, Column]) -> Any:
    from astropy.io import fits
    from astropy.table import QTable

    # Text that was read from Parquet is made of objects, which FITS does not have.
    plain = {key: columns[key].astype(str) if columns[key].dtype.kind == "O" else columns[key] for key in described}
    hdu = fits.table_to_hdu(QTable(plain))
    hdu.name = name
    for place, about in enumerate(described.values(), start=1):
        if about.unit:
            hdu.header.set(f"TUNIT{place}", about.unit, after=f"TFORM{place}")
        hdu.header.set(f"TUCD{place}", about.ucd, after=f"TFORM{place}")
        hdu.header.set(f"TCOMM{place}", about.description, after=f"TUCD{place}")
    return hdu


def _arrow(values: NDArray[Any]) -> pa.Array:
    if values.dtype.kind in "UO":
        return pa.array(values.tolist(), pa.string())
    return pa.array(values)


def _longest(texts: NDArray[Any]) -> int:
    return max(1, *(len(text) for text in np.unique(texts)))


def _votable(columns: Mapping[str, NDArray[Any]]) -> str:
    """Fields of the table as a VOTable whose data are this Parquet file."""
    from xml.etree import ElementTree

    types = {"i": "long", "f": "double"}
    ElementTree.register_namespace("", _NAMESPACE)
    root = ElementTree.Element(f"{{{_NAMESPACE}}}VOTABLE", version="1.4")
    table = ElementTree.SubElement(
        ElementTree.SubElement(root, f"{{{_NAMESPACE}}}RESOURCE", type="results"), f"{{{_NAMESPACE}}}TABLE"
    )
    for name, about in COLUMNS.items():
        kind = types.get(columns[name].dtype.kind)
        # Text of a stated length: astropy cannot join text of any length with that of the file.
        attributes = {"datatype": kind} if kind else {"datatype": "char", "arraysize": str(_longest(columns[name]))}
        attributes |= {"unit": about.unit} if about.unit else {}
        field = ElementTree.SubElement(
            table, f"{{{_NAMESPACE}}}FIELD", {"ID": name, "name": name, **attributes, "ucd": about.ucd}
        )
        ElementTree.SubElement(field, f"{{{_NAMESPACE}}}DESCRIPTION").text = about.description
    ElementTree.SubElement(table, f"{{{_NAMESPACE}}}PARQUET", type="Parquet-local-XML")
    text = io.BytesIO()
    ElementTree.ElementTree(root).write(text, encoding="utf-8", xml_declaration=True)
    return text.getvalue().decode()
