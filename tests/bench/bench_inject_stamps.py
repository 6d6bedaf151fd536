"""Rows and stamps per second per core of `inject_brick`, and where its time goes, beside plain lenstronomy pipelines.

    python tests/bench/bench_inject_stamps.py [--hosts 60] [--pixels 1200]

One brick of RICE-compressed coadds in tiles of 100 x 100, as the survey writes them, with one arc a host, of Sersic
sources and of galaxy images. The whole is what a task does to a brick: the files' checksums, cutouts, three stamps a
row (positive, control, hard negative), all measures, Parquet on disk and its checksum. The plain pipeline is what a
notebook does: a FITS section per band and host, lenstronomy's ImageModel on a 4 x 4 supersampled grid per band with a
Moffat kernel of 63 pixels, `np.savez_compressed`; it gives two stamps a row, no hard negative, no measures, no
checksum. It is timed opening the brick's files for every host, and opening them once for all. Times are of this
process's CPU, on one thread.
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
from astropy.wcs import WCS
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from brick_scene import BRICK, planes, row, table, write_brick
from dark_halo_scope.core.files import sha256_file
from dark_halo_scope.injection import inject
from dark_halo_scope.injection.arcs import add_noise, lens_of, make_arc, psfs_of, source_of, unlensed_fluxes
from dark_halo_scope.injection.config import ManifestSettings, PerSplit
from dark_halo_scope.injection.galaxy_images import GalaxyImage
from dark_halo_scope.injection.schema import encode_stamp, stamp_schema
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.injection.stamp_parquet import write_parquet
from dark_halo_scope.lensing.psf import kernel
from dark_halo_scope.lensing.render import render_arc
from dark_halo_scope.lensing.sources import ImageSource
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


class Bank:
    """One lumpy disc at HST's sampling, in place of a bank of real galaxies, whose reading is not timed here."""

    def __init__(self) -> None:
        axis = np.arange(81) - 40.0
        rng = np.random.default_rng(1)
        image = np.exp(-np.hypot(axis, axis[:, None]) / 6.0)
        for x, y, flux in zip(rng.normal(0, 8, 6), rng.normal(0, 8, 6), rng.uniform(0.1, 0.5, 6), strict=True):
            image += flux * np.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / 8.0)
        self._image = (image / image.sum()).astype(np.float32)

    def galaxy(self, ident: int) -> GalaxyImage:
        return GalaxyImage(self._image, 0.03, 0.3)


def whole(paths: dict[str, Path], rows: list[dict], bank: Bank | None, target: Path) -> int:
    """All that a task does to one brick; bytes written."""
    for path in paths.values():
        sha256_file(path)
    tasks = table(*rows)
    with BrickCoadds(paths, BRICK) as coadds:
        ordered = tasks.take(inject.host_order(tasks, coadds))
        stamps = inject.inject_rows(ordered, coadds, bank, SETTINGS, MANIFEST)  # type: ignore[arg-type]
        write_parquet(target, stamps, stamp_schema())
    sha256_file(target)
    return target.stat().st_size


def steps(paths: dict[str, Path], rows: list[dict], bank: Bank | None, repeats: int) -> dict[str, float]:
    """Seconds of each step over all rows; what is left of the whole is tables and their files."""
    size = rows[0]["stamp_size"]

    def cut() -> list[inject.Host]:
        with BrickCoadds(paths, BRICK) as coadds:
            x, y = coadds.sky_to_pixel([r["ra"] for r in rows], [r["dec"] for r in rows])
            hosts: list[Any] = [None] * len(rows)
            for place in np.argsort(coadds.place(x, y)):
                hosts[place] = inject.cut_host(coadds, float(x[place]), float(y[place]), size, SETTINGS)
            return hosts

    _, hashing = timed(lambda: [sha256_file(path) for path in paths.values()], repeats)
    hosts, cutting = timed(cut, repeats)
    psfs = [psfs_of(host.psfsize.tolist(), SETTINGS.psf) for host in hosts]
    tasks = list(zip(rows, hosts, psfs, strict=True))
    arcs, arc_s = timed(
        lambda: [make_arc(r, h.centre, p, h.invvar, h.good_r, bank, SETTINGS, PIXEL_SCALE) for r, h, p in tasks],
        repeats,
    )
    _, light_s = timed(
        lambda: [
            render_arc(lens_of(r, h.centre), source_of(r, h.centre, bank), p, unlensed_fluxes(r, 1.0))
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
    _, encode_s = timed(lambda: [encode_stamp(image, level=SETTINGS.npz_level) for image in images], repeats)
    return {
        "checksums of the coadds": hashing,
        "FITS and cutouts": cutting,
        "rendering the arc": light_s,
        "hard negative and measures": arc_s - light_s,
        "shot noise": noise_s,
        "encoding three stamps": encode_s,
    }


def plain(paths: dict[str, Path], rows: list[dict], bank: Bank | None, files: dict[str, Any] | None) -> list[bytes]:
    """The pipeline of a notebook, host by host; `files` are open ones, else each host opens its own."""
    blobs = []
    grid = np.diag([PIXEL_SCALE, PIXEL_SCALE])
    half = -31.5 * PIXEL_SCALE
    for task in rows:
        opened = files or {name: fits.open(paths[name]) for name in paths if name.startswith(("image", "psfsize"))}
        x, y = (float(value) for value in WCS(opened["image-g"][1].header).all_world2pix(task["ra"], task["dec"], 0))
        x0, y0 = round(x - 31.5), round(y - 31.5)
        here = slice(y0, y0 + 64), slice(x0, x0 + 64)
        centre = (x - x0 - 31.5) * PIXEL_SCALE, (y - y0 - 31.5) * PIXEL_SCALE
        lens, source = lens_of(task, centre), source_of(task, centre, bank)
        e_lens = (1 - lens.q) / (1 + lens.q)
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
            control[f"image_{band}"] = opened[f"image-{band}"][1].section[here]
            width = float(opened[f"psfsize-{band}"][1].section[round(y), round(x)])
            psf = psfs_of([width], SETTINGS.psf)[0]
            point_spread = PSF(psf_type="PIXEL", kernel_point_source=kernel(psf, KERNEL_SIZE, PIXEL_SCALE))
            model = ImageModel(
                pixels,
                point_spread,
                LensModel(["SIE", "SHEAR"]),
                LightModel(["INTERPOL" if isinstance(source, ImageSource) else "SERSIC_ELLIPSE"]),
                kwargs_numerics={"supersampling_factor": SUPERSAMPLING},
            )
            if isinstance(source, ImageSource):
                scale = source.arcsec_per_pixel
                shape = {"image": source.image / scale**2, "phi_G": source.phi, "scale": scale}
                light = [{"amp": 1.0, **shape, "center_x": source.x, "center_y": source.y}]
                amplitude = flux
            else:
                e_source = (1 - source.q) / (1 + source.q)
                light = [
                    {
                        "amp": 1.0,
                        "R_sersic": source.r_e,
                        "n_sersic": source.n,
                        "e1": e_source * np.cos(2 * source.phi),
                        "e2": e_source * np.sin(2 * source.phi),
                        "center_x": source.x,
                        "center_y": source.y,
                    }
                ]
                amplitude = flux / model.SourceModel.total_flux(light)[0]
            arc = model.image(lens_arguments, [{**light[0], "amp": amplitude * PIXEL_SCALE**2}])
            positive[f"image_{band}"] = (control[f"image_{band}"] + arc).astype(np.float32)
        if files is None:
            for file in opened.values():
                file.close()
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
        for kind in ("sersic", "image"):
            bank = Bank() if kind == "image" else None
            tasks = [one | ({"source_mode": "image", "source_id": "1"} if bank else {}) for one in rows]
            compare(kind, paths, tasks, bank, Path(folder) / "stamps.parquet", arguments.repeats)


def compare(kind: str, paths: dict[str, Path], rows: list[dict], bank: Bank | None, target: Path, repeats: int) -> None:
    """Time both pipelines on the same rows, and print."""
    # All are warm, and the shortest of as many calls counts.
    whole(paths, rows[:2], bank, target)
    plain(paths, rows[:2], bank, None)
    size, total = timed(lambda: whole(paths, rows, bank, target), repeats)
    parts = steps(paths, rows, bank, repeats)
    _, notebook = timed(lambda: plain(paths, rows, bank, None), repeats)
    names = [name for name in paths if name.startswith(("image", "psfsize"))]
    files = {name: fits.open(paths[name]) for name in names}
    _, tidy = timed(lambda: plain(paths, rows, bank, files), repeats)
    for file in files.values():
        file.close()
    count = len(rows)
    print(f"{kind}: {count} hosts on one brick, CPU ms per row, {size / count / 1e3:.0f} kB a row:")
    for name, seconds in (parts | {"tables and the file": total - sum(parts.values())}).items():
        print(f"  {name:40s} {1e3 * seconds / count:7.2f}  {seconds / total:5.0%}")
    print(f"  {'ours':40s} {1e3 * total / count:7.2f}   {count / total:5.0f} rows/s, {3 * count / total:5.0f} stamps/s")
    for name, seconds in (("plain, files opened by every host", notebook), ("plain, files opened once", tidy)):
        rate = f"{count / seconds:5.0f} rows/s, {2 * count / seconds:5.0f} stamps/s"
        gain = f"ours: {seconds / total:.1f} times the rows, {1.5 * seconds / total:.1f} times the stamps"
        print(f"  {name:40s} {1e3 * seconds / count:7.2f}   {rate}; {gain}")


if __name__ == "__main__":
    main()
