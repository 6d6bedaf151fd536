"""What is drawn has the distribution that it claims, and weights undo what reweighting did."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from dark_halo_scope.injection import priors
from dark_halo_scope.injection.config import (
    ArcSnrRange,
    ColourPrior,
    LensPrior,
    MagnitudePrior,
    ManifestSettings,
    PerSplit,
    SizePrior,
    SourceShapePrior,
    ThetaEPrior,
)

U = (np.arange(20000) + 0.5) / 20000  # evenly spaced quantiles: a sample without sampling noise
RNG = np.random.default_rng(7)
REWEIGHTED = ManifestSettings(target_arc_snr=ArcSnrRange(low=10, high=100), replicates=PerSplit(train=1, val=1, test=1))

unit = st.floats(0, 1, exclude_max=True)


def test_most_einstein_radii_are_outside_the_psf():
    theta = priors.theta_e(U, ThetaEPrior())
    for psfsize in (1.0, 1.25, 1.5):
        x = theta / psfsize
        assert np.mean(x >= 0.5) > 0.85
        assert np.mean(x >= 1.0) >= 0.5
        assert np.mean(x < 0.5 + 0.01) > 0


def test_log_uniform_has_its_median_at_the_geometric_mean():
    theta = priors.theta_e(U, ThetaEPrior(distribution="log_uniform", low=0.5, high=2.0))
    assert np.median(theta) == pytest.approx(1.0, rel=1e-3)


def test_magnitudes_follow_number_counts():
    prior = MagnitudePrior(slope=0.3, bright=20.0, faint=25.0)
    mag = priors.magnitude(U, prior)
    assert mag.min() >= 20.0
    assert mag.max() <= 25.0
    # Counts grow tenfold in 1/0.3 magnitudes.
    ratio = np.sum((mag > 24.0) & (mag < 24.5)) / np.sum((mag > 24.0 - 1 / 0.3) & (mag < 24.5 - 1 / 0.3))
    assert ratio == pytest.approx(10.0, rel=0.05)


def test_the_magnitude_density_is_that_of_the_draws_and_integrates_to_one():
    prior = MagnitudePrior()
    assert integrate.quad(lambda m: float(priors.magnitude_density(m, prior)), 20.0, 25.6)[0] == pytest.approx(1.0)
    counts, edges = np.histogram(priors.magnitude(U, prior), bins=10, range=(22.0, 25.6), density=False)
    centres = (edges[1:] + edges[:-1]) / 2
    assert counts / len(U) / np.diff(edges) == pytest.approx(priors.magnitude_density(centres, prior), rel=0.02)
    assert priors.magnitude_density([19.9, 25.7], prior).tolist() == [0.0, 0.0]


def test_sizes_have_the_stated_median_and_shrink_with_magnitude():
    prior = SizePrior()
    assert np.median(priors.size(U, np.full_like(U, 24.5), prior)) == pytest.approx(0.30, rel=0.01)
    assert np.median(priors.size(U, np.full_like(U, 22.5), prior)) == pytest.approx(0.30 * 10**0.12, rel=0.03)


@given(unit, st.floats(18, 28))
def test_sizes_stay_in_their_limits(u, mag):
    assert 0.05 <= priors.size(np.array([u]), np.array([mag]), SizePrior())[0] <= 1.0


def test_the_size_density_integrates_to_one():
    prior = SizePrior()
    for mag in (20.0, 24.0, 27.0):
        log = np.linspace(np.log10(0.05), 0.0, 4001)
        assert np.trapezoid(priors.size_density(10**log, mag, prior), log) == pytest.approx(1.0, rel=1e-4)


def test_colours_scatter_and_correlate():
    u1, u2 = RNG.random((2, 20000))
    gr, rz = priors.colours(u1, u2, ColourPrior())
    assert (gr.mean(), gr.std(), rz.mean(), rz.std()) == pytest.approx((0.45, 0.30, 0.50, 0.35), abs=0.02)
    assert np.corrcoef(gr, rz)[0, 1] == pytest.approx(0.5, abs=0.03)
    assert min(gr.min(), rz.min()) >= -0.5


def test_constant_colours_cannot_be_configured():
    with pytest.raises(ValueError, match="gr_scatter"):
        ColourPrior(gr_scatter=0.0)


def test_offsets_are_uniform_in_area():
    u1, u2 = RNG.random((2, 20000))
    x, y = priors.offset(u1, u2, np.full(20000, 1.3))
    assert stats.kstest((x**2 + y**2) / 1.3**2, "uniform").pvalue > 1e-3
    assert stats.kstest(np.mod(np.arctan2(y, x), 2 * np.pi) / (2 * np.pi), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("pa_degrees", [0.0, 30.0, 90.0, 150.0])
def test_the_lens_is_aligned_with_its_host_in_array_coordinates(pa_degrees):
    """PA is E of N; with RA growing to the left, phi = PA + 90 deg from +x."""
    pa = np.radians(pa_degrees)
    e1, e2 = 0.3 * np.cos(2 * pa), 0.3 * np.sin(2 * pa)
    half = np.array([0.5])
    e, phi = priors.lens_ellipticity(half, half, np.array([e1]), np.array([e2]), LensPrior(e_scatter=0.0))
    assert e[0] == pytest.approx(0.3)
    assert np.cos(2 * (phi[0] - (pa + np.pi / 2))) == pytest.approx(1.0)
    # The direction itself: north is +y, east is -x.
    assert abs(np.cos(phi[0]) * -np.sin(pa) + np.sin(phi[0]) * np.cos(pa)) == pytest.approx(1.0)


def test_a_round_host_gives_lenses_of_every_orientation():
    u1, u2 = RNG.random((2, 5000))
    zero = np.zeros(5000)
    e, phi = priors.lens_ellipticity(u1, u2, zero, zero, LensPrior())
    assert stats.kstest(phi / np.pi, "uniform").pvalue > 1e-3
    assert e.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.05)
    assert e.max() <= 0.5


@given(unit, unit, st.floats(-0.95, 0.95), st.floats(-0.95, 0.95))
def test_ellipticity_and_orientation_are_always_valid(u1, u2, e1, e2):
    e, phi = priors.lens_ellipticity(*(np.array([v]) for v in (u1, u2, e1, e2)), LensPrior())
    assert 0 <= e[0] <= 0.5
    assert 0 <= phi[0] < np.pi
    assert 1 / 3 <= priors.axis_ratio(e)[0] <= 1


def test_axis_ratio_inverts_tractors_ellipticity():
    assert priors.axis_ratio(1 / 3) == pytest.approx(0.5)


def test_shear_is_rayleigh_and_bounded():
    shear = priors.rayleigh(U, 0.03, 0.15)
    assert shear.mean() == pytest.approx(0.03 * np.sqrt(np.pi / 2), rel=0.01)
    assert shear.max() < 0.15
    assert priors.rayleigh(U, 0.0, 0.15).max() == 0


def test_sersic_indices_centre_on_a_disc():
    n = priors.sersic_index(U, SourceShapePrior())
    assert np.median(n) == pytest.approx(1.0, rel=0.05)
    assert n.min() >= 0.5
    assert n.max() <= 4.0


def test_target_arc_snr_is_log_uniform():
    snr = priors.arc_snr(U, ArcSnrRange(low=10, high=100))
    assert np.median(snr) == pytest.approx(np.sqrt(1000), rel=1e-3)
    assert 10 <= snr.min() < snr.max() <= 100


@given(st.floats(0.06, 0.9), st.floats(21.0, 24.0))
def test_the_weight_is_prior_density_over_proposal_density(reff, mag_at_100):
    """With all else fixed the proposal is uniform over 2.5 magnitudes, so the mean weight is the prior's mass there."""
    mags = mag_at_100 + 2.5 * U[::50]  # arc_snr from 100 down to 10
    mass = np.mean(priors.magnitude_weight(mags, REWEIGHTED, np.full_like(mags, reff)))
    prior = REWEIGHTED.prior

    def joint(m: float) -> float:
        return float(priors.magnitude_density(m, prior.magnitude) * priors.size_density(reff, m, prior.size))

    inside = integrate.quad(joint, mag_at_100, min(mag_at_100 + 2.5, 25.6))[0]
    assert mass == pytest.approx(inside / integrate.quad(joint, 20.0, 25.6)[0], rel=0.02, abs=1e-6)


def test_weighted_draws_have_the_priors_magnitudes():
    """Importance sampling end to end: a toy with arc_snr = flux x a random sensitivity, the prior cut to 10-100."""
    count = 200_000
    prior = REWEIGHTED.prior
    reff = priors.size(RNG.random(count), priors.magnitude(RNG.random(count), prior.magnitude), prior.size)
    zero_mag = RNG.uniform(27.0, 28.5, count)  # magnitude of arc_snr 1
    snr = priors.arc_snr(RNG.random(count), ArcSnrRange(low=10, high=100))
    mag = zero_mag - 2.5 * np.log10(snr)
    weight = priors.magnitude_weight(mag, REWEIGHTED, reff)

    mag_prior = priors.magnitude(RNG.random(count), prior.magnitude)
    reff_prior = priors.size(RNG.random(count), mag_prior, prior.size)
    snr_prior = 10 ** (0.4 * (RNG.uniform(27.0, 28.5, count) - mag_prior))
    kept = (snr_prior >= 10) & (snr_prior <= 100)
    assert np.sum(weight) / count == pytest.approx(kept.mean(), rel=0.03)
    assert np.average(mag, weights=weight) == pytest.approx(mag_prior[kept].mean(), abs=0.02)
    assert np.average(reff, weights=weight) == pytest.approx(reff_prior[kept].mean(), rel=0.02)


def test_a_magnitude_that_the_prior_excludes_weighs_nothing():
    assert priors.magnitude_weight([19.0, 26.5], REWEIGHTED).tolist() == [0.0, 0.0]


def test_there_is_no_weight_without_reweighting():
    plain = REWEIGHTED.model_copy(update={"target_arc_snr": None})
    with pytest.raises(ValueError, match="target_arc_snr"):
        priors.magnitude_weight([24.0], plain)
