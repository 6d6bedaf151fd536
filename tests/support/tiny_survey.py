"""A survey of a few hundred catalogue rows in real file formats, for tests of the catalogue and of manifests."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.survey.config import SurveyFiles, SurveySettings
from dark_halo_scope.survey.describe import describe
from dark_halo_scope.survey.grid import brickid_at, bricks_of_ids
from dark_halo_scope.survey.mini.columns import SWEEP_DTYPE
from dark_halo_scope.survey.sweeps import read_sweep

# Bricks in the cells of several splits, two of them on both sides of RA 0.
_INSIDE = ((0.06, -60.0), (359.94, -60.0), (2.3, 4.4), (12.0, 1.3), (14.7, 3.3), (21.1, 1.9), (24.4, 4.6), (33.3, 2.2))
BRICKS = bricks_of_ids(brickid_at(*np.array(_INSIDE).T))
CENTRES = tuple(zip(BRICKS.ra.tolist(), BRICKS.dec.tolist(), strict=True))
"""Right ascension and declination of each brick's centre, degrees; a brick reaches 0.125 deg from it in Dec."""


def flux(mag: float) -> float:
    """Nanomaggies of an AB magnitude."""
    return 10 ** (0.4 * (22.5 - mag))


def lrg_rows(ra: NDArray, dec: NDArray, first_objid: int = 0) -> NDArray:
    """Sweep rows of red galaxies at these positions that every `lrg_mode` but v1 and v2 selects."""
    rows = np.zeros(len(ra), SWEEP_DTYPE)
    boxes = bricks_of_ids(brickid_at(ra, dec))
    rows["RELEASE"], rows["BRICKID"], rows["BRICKNAME"] = 10000, boxes.brickid, boxes.name
    rows["OBJID"] = first_objid + np.arange(len(ra))
    rows["TYPE"], rows["RA"], rows["DEC"] = "SER", ra, dec
    for band, mag in (("G", 21.8), ("R", 20.4), ("Z", 19.4), ("W1", 18.1)):
        rows[f"FLUX_{band}"] = flux(mag + 0.05 * np.sin(np.arange(len(ra))))
        rows[f"FLUX_IVAR_{band}"] = 200.0
        rows[f"MW_TRANSMISSION_{band}"] = 0.95
    for band in "GRZ":
        rows[f"NOBS_{band}"] = 4
        rows[f"PSFSIZE_{band}"] = 1.1 + 0.4 * np.linspace(0, 1, len(ra))
        rows[f"PSFDEPTH_{band}"] = (5 / flux(24.0 + 0.5 * np.sin(np.arange(len(ra)) ** 2))) ** 2
    rows["EBV"], rows["SERSIC"], rows["SHAPE_R"] = 0.05, 3.5, 0.8
    rows["SHAPE_E1"], rows["SHAPE_E2"] = 0.2 * np.cos(np.arange(len(ra))), 0.2 * np.sin(np.arange(len(ra)))
    rows["FIBERFLUX_Z"] = rows["FIBERTOTFLUX_Z"] = flux(20.3)
    return rows


def field_rows(per_brick: int, seed: int = 5) -> NDArray:
    """`lrg_rows` at random places of every brick of `CENTRES`."""
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-0.12, 0.12, (2, len(CENTRES), per_brick))
    ra, dec = (np.array([c[k] for c in CENTRES])[:, None] + offset[k] for k in (0, 1))
    return lrg_rows(np.mod(ra, 360.0).ravel(), dec.ravel())


def crowded_rows(count: int) -> NDArray:
    """As many sweep rows, one in twenty a red galaxy that looks like a ring, the rest fainter sources among them."""
    rows = field_rows(count // len(CENTRES))
    bright = np.arange(len(rows)) % 20 == 0
    rows["TYPE"], rows["SERSIC"] = np.where(bright, b"DEV", b"REX"), np.where(bright, 4.0, 1.0)
    for band, mag in (("G", 22.7), ("R", 22.0), ("Z", 21.5), ("W1", 21.0)):
        rows[f"FLUX_{band}"][~bright] = flux(mag)
    return rows


def whole_sweep(
    path: Path, columns: Sequence[str], photoz: Path | None = None, releases: Collection[str] | None = None
) -> pa.Table:
    """All rows of a sweep in one table."""
    return pa.concat_tables(read_sweep(path, columns, photoz, releases))


def pair_across_ra_0() -> tuple[NDArray, NDArray]:
    """RA and Dec of two positions 0.5 arcsec apart, on both sides of RA 0, in two bricks and two splits."""
    ra = np.array([0.25, 360 * 3600 - 0.25]) / 3600
    for dec in np.linspace(BRICKS.dec1[0] + 0.01, BRICKS.dec2[0] - 0.01, 100):
        if len(set(split_of_cells(healpix_cell(ra, [dec, dec])))) == 2:
            return ra, np.array([dec, dec])
    raise AssertionError("RA 0 is no border between splits in these bricks; choose others")


@dataclass(frozen=True)
class TinySurvey:
    """Where its files are; `description` is survey.json."""

    description: Path
    directory: Path


def write_survey(
    directory: Path, sweeps: dict[str, NDArray], lenses: str = "", sources: int = 60, lower_case: bool = False
) -> TinySurvey:
    """Write a survey and its survey.json.

    Args:
        directory: where to.
        sweeps: rows of each sweep file by name, as `sweep-000p000-005p005`.
        lenses: lines of a lenscat catalogue.
        sources: galaxies in the source bank (a catalogue without images).
        lower_case: write lower-case column names, as Tractor files have them.
    """
    for name in ("sweep", "photoz", "sources"):
        (directory / name).mkdir(parents=True)
    photoz_dtype = [
        ("RELEASE", "i2"),
        ("BRICKID", "i4"),
        ("OBJID", "i4"),
        ("Z_PHOT_MEDIAN", "f4"),
        ("Z_PHOT_STD", "f4"),
    ]
    for name, rows in sweeps.items():
        photoz = np.zeros(len(rows), photoz_dtype)
        for column in ("RELEASE", "BRICKID", "OBJID"):
            photoz[column] = rows[column]
        photoz["Z_PHOT_MEDIAN"] = np.where(rows["OBJID"] % 7 == 3, -99.0, 0.5 + 0.001 * rows["OBJID"])
        photoz["Z_PHOT_STD"] = np.where(rows["OBJID"] % 7 == 3, -99.0, 0.05)
        names = [column.lower() if lower_case else column for column in rows.dtype.names]
        fitsio.write(directory / "sweep" / f"{name}.fits", rows, names=names, clobber=True)
        fitsio.write(directory / "photoz" / f"{name}-pz.fits", photoz, clobber=True)
    boxes = BRICKS
    table = {"BRICKNAME": boxes.name.astype("S8"), "RA": boxes.ra, "DEC": boxes.dec}
    table |= {"RA1": boxes.ra1, "RA2": boxes.ra2, "DEC1": boxes.dec1, "DEC2": boxes.dec2}
    _write_columns(directory / "survey-bricks.fits.gz", table)
    conditions = {"EBV": 0.05, "PSFSIZE_R": 1.3, "PSFDEPTH_R": 24.2}
    summary = {name: table[name] for name in ("BRICKNAME", "RA", "DEC")}
    summary |= {name: np.full(len(boxes.name), value, dtype="f4") for name, value in conditions.items()}
    _write_columns(directory / "survey-bricks-dr10-south.fits.gz", summary)
    (directory / "lenses.csv").write_text("name,RA [deg],DEC [deg],zlens,type,grading,ref\n" + lenses)
    bank = {"IDENT": np.arange(1000, 1000 + sources), "MAG": np.full(sources, 23.0)}
    bank |= {
        name: np.array([text.encode()] * sources) for name, text in (("BAND", "F814W"), ("GAL_FILENAME", "g.fits"))
    }
    bank |= {"GAL_HDU": np.arange(sources), "PSF_FILENAME": np.array([b"p.fits"] * sources)}
    bank |= {"PSF_HDU": np.arange(sources), "PIXEL_SCALE": np.full(sources, 0.03)}
    bank |= {"NOISE_VARIANCE": np.full(sources, 1e-6)}
    _write_columns(directory / "sources" / "real_galaxy_catalog.fits", bank)
    settings = SurveySettings(
        name="tiny",
        release="dr10.1",
        region="south",
        coadd_layout="release",
        files=SurveyFiles(
            bricks=str(directory / "survey-bricks.fits.gz"),
            brick_summary=str(directory / "survey-bricks-dr10-south.fits.gz"),
            sweeps=str(directory / "sweep"),
            photoz=str(directory / "photoz"),
            coadds=str(directory / "coadd"),
            lenses=[str(directory / "lenses.csv")],
            sources=str(directory / "sources" / "real_galaxy_catalog.fits"),
        ),
    )
    describe(settings, directory / "survey.json", 1)
    return TinySurvey(directory / "survey.json", directory)


def _write_columns(path: Path, columns: dict[str, NDArray]) -> None:
    fitsio.write(path, list(columns.values()), names=list(columns), clobber=True)
