"""Stamps per second per core of `inject_brick`, and where its time goes, beside a plain lenstronomy pipeline.

    python tests/bench/bench_inject_stamps.py [--hosts 60] [--pixels 1200]

One brick of RICE-compressed coadds in tiles of 100 x 100, as the survey writes them, with one Sersic arc a host. The
whole of `inject_brick` gives three stamps a row (positive, control, hard negative), all measures and the files' bytes.
The plain pipeline is what a notebook does: a FITS section per band and host, lenstronomy's ImageModel on a 4 x 4
supersampled grid per band with a Moffat kernel of 63 pixels, `np.savez_compressed`; it gives two stamps a row, no hard
negative and no measures. Times are of this process's CPU, on one thread.
"""

import os

# Before NumPy starts its threads.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from brick_scene import BRICK, planes, row, table, write_brick
from dark_halo_scope.injection import inject
from dark_halo_scope.injection.arcs import add_noise, lens_of, make_arc, psfs_of, source_of, unlensed_fluxes
from dark_halo_scope.injection.config import ManifestSettings, PerSplit
from dark_halo_scope.injection.schema import encode_stamp
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_files import parquet_bytes
from dark_halo_scope.lensing.psf import kernel
from dark_halo_scope.lensing.render import render_arc
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.names import PIXEL_SCALE

SETTINGS = StampSettings()
MANIFEST = ManifestSettings(replicates=PerSplit(train=1, val=1, test=1))
KERNEL_SIZE, SUPERSAMPLING = 63, 4


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The result and the shortest CPU time of `repeats` calls, seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return result, best


def whole(paths: dict[str, Path], rows: list[dict]) -> bytes:
    with BrickCoadds(paths, BRICK) as coadds:
        return parquet_bytes(inject.inject_brick(table(*rows), coadds, None, SETTINGS, MANIFEST))


def steps(paths: dict[str, Path], rows: list[dict], repeats: int) -> dict[str, float]:
    """Seconds of each step over all rows; what is left of the whole is tables and their files."""
    size = rows[0]["stamp_size"]

    def cut() -> list[inject.Host]:
        with BrickCoadds(paths, BRICK) as coadds:
            if len(rows) * 3 * 100**2 > np.prod(coadds.shape):
                coadds.load()
            x, y = coadds.sky_to_pixel([r["ra"] for r in rows], [r["dec"] for r in rows])
            return [inject.cut_host(coadds, *xy, size, SETTINGS) for xy in zip(x.tolist(), y.tolist(), strict=True)]

    hosts, cutting = timed(cut, repeats)
    psfs = [psfs_of(host.psfsize.tolist(), SETTINGS.psf) for host in hosts]
    tasks = list(zip(rows, hosts, psfs, strict=True))
    arcs, arc_s = timed(
        lambda: [make_arc(r, h.centre, p, h.invvar, h.good_r, None, SETTINGS, PIXEL_SCALE) for r, h, p in tasks],
        repeats,
    )
    _, light_s = timed(
        lambda: [
            render_arc(lens_of(r, h.centre), source_of(r, h.centre, None), p, unlensed_fluxes(r, 1.0))
            for r, h, p in tasks
        ],
        repeats,
    )
    noisy, noise_s = timed(
        lambda: [
            add_noise(a, h.invvar, r["task_seed64"], SETTINGS.shot_noise, PIXEL_SCALE)
            for a, (r, h, _) in zip(arcs, tasks, strict=True)
        ],
        repeats,
    )
    images = [
        im for n, h in zip(noisy, hosts, strict=True) for im in (h.image + n.image, h.image, h.image + n.shuffled)
    ]
    _, encode_s = timed(lambda: [encode_stamp(image) for image in images], repeats)
    return {
        "FITS and cutouts": cutting,
        "rendering the arc": light_s,
        "hard negative and measures": arc_s - light_s,
        "shot noise": noise_s,
        "encoding three stamps": encode_s,
    }


def plain(paths: dict[str, Path], rows: list[dict]) -> list[bytes]:
    """The pipeline of a notebook, host by host."""
    blobs = []
    grid = np.diag([PIXEL_SCALE, PIXEL_SCALE])
    half = -31.5 * PIXEL_SCALE
    for task in rows:
        with BrickCoadds(paths, BRICK) as coadds:
            x, y = (float(value) for value in coadds.sky_to_pixel(task["ra"], task["dec"]))
        x0, y0 = round(x - 31.5), round(y - 31.5)
        here = slice(y0, y0 + 64), slice(x0, x0 + 64)
        centre = (x - x0 - 31.5) * PIXEL_SCALE, (y - y0 - 31.5) * PIXEL_SCALE
        lens, source = lens_of(task, centre), source_of(task, centre, None)
        e_lens, e_source = ((1 - q) / (1 + q) for q in (lens.q, source.q))  # type: ignore[union-attr]
        pixels = PixelGrid(nx=64, ny=64, transform_pix2angle=grid, ra_at_xy_0=half, dec_at_xy_0=half)
        lens_arguments = [
            {
                "theta_E": lens.theta_e,
                "e1": e_lens * np.cos(2 * lens.phi),
                "e2": e_lens * np.sin(2 * lens.phi),
                "center_x": centre[0],
                "center_y": centre[1],
            },
            {"gamma1": lens.g1, "gamma2": lens.g2, "ra_0": centre[0], "dec_0": centre[1]},
        ]
        control, positive = {}, {}
        for band, flux in zip("grz", unlensed_fluxes(task, 1.0), strict=True):
            with fits.open(paths[f"image-{band}"]) as image, fits.open(paths[f"psfsize-{band}"]) as sizes:
                control[f"image_{band}"] = image[1].section[here]
                psf = psfs_of([float(sizes[1].section[round(y), round(x)])], SETTINGS.psf)[0]
            point_spread = PSF(psf_type="PIXEL", kernel_point_source=kernel(psf, KERNEL_SIZE, PIXEL_SCALE))
            model = ImageModel(
                pixels,
                point_spread,
                LensModel(["SIE", "SHEAR"]),
                LightModel(["SERSIC_ELLIPSE"]),
                kwargs_numerics={"supersampling_factor": SUPERSAMPLING},
            )
            light = [
                {
                    "amp": 1.0,
                    "R_sersic": source.r_e,  # type: ignore[union-attr]
                    "n_sersic": source.n,  # type: ignore[union-attr]
                    "e1": e_source * np.cos(2 * source.phi),
                    "e2": e_source * np.sin(2 * source.phi),
                    "center_x": source.x,
                    "center_y": source.y,
                }
            ]
            amplitude = flux / model.SourceModel.total_flux(light)[0]
            arc = model.image(lens_arguments, [{**light[0], "amp": amplitude * PIXEL_SCALE**2}])
            positive[f"image_{band}"] = (control[f"image_{band}"] + arc).astype(np.float32)
        for stamp in (positive, control):
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **stamp)
            blobs.append(buffer.getvalue())
    return blobs


def main() -> None:
    """Print both pipelines' speeds and the breakdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=60)
    parser.add_argument("--pixels", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(arguments.hosts):
        x, y = rng.uniform(40, arguments.pixels - 40, 2)
        shape = {"src_x_arcsec": rng.normal(0, 0.3), "src_y_arcsec": rng.normal(0, 0.3)}
        size = {"theta_e_arcsec": rng.uniform(0.5, 2.5), "src_reff_arcsec": rng.uniform(0.08, 0.5)}
        rows.append(row(x, y, side=arguments.pixels, number=number, **shape, **size))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_brick(Path(folder), planes(arguments.pixels), lossless=False)
        whole(paths, rows[:2])  # compile
        blob, total = timed(lambda: whole(paths, rows), arguments.repeats)
        parts = steps(paths, rows, arguments.repeats)
        _, notebook = timed(lambda: plain(paths, rows), 1)
    count = len(rows)
    print(f"{count} hosts on a brick of {arguments.pixels} pixels, CPU ms per row:")
    for name, seconds in (parts | {"tables and the file": total - sum(parts.values())}).items():
        print(f"  {name:28s} {1e3 * seconds / count:7.2f}  {seconds / total:5.0%}")
    print(f"  {'inject_brick, all of it':28s} {1e3 * total / count:7.2f}   {count / total:.0f} rows/s per core")
    print(
        f"  {'plain lenstronomy pipeline':28s} {1e3 * notebook / count:7.2f}   {count / notebook:.0f} rows/s per core"
    )
    print(f"inject_brick is {notebook / total:.1f} times as fast; {len(blob) / count / 1e3:.0f} kB a row")


if __name__ == "__main__":
    main()
