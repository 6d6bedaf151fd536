"""Sersic profiles: exact b_n and total flux."""

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from dark_halo_scope.lensing import sersic


def test_b_n_and_total_flux_agree_with_the_reference(reference_data: Path) -> None:
    with np.load(reference_data / "lensing.npz") as file:
        rows = zip(file["sersic_n"], file["sersic_bn_exact"], file["sersic_Ltot_over_Ie_Re2"], strict=True)
        for n, b, flux in rows:
            assert sersic.b_n(n) == pytest.approx(b, rel=1e-12)
            assert sersic.total_flux(1.0, n) == pytest.approx(flux, rel=1e-12)
            assert sersic.total_flux(0.3, n, 2.0) == pytest.approx(0.18 * flux, rel=1e-12)


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
def test_a_profile_of_unit_flux_has_half_of_it_inside_its_half_light_radius(n: float) -> None:
    def light(radius: float) -> float:
        return 2 * np.pi * radius * float(sersic.brightness(np.array(radius), 0.2, n))

    inside = quad(light, 0, 0.2, epsabs=1e-12)[0]
    assert inside == pytest.approx(0.5, rel=1e-7)
    assert inside + quad(light, 0.2, np.inf, epsabs=1e-12, limit=200)[0] == pytest.approx(1.0, rel=1e-6)
