"""Injection for recovery: lenses and sources drawn for hosts, rendered onto their coadds, and not kept.

    hosts (N) -> draws (N x replicates) -> images and rows (N x replicates x rungs), some at a time

Every number of a draw follows from its host's name, its replicate and the settings; noise from the draw's own seed. All
rungs share a draw: what differs between two rungs is what the rung says, and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, load_manifest, verified_path
from dark_halo_scope.core.quarantine import REASON
from dark_halo_scope.injection import priors
from dark_halo_scope.injection.arcs import gains, lens_of, psfs_of, shot_noise, source_of, unlensed_fluxes
from dark_halo_scope.injection.config import ThetaEPrior
from dark_halo_scope.injection.cutout_quality import measure_missing, why_unusable
from dark_halo_scope.injection.inject import CutoutError, Host, cut_host
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.recovery_config import FAMILIES, MagnitudeProposal, RecoverySettings, Rung
from dark_halo_scope.injection.recovery_hosts import SPLIT
from dark_halo_scope.injection.recovery_schema import (
    DRAW_SCHEMA,
    HOST_SCHEMA,
    INJECTION_SCHEMA,
    LEFT_OUT_SCHEMA,
)
from dark_halo_scope.injection.schema import BANDS
from dark_halo_scope.injection.snr import arc_snr
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.injection.sources import SourceBank
from dark_halo_scope.injection.stamp_config import PsfSettings, ShotNoiseSettings, StampSettings
from dark_halo_scope.injection.tasks import DRAWS, choice, task_id, task_seed, uniforms
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.magnification import caustic_radius
from dark_halo_scope.lensing.render import FineImage, convolve_bands, render_fine
from dark_halo_scope.survey.coadds import BrickCoadds
from dark_halo_scope.survey.names import PIXEL_SCALE
from dark_halo_scope.survey.units import magnitude

Array = NDArray[np.float64]
Row = Mapping[str, Any]

EXPERIMENT = "recovery"
TOO_BRIGHT = "pixels beyond float16"
_MOST = float(np.finfo(np.float16).max)
_STREAM_NOISE = 100  # apart from the streams of `arcs`, which source_of shares


@dataclass(frozen=True)
class Physics:
    """What a rung injects, and how.

    Attributes:
        family: of the sources.
        match: what psfsize is taken for; see `lensing.psf`.
        noise: whether the arc brings its own shot noise.
        description: for tables and figures.
    """

    family: str
    match: str
    noise: bool
    description: str


#: In the order of the ladder; `evaluation.ladder` adds the last rung, hosts that match real lenses.
RUNG_PHYSICS: Mapping[Rung, Physics] = {
    "sersic_fwhm": Physics("sersic", "fwhm", False, "Sersic sources, psfsize taken as a profile's FWHM, no shot noise"),
    "sersic_nea": Physics("sersic", "nea", False, "psfsize as the noise-equivalent width that it is"),
    "sersic_noise": Physics("sersic", "nea", True, "shot noise of the arc"),
    "clumpy": Physics("clumpy", "nea", True, "clumpy discs as sources"),
    "image": Physics("image", "nea", True, "images of real galaxies as sources"),
}


@dataclass(frozen=True)
class Rendered:
    """Some injections.

    images: (M, 3, H, W) nanomaggies per pixel, float16 as packed images are: a network is shown the same rounding.
    rows: (M,) `INJECTION_SCHEMA`, aligned.
    left_out: `LEFT_OUT_SCHEMA`, what could not be injected.
    """

    images: NDArray[np.float16]
    rows: pa.Table
    left_out: pa.Table


def usable_sources(path: Path, settings: RecoverySettings) -> tuple[int, ...]:
    """IDENTs of the bank's usable galaxies of the test split, in order; none where no rung injects images.

    Raises:
        BadInputError: there is none, or galaxies were split by another seed than hosts are.
    """
    if all(RUNG_PHYSICS[rung].family != "image" for rung in settings.rungs):
        return ()
    measured = load_manifest(path, "sources")
    seed = SourceCheckSettings.model_validate(measured.facts["settings"]).split_seed
    if seed != settings.split_seed:
        raise BadInputError(
            f"{path} splits source galaxies with split_seed {seed}, and hosts are split with {settings.split_seed}; "
            "give both the same."
        )
    table = pq.read_table(verified_path(measured, "sources.parquet"), columns=["source_id", "usable", "split"])
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    idents = tuple(sorted(int(ident) for ident, usable, split in rows if usable and split == SPLIT))
    if not idents:
        raise BadInputError(
            f"{path} has no usable galaxy of the split {SPLIT}; give a larger source bank, or leave the rung image out."
        )
    return idents


def draw(hosts: pa.Table, settings: RecoverySettings) -> pa.Table:
    """Lens and source of every replicate of every host.

    Args:
        hosts: (N,) `HOST_SCHEMA`.
        settings: priors, proposals, replicates and the seed.

    Returns:
        (N x replicates,) `DRAW_SCHEMA` and `HOST_SCHEMA`, replicates of a host side by side.
    """
    index_N = np.repeat(np.arange(hosts.num_rows), settings.replicates)
    replicate_N = np.tile(np.arange(settings.replicates), hosts.num_rows)
    repeated = hosts.take(pa.array(index_N))
    identity = zip(*(repeated[name].to_pylist() for name in ("brickname", "ra", "dec")), replicate_N, strict=True)
    tasks = [
        task_id(EXPERIMENT, SPLIT, SPLIT, brick, ra, dec, "PRIOR", int(number)) for brick, ra, dec, number in identity
    ]
    seeds = [task_seed(task, settings.seed) for task in tasks]
    u = dict(zip(DRAWS, uniforms(seeds).T, strict=True))
    prior = settings.prior
    theta_e_N = priors.theta_e(u["theta_e"], settings.theta_e)
    mag_N = proposed_magnitude(u["mag_r"], settings.magnitude)
    lens_e_N, lens_phi_N = priors.lens_ellipticity(
        u["lens_e1"], u["lens_e2"], repeated["shape_e1"].to_numpy(), repeated["shape_e2"].to_numpy(), prior.lens
    )
    shear_N = priors.rayleigh(u["shear"], prior.lens.shear_scale, prior.lens.max_shear)
    shear_phi_N = np.pi * u["shear_phi"]
    q_N, g1_N, g2_N = priors.axis_ratio(lens_e_N), shear_N * np.cos(2 * shear_phi_N), shear_N * np.sin(2 * shear_phi_N)
    parameters = np.stack([theta_e_N, q_N, lens_phi_N, g1_N, g2_N], axis=1).tolist()
    caustic_N = np.array([caustic_radius(Lens(*values)) for values in parameters], dtype=np.float64)
    x_N, y_N = priors.offset(u["offset_radius"], u["offset_angle"], prior.offset_caustics * caustic_N)
    gr_N, rz_N = priors.colours(u["colour_gr"], u["colour_rz"], prior.colour)
    columns = {
        "task_id": tasks,
        "replicate": replicate_N,
        "task_seed64": seeds,
        "theta_e_arcsec": theta_e_N,
        "lens_e": lens_e_N,
        "lens_phi_rad": lens_phi_N,
        "shear": shear_N,
        "shear_phi_rad": shear_phi_N,
        "src_mag_r": mag_N,
        "src_gr": gr_N,
        "src_rz": rz_N,
        "src_reff_arcsec": priors.size(u["reff"], mag_N, prior.size),
        "src_n": priors.sersic_index(u["sersic_n"], prior.shape),
        "src_e": priors.rayleigh(u["src_e"], prior.shape.e_scale, prior.shape.max_e),
        "src_phi_rad": 2.0 * np.pi * u["src_phi"],
        "src_x_arcsec": x_N,
        "src_y_arcsec": y_N,
        "beta_arcsec": np.hypot(x_N, y_N),
        "caustic_radius_arcsec": caustic_N,
        "weight": weight(theta_e_N, mag_N, settings),
    }
    drawn = [pa.array(columns[field.name], field.type) for field in DRAW_SCHEMA]
    return pa.table([*drawn, *repeated.columns], schema=pa.schema([*DRAW_SCHEMA, *HOST_SCHEMA]))


def proposed_magnitude(u_N: Array, proposal: MagnitudeProposal) -> Array:
    """(N,) unlensed r magnitudes from uniform numbers in [0, 1)."""
    length, k = proposal.faint - proposal.bright, proposal.slope * np.log(10.0)
    if k == 0:
        return proposal.bright + u_N * length
    return np.asarray(proposal.bright + np.log1p(u_N * np.expm1(k * length)) / k)


def weight(theta_e_N: Array, mag_N: Array, settings: RecoverySettings) -> Array:
    """(N,) prior density over proposal density of Einstein radius and source magnitude; its mean is 1."""
    ratio_N = theta_e_density(theta_e_N, settings.prior.theta_e) / theta_e_density(theta_e_N, settings.theta_e)
    proposal = settings.magnitude
    k = proposal.slope * np.log(10.0)
    length = proposal.faint - proposal.bright
    density_N = 1.0 / length if k == 0 else k * np.exp(k * (mag_N - proposal.bright)) / np.expm1(k * length)
    return np.asarray(ratio_N * priors.magnitude_density(mag_N, settings.prior.magnitude) / density_N)


def theta_e_density(theta_e_N: Array, prior: ThetaEPrior) -> Array:
    """(N,) density per arcsec, zero outside the limits."""
    inside_N = (theta_e_N >= prior.low) & (theta_e_N <= prior.high)
    if prior.distribution == "uniform":
        return inside_N / (prior.high - prior.low)
    return np.asarray(inside_N / (theta_e_N * np.log(prior.high / prior.low)))


def units(hosts: pa.Table, settings: RecoverySettings) -> list[tuple[int, int]]:
    """First host and number of hosts of each unit of work.

    What is rendered and scored together follows from the hosts and the settings alone: a network's last digits depend
    on what else is in its batch, and so they do not depend on how many processes share the work.
    """
    size = max(1, settings.unit_images // (settings.replicates * len(settings.rungs)))
    return [(first, min(size, hosts.num_rows - first)) for first in range(0, hosts.num_rows, size)]


Bricks = Callable[[str], AbstractContextManager[BrickCoadds]]


def render(
    hosts: pa.Table,
    bricks: Bricks,
    bank: SourceBank | None,
    idents: Sequence[int],
    settings: RecoverySettings,
    stamp_size: int,
) -> Rendered:
    """All injections of some hosts.

    Args:
        hosts: `HOST_SCHEMA`, those of a brick side by side.
        bricks: opens the coadds of a brick.
        bank: of source galaxies; None where no rung injects images.
        idents: galaxies of the bank that may be sources.
        settings: what is injected.
        stamp_size: pixels.

    Raises:
        BadInputError: a rung injects images, and there is no bank.
        CorruptDataError: pixels that do not decompress.
    """
    draws = draw(hosts, settings).to_pylist()
    images: list[NDArray[np.float16]] = []
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for first, host in _cut(hosts, bricks, stamp_size, settings.quality):
        for row in draws[first * settings.replicates : (first + 1) * settings.replicates]:
            if isinstance(host, CutoutError):
                left_out += [row | {"rung": rung, REASON: str(host)} for rung in settings.rungs]
                continue
            for image, injected in inject(row, host, bank, idents, settings):
                if np.abs(image).max() > _MOST:
                    left_out.append(injected | {REASON: TOO_BRIGHT})
                    continue
                images.append(image.astype(np.float16))
                rows.append(injected)
    shape = (0, len(BANDS), stamp_size, stamp_size)
    return Rendered(
        np.stack(images) if images else np.empty(shape, np.float16),
        pa.Table.from_pylist(rows, schema=INJECTION_SCHEMA),
        pa.Table.from_pylist(
            [{name: row[name] for name in LEFT_OUT_SCHEMA.names} for row in left_out], schema=LEFT_OUT_SCHEMA
        ),
    )


def inject(
    row: Row, host: Host, bank: SourceBank | None, idents: Sequence[int], settings: RecoverySettings
) -> Iterator[tuple[NDArray[np.float32], dict[str, Any]]]:
    """Image (3, H, W) and row of each rung of a draw. Light before the PSF is rendered once for rungs that share it."""
    lens, size = lens_of(row, host.centre), host.image.shape[-1]
    fine: dict[str, FineImage] = {}
    gain: Array | None = None
    for rung in settings.rungs:
        physics = RUNG_PHYSICS[rung]
        source = None
        if physics.family == "image":
            source = str(idents[choice(row["task_id"], settings.source_salt, len(idents))])
        if physics.family not in fine:
            named = {**row, "source_mode": physics.family, "source_id": source}
            fine[physics.family] = render_fine(lens, source_of(named, host.centre, bank), size, PIXEL_SCALE)
        light = fine[physics.family]
        fluxes = unlensed_fluxes(row, light.flux)
        psfs = _psfs(tuple(host.psfsize.tolist()), physics.match)
        arc = convolve_bands(light, psfs, fluxes)
        seen = arc
        if physics.noise:
            gain = gains(host.invvar, ShotNoiseSettings(), PIXEL_SCALE) if gain is None else gain
            rng = np.random.default_rng([int(row["task_seed64"]), _STREAM_NOISE])
            seen = (arc + shot_noise(arc, gain, rng)).astype(np.float32)
        lensed = magnitude(fluxes * light.flux)
        measured = {
            "rung": rung,
            "family": physics.family,
            "selection": FAMILIES[physics.family] == rung,
            "source_id": source,
            "magnification": light.flux,
            "arc_snr": arc_snr(arc, host.invvar),
            **{f"lensed_mag_{band}": _or_none(value) for band, value in zip(BANDS, lensed.tolist(), strict=True)},
        }
        yield host.image + seen, {**row, **measured}


def cut_bare(
    hosts: pa.Table, bricks: Bricks, stamp_size: int, quality: CutoutQualitySettings
) -> tuple[NDArray[np.float16], NDArray[np.intp]]:
    """Hosts as they are, (M, 3, H, W) nanomaggies per pixel, and their places among `hosts`; some have no pixels."""
    images, places = [], []
    for place, host in _cut(hosts, bricks, stamp_size, quality):
        if not isinstance(host, CutoutError) and np.abs(host.image).max() <= _MOST:
            images.append(host.image.astype(np.float16))
            places.append(place)
    shape = (0, len(BANDS), stamp_size, stamp_size)
    return np.stack(images) if images else np.empty(shape, np.float16), np.array(places, dtype=np.intp)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


@lru_cache(maxsize=4096)
def _psfs(psfsize: tuple[float, ...], match: str) -> list[Any]:
    return psfs_of(psfsize, PsfSettings.model_validate({"match": match}))


def _cut(
    hosts: pa.Table, bricks: Bricks, size: int, quality: CutoutQualitySettings
) -> Iterator[tuple[int, Host | CutoutError]]:
    """Place and pixels of each host, or why a finder is not shown them; one brick is open at a time."""
    names = np.array(hosts["brickname"].to_pylist(), dtype=str)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]])) if len(names) else np.empty(0, int)
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(names)], strict=True):
        part = hosts.slice(start, stop - start)
        with bricks(str(names[start])) as coadds:
            x, y = coadds.sky_to_pixel(part["ra"].to_numpy(), part["dec"].to_numpy())
            for place in range(stop - start):
                yield start + place, _shown(coadds, float(x[place]), float(y[place]), size, quality)


def _shown(coadds: BrickCoadds, x: float, y: float, size: int, quality: CutoutQualitySettings) -> Host | CutoutError:
    """A host's pixels, or why a finder is not shown them."""
    try:
        host = cut_host(coadds, x, y, size, StampSettings())
    except CutoutError as error:
        return error
    # A pixel that was missing is 0 now, and such a one counts as missing.
    reason = why_unusable(measure_missing(host.image, quality), quality)
    return host if reason is None else CutoutError(reason)


def known_bricks(coadds: Manifest) -> set[str]:
    """Bricks whose coadds are cached, by name."""
    table = pq.read_table(verified_path(coadds, "files.parquet"), columns=["brickname"])
    return set(table["brickname"].to_pylist()) - {item["brickname"] for item in coadds.facts["missing"]}
