"""What `measure_sources` promises: every galaxy has a row, and none is dropped without a reason."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from dark_halo_scope.catalogue.splits import split_of_key
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import sha256_file
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path
from dark_halo_scope.injection import measure_sources
from dark_halo_scope.injection.measure_sources import ROWS, SCHEMA, judged
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.survey.config import SurveyFiles, SurveySettings
from dark_halo_scope.survey.describe import describe
from source_banks import NamedGalaxies, earlier_image, exponential, gaussian, write_galsim_bank, write_hdf5_bank


def survey_of(bank: Path, folder: Path) -> Path:
    """survey.json of a survey that has nothing but this bank."""
    names = ("bricks", "brick_summary", "sweeps", "photoz", "coadds")
    files = SurveyFiles(**dict.fromkeys(names, "none"), lenses=[], sources=str(bank))
    settings = SurveySettings(name="toy", release="dr10.1", region="south", coadd_layout="release", files=files)
    describe(settings, folder / "survey.json", 1)
    return folder / "survey.json"


def measured(
    catalogue: Path, folder: Path, processes: int = 1, output: str = "sources.json", **settings: object
) -> Manifest:
    """Run the command line."""
    survey = survey_of(catalogue, folder)
    arguments = ["--survey", str(survey), "--settings", json.dumps(settings), "--processes", str(processes)]
    measure_sources.main([*arguments, "--output", str(folder / output)])
    return load_manifest(folder / output, "sources")


def rows_of(manifest: Manifest) -> list[dict]:
    table = pq.read_table(verified_path(manifest, ROWS))
    assert table.schema == SCHEMA
    return table.to_pylist()


def companion(catalogue: Path, idents: list[int], radius_pixels: list[float]) -> None:
    """The `_fits` table that GalSim's COSMOS samples bring."""
    columns = [np.array(idents), np.array(radius_pixels), np.full((len(idents), 3), 0.1)]
    table = np.rec.fromarrays(columns, dtype=[("IDENT", "i4"), ("flux_radius", "f8"), ("hlr", "f8", (3,))])
    fits.BinTableHDU(table).writeto(catalogue.with_name(f"{catalogue.stem}_fits.fits"))


def test_every_galaxy_has_a_row_with_its_measured_and_its_catalogued_size(tmp_path: Path) -> None:
    images = [50 * gaussian(81, sigma) for sigma in (6.0, 4.0, 8.0)]
    bank = write_galsim_bank(tmp_path / "bank", images, IDENT=np.array([205, 7, 31]))
    companion(bank, [7, 205], [4.7, 7.1])
    manifest = measured(bank, tmp_path)
    rows = rows_of(manifest)
    assert [row["source_id"] for row in rows] == ["7", "31", "205"]
    assert [row["place"] for row in rows] == [1, 2, 0]
    for row, sigma, catalogue in zip(rows, (4.0, 8.0, 6.0), (4.7, None, 7.1), strict=True):
        assert row["usable"]
        assert row["reason"] is None
        assert row["half_light_arcsec"] == pytest.approx(0.03 * 1.1774 * sigma, rel=0.02)
        assert row["catalogue_half_light_arcsec"] == (catalogue and pytest.approx(0.03 * catalogue))
        assert (row["file"], row["magnitude"]) == ("images.fits", 22.5)
        assert row["split"] == split_of_key(f"source_{row['source_id']}", 42)
    facts = manifest.facts
    assert facts["bank"]["galaxies"] == sum(facts["splits"].values()) == 3
    assert (facts["bank"]["format"], facts["bank"]["bands"]) == ("galsim", ["F814W"])
    assert facts["unusable"] == {}
    here = {path.name: sha256_file(path) for path in bank.parent.iterdir()}
    assert facts["bank"]["files"] == here
    assert set(here) == {"images.fits", "real_galaxy_catalog.fits", "real_galaxy_catalog_fits.fits"}
    assert facts["radius_ratio"]["p50"] == pytest.approx(1.0, abs=0.03)


def test_unusable_galaxies_keep_their_row_with_the_reason(tmp_path: Path) -> None:
    images = [gaussian(81, 5.0), np.zeros((81, 81)), np.full((81, 81), np.nan), gaussian(81, 5.0), gaussian(81, 5.0)]
    bank = write_galsim_bank(tmp_path / "bank", images, GAL_HDU=np.array([0, 1, 2, 3, 9]))
    companion(bank, [100, 103], [6.0, 60.0])
    manifest = measured(bank, tmp_path, max_unusable_fraction=0.9)
    reasons = {row["source_id"]: row["reason"] for row in rows_of(manifest) if not row["usable"]}
    assert reasons["101"] == "no light above the noise"
    assert reasons["102"] == "HDU 2 of images.fits is not an image of finite numbers"
    assert reasons["103"] == "half-light radius far below the catalogue's"
    assert reasons["104"].startswith("HDU 9 of images.fits cannot be read")
    assert len(reasons) == 4
    assert sum(manifest.facts["unusable"].values()) == 4
    assert sum(manifest.facts["splits"].values()) == 1
    # A size that is out of limits was still measured.
    assert rows_of(manifest)[3]["half_light_arcsec"] == pytest.approx(0.177, rel=0.02)


@pytest.mark.parametrize("radius", [float("nan"), 0.0, float("inf")])
def test_a_galaxy_without_a_size_is_unusable(radius: float) -> None:
    row, other = judged(NamedGalaxies([3, 4]), [(0, radius, None), (1, 0.3, None)], SourceCheckSettings()).to_pylist()
    assert (row["usable"], row["reason"], row["half_light_arcsec"]) == (False, "no measurable size", None)
    assert other["usable"]


def test_a_galaxy_far_larger_than_catalogued_is_unusable(tmp_path: Path) -> None:
    bank = write_galsim_bank(tmp_path / "bank", [gaussian(81, 5.0)] * 2)
    companion(bank, [100, 101], [2.0, 6.0])
    rows = rows_of(measured(bank, tmp_path, max_unusable_fraction=0.5))
    assert [row["reason"] for row in rows] == ["half-light radius far above the catalogue's", None]


def test_too_many_unusable_galaxies_stop_with_the_commonest_reason(tmp_path: Path) -> None:
    bank = write_galsim_bank(tmp_path / "bank", [gaussian(81, 5.0), np.zeros((81, 81)), np.zeros((81, 81))])
    with pytest.raises(BadInputError, match=r"2 of the 3 .* \(2\): no light above the noise"):
        measured(bank, tmp_path)
    assert not (tmp_path / "sources.json").exists()


def test_a_missing_image_file_stops_the_run_instead_of_costing_its_galaxies(tmp_path: Path) -> None:
    bank = write_galsim_bank(tmp_path / "bank", [gaussian(81, 5.0)] * 2)
    (bank.parent / "images.fits").unlink()
    with pytest.raises(CorruptDataError, match=r"images\.fits"):
        measured(bank, tmp_path, max_unusable_fraction=0.9)


def test_processes_change_no_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [earlier_image(15 * exponential(96, rng.uniform(4, 12)), 2.6e-3, rng) for _ in range(110)]
    bank = write_hdf5_bank(tmp_path / "bank.h5", images)
    one = measured(bank, tmp_path, 1, "one/sources.json", min_radius_ratio=0.05)
    two = measured(bank, tmp_path, 2, "two/sources.json", min_radius_ratio=0.05)
    assert one.sha256 == two.sha256
    assert one.facts == two.facts
    assert one.rows_out == 110
    assert one.facts["bank"]["format"] == "hdf5"
    # The pedestal is in the catalogue's radii and not in the measured ones.
    assert one.facts["radius_ratio"]["p50"] < 0.9
    assert [row["place"] for row in rows_of(one)] == list(range(110))


def test_another_image_in_the_bank_is_another_checksum(tmp_path: Path) -> None:
    first = measured(write_galsim_bank(tmp_path / "a", [gaussian(81, 5.0)]), tmp_path, output="a.json")
    same = measured(write_galsim_bank(tmp_path / "b", [gaussian(81, 5.0)]), tmp_path, output="b.json")
    other = measured(write_galsim_bank(tmp_path / "c", [gaussian(81, 5.1)]), tmp_path, output="c.json")
    checksums = [manifest.facts["bank"]["sha256"] for manifest in (first, same, other)]
    assert checksums[0] == checksums[1] != checksums[2]


@pytest.mark.parametrize(
    "name", ["paltas_10gal/real_galaxy_catalog_23.5.fits", "galsim_aegis/AEGIS_F814w_catalog.fits"]
)
def test_real_banks_are_usable_whole(real_data: Path, tmp_path: Path, name: str) -> None:
    manifest = measured(real_data / "cosmos_sources" / name, tmp_path)
    rows = rows_of(manifest)
    assert all(row["usable"] for row in rows)
    if "paltas" in name:
        ratios = [row["half_light_arcsec"] / row["catalogue_half_light_arcsec"] for row in rows]
        assert ratios == pytest.approx([1.0] * 10, abs=0.06)
    else:
        assert [row["catalogue_half_light_arcsec"] for row in rows] == [None] * 5


def test_with_the_psf_taken_out_sizes_are_compared_with_the_fits(real_data: Path, tmp_path: Path) -> None:
    catalogue = real_data / "cosmos_sources" / "galsim_aegis" / "AEGIS_F814w_catalog.fits"
    kept = rows_of(measured(catalogue, tmp_path, output="kept.json"))
    sharp = rows_of(measured(catalogue, tmp_path, output="sharp.json", bank={"psf": "deconvolve"}))
    assert all(row["usable"] for row in sharp)
    assert np.median([s["half_light_arcsec"] / k["half_light_arcsec"] for s, k in zip(sharp, kept, strict=True)]) < 0.99
    bank = write_galsim_bank(tmp_path / "bank", [gaussian(81, 5.0)], gaussian(21, 1.5))
    companion(bank, [100], [7.0])
    (row,) = rows_of(measured(bank, tmp_path, output="hlr.json", bank={"psf": "deconvolve"}))
    assert row["catalogue_half_light_arcsec"] == pytest.approx(0.1)  # hlr, and not 0.03 flux_radius
