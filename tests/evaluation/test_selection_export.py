"""What others get: files that say what they hold, and a lookup that needs neither torch nor this project's results."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable.ucd import parse_ucd
from astropy.table import QTable, Table
from astropy.units import Unit

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.evaluation.completeness_lookup import load_selection_function
from dark_halo_scope.evaluation.recovered import found_by, read_recovered
from dark_halo_scope.evaluation.selection_config import SelectionFunctionSettings
from dark_halo_scope.evaluation.selection_export import (
    COLUMNS,
    FACTS,
    README,
    SURFACE_COLUMNS,
    read_parquet,
    readme,
    write_fits,
    write_parquet,
)
from dark_halo_scope.evaluation.selection_function import tabulate

from .recovery_files import draw_recovery, write_recovery

SURFACE = {
    "threshold": np.array(["p0.5", "p0.5"]),
    "family": np.array(["all", "all"]),
    **{name: np.array([0.5, 1.0]) for name in ("theta_e_arcsec", "z", "value", "low", "high", "sd")},
    "n": np.array([3, 4]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with selection_function.parquet and .fits of 400 draws on a coarse grid."""
    folder = tmp_path_factory.mktemp("export")
    settings = SelectionFunctionSettings(
        edges=SelectionFunctionSettings().edges | {"rmag": (16.0, 23.0), "lensed_mag_r": (18.0, 22.0, 26.0)}
    )
    rows, _ = draw_recovery(400, seed=1)
    recovered = read_recovered(load_manifest(write_recovery(folder / "recovery.json", rows)))
    thresholds = {"p0.5": 0.0, "fpr0.01": 1.2}
    columns = tabulate(recovered, found_by(recovered, thresholds), settings.edges, None, 20, 0.95)
    facts = {
        "generation": "real_known",
        "model_sha256": "a" * 64,
        "frozen_sha256": "b" * 64,
        "thresholds": thresholds,
        "families": list(recovered.families),
        "edges": settings.edges,
        "min_cell": 20,
        "confidence": 0.95,
        "rows_per_draw": 3.0,
        "injections": 1200,
        "hosts": 400,
    }
    write_parquet(folder / "selection_function.parquet", columns, facts)
    write_fits(folder / "selection_function.fits", columns, SURFACE, facts)
    return folder


@pytest.mark.parametrize("described", [COLUMNS, SURFACE_COLUMNS])
def test_every_column_has_a_unit_that_astropy_knows_a_ucd_of_the_vocabulary_and_a_sentence(described: dict) -> None:
    for about in described.values():
        Unit(about.unit, format="vounit")
        parse_ucd(about.ucd, check_controlled_vocabulary=True)
        assert len(about.description) > 8
        assert about.description.isascii()


def test_fits_says_what_each_column_is(files: Path) -> None:
    with fits.open(files / "selection_function.fits") as opened:
        table = opened["SELECTION"]
        assert [column.name for column in table.columns] == list(COLUMNS)
        for place, about in enumerate(COLUMNS.values(), start=1):
            assert table.header[f"TUCD{place}"] == about.ucd
            assert table.header[f"TCOMM{place}"] == about.description
            assert table.header.get(f"TUNIT{place}", "") == about.unit
        comments = "\n".join(opened[0].header["COMMENT"])
        assert "C = load_selection_function" in comments
        assert "threshold fpr0.01: logit 1.2" in comments
        opened.verify("exception")


def test_fits_and_parquet_hold_the_same_numbers(files: Path) -> None:
    columns, _ = read_parquet(files / "selection_function.parquet")
    table = QTable.read(files / "selection_function.fits", hdu="SELECTION", mask_invalid=False)
    assert table["theta_e_arcsec_low"].unit == Unit("arcsec")
    for name in COLUMNS:
        values = np.asarray(table[name].value)
        if columns[name].dtype.kind == "f":
            assert np.array_equal(values, columns[name], equal_nan=True)
        else:
            assert values.astype(str).tolist() == columns[name].astype(str).tolist()
    surface = QTable.read(files / "selection_function.fits", hdu="SURFACE")
    assert surface["n"].tolist() == [3, 4]


def test_parquet_carries_votable_metadata_that_astropy_reads(files: Path) -> None:
    table = Table.read(files / "selection_function.parquet", format="parquet.votable")
    assert table["psfdepth_r_high"].unit == Unit("mag")
    assert table["value"].meta["ucd"] == "stat.probability"
    assert table["value"].description == COLUMNS["value"].description
    assert len(table) == pq.read_metadata(files / "selection_function.parquet").num_rows


def test_the_text_in_the_file_is_ascii_and_its_example_runs_without_torch(files: Path) -> None:
    text = pq.read_schema(files / "selection_function.parquet").metadata[README.encode()].decode()
    assert text.isascii()
    assert "real_known" in text
    lines = text.splitlines()
    example = lines[lines.index("from dark_halo_scope.evaluation.completeness_lookup import load_selection_function") :]
    assert len(example) <= 5
    script = "\n".join([*example, "import sys", "assert 'torch' not in sys.modules", "assert len(found.value) == 3"])
    subprocess.run([sys.executable, "-c", script], cwd=files, check=True, timeout=300)


def test_a_file_without_surface_has_one_table(files: Path, tmp_path: Path) -> None:
    columns, facts = read_parquet(files / "selection_function.parquet")
    write_fits(tmp_path / "one.fits", columns, {}, facts)
    with fits.open(tmp_path / "one.fits") as opened:
        assert [hdu.name for hdu in opened] == ["PRIMARY", "SELECTION"]


def test_what_is_no_selection_function_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        load_selection_function(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("C = 0.5")
    with pytest.raises(CorruptDataError, match="no readable Parquet"):
        load_selection_function(tmp_path / "text.parquet")
    pq.write_table(pa.table({"value": [0.5]}), tmp_path / "other.parquet")
    with pytest.raises(CorruptDataError, match="not the selection function"):
        load_selection_function(tmp_path / "other.parquet")
    table = pq.read_table(files / "selection_function.parquet")
    later = table.schema.metadata | {FACTS.encode(): b'{"version": 2}'}
    pq.write_table(table.replace_schema_metadata(later), tmp_path / "later.parquet")
    with pytest.raises(BadInputError, match="layout 2"):
        load_selection_function(tmp_path / "later.parquet")


def test_the_text_names_thresholds_and_what_intervals_do_not_know(files: Path) -> None:
    text = readme(read_parquet(files / "selection_function.parquet")[1])
    assert "also of those without coadds" in text
    assert "fpr0.01 (logit 1.2)" in text
    assert "which these intervals do not know" in text
