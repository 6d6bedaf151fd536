"""What injection for recovery promises: draws of their own, weights that bring the prior back, rungs that differ in one
thing, and the same bytes however the work is shared."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError
from scipy import stats

from brick_scene import SIDE, planes, write_brick
from dark_halo_scope.injection import recovery
from dark_halo_scope.injection.config import MagnitudePrior, PriorSettings, ThetaEPrior
from dark_halo_scope.injection.galaxy_images import GalaxyImage
from dark_halo_scope.injection.recovery_config import FAMILIES, RUNGS, MagnitudeProposal, RecoverySettings
from dark_halo_scope.injection.recovery_schema import INJECTION_SCHEMA, LEFT_OUT_SCHEMA
from dark_halo_scope.survey.coadds import BrickCoadds
from recovery_scene import host, some_hosts, table
from source_banks import gaussian

ONE = RecoverySettings(rungs=RUNGS, replicates=1)
IDENTS = (7, 11)


class Bank:
    """Two round galaxies."""

    def galaxy(self, ident: int) -> GalaxyImage:
        return GalaxyImage(gaussian(41, 5.0).astype(np.float32), 0.03, 0.03 * 5.0 * 1.1774)


Open = Callable[[str], AbstractContextManager[BrickCoadds]]


@pytest.fixture
def bricks(tmp_path: Path) -> Open:
    paths = {name: write_brick(tmp_path, planes(), name) for name in {one["brickname"] for one in some_hosts(2)}}
    return lambda name: BrickCoadds(paths[name], name)


def _render(hosts: list[dict], bricks: Open, settings: RecoverySettings = ONE, size: int = 64) -> recovery.Rendered:
    return recovery.render(table(hosts), bricks, Bank(), IDENTS, settings, size)  # type: ignore[arg-type]


def _rung(found: recovery.Rendered, rung: str) -> tuple[np.ndarray, pa.Table]:
    chosen = pc.equal(found.rows["rung"], rung)
    return found.images[chosen.to_numpy()].astype(np.float64), found.rows.filter(chosen)


def test_a_draw_depends_on_its_host_alone() -> None:
    settings = RecoverySettings(replicates=2)
    hosts = some_hosts(6)
    together = recovery.draw(table(hosts), settings)
    alone = recovery.draw(table(hosts[3:4]), settings)
    assert together.slice(6, 2).equals(alone)
    assert pc.count_distinct(together["task_id"]).as_py() == 12


def test_weights_bring_the_prior_back() -> None:
    """The weighted mean of what was proposed is the prior's mean, and weights average to one."""
    prior = PriorSettings(theta_e=ThetaEPrior(distribution="log_uniform", low=0.5, high=2.0))
    settings = RecoverySettings(prior=prior, theta_e=ThetaEPrior(low=0.4, high=2.5), replicates=4000)
    drawn = recovery.draw(table(some_hosts(1)), settings)
    weight, theta_e, mag = (drawn[name].to_numpy() for name in ("weight", "theta_e_arcsec", "src_mag_r"))
    error = weight.std() / np.sqrt(len(weight))
    assert weight.mean() == pytest.approx(1.0, abs=4 * error)
    assert np.average(theta_e, weights=weight) == pytest.approx(1.5 / np.log(4.0), rel=0.1)
    k, length = 0.3 * np.log(10), 5.6
    mean = 20.0 + length / (1 - np.exp(-k * length)) - 1 / k
    assert np.average(mag, weights=weight) == pytest.approx(mean, abs=0.15)
    assert (weight[(theta_e < 0.5) | (theta_e > 2.0)] == 0).all()


def test_a_proposal_with_the_priors_own_density_has_weights_of_one() -> None:
    settings = RecoverySettings(magnitude=MagnitudeProposal(slope=0.3), replicates=50)
    weight = recovery.draw(table(some_hosts(2)), settings)["weight"].to_numpy()
    np.testing.assert_allclose(weight, 1.0, rtol=1e-9)


def test_proposed_magnitudes_follow_their_density() -> None:
    u = (np.arange(2000) + 0.5) / 2000
    uniform = recovery.proposed_magnitude(u, MagnitudeProposal(bright=20, faint=26))
    assert stats.kstest(uniform, stats.uniform(20, 6).cdf).statistic < 0.001
    steep = recovery.proposed_magnitude(u, MagnitudeProposal(slope=0.3, bright=20, faint=26))
    assert np.mean(steep > 25) == pytest.approx((10**1.8 - 10**1.5) / (10**1.8 - 1), abs=0.002)


def test_sources_lie_within_the_caustics() -> None:
    drawn = recovery.draw(table(some_hosts(3)), RecoverySettings(replicates=100))
    beta, limit = (drawn[name].to_numpy() for name in ("beta_arcsec", "caustic_radius_arcsec"))
    assert (beta <= limit).all()
    # Uniform in area: half of them beyond 1 / sqrt(2).
    assert np.mean(beta / limit > np.sqrt(0.5)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"theta_e": {"low": 0.6, "high": 3.0}},
        {"magnitude": {"bright": 20.0, "faint": 25.0}},
        {"rungs": ["clumpy", "clumpy"]},
        {"rungs": ["paired_oracle"]},
        {"rungs": []},
    ],
)
def test_a_proposal_that_misses_part_of_the_prior_and_unknown_rungs_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        RecoverySettings.model_validate(changes)


def test_the_prior_may_be_narrower_than_the_proposal() -> None:
    narrow = PriorSettings(theta_e=ThetaEPrior(low=1.0, high=2.0), magnitude=MagnitudePrior(bright=22, faint=25))
    assert RecoverySettings(prior=narrow).prior.magnitude.faint == 25


def test_rungs_share_a_draw_and_differ_in_one_thing(bricks: Open) -> None:
    found = _render([host(150.2, 149.7, some_hosts(1)[0]["brickname"], 1)], bricks)
    assert found.rows.schema == INJECTION_SCHEMA
    assert found.rows["rung"].to_pylist() == list(RUNGS)
    assert pc.count_distinct(found.rows["task_id"]).as_py() == 1
    assert found.images.dtype == np.float16
    rows = {row["rung"]: row for row in found.rows.to_pylist()}
    bare, _ = recovery.cut_bare(table([host(150.2, 149.7, some_hosts(1)[0]["brickname"], 1)]), bricks, 64, ONE.quality)
    arc = {rung: image.astype(np.float64) - bare[0] for rung, image in zip(RUNGS, found.images, strict=True)}
    # psfsize as a Moffat's FWHM is a wider PSF than one of the same noise-equivalent area: a lower, wider arc.
    assert arc["sersic_fwhm"].max() < 0.95 * arc["sersic_nea"].max()
    assert arc["sersic_fwhm"].sum() == pytest.approx(arc["sersic_nea"].sum(), rel=0.03)
    noise = arc["sersic_noise"] - arc["sersic_nea"]
    assert noise.std() > 0
    assert rows["sersic_noise"]["arc_snr"] == rows["sersic_nea"]["arc_snr"]
    assert len({row["magnification"] for rung, row in rows.items() if rung.startswith("sersic")}) == 1
    assert rows["clumpy"]["magnification"] != rows["sersic_nea"]["magnification"]
    assert {row["source_id"] for row in rows.values()} - {None} <= {"7", "11"}
    assert {rung for rung, row in rows.items() if row["selection"]} == set(FAMILIES.values())


def test_an_arcs_light_is_what_its_row_says(bricks: Open) -> None:
    where = host(150, 150, some_hosts(1)[0]["brickname"], 2)
    found = _render([where], bricks, RecoverySettings(rungs=("sersic_nea",), replicates=8))
    bare, _ = recovery.cut_bare(table([where]), bricks, 64, ONE.quality)
    for image, row in zip(found.images, found.rows.to_pylist(), strict=True):
        light = (image.astype(np.float64) - bare[0]).sum(axis=(1, 2))[1]
        flux = 10 ** (0.4 * (22.5 - row["lensed_mag_r"]))
        assert flux == pytest.approx(10 ** (0.4 * (22.5 - row["src_mag_r"])) * row["magnification"])
        assert light == pytest.approx(flux, rel=0.05, abs=0.05)


def test_shot_noise_has_the_variance_of_the_arcs_electrons(bricks: Open) -> None:
    hosts = some_hosts(2)
    noisy = _rung(
        _render(hosts, bricks, RecoverySettings(rungs=("sersic_nea", "sersic_noise"), replicates=40)), "sersic_noise"
    )
    quiet = _rung(
        _render(hosts, bricks, RecoverySettings(rungs=("sersic_nea", "sersic_noise"), replicates=40)), "sersic_nea"
    )
    bare, _ = recovery.cut_bare(table(hosts), bricks, 64, ONE.quality)
    sky = 10 ** (0.4 * (22.5 - 20.91)) * 0.262**2
    gain = sky / 0.008**2
    arc = quiet[0][:, 1] - np.repeat(bare[:, 1].astype(np.float64), 40, axis=0)
    expected = np.maximum(arc, 0) / gain
    # Rounding to float16 is a small part of it where the arc is bright.
    bright = arc > 0.02
    ratio = ((noisy[0][:, 1] - quiet[0][:, 1])[bright] ** 2).sum() / expected[bright].sum()
    assert ratio == pytest.approx(1.0, abs=0.15)


def test_units_and_their_order_change_no_pixel(bricks: Open) -> None:
    hosts = table(some_hosts(4)).sort_by("brickname")
    settings = RecoverySettings(rungs=("sersic_noise", "clumpy"), replicates=2)
    whole = recovery.render(hosts, bricks, None, (), settings, 64)
    parts = [recovery.render(hosts.slice(*unit), bricks, None, (), settings, 64) for unit in ((0, 1), (1, 3))]
    np.testing.assert_array_equal(whole.images, np.concatenate([part.images for part in parts]))
    assert whole.rows.equals(pa.concat_tables([part.rows for part in parts]))


def test_units_cover_all_hosts_once_and_hold_no_more_images_than_allowed() -> None:
    settings = RecoverySettings(rungs=("clumpy", "sersic_noise"), replicates=3, unit_images=20)
    found = recovery.units(table(some_hosts(10)), settings)
    assert [place for first, count in found for place in range(first, first + count)] == list(range(10))
    assert max(count for _, count in found) == 3


def test_a_host_off_its_brick_is_left_out_with_the_reason_and_nothing_is_lost(bricks: Open) -> None:
    brick = some_hosts(1)[0]["brickname"]
    found = _render([host(10, 150, brick, 1), host(150, 150, brick, 2)], bricks)
    assert found.left_out.schema == LEFT_OUT_SCHEMA
    assert found.rows.num_rows + found.left_out.num_rows == 2 * len(RUNGS)
    assert set(found.left_out["quarantine_reason"].to_pylist()) == {"off the edge of the brick"}
    assert found.left_out["rung"].to_pylist() == list(RUNGS)


def test_a_host_that_real_images_would_not_have_is_no_host(tmp_path: Path) -> None:
    """A finder that never saw missing pixels beside the centre would be judged on them."""
    brick = some_hosts(1)[0]["brickname"]
    content = planes()
    content["image-g"][140:160, 170:174] = 0.0
    content["invvar-g"][140:160, 170:174] = 0.0
    paths = write_brick(tmp_path, content, brick)
    found = _render([host(150, 150, brick, 1), host(90, 90, brick, 2)], lambda name: BrickCoadds(paths, name))
    assert set(found.left_out["quarantine_reason"].to_pylist()) == {"too many pixels missing in the centre"}
    assert set(found.left_out["galaxy_id"].to_pylist()) == {f"{brick}_1"}
    assert set(found.rows["galaxy_id"].to_pylist()) == {f"{brick}_2"}


def test_a_host_too_bright_for_packed_images_is_left_out(tmp_path: Path) -> None:
    brick = some_hosts(1)[0]["brickname"]
    content = planes()
    content["image-r"][SIDE // 2, SIDE // 2] = 1e6
    paths = write_brick(tmp_path, content, brick)
    found = _render([host(150, 150, brick, 1)], lambda name: BrickCoadds(paths, name))
    assert found.images.shape == (0, 3, 64, 64)
    assert set(found.left_out["quarantine_reason"].to_pylist()) == {recovery.TOO_BRIGHT}


def test_stamps_may_be_of_101_pixels(bricks: Open) -> None:
    found = _render([host(150, 150, some_hosts(1)[0]["brickname"], 1)], bricks, size=101)
    assert found.images.shape == (len(RUNGS), 3, 101, 101)
