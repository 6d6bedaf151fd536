"""Flux put in is flux got out: per band, unbiased, with the scatter that the electrons say, on drawn and real sky."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from brick_scene import BRICK, PSFSIZE, SIDE, planes, row, table, write_brick
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.injection.arcs import gains, lens_of, psfs_of, source_of
from dark_halo_scope.injection.config import ManifestSettings, PerSplit
from dark_halo_scope.injection.inject import inject_brick
from dark_halo_scope.injection.stamp_config import ShotNoiseSettings, StampSettings
from dark_halo_scope.lensing.render import render_arc
from dark_halo_scope.survey.coadds import BrickCoadds

SETTINGS = StampSettings()
QUIET = StampSettings(shot_noise=ShotNoiseSettings(enabled=False))
MANIFEST = ManifestSettings(replicates=PerSplit(train=1, val=1, test=1))
# Real stamps of 16 galaxies, 91 pixels each, zero point 30: 1000 of their counts are a nanomaggy.
GALAXIES, GALAXY_PIXELS, COUNTS_PER_NANOMAGGY = 16, 91, 1000.0


class Recovery:
    """What (positive - control) of many stamps says, per band: (N, 3) each.

    flux: of the matched filter sum(d t w) / sum(t^2 w), t the arc of unit flux and w the stamp's inverse variance.
    true: the arc's flux, nanomaggies. sigma: the filter's scatter from the arc's own electrons.
    wings: (squared noise, its expectation) summed over pixels that expect less than 0.2 electrons.
    """

    def __init__(self, paths: dict[str, Path], rows: Sequence[dict], settings: StampSettings) -> None:
        found: list[list[np.ndarray]] = [[], [], [], []]
        with BrickCoadds(paths, BRICK) as coadds:
            stamps = inject_brick(table(*rows), coadds, None, settings, MANIFEST).to_pylist()
            assert [stamp["cutout_reason"] for stamp in stamps] == [None] * len(rows)
            for task, stamp in zip(rows, stamps, strict=True):
                cut = coadds.cutout(*(float(v) for v in coadds.sky_to_pixel(task["ra"], task["dec"])), 64)
                centre = stamp["host_offset_x_arcsec"], stamp["host_offset_y_arcsec"]
                psfs = psfs_of(cut.psfsize.tolist(), settings.psf)
                mags = stamp["src_mag_r"] + np.array([task["src_gr"], 0.0, -task["src_rz"]])
                true = 10 ** (-0.4 * (mags - 22.5))
                arc = render_arc(lens_of(task, centre), source_of(task, centre, None), psfs, true).astype(float)
                difference = decode_stamp(stamp["stamp_npz"]).astype(float) - decode_stamp(stamp["ctrl_stamp_npz"])
                weight = cut.invvar.astype(float)
                template = arc / true[:, None, None]
                norm = (template**2 * weight).sum(axis=(1, 2))
                variance = arc / gains(cut.invvar, settings.shot_noise, 0.262)[:, None, None]
                found[0].append((difference * template * weight).sum(axis=(1, 2)) / norm)
                found[1].append(true)
                found[2].append(np.sqrt((template**2 * weight**2 * variance).sum(axis=(1, 2))) / norm)
                faint = arc**2 < 0.2 * variance
                noise = np.where(faint, (difference - arc) ** 2, 0), np.where(faint, variance, 0)
                found[3].append(np.array([one.sum(axis=(1, 2)) for one in noise]))
        self.flux, self.true, self.sigma = (np.array(values) for values in found[:3])
        self.wings = np.sum(found[3], axis=0)

    @property
    def pulls(self) -> np.ndarray:
        return (self.flux - self.true) / self.sigma


def _arcs(places: np.ndarray, side: int, seed: int = 0) -> list[dict]:
    """One arc at each place, of any size, ellipticity, colour and of magnitudes 20 to 23."""
    rng = np.random.default_rng(seed)
    return [
        row(
            *place,
            side=side,
            number=number,
            theta_e_arcsec=rng.uniform(0.5, 2.5),
            src_x_arcsec=rng.normal(0, 0.3),
            src_y_arcsec=rng.normal(0, 0.3),
            src_reff_arcsec=rng.uniform(0.08, 0.5),
            src_mag_r=rng.uniform(20.0, 23.0),
            src_gr=rng.normal(0.3, 0.3),
            src_rz=rng.normal(0.2, 0.3),
            lens_e=rng.uniform(0.05, 0.4),
        )
        for number, place in enumerate(places)
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_brick(tmp_path_factory.mktemp("drawn"), planes())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> dict[str, Path]:
    """Real DECam galaxies of LRG colours side by side on a brick, their weight estimated from their own sky."""
    per_line = int(GALAXIES**0.5)
    side = per_line * GALAXY_PIXELS
    content = {"maskbits": np.zeros((side, side), np.int32)}
    for band in "grz":
        image, weight = np.empty((2, side, side), np.float32)
        counts = fits.getdata(real_data / "des_lrg_backgrounds" / f"{band}.fits").astype(np.float32)
        for number, galaxy in enumerate(counts / COUNTS_PER_NANOMAGGY):
            y, x = (GALAXY_PIXELS * k for k in divmod(number, per_line))
            here = slice(y, y + GALAXY_PIXELS), slice(x, x + GALAXY_PIXELS)
            edge = np.concatenate([galaxy[:8].ravel(), galaxy[-8:].ravel()])
            image[here] = galaxy
            weight[here] = 1.0 / (1.4826 * np.median(np.abs(edge - np.median(edge)))) ** 2
        content |= {f"image-{band}": image, f"invvar-{band}": weight}
        content[f"psfsize-{band}"] = np.full((side, side), PSFSIZE[band], np.float32)
    return write_brick(tmp_path_factory.mktemp("real"), content)


def _real_rows(each: int) -> list[dict]:
    line, column = np.divmod(np.arange(GALAXIES * each) % GALAXIES, int(GALAXIES**0.5))
    offset = np.random.default_rng(5).uniform(-0.5, 0.5, (GALAXIES * each, 2))
    middle = np.stack([column, line], axis=1) * GALAXY_PIXELS + (GALAXY_PIXELS - 1) / 2
    return _arcs(middle + offset, int(GALAXIES**0.5) * GALAXY_PIXELS, seed=1)


def _is_unbiased(recovery: Recovery) -> None:
    count = len(recovery.pulls)
    assert np.all(np.abs(recovery.pulls.mean(axis=0)) < 4 / np.sqrt(count)), recovery.pulls.mean(axis=0)
    # The scatter of a width is 1 / sqrt(2 N).
    assert np.all(np.abs(recovery.pulls.std(axis=0) - 1) < 4 / np.sqrt(2 * count)), recovery.pulls.std(axis=0)


def test_a_thousand_arcs_have_their_flux_in_every_band_and_the_scatter_of_their_electrons(drawn) -> None:
    places = np.random.default_rng(2).uniform(40, SIDE - 40, (1000, 2))
    recovery = Recovery(drawn, _arcs(places, SIDE), SETTINGS)
    _is_unbiased(recovery)
    # An electron in every empty pixel would be noise a hundred times above this.
    noise, expected = recovery.wings
    np.testing.assert_allclose(noise / expected, 1.0, atol=0.1)


def test_without_shot_noise_the_flux_is_exact(drawn) -> None:
    places = np.random.default_rng(3).uniform(40, SIDE - 40, (40, 2))
    recovery = Recovery(drawn, _arcs(places, SIDE), QUIET)
    np.testing.assert_allclose(recovery.flux / recovery.true, 1.0, atol=1e-5)


def test_arcs_on_real_galaxies_have_their_flux_and_scatter(real) -> None:
    _is_unbiased(Recovery(real, _real_rows(10), SETTINGS))
    quiet = Recovery(real, _real_rows(1), QUIET)
    # Cores of real galaxies are a thousand times brighter than a faint arc: what is left is float32.
    np.testing.assert_allclose(quiet.flux / quiet.true, 1.0, atol=1e-4)
