"""Hosts of injection and recovery: of the test split, away from lenses, the same in any order of files."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.catalogue.lens_positions import LensPositions
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.injection.recovery_hosts import read_hosts
from dark_halo_scope.injection.recovery_schema import HOST_SCHEMA
from dark_halo_scope.survey.units import depth_inverse_variance
from recovery_scene import bricks_of, host, some_hosts, write_hosts

NOWHERE = LensPositions(np.empty(0), np.empty(0))
SETTINGS = RecoverySettings()


def _read(hosts: list[dict], settings: RecoverySettings = SETTINGS, lenses: LensPositions = NOWHERE, **how: object):
    write_hosts(Path("hosts.json"), hosts, **how)  # type: ignore[arg-type]
    counts: Counter[str] = Counter()
    bricks = {one["brickname"] for one in hosts}
    return read_hosts(load_manifest(Path("hosts.json")), lenses, bricks, settings, counts), counts


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_only_galaxies_of_the_test_split_are_hosts_and_the_others_are_counted() -> None:
    hosts, counts = _read([*some_hosts(4), *some_hosts(3, "train"), *some_hosts(2, "val")])
    assert hosts.schema == HOST_SCHEMA
    assert set(hosts["split"].to_pylist()) == {"test"}
    assert (hosts.num_rows, counts["other_split"], counts["read"], counts["taken"]) == (4, 5, 9, 4)


def test_a_galaxy_of_training_that_calls_itself_test_is_an_error() -> None:
    [liar] = some_hosts(1, "train")
    with pytest.raises(CorruptDataError, match="not their position's"):
        _read([*some_hosts(2), liar | {"split": "test"}])


def test_a_galaxy_of_an_unknown_split_is_an_error() -> None:
    with pytest.raises(CorruptDataError, match="no known split"):
        _read([*some_hosts(2), some_hosts(3)[2] | {"split": "holdout"}])


def test_a_galaxy_near_a_known_lens_is_no_host() -> None:
    near, *others = some_hosts(4)
    lenses = LensPositions(np.array([near["ra"]]), np.array([near["dec"] - 10.0 / 3600]))
    hosts, counts = _read([near, *others], lenses=lenses)
    assert near["galaxy_id"] not in hosts["galaxy_id"].to_pylist()
    assert (hosts.num_rows, counts["near_lens"]) == (3, 1)


@pytest.mark.parametrize("change", [{"psfsize_g": 0.0}, {"psfdepth_r": None}, {"ebv": float("nan")}])
def test_a_galaxy_of_unknown_conditions_is_no_host(change: dict) -> None:
    first, *others = some_hosts(3)
    hosts, counts = _read([first | change, *others])
    assert (hosts.num_rows, counts["unknown_condition"]) == (2, 1)


def test_a_galaxy_in_a_brick_without_coadds_is_no_host() -> None:
    write_hosts(Path("hosts.json"), some_hosts(4))
    counts: Counter[str] = Counter()
    first = bricks_of("test", 2)[0]
    hosts = read_hosts(load_manifest(Path("hosts.json")), NOWHERE, {first}, SETTINGS, counts)
    assert set(hosts["brickname"].to_pylist()) == {first}
    assert counts["brick_not_cached"] == 2
    with pytest.raises(BadInputError, match="has no host"):
        read_hosts(load_manifest(Path("hosts.json")), NOWHERE, {"nowhere"}, SETTINGS, Counter())


def test_a_limit_draws_the_same_hosts_from_any_number_and_order_of_files() -> None:
    settings = RecoverySettings(max_hosts=5)
    galaxies = some_hosts(20)
    one, counts = _read(galaxies, settings, files=1)
    many, _ = _read(galaxies[::-1], settings, files=7)
    assert one.equals(many)
    assert (one.num_rows, counts["not_drawn"]) == (5, 15)
    other, _ = _read(galaxies, RecoverySettings(max_hosts=5, seed=14))
    assert not one["galaxy_id"].equals(other["galaxy_id"])


def test_negatives_of_the_pool_bring_inverse_variances_and_no_redshift() -> None:
    [galaxy] = some_hosts(1)
    depths = {f"psfdepth_{band}": float(depth_inverse_variance(galaxy[f"psfdepth_{band}"])) for band in "grz"}
    row = {name: value for name, value in galaxy.items() if name != "z_phot"} | depths
    row |= {f"mag_{band}": galaxy[f"{band}mag"] for band in "grz"}
    hosts, _ = _read([row], kind="negatives", files=1)
    assert hosts["psfdepth_r"][0].as_py() == pytest.approx(24.0)
    assert hosts["rmag"][0].as_py() == 19.5
    assert hosts["z_phot"][0].as_py() is None


def test_a_galaxy_listed_twice_and_a_manifest_of_another_kind_are_errors() -> None:
    [galaxy] = some_hosts(1)
    with pytest.raises(BadInputError, match="twice"):
        _read([galaxy, galaxy])
    with pytest.raises(BadInputError, match="is one of"):
        _read([host(150, 150, galaxy["brickname"], 5)], kind="stamps")
