"""Measure the light of injected arcs, of their controls and of known lenses alike: -> arc_light.json.

    stamps.json, lenses.json, coadds.json -> `light.parquet`, one row a measured stamp, and `lenses.parquet`, the
    cutouts of the known lenses

Known lenses are those of galaxies that lie in the bricks of the dataset's coadds, cut out by the code that cuts hosts.
Real arcs are the measure of the injected ones: whoever injects arcs that are too bright or too blue sees it here. What
the estimator is and where it errs: `evaluation.arc_light`.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, attempt, load_manifest, verified_path, verified_paths
from dark_halo_scope.core.progress import Progress
from dark_halo_scope.evaluation.arc_light import KIND, LENSES, LIGHT, ArcLight, measure_light
from dark_halo_scope.evaluation.arc_light_config import ArcLightSettings
from dark_halo_scope.evaluation.pairs import column, stratum_masks, theta_e_over_psf, true_theta_e
from dark_halo_scope.evaluation.quality import distribution
from dark_halo_scope.evaluation.stamp_sample import draw_rows, read_images
from dark_halo_scope.injection.inject import CutoutError, cut_host
from dark_halo_scope.injection.schema import encode_stamp
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.cache_coadds import FILES, load_brick
from dark_halo_scope.survey.grid import brick_at
from dark_halo_scope.survey.names import BANDS
from dark_halo_scope.survey.units import nanomaggies

MODULE = "dark_halo_scope.evaluation.measure_arc_light"

_STRING, _FLOAT64 = pa.string(), pa.float64()
LIGHT_SCHEMA = pa.schema(
    [
        # positive, control (of that positive, or unpaired), lens
        pa.field("kind", _STRING, nullable=False),
        # task_id, or the lens's name
        pa.field("name", _STRING, nullable=False),
        pa.field("grading", _STRING),
        *(
            pa.field(name, _FLOAT64)
            for name in (
                *("theta_e_arcsec", "psfsize_r", "sampling_weight", "true_mag_g", "true_mag_r"),
                *("flux_g", "sigma_g", "flux_r", "mag_g", "mag_r"),
            )
        ),
    ]
)
LENS_SCHEMA = pa.schema(
    [
        *(pa.field(name, _STRING, nullable=False) for name in ("name", "brickname", "grading", "discovery")),
        *(pa.field(name, _FLOAT64, nullable=False) for name in ("ra", "dec", "psfsize_r")),
        pa.field("theta_e_arcsec", _FLOAT64),
        *(pa.field(name, _FLOAT64, nullable=False) for name in ("host_offset_x_arcsec", "host_offset_y_arcsec")),
        pa.field("stamp_npz", pa.binary(), nullable=False),
    ]
)
_COLUMNS = (
    *("cutout_ok", "is_control", "stamp_size", "theta_e_arcsec", "theta_e_arcsec_true", "psfsize_r"),
    *("sampling_weight", "lensed_mag_g", "lensed_mag_r", "host_offset_x_arcsec", "host_offset_y_arcsec"),
)

_logger = logging.getLogger(__name__)


def cut_lenses(
    lenses: pa.Table, coadds: Manifest, size: int, settings: StampSettings, most: int, rng: np.random.Generator
) -> tuple[pa.Table, NDArray[np.float32], Counter[str]]:
    """Stamps of the known lenses of galaxies that lie in the bricks of the coadds.

    Args:
        lenses: of lenses.json.
        coadds: of the dataset.
        size: side of a stamp, pixels.
        settings: of the dataset's stamps.
        most: lenses that are cut out; where there are more, a random choice.
        rng: makes it.

    Returns:
        `LENS_SCHEMA`; their (N, 3, H, W) pixels; and why others have none -> how many.
    """
    files = pq.read_table(verified_path(coadds, FILES), columns=["brickname"])
    bricks = set(pc.unique(files["brickname"]).to_pylist())
    galaxies = lenses.filter(pc.equal(lenses["type"], "galaxy"))
    skipped: Counter[str] = Counter({"not the lens of a galaxy": lenses.num_rows - galaxies.num_rows})
    names = brick_at(galaxies["ra"].to_numpy(), galaxies["dec"].to_numpy()).name
    inside = np.flatnonzero(np.isin(names, sorted(bricks)))
    skipped["not in the dataset's bricks"] = galaxies.num_rows - len(inside)
    if len(inside) > most:
        skipped["not drawn"] = len(inside) - most
        inside = np.sort(rng.choice(inside, most, replace=False))
    rows: list[dict[str, Any]] = []
    images: list[NDArray[np.float32]] = []
    with Progress(len(inside), "Cutting out known lenses") as progress:
        for brick in np.unique(names[inside]).tolist():
            with load_brick(coadds, brick) as pixels:
                for lens in galaxies.take(pa.array(inside[names[inside] == brick])).to_pylist():
                    progress.advance()
                    x, y = pixels.sky_to_pixel(lens["ra"], lens["dec"])
                    try:
                        host = cut_host(pixels, float(x), float(y), size, settings)
                    except CutoutError as error:
                        skipped[str(error)] += 1
                        continue
                    images.append(host.image)
                    rows.append(
                        {name: lens[name] for name in ("name", "grading", "discovery", "ra", "dec", "theta_e_arcsec")}
                        | {
                            "brickname": brick,
                            "psfsize_r": float(host.psfsize[BANDS.index("r")]),
                            "host_offset_x_arcsec": host.centre[0],
                            "host_offset_y_arcsec": host.centre[1],
                            "stamp_npz": encode_stamp(host.image, level=settings.npz_level),
                        }
                    )
    stacked = np.stack(images) if images else np.empty((0, len(BANDS), size, size), np.float32)
    return pa.Table.from_pylist(rows, schema=LENS_SCHEMA), stacked, +skipped


def light_of(
    kind: str, rows: pa.Table, images_N3HW: NDArray[np.float32], settings: ArcLightSettings
) -> tuple[pa.Table, int]:
    """Measure stamps of one kind.

    Returns:
        `LIGHT_SCHEMA`, a row for each stamp whose pixels are finite; and how many are not.
    """
    centre = np.zeros((rows.num_rows, 2))
    for axis, name in enumerate(("host_offset_x_arcsec", "host_offset_y_arcsec")):
        if name in rows.column_names:
            # Stored stamps may not say where their host is; then it is looked for about the centre.
            centre[:, axis] = np.nan_to_num(column(rows, name))
    light = measure_light(images_N3HW, centre, settings)
    table = _light_table(kind, rows, light, settings)
    whole = np.isfinite(light.flux_g)
    return table.filter(pa.array(whole)), int((~whole).sum())


def describe(light: pa.Table, settings: ArcLightSettings) -> dict[str, Any]:
    """Facts of arc_light.json: what is seen of each kind and how bright, and where the estimator errs.

    Returns:
        kinds: kind -> {n, seen, seen_fraction, mag_g, colour_gr: {n, missing, percentiles}}; lenses also by grade.
        true_mag_g, true_mag_r: percentiles of the injections' true lensed magnitudes, also weighted by sampling_weight.
        bias: bins of true g magnitude -> measured - true magnitude of positives that are seen.
        recovered: strata of x = theta_E / psfsize_r -> (flux of positive - flux of its control) / true flux, in g.
    """
    kinds = {kind: light.filter(pc.equal(light["kind"], kind)) for kind in ("positive", "control", "lens")}
    groups = kinds | {
        f"lens {grade}": kinds["lens"].filter(pc.equal(kinds["lens"]["grading"], grade))
        for grade in sorted(set(kinds["lens"]["grading"].to_pylist()))
    }
    positive = kinds["positive"]
    return {
        "kinds": {name: _seen(table) for name, table in groups.items() if table.num_rows},
        **{name: distribution(column(positive, name), _weights(positive)) for name in ("true_mag_g", "true_mag_r")},
        "bias": _bias(positive, settings.bias_edges),
        "recovered": _recovered(positive, kinds["control"], settings),
    }


def _light_table(kind: str, rows: pa.Table, light: ArcLight, settings: ArcLightSettings) -> pa.Table:
    mag_g, mag_r = light.magnitudes(settings.min_snr)
    values: dict[str, Any] = {"kind": [kind] * rows.num_rows}
    values["name"] = rows["name" if kind == "lens" else "task_id"]
    values["grading"] = rows["grading"] if kind == "lens" else None
    values |= {"flux_g": light.flux_g, "sigma_g": light.sigma_g, "flux_r": light.flux_r}
    values |= {"mag_g": mag_g, "mag_r": mag_r}
    for band in ("g", "r"):
        # A control has no arc, whatever its positive's is.
        values[f"true_mag_{band}"] = _known(rows, f"lensed_mag_{band}") if kind == "positive" else None
    values["theta_e_arcsec"] = true_theta_e(rows)
    values["psfsize_r"] = _known(rows, "psfsize_r")
    values["sampling_weight"] = _known(rows, "sampling_weight")
    return pa.table(
        {
            field.name: pa.nulls(rows.num_rows, field.type)
            if values[field.name] is None
            else _array(values[field.name], field.type)
            for field in LIGHT_SCHEMA
        },
        schema=LIGHT_SCHEMA,
    )


def _array(values: Any, dtype: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """NaN as null."""
    return pa.array(values, dtype, from_pandas=True) if isinstance(values, np.ndarray | list) else values.cast(dtype)


def _known(rows: pa.Table, name: str) -> NDArray[np.float64]:
    return column(rows, name) if name in rows.column_names else np.full(rows.num_rows, np.nan)


def _weights(table: pa.Table) -> NDArray[np.float64]:
    return np.nan_to_num(column(table, "sampling_weight"))


def _seen(table: pa.Table) -> dict[str, Any]:
    mag_g, mag_r = column(table, "mag_g"), column(table, "mag_r")
    weights = _weights(table)
    seen = int(np.isfinite(mag_g).sum())
    return {
        "n": table.num_rows,
        "seen": seen,
        "seen_fraction": seen / table.num_rows,
        "mag_g": distribution(mag_g, weights),
        "colour_gr": distribution(mag_g - mag_r, weights),
    }


def _bias(positive: pa.Table, edges: Sequence[float]) -> list[dict[str, Any]]:
    true, measured = column(positive, "true_mag_g"), column(positive, "mag_g")
    result = []
    for low, high in pairwise(edges):
        here = (true >= low) & (true < high)
        error = (measured - true)[here & np.isfinite(measured)]
        values: dict[str, Any] = {"low": low, "high": high, "n": int(here.sum()), "seen": len(error)}
        if len(error):
            names = ("p16", "median", "p84")
            values |= dict(zip(names, np.percentile(error, (16, 50, 84)).tolist(), strict=True))
        result.append(values)
    return result


def _recovered(positive: pa.Table, control: pa.Table, settings: ArcLightSettings) -> dict[str, Any]:
    own = dict(zip(control["name"].to_pylist(), column(control, "flux_g").tolist(), strict=True))
    without = np.array([own.get(name, np.nan) for name in positive["name"].to_pylist()])
    true = nanomaggies(column(positive, "true_mag_g"))
    share = (column(positive, "flux_g") - without) / true
    strata = stratum_masks(theta_e_over_psf(positive), settings.strata)
    return {name: distribution(share[mask], np.zeros(mask.sum())) for name, mask in strata.items()}


def measure(
    stamps: Sequence[Path],
    lenses: pa.Table,
    coadds: Manifest,
    settings: ArcLightSettings,
    stamp_settings: StampSettings,
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Everything behind arc_light.json: `LIGHT_SCHEMA`, `LENS_SCHEMA` and the facts.

    Raises:
        BadInputError: no positive at all.
    """
    positives, in_all = draw_rows(stamps, _COLUMNS, _is_positive, settings.max_injections)
    if not positives.num_rows:
        raise BadInputError("No stamp of the dataset has an arc; inject again.")
    # Sizes never differ within what we inject; stored data that mix them are measured at the first one's.
    size = int(positives["stamp_size"][0].as_py())
    unpaired, _ = draw_rows(stamps, _COLUMNS, _is_unpaired_control, settings.max_injections)
    tables, unreadable = [], Counter[str]()
    sources: list[tuple[str, pa.Table, str]] = [("positive", positives, "stamp_npz")]
    sources += [("control", positives, "ctrl_stamp_npz"), ("control", unpaired, "stamp_npz")]
    with Progress(sum(rows.num_rows for _, rows, _ in sources), "Measuring light (stamps)") as progress:
        for kind, rows, blob in sources:
            if rows.num_rows:
                table, bad = light_of(kind, rows, read_images(stamps, rows, blob, size), settings)
                tables.append(table)
                unreadable[f"{kind}, {blob}"] += bad
            progress.advance(rows.num_rows)
    rng = np.random.default_rng(settings.seed)
    known, images, skipped = cut_lenses(lenses, coadds, size, stamp_settings, settings.max_lenses, rng)
    table, bad = light_of("lens", known, images, settings)
    unreadable["lens"] += bad
    light = pa.concat_tables([*tables, table])
    facts = describe(light, settings) | {
        "positives": in_all,
        "lenses": known.num_rows,
        "lenses_skipped": dict(sorted(skipped.items())),
        "without_finite_pixels": dict(sorted((+unreadable).items())),
        "size": size,
    }
    return light, known, facts


def _is_positive(rows: pa.Table) -> NDArray[np.bool_]:
    return (column(rows, "cutout_ok") == 1) & (column(rows, "is_control") != 1)


def _is_unpaired_control(rows: pa.Table) -> NDArray[np.bool_]:
    return (column(rows, "cutout_ok") == 1) & (column(rows, "is_control") == 1)


def _log(facts: Mapping[str, Any]) -> None:
    for name, kind in facts["kinds"].items():
        median = kind["mag_g"].get("p50")
        text = "none seen" if median is None else f"median g of what is seen {median:.2f}"
        _logger.info("%s: light in %d of %d, %s", name, kind["seen"], kind["n"], text)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `measure_arc_light`."""
    parser = argument_parser("Measure the light of injected arcs, their controls and known lenses alike.")
    parser.add_argument("--stamps", required=True, type=Path, help="stamps.json")
    parser.add_argument("--lenses", required=True, type=Path, help="lenses.json")
    parser.add_argument("--coadds", required=True, type=Path, help="coadds.json of the dataset's bricks")
    parser.add_argument("--stamp-settings", help="settings of the dataset's stamps, as --settings of inject_stamps")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    parser.add_argument("--output", required=True, type=Path, help="arc_light.json")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.settings, ArcLightSettings)
    stamp_settings = load_settings(arguments.stamp_settings, StampSettings, "--stamp-settings")
    stamps, coadds = load_manifest(arguments.stamps, "stamps"), load_manifest(arguments.coadds, "coadds")
    lenses = pa.concat_tables(
        [pq.read_table(path) for path in verified_paths(load_manifest(arguments.lenses, "lenses"))]
    )
    inputs = [arguments.stamps, arguments.lenses, arguments.coadds]
    recorded = {"arc_light": settings.model_dump(mode="json"), "stamps": stamp_settings.model_dump(mode="json")}
    with attempt(arguments.output, KIND, MODULE, recorded, inputs, arguments.data_root) as work:
        light, known, facts = measure(verified_paths(stamps), lenses, coadds, settings, stamp_settings)
        pq.write_table(light, work.prefix / LIGHT, compression="zstd")
        pq.write_table(known, work.prefix / LENSES, compression="zstd")
        _log(facts)
        facts |= {"stamps_sha256": stamps.sha256}
        work.publish(columns={field.name: str(field.type) for field in LIGHT_SCHEMA}, facts=facts)


if __name__ == "__main__":
    run(main)
