"""Builds the embedded survey: every file of a data release, for a sky that is a few dozen bricks."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dark_halo_scope.core.process import die_with_parent
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.survey.config import MiniSettings, SurveyFiles
from dark_halo_scope.survey.grid import BrickBox
from dark_halo_scope.survey.mini.brick import BrickRows, BrickTask, build_brick
from dark_halo_scope.survey.mini.files import bricks_table, write_table
from dark_halo_scope.survey.mini.lenscat import catalogue_text
from dark_halo_scope.survey.mini.sky import choose_bricks, sweep_name
from dark_halo_scope.survey.mini.sources import CATALOGUE, write_source_bank

BRICKS = "survey-bricks.fits.gz"
SUMMARY = "south/survey-bricks-dr10-south.fits.gz"
SWEEPS = "south/sweep/10.1"
PHOTO_Z = "south/sweep/10.1-photo-z"
COADDS = "south/coadd"
LENSES = "lenses/lenscat.csv"
SOURCES = f"sources/{CATALOGUE}"
TRUTH = "truth/truth.fits"
"""What was drawn, row by row of all sweeps in the order of their names; for tests and pictures."""


def build_survey(settings: MiniSettings, directory: Path, processes: int = 1) -> SurveyFiles:
    """Draw and write the whole survey below `directory`.

    The files depend on `settings` alone: every brick has its own random stream, so that any number of processes writes
    the same bytes.

    Returns:
        paths of what was written, relative to `directory`.
    """
    bricks = choose_bricks(settings)
    tasks = _tasks(settings, bricks, directory / COADDS)
    bank = (directory / "sources", settings.seed, settings.sources)
    with Progress(len(tasks) + 1, "embedded survey: bricks and source bank") as progress:
        if processes == 1:
            rows = []
            for task in tasks:
                rows.append(build_brick(task))
                progress.advance()
            write_source_bank(*bank)
            progress.advance()
        else:
            # Spawned, not forked: GalSim's and numba's threads do not survive a fork.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, mp_context=context, initializer=die_with_parent) as pool:
                futures = [_submit(pool, progress, build_brick, task) for task in tasks]
                sources = _submit(pool, progress, write_source_bank, *bank)
                rows = [future.result() for future in futures]
                sources.result()
    return _write_tables(settings, bricks, rows, directory)


def _submit(pool: ProcessPoolExecutor, progress: Progress, work: Callable, *arguments: Any) -> Future:
    future = pool.submit(work, *arguments)
    future.add_done_callback(lambda _: progress.advance())
    return future


def _tasks(settings: MiniSettings, bricks: BrickBox, root: Path) -> list[BrickTask]:
    """One task per brick; the lenses are dealt out evenly, the confirmed ones among them at random."""
    confirmed = np.zeros(settings.lenses, dtype=np.bool_)
    confirmed[: round(settings.confirmed_fraction * settings.lenses)] = True
    np.random.default_rng([settings.seed, 3]).shuffle(confirmed)
    return [
        BrickTask(
            settings=settings,
            index=index,
            lenses=tuple(confirmed[index :: settings.bricks].tolist()),
            brick=bricks.take(index),
            root=root,
        )
        for index in range(settings.bricks)
    ]


def _write_tables(settings: MiniSettings, bricks: BrickBox, rows: list[BrickRows], directory: Path) -> SurveyFiles:
    write_table(directory / BRICKS, bricks_table(bricks))
    write_table(directory / SUMMARY, np.concatenate([r.summary for r in rows]))
    by_file: dict[str, list[BrickRows]] = {}
    for brick_rows, ra, dec in zip(rows, bricks.ra, bricks.dec, strict=True):
        by_file.setdefault(sweep_name(float(ra), float(dec)), []).append(brick_rows)
    sweeps, photoz, truths = [], [], []
    for name, group in sorted(by_file.items()):
        sweeps.append(f"{SWEEPS}/{name}.fits")
        photoz.append(f"{PHOTO_Z}/{name}-pz.fits")
        write_table(directory / sweeps[-1], np.concatenate([r.sweep for r in group]), extname="SWEEP")
        write_table(directory / photoz[-1], np.concatenate([r.photoz for r in group]), extname="PHOTO_Z")
        truths += [r.truth for r in group]
    truth = np.concatenate(truths)
    write_table(directory / TRUTH, truth, extname="TRUTH")
    _write_lenses(settings, truth, directory / LENSES)
    return SurveyFiles(
        bricks=BRICKS,
        brick_summary=SUMMARY,
        sweeps=sweeps,
        photoz=photoz,
        coadds=COADDS,
        lenses=[LENSES],
        sources=SOURCES,
    )


def _write_lenses(settings: MiniSettings, truth: NDArray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([settings.seed, 4])
    text = catalogue_text(rng, truth[truth["KIND"] == b"lens"], truth[truth["KIND"] == b"lrg"])
    path.write_text(text)
