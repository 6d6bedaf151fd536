"""The embedded survey's lens catalogue, in the format of lenscat and with its traps.

lenscat (https://github.com/lenscat/lenscat): name, RA [deg], DEC [deg], zlens, type, grading, ref; name, zlens and ref
may be lists joined by ` | `; zlens may be a word; a third of its rows come from catalogues of clusters and of
overlapping galaxies; some lenses are in it twice, an arcsec apart.
"""

import csv
import io

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref")

_MACHINE = (
    "Huang et al. (2020) - arXiv:1906.00970",
    "Huang et al. (2021) - arXiv:2005.04730",
    "Storfer et al. (2022) - arXiv:2206.02764",
    "Stein et al. (2021) - arXiv:2110.00023",
    "Jacobs et al. (2019) - arXiv:1905.10522",
)
_HST = "Moustakas et al. (2012) - adsabs:2012hst..prop12833M"
_CLUSTERS = "Lopes et al. (2004) - doi:10.1086/423038"
_X_RAY = "Ebeling et al. (1998) - arXiv:astro-ph/9812394"
_PAIRS = "Holwerda et al. (2015) - arXiv:1503.04813"
_WORDS = ("-", "measured", "not measured", "L", "nan")
_DUPLICATES = 0.03
_NOT_LENSES = 0.12
_ELSEWHERE = 0.05


def catalogue_text(rng: np.random.Generator, lenses: NDArray, others: NDArray) -> str:
    """The catalogue as CSV text.

    Args:
        lenses: truth rows of the lenses.
        others: truth rows of galaxies that are none; some are listed by catalogues of other things.
    """
    rows = []
    for lens in lenses:
        ra, dec = _scattered(rng, lens, 0.25)
        rows.append(_lens_row(rng, lens, ra, dec))
        if rng.random() < _DUPLICATES:
            ra, dec = _scattered(rng, lens, 0.6)
            rows.append((_j_name(ra, dec), ra, dec, "-", "galaxy", "probable", _HST))
    count = min(len(others), int(np.ceil(_NOT_LENSES * len(lenses))))
    for galaxy in others[np.sort(rng.choice(len(others), size=count, replace=False))]:
        rows.append(_other_row(rng, galaxy))
    for _ in range(int(np.ceil(_ELSEWHERE * len(lenses)))):
        ra, dec = float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(0.6, 1))))
        rows.append((_j_name(ra, dec), ra, dec, "measured", "galaxy", "confident", _HST))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, ra, dec, *rest in rows:
        writer.writerow((name, f"{ra:.6f}", f"{dec:.6f}", *rest))
    return stream.getvalue()


Row = tuple[str, float, float, str, str, str, str]


def _lens_row(rng: np.random.Generator, lens: NDArray, ra: float, dec: float) -> Row:
    grading = "confident" if lens["CONFIRMED"] else "probable"
    redshift = f"{float(lens['REDSHIFT']):.4f}" if lens["CONFIRMED"] else str(rng.choice(_WORDS))
    desi, reference = f"DESI-{ra:08.4f}{dec:+08.4f}", str(rng.choice(_MACHINE))
    draw = rng.random()
    if draw < 0.6:
        return desi, ra, dec, redshift, "galaxy", grading, reference
    if draw < 0.8:
        names, redshifts = f"{desi} | {_j_name(ra, dec)}", f"{redshift} | nan"
        return names, ra, dec, redshifts, "galaxy", grading, f"{reference} | {_HST}"
    return _j_name(ra, dec), ra, dec, redshift, "galaxy", grading, _HST


def _other_row(rng: np.random.Generator, galaxy: NDArray) -> Row:
    """A cluster, an X-ray source or an overlapping pair that a compilation of lenses has taken in."""
    ra, dec = _scattered(rng, galaxy, 0.5)
    draw = rng.random()
    if draw < 0.6:
        return f"NSC {_j_name(ra, dec)}", ra, dec, f"{float(galaxy['REDSHIFT']):.2f}", "galaxy", "probable", _CLUSTERS
    if draw < 0.8:
        grading = "confident" if rng.random() < 0.3 else "probable"
        return f"RXC {_j_name(ra, dec)}", ra, dec, "measured", "cluster", grading, _X_RAY
    return f"GAMA {int(rng.integers(10**5, 10**6))}", ra, dec, "-", "galaxy", "probable", _PAIRS


def _scattered(rng: np.random.Generator, row: NDArray, arcsec: float) -> tuple[float, float]:
    dx, dy = rng.normal(0, arcsec / 3600, size=2)
    dec = float(row["DEC"]) + dy
    return float((row["RA"] + dx / np.cos(np.radians(dec))) % 360), dec


def _j_name(ra: float, dec: float) -> str:
    hours, degrees = ra / 15, abs(dec)
    sign = "-" if dec < 0 else "+"
    return f"J{int(hours):02d}{int(hours % 1 * 60):02d}{sign}{int(degrees):02d}{int(degrees % 1 * 60):02d}"
