"""What lies near any row of a lens list is left out, whether or not the row became an entry of lenses.json."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dark_halo_scope.catalogue import lenses
from dark_halo_scope.catalogue.config import LensSettings
from dark_halo_scope.catalogue.lens_positions import LensPositions, read_lens_positions
from dark_halo_scope.core.manifest import attempt, load_manifest
from tiny_survey import write_survey

HEADER = "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"
REACH = 11.0


def positions_of(folder: Path, catalogue: str) -> tuple[LensPositions, int]:
    """Positions behind the lenses.json of a catalogue, and how many entries that has."""
    survey = write_survey(folder, {}, catalogue).description
    output = folder / "lenses.json"
    settings = LensSettings().model_dump_json()
    lenses.main(["--survey", str(survey), "--output", str(output), "--settings", settings])
    manifest = load_manifest(output, "lenses")
    return read_lens_positions(manifest), manifest.rows_out


def test_rows_left_out_by_reference_merged_or_without_a_grade_count_where_they_have_a_position(tmp_path):
    rows = (
        "A,10,1,0.3,galaxy,probable,Menanteau et al. (2010) - x | Stein et al. (2021) - arXiv:2110.00023",
        "B,11,1,0.3,galaxy,confident,Storfer et al. (2022) - arXiv:2206.02764",
        "C,11.0003,1,0.3,galaxy,probable,Storfer et al. (2022) - arXiv:2206.02764",
    )
    found, entries = positions_of(tmp_path, "\n".join(rows) + "\n")
    assert entries == 1
    assert sorted(found.ra) == [10.0, 11.0, 11.0003]
    near = found.near(np.array([10.0, 11.0, 12.0]), np.array([1.0, 1.0, 1.0]) + 10.5 / 3600, REACH)
    assert near.tolist() == [True, True, False]


def test_rows_without_a_position_are_no_positions(tmp_path):
    with attempt(tmp_path / "lenses.json", "lenses", "dark_halo_scope.catalogue.lenses", {}, []) as work:
        entries = [
            lenses._entry("x", line, dict(zip(lenses.COLUMNS, row, strict=True)))
            for line, row in enumerate(
                [
                    ("A", "10", "1", "0.3", "galaxy", "probable", "x"),
                    ("B", "-", "1", "0.3", "galaxy", "probable", "x"),
                    ("C", "400", "1", "0.3", "galaxy", "probable", "x"),
                    ("D", "13", "91", "0.3", "galaxy", "probable", "x"),
                    ("E", "14", "1", "0.3", "galaxy", "unknown", "x"),
                ]
            )
        ]
        groups, dropped = lenses.select(entries, LensSettings())
        pq.write_table(lenses.to_table(groups, np.array([np.nan]), LensSettings()), work.prefix / "lenses.parquet")
        (work.prefix / "quarantine").mkdir()
        pq.write_table(lenses._dropped_table(dropped), work.prefix / "quarantine" / "lenses.parquet")
        work.publish(rows_out=1, facts={})
    assert sorted(read_lens_positions(load_manifest(tmp_path / "lenses.json", "lenses")).ra) == [10.0, 14.0]


def test_every_row_of_lenscat_keeps_negatives_away(real_data, tmp_path):
    rows = lenses.read_lenscat(real_data / "lenscat" / "catalog.csv")
    text = (real_data / "lenscat" / "catalog.csv").read_text(encoding="utf-8").split("\n", 1)[1]
    found, entries = positions_of(tmp_path, text)
    assert (len(found.ra), entries) == (32_838, 18_748)
    assert found.near(np.array([r.ra for r in rows]), np.array([r.dec for r in rows]), REACH).all()
    # Stein 2021 and Storfer 2022 have it, and so has a catalogue of clusters.
    [known] = [r for r in rows if "DESI-348.7317-55.8859" in r.names]
    assert lenses.is_not_lens_catalogue(known) is not None
    assert found.near(np.array([known.ra]), np.array([known.dec]), REACH).all()
