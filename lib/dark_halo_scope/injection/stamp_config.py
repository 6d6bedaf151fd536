"""Settings of `inject_stamps`: cutout, PSF, noise, hard negatives and output files."""

from typing import Literal

from pydantic import Field

from dark_halo_scope.core.config import Settings

HardNegativeKind = Literal["pixels", "blocks"]


class PsfSettings(Settings):
    """PSF that arcs are convolved with; its width comes from each brick's psfsize map."""

    kind: Literal["moffat", "gaussian"] = "moffat"
    match: Literal["nea", "fwhm"] = "nea"  # psfsize is a noise-equivalent-area FWHM, not that of a profile
    beta: float = Field(default=3.5, gt=1.0)


class ShotNoiseSettings(Settings):
    """Poisson noise of the injected light, of variance flux / gain.

    A weight map tells the gain because sky dominates it: invvar = gain / sky, both per pixel. Sky brightnesses are the
    nominal DECam ones of the survey's observing bot (legacysurvey/obsbot, decam.py). With them r gains come out at
    2,600-14,000 electrons per nanomaggy at usual depths.
    """

    enabled: bool = True
    gain: dict[Literal["g", "r", "z"], float] | None = None  # electrons per nanomaggy; None: sky level x invvar
    sky_mag_arcsec2: dict[Literal["g", "r", "z"], float] = Field(default={"g": 22.04, "r": 20.91, "z": 18.46})


class HardNegativeSettings(Settings):
    """How an arc's light is redistributed before the PSF.

    `hardneg_stamp_npz` is always the definition: fine pixels permuted within rings one fine pixel wide. Each kind
    listed in `extra` adds a column `hardneg_{kind}_stamp_npz` with an independent draw, for training sets that want
    variety.
    """

    extra: tuple[HardNegativeKind, ...] = ()
    block_width_arcsec: float = Field(default=0.5, gt=0)  # `blocks`: radial width of a band that turns as one
    block_segments: int = Field(default=8, ge=2)  # `blocks`: pieces of a band's azimuth that change places


class StampSettings(Settings):
    """All settings of `inject_stamps`. Stamp size, lens and source are the manifest's."""

    psf: PsfSettings = PsfSettings()
    shot_noise: ShotNoiseSettings = ShotNoiseSettings()
    hard_negatives: HardNegativeSettings = HardNegativeSettings()
    # A cutout with fewer usable pixels than this in any band is recorded as failed, not scored.
    min_good_fraction: float = Field(default=0.5, gt=0, le=1)
    # r pixels with one of these bits count as bad: NPRIMARY, BRIGHT, SATUR_R, ALLMASK_R, BAILOUT, MEDIUM (phase 4c).
    bad_maskbits: tuple[int, ...] = (0, 1, 3, 6, 10, 11)
    wise_maskbits: tuple[int, ...] = (8, 9)
    # 0 stores: the file's own compression makes the same bytes of it in a tenth of the time.
    npz_level: int = Field(default=0, ge=0, le=9)
    # Whole bricks go into a file until it has this many rows, of about 75 kB each.
    rows_per_file: int = Field(default=1000, ge=1)
