"""Each LRG selection is the published one: rows just inside each cut pass, rows just outside fail."""

import itertools

import fitsio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.catalogue.selection import (
    FLAGS,
    SWEEP_COLUMNS,
    VARIANTS,
    bad_row_reasons,
    is_fine,
    lrg_flags,
    magnitudes,
    mark_bad,
)

EXTINCTION = {"G": 1.0, "R": 1.0, "Z": 1.0, "W1": 1.0}


def flux(mag: float) -> float:
    return 10 ** (0.4 * (22.5 - mag))


def row(g=22.0, r=20.6, z=19.6, w1=18.3, kind="DEV", transmission=None, fiber=20.5, **changes):
    """One galaxy; magnitudes are as observed, except that `transmission` multiplies the flux beneath them."""
    values = {name: 0 for name in SWEEP_COLUMNS}
    t = EXTINCTION | (transmission or {})
    for band, mag in zip(("G", "R", "Z", "W1"), (g, r, z, w1), strict=True):
        values[f"FLUX_{band}"] = flux(mag)
        values[f"FLUX_IVAR_{band}"] = 100.0
        values[f"MW_TRANSMISSION_{band}"] = t[band]
    values |= {"BRICKNAME": "0001p000", "TYPE": kind, "RA": 10.0, "DEC": 1.0, "EBV": 0.05, "SHAPE_R": 1.0}
    values |= {"FIBERFLUX_Z": flux(fiber), "FIBERTOTFLUX_Z": flux(fiber), "NOBS_G": 3, "NOBS_R": 3, "NOBS_Z": 3}
    return {name: np.array([value]) for name, value in (values | changes).items()}


def passes(flag: str, **kwargs) -> bool:
    return bool(lrg_flags(row(**kwargs))[flag][0])


CONTRACT = {
    "v1_pure_massive": (20.0, 0.5, 1.6),
    "v2_baseline_dr10": (20.4, 0.4, 1.6),
    "v3_color_relaxed": (20.4, 0.4, 0.8),
    "v4_mag_relaxed": (21.0, 0.4, 0.8),
    "v5_very_relaxed": (21.5, 0.3, 0.8),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_variants_are_those_of_the_earlier_pipeline(name):
    z_max, rz, zw1 = CONTRACT[name]
    flag = f"is_{name}"
    inside = {"z": z_max - 0.01, "r": z_max - 0.01 + rz + 0.01, "w1": z_max - 0.01 - zw1 - 0.01}
    assert passes(flag, **inside)
    assert not passes(flag, **(inside | {"z": z_max + 0.01, "r": z_max + rz + 0.03, "w1": z_max - zw1 - 0.02}))
    assert not passes(flag, **(inside | {"r": z_max - 0.01 + rz - 0.01}))
    assert not passes(flag, **(inside | {"w1": z_max - 0.01 - zw1 + 0.01}))
    assert not passes(flag, **inside, kind="PSF")
    assert not passes(flag, **inside, kind="DUP")


def test_variants_use_observed_magnitudes_and_the_others_dereddened_ones():
    # Behind A_z = 0.5 mag a galaxy of z = 20.8 observed is z = 20.3 dereddened.
    dusty = {"z": 20.8, "r": 21.8, "w1": 19.0, "transmission": {"Z": 10**-0.2, "R": 10**-0.32}}
    assert not passes("is_v3_color_relaxed", **dusty)
    mag = magnitudes(row(**dusty), dereddened=True)
    assert mag["Z"][0] == pytest.approx(20.3)
    assert mag["R"][0] == pytest.approx(21.0)


@given(st.floats(16, 24), st.floats(-1, 3), st.floats(-1, 4))
def test_relaxed_variants_contain_strict_ones(z, rz, zw1):
    flags = {name: passes(f"is_{name}", z=z, r=z + rz, w1=z - zw1) for name in VARIANTS}
    for strict, relaxed in itertools.pairwise(VARIANTS):
        assert not flags[strict] or flags[relaxed]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"z": 16.99, "r": 18.0, "w1": 16.0}, False),
        ({"z": 21.01, "r": 22.0, "w1": 19.5}, False),
        ({"r": 23.01, "z": 20.9, "w1": 18.0}, False),
        ({"w1": 19.41}, False),  # z - W1 = 0.19 < 0.8 (1.0) - 0.6 = 0.2
        ({"w1": 19.39}, True),
        ({"kind": "PSF"}, False),
        ({"EBV": 0.11}, False),
        ({"FLUX_IVAR_W1": 0.0}, False),
    ],
)
def test_the_handoffs_cuts(changes, expected):
    assert passes("is_handoff", **changes) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"fiber": 21.59}, True),
        ({"fiber": 21.61}, False),
        ({"fiber": 17.4}, False),
        ({"w1": 19.41}, False),  # non-stellar cut
        ({"g": 21.2, "r": 20.1, "z": 19.4, "w1": 18.35}, False),  # g - W1 = 2.85, r - W1 = 1.75: too near
        ({"g": 21.3, "r": 20.1, "z": 19.4, "w1": 18.35}, False),  # g - W1 = 2.95, but below the sliding cut
        ({"r": 20.1, "z": 19.2, "w1": 18.0}, True),  # r - W1 = 2.1 against 1.8 (0.86) = 1.548 and 1.67
        ({"r": 20.1, "z": 19.2, "w1": 18.35}, False),  # r - W1 = 1.75 against 1.8 (1.21) = 2.178
        ({"r": 21.9, "z": 20.4, "w1": 18.59}, True),  # r - W1 = 3.31 > 3.3
        ({"r": 21.9, "z": 20.4, "w1": 19.1}, False),  # r - W1 = 2.8 against 1.8 (1.96) = 3.53
        ({"MASKBITS": 1 << 1}, False),
        ({"MASKBITS": 1 << 12}, False),
        ({"MASKBITS": 1 << 13}, False),
        ({"MASKBITS": 1 << 11}, True),
        ({"NOBS_G": 0}, False),
        ({"GAIA_PHOT_G_MEAN_MAG": 17.9}, False),
        ({"GAIA_PHOT_G_MEAN_MAG": 18.1}, True),
        ({"FLUX_IVAR_Z": 0.0}, False),
        ({"kind": "PSF"}, True),  # the selection has no cut on type
    ],
)
def test_desis_cuts(changes, expected):
    assert passes("is_desi_lrg", **changes) is expected


def test_a_missing_band_fails_a_cut_and_warns_nothing(recwarn):
    flags = lrg_flags(row(FLUX_W1=-0.3, FLUX_Z=0.0))
    assert not any(flag[0] for flag in flags.values())
    assert not recwarn.list


def test_a_missing_g_does_not_cost_a_galaxy_that_is_red_otherwise():
    assert passes("is_desi_lrg", FLUX_G=-0.1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RA": 361.0}, "RA is outside"),
        ({"RA": -0.1}, "RA is outside"),
        ({"DEC": np.nan}, "position is not finite"),
        ({"DEC": 90.5}, "Dec is outside"),
        ({"FLUX_R": np.nan}, "FLUX_R is not finite"),
        ({"FLUX_W1": np.inf}, "FLUX_W1 is not finite"),
        ({"MW_TRANSMISSION_G": 0.0}, "MW_TRANSMISSION_G is outside"),
        ({"SHAPE_E1": np.nan}, "SHAPE_E1 is not finite"),
    ],
)
def test_bad_rows_have_a_reason(changes, reason):
    assert reason in bad_row_reasons(row(**changes))[0]


def test_a_good_row_has_none():
    assert bad_row_reasons(row())[0] is None
    assert bad_row_reasons(row(FLUX_W1=-0.5))[0] is None, "a negative flux is a measurement"


def test_the_first_reason_against_a_row_stands():
    reason_N = np.full(3, None, dtype=object)
    mark_bad(reason_N, np.array([True, False, False]), "first")
    mark_bad(reason_N, [True, True, False], "second")
    assert reason_N.tolist() == ["first", "second", None]
    assert is_fine(reason_N).tolist() == [False, False, True]


def test_no_rows_have_no_reasons():
    reason_N = np.empty(0, dtype=object)
    mark_bad(reason_N, [], "bad")
    assert is_fine(reason_N).tolist() == []


def test_the_real_dr10_catalogue_is_selected_from(real_data):
    """One field's Tractor catalogue: flags from its own columns, against the cuts written out on its fluxes."""
    rows = fitsio.read(real_data / "legacysurvey" / "dr10" / "cat-ls-dr10.fits")
    columns = {name.upper(): rows[name].astype(rows[name].dtype.newbyteorder("=")) for name in rows.dtype.names}
    flags = lrg_flags(columns)
    assert set(flags) == set(FLAGS)
    assert all(reason is None for reason in bad_row_reasons(columns))
    # z < 20.4, r - z > 0.4 and z - W1 > 0.8 as flux ratios.
    r, z, w1 = (columns[f"FLUX_{band}"].astype(float) for band in ("R", "Z", "W1"))
    expected = (z > flux(20.4)) & (r > 0) & (z > r * 10**0.16) & (w1 > z * 10**0.32) & (columns["TYPE"] != "PSF")
    assert flags["is_v3_color_relaxed"].tolist() == expected.tolist()
