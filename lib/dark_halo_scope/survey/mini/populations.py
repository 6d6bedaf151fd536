"""Objects of one brick, drawn at random: luminous red galaxies with company, look-alikes, field galaxies and stars."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.survey.config import MiniSettings
from dark_halo_scope.survey.mini.profiles import Component, SkyObject, galaxy
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import nanomaggies

MARGIN = 40
"""Pixels between targets and the edge of the image, so that a 64 pixel stamp fits."""

# Observed colours (AB) and apparent z magnitude of an L* early-type galaxy, and kpc per arcsec, against redshift.
_Z = np.array([0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80])
_GR = np.array([0.95, 1.22, 1.50, 1.70, 1.78, 1.78, 1.74, 1.68])
_RZ = np.array([0.58, 0.65, 0.74, 0.88, 1.05, 1.28, 1.50, 1.68])
_ZW1 = np.array([0.10, 0.45, 0.78, 1.05, 1.28, 1.44, 1.56, 1.66])
_M_STAR = np.array([15.4, 16.9, 17.9, 18.6, 19.2, 19.7, 20.1, 20.5])
_KPC = np.array([1.84, 3.30, 4.45, 5.37, 6.10, 6.69, 7.15, 7.51])

EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211, "W1": 0.184, "W2": 0.113, "W3": 0.0241, "W4": 0.00910}
"""A_b / E(B-V) of the DECam and WISE filters (Schlafly and Finkbeiner 2011, as the Legacy Surveys use them)."""
_GRZ = np.array([EXTINCTION[b] for b in "grz"])


class Placer:
    """Hands out positions, keeping targets apart from each other."""

    def __init__(self, rng: np.random.Generator, pixels: int) -> None:
        self._rng = rng
        self._pixels = pixels
        self._taken = np.empty((0, 2))

    def anywhere(self, margin: float = -8.0) -> tuple[float, float]:
        """A position anywhere in the image, or just outside it, so that light comes in over the edge too."""
        x, y = self._rng.uniform(margin, self._pixels - 1 - margin, size=2)
        return float(x), float(y)

    def apart(self, separation: float = 32.0) -> tuple[float, float]:
        """A position at least `separation` pixels from those given out before, if one is found quickly."""
        for _ in range(50):
            position = self._rng.uniform(MARGIN, self._pixels - 1 - MARGIN, size=2)
            if not len(self._taken) or np.min(np.hypot(*(self._taken - position).T)) > separation:
                break
        self._taken = np.vstack([self._taken, position])
        return float(position[0]), float(position[1])


def draw_objects(rng: np.random.Generator, settings: MiniSettings, ebv: float, placer: Placer) -> list[SkyObject]:
    """Everything in a brick but its lenses, in observed (reddened) fluxes."""
    objects: list[SkyObject] = []
    for _ in range(settings.lrgs_per_brick):
        lrg = draw_lrg(rng, placer.apart(), ebv)
        objects += [lrg, *_satellites(rng, lrg)]
    for count, draw in (
        (settings.spirals_per_brick, _spiral),
        (settings.edge_ons_per_brick, _edge_on),
        (settings.rings_per_brick, _ring),
    ):
        objects += [draw(rng, *placer.apart(), ebv) for _ in range(count)]
    for _ in range(settings.mergers_per_brick):
        objects += _merger(rng, placer.apart(), ebv)
    area = (settings.pixels * PIXEL_SCALE / 60.0) ** 2
    objects += [
        _field_galaxy(rng, *placer.anywhere(), ebv) for _ in range(rng.poisson(settings.field_per_arcmin2 * area))
    ]
    objects += [
        _star(rng, *placer.anywhere(), 14.0, 23.0) for _ in range(rng.poisson(settings.stars_per_arcmin2 * area))
    ]
    bright = rng.poisson(settings.bright_stars_per_brick)
    return objects + [_star(rng, *placer.anywhere(), 10.5, 13.5) for _ in range(bright)]


def passes_v3_cuts(flux: NDArray[np.float64], w1: float) -> bool:
    """v3_color_relaxed on observed magnitudes: z < 20.4, r - z > 0.4, z - W1 > 0.8; a little inside its edges."""
    _, r, z = flux
    return bool(z > nanomaggies(20.35) and z / r > 10 ** (0.4 * 0.45) and w1 / z > 10 ** (0.4 * 0.86))


def draw_lrg(rng: np.random.Generator, position: tuple[float, float], ebv: float, massive: float = 0.0) -> SkyObject:
    """An early-type galaxy that passes the v3_color_relaxed cuts; `massive` magnitudes brighter than typical."""
    while True:
        redshift = float(np.clip(rng.normal(0.47, 0.11), 0.27, 0.75))
        faintness = max(rng.normal(0.1 - massive, 0.55), -1.6)
        z_mag = np.interp(redshift, _Z, _M_STAR) + faintness
        r_mag = z_mag + np.interp(redshift, _Z, _RZ) + rng.normal(0, 0.05)
        g_mag = r_mag + np.interp(redshift, _Z, _GR) + rng.normal(0, 0.06)
        w1_mag = z_mag - np.interp(redshift, _Z, _ZW1) + rng.normal(0, 0.12)
        flux, w1 = _redden(nanomaggies([g_mag, r_mag, z_mag]), float(nanomaggies(w1_mag)), ebv)
        if passes_v3_cuts(flux, w1):
            break
    kpc = 6.3 * 10 ** (-0.24 * faintness) * rng.lognormal(0.0, 0.30)
    return galaxy(
        "lrg", *position, redshift, flux, w1,
        r_e=float(np.clip(kpc / np.interp(redshift, _Z, _KPC), 0.45, 2.5)),
        n=round(float(np.clip(rng.normal(3.9, 0.8), 2.4, 5.4)), 1),
        q=float(np.clip(rng.normal(0.78, 0.13), 0.35, 0.99)),
        phi=float(rng.uniform(0, np.pi)),
    )  # fmt: skip


def _redden(flux: NDArray[np.float64], w1: float, ebv: float) -> tuple[NDArray[np.float64], float]:
    return flux * 10 ** (-0.4 * _GRZ * ebv), w1 * 10 ** (-0.4 * EXTINCTION["W1"] * ebv)


def _from_colours(r_mag: float, gr: float, rz: float, zw1: float, ebv: float) -> tuple[NDArray[np.float64], float]:
    grz = nanomaggies([r_mag + gr, r_mag, r_mag - rz])
    return _redden(grz, float(nanomaggies(r_mag - rz - zw1)), ebv)


def _satellites(rng: np.random.Generator, host: SkyObject) -> Iterator[SkyObject]:
    """Group members, mostly as red as the host, and now and then a blue galaxy beside it: an unlensed companion."""
    for _ in range(rng.poisson(0.9)):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 10.0) / PIXEL_SCALE
        red = rng.random() < 0.6
        colour = np.ones(3) if red else np.array([3.0, 1.3, 0.75]) * rng.lognormal(0, 0.15, size=3)
        flux = host.flux * 10 ** (-0.4 * rng.uniform(1.2, 4.0)) * colour
        yield galaxy(
            "satellite", host.x + distance * np.cos(angle), host.y + distance * np.sin(angle), host.redshift, flux,
            host.w1 / host.flux[2] * flux[2] * (1.0 if red else 0.4),
            r_e=float(np.clip(rng.lognormal(np.log(0.42), 0.35), 0.15, 1.2)),
            n=round(float(rng.uniform(1.8, 3.6)), 1) if red else 1.0,
            q=float(rng.uniform(0.4, 1.0)),
            phi=float(rng.uniform(0, np.pi)),
        )  # fmt: skip


def _field_galaxy(rng: np.random.Generator, x: float, y: float, ebv: float) -> SkyObject:
    """Number counts rise as 10^(0.33 r); three quarters are blue discs."""
    bright, faint, slope = 19.0, 24.6, 0.33
    u = rng.random()
    r_mag = np.log10(10 ** (slope * bright) + u * (10 ** (slope * faint) - 10 ** (slope * bright))) / slope
    blue = rng.random() < 0.75
    if blue:
        gr, rz, zw1 = rng.normal([0.48, 0.42, 0.1], [0.22, 0.22, 0.5])
    else:
        gr, rz, zw1 = rng.normal([1.25, 0.80, 0.8], [0.35, 0.25, 0.4])
    flux, w1 = _from_colours(r_mag, gr, rz, zw1, ebv)
    return galaxy(
        "field", x, y, float(np.clip(rng.normal(0.25 + 0.14 * (r_mag - 19.0), 0.2), 0.03, 2.0)), flux, w1,
        r_e=float(np.clip(0.45 * 10 ** (-0.10 * (r_mag - 22.0)) * rng.lognormal(0, 0.45), 0.08, 2.5)),
        n=1.0 if blue else round(float(rng.uniform(2.0, 4.0)), 1),
        q=float(rng.uniform(0.2, 1.0)) if blue else float(rng.uniform(0.5, 1.0)),
        phi=float(rng.uniform(0, np.pi)),
    )  # fmt: skip


def _star(rng: np.random.Generator, x: float, y: float, bright: float, faint: float) -> SkyObject:
    r_mag = bright + (faint - bright) * np.sqrt(rng.random())
    gr = float(np.clip(rng.normal(0.9, 0.4), -0.1, 1.7))
    rz = 0.45 * gr if gr < 1.2 else float(rng.uniform(0.5, 1.6))
    flux = nanomaggies([r_mag + gr, r_mag, r_mag - rz])
    w1 = float(nanomaggies(r_mag - rz + 1.2 + rng.normal(0, 0.1)))
    return SkyObject("star", x, y, 0.0, (Component(flux, 0.0),), w1, 0.0, 0.0)


def _on_disc(radius: float, angle: float, q: float, phi: float) -> tuple[float, float]:
    """Offset of a point of a disc seen at axis ratio q, major axis along phi."""
    u, v = radius * np.cos(angle), radius * np.sin(angle) * q
    return float(u * np.cos(phi) - v * np.sin(phi)), float(u * np.sin(phi) + v * np.cos(phi))


def _spiral(rng: np.random.Generator, x: float, y: float, ebv: float) -> SkyObject:
    """Red bulge, disc, and two or three logarithmic arms of blue knots."""
    r_mag = rng.uniform(17.0, 20.3)
    total, w1 = _from_colours(r_mag, rng.normal(0.75, 0.12), rng.normal(0.58, 0.10), rng.normal(0.75, 0.3), ebv)
    r_e, q, phi = (
        float(rng.uniform(1.2, 1.3 + 0.8 * (20.5 - r_mag))),
        float(rng.uniform(0.45, 0.98)),
        rng.uniform(0, np.pi),
    )
    bulge, arms = rng.uniform(0.12, 0.40), rng.uniform(0.18, 0.35)
    blue, red = np.array([1.45, 1.05, 0.85]), np.array([0.62, 0.95, 1.18])
    disc_flux = total * (1 - bulge * red - arms * blue)
    parts = [
        Component(total * bulge * red, 0.22 * r_e, 2.5, min(1.0, q + 0.3), phi),
        Component(disc_flux, r_e, 1.0, q, phi),
    ]
    count, wind, handed = int(rng.integers(2, 4)), rng.uniform(2.2, 4.5), rng.choice([-1, 1])
    knots = 14
    weights = rng.lognormal(0, 0.6, size=(count, knots))
    weights /= weights.sum()
    for arm in range(count):
        start = 2 * np.pi * arm / count + rng.normal(0, 0.1)
        for knot in range(knots):
            t = (knot + 0.5) / knots
            radius = r_e * (0.35 + 1.75 * t)
            dx, dy = _on_disc(radius, start + handed * wind * np.log1p(2 * t), q, phi)
            parts.append(Component(total * arms * blue * weights[arm, knot], 0.13 * r_e + 0.08, 0.5, 1.0, 0.0, dx, dy))
    return SkyObject("spiral", x, y, float(rng.uniform(0.05, 0.3)), tuple(parts), w1, r_e, 1.0 + bulge, q, float(phi))


def _edge_on(rng: np.random.Generator, x: float, y: float, ebv: float) -> SkyObject:
    """A thin, dusty disc with a small bulge."""
    r_mag = rng.uniform(17.8, 20.8)
    total, w1 = _from_colours(r_mag, rng.normal(1.0, 0.15), rng.normal(0.68, 0.1), rng.normal(0.95, 0.3), ebv)
    q, phi = float(rng.uniform(0.12, 0.28)), float(rng.uniform(0, np.pi))
    r_e = float(rng.uniform(0.6, 0.7 + 0.45 * (21.0 - r_mag)))
    bulge = rng.uniform(0.1, 0.3)
    parts = (Component(total * (1 - bulge), r_e, 1.0, q, phi), Component(total * bulge, 0.3 * r_e, 2.5, 0.7, phi))
    return SkyObject("edge_on", x, y, float(rng.uniform(0.08, 0.4)), parts, w1, r_e, 1.1, q, phi)


def _ring(rng: np.random.Generator, x: float, y: float, ebv: float) -> SkyObject:
    """A red core inside a bluer, knotty ring: what an Einstein ring is most often mistaken for."""
    r_mag = rng.uniform(18.0, 20.6)
    total, w1 = _from_colours(r_mag, rng.normal(0.95, 0.15), rng.normal(0.65, 0.1), rng.normal(0.85, 0.3), ebv)
    share = rng.uniform(0.2, 0.42)
    radius, q, phi = rng.uniform(1.4, 3.4), float(rng.uniform(0.65, 1.0)), float(rng.uniform(0, np.pi))
    blue = np.array([1.55, 1.05, 0.82])
    core = Component(total * (1 - share * blue), 0.35 * radius, 2.5, float(rng.uniform(0.7, 1.0)), phi)
    knots = max(20, int(14 * radius))
    angle = 2 * np.pi * (np.arange(knots) + rng.uniform(-0.3, 0.3, size=knots)) / knots
    weights = rng.lognormal(0, 0.35, size=knots) * (1 + 0.5 * np.cos(angle - rng.uniform(0, 2 * np.pi)))
    weights /= weights.sum()
    parts = [core]
    for a, w in zip(angle, weights, strict=True):
        dx, dy = _on_disc(radius * rng.normal(1, 0.03), a, q, phi)
        parts.append(Component(total * share * blue * w, 0.11 * radius + 0.08, 0.5, 1.0, 0.0, dx, dy))
    return SkyObject("ring", x, y, float(rng.uniform(0.08, 0.4)), tuple(parts), w1, float(0.8 * radius), 1.5, q, phi)


def _merger(rng: np.random.Generator, position: tuple[float, float], ebv: float) -> list[SkyObject]:
    """Two or three red galaxies within a few arcsec, the first with a plume of stars pulled out of it."""
    first = draw_lrg(rng, position, ebv)
    angle = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(1.5, 3.5)
    plume = Component(
        0.12 * first.flux, rng.uniform(0.9, 1.8), 0.8, 0.3, float(angle + rng.normal(0, 0.5)),
        float(reach * np.cos(angle)), float(reach * np.sin(angle)),
    )  # fmt: skip
    main = SkyObject(
        "merger",
        first.x,
        first.y,
        first.redshift,
        (*first.components, plume),
        first.w1,
        first.r_e,
        first.n,
        first.q,
        first.phi,
    )
    objects = [main]
    for _ in range(int(rng.integers(1, 3))):
        distance, turn = rng.uniform(1.3, 4.0) / PIXEL_SCALE, angle + rng.uniform(-1.2, 1.2)
        x, y = first.x + distance * np.cos(turn), first.y + distance * np.sin(turn)
        share = 10 ** (-0.4 * rng.uniform(0.1, 1.8))
        q, phi = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, np.pi))
        flux, w1 = first.flux * share, first.w1 * share
        objects.append(galaxy("merger", x, y, first.redshift, flux, w1, 0.75 * first.r_e, 3.5, q, phi))
    return objects
