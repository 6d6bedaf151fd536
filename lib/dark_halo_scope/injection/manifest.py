"""The injection manifest: what is injected where, one row per task.

A row is a pure function of its host and the settings: identity, seed and every drawn number follow from hashes, so that
cores, partitions and the order of files change nothing. Columns are those of earlier manifests (phase 4a), then:

- `galaxy_id`, `objid`, `release`, `type`, shape, magnitudes, photo-z, cell and split of the host;
- `src_mag_r`, the unlensed r magnitude (null where `dmag_mode` is lensed: `src_dmag` then refers to the arc);
- `source_mode` (image, sersic), `source_id` (IDENT in the bank, as text; null for Sersic sources), `src_n`;
- `caustic_radius_arcsec`, within whose multiple the source position was drawn;
- `target_arc_snr`: where it is not null, whoever renders the arc scales the unlensed flux in all bands until the arc's
  matched-filter arc_snr over g, r, z equals it, sets src_mag_r and src_dmag accordingly, and sampling_weight, null
  until then, to `priors.magnitude_weight(src_mag_r, settings, src_reff_arcsec)`; `settings` is a fact of the manifest;
- `sampling_weight`, prior density over sampling density: 1 where nothing was reweighted.

A control row (`is_control` = 1, only with `controls: unpaired`) has no lens and no source. Paired datasets have none:
every positive brings the stamp without its arc.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLITS, assert_disjoint, file_of_brick, near_other_split, split_of_key
from dark_halo_scope.core import storage
from dark_halo_scope.core.cli import argument_parser, load_settings, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import (
    Attempt,
    Manifest,
    ObjectEntry,
    attempt,
    load_manifest,
    object_list,
    verified_path,
    write_object,
)
from dark_halo_scope.injection import priors
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.grids import GRIDS, GridPoint
from dark_halo_scope.injection.sources import open_bank
from dark_halo_scope.injection.stamp_config import SourceBankSettings
from dark_halo_scope.injection.tasks import DRAWS, choice, hash_fraction, task_id, task_seed, uniforms
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.magnification import caustic_radius
from dark_halo_scope.spark.failures import explained
from dark_halo_scope.spark.session import add_arguments, spark_session
from dark_halo_scope.survey.description import load_survey

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.injection.manifest"

AB_ZERO_POINT = 22.5
CONTROL = "CONTROL"
PRIOR = "PRIOR"

# Offset of the seed that decides which galaxies are controls, as in phase 4a.
_CONTROL_SEED_OFFSET = 7003
_BINS = 4
_BIN_STEP = 1e-3  # arcsec and mag: quantiles are taken of rounded values, so that no partitioning moves them

_STRING, _I32, _I64, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float64()


def _fields(names: str, dtype: pa.DataType, nullable: bool) -> list[pa.Field]:
    return [pa.field(name, dtype, nullable) for name in names.split()]


MANIFEST_SCHEMA = pa.schema(
    [
        *_fields(
            "task_id experiment_id selection_set_id ranking_mode selection_strategy region_split brickname bandset "
            "config_id",
            _STRING,
            False,
        ),
        *_fields("region_id stamp_size replicate is_control", _I32, False),
        *_fields("ra dec theta_e_arcsec src_dmag src_reff_arcsec src_e shear", _F64, False),
        *_fields("task_seed64", _I64, False),
        *_fields("src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz lens_e lens_phi_rad", _F64, True),
        *_fields("lens_model pipeline_version", _STRING, False),
        *_fields("ab_zp_nmgy", _F64, False),
        *_fields("psfsize_g psfsize_r psfsize_z", _F64, False),
        *_fields("psfdepth_g psfdepth_r psfdepth_z ebv", _F64, True),
        *_fields("psf_bin depth_bin", _I32, False),
        *_fields("gmag rmag zmag w1mag rz zw1", _F64, True),
        *_fields("galaxy_id type split", _STRING, False),
        *_fields("objid healpix_128 maskbits", _I64, False),
        *_fields("release", _I32, False),
        *_fields("shape_r shape_e1 shape_e2", _F64, False),
        *_fields("sersic z_phot z_phot_std", _F64, True),
        *_fields("dmag_mode source_mode source_id", _STRING, True),
        *_fields("src_mag_r src_n caustic_radius_arcsec target_arc_snr sampling_weight", _F64, True),
    ]
)

# What is read of the parent sample.
_HOST_COLUMNS = (
    *("brickname", "objid", "release", "type", "ra", "dec", "healpix_128", "split", "maskbits", "ebv"),
    *("gmag", "rmag", "zmag", "w1mag", "rz", "zw1"),
    *("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z"),
    *("shape_r", "shape_e1", "shape_e2", "sersic", "z_phot", "z_phot_std"),
)

_WRITTEN = "name string, size long, sha256 string, split string, hosts long, rows long, controls long"


def split_sources(idents: Sequence[int], seed: int) -> dict[str, tuple[int, ...]]:
    """Source galaxies of each split, in order of IDENT: a galaxy is in one split only, by a hash of its IDENT."""
    groups: dict[str, list[int]] = {split: [] for split in SPLITS}
    for ident in sorted(int(i) for i in idents):
        groups[split_of_key(f"source_{ident}", seed)].append(ident)
    return {split: tuple(group) for split, group in groups.items()}


def is_control_galaxy(galaxy: str, settings: ManifestSettings) -> bool:
    """Whether a galaxy is a control, in all its replicates; never in a paired dataset."""
    if settings.controls == "paired":
        return False
    return hash_fraction(f"{galaxy}|{settings.seed + _CONTROL_SEED_OFFSET}") < settings.control_fraction


def grid_point(galaxy: str, settings: ManifestSettings) -> GridPoint | None:
    """The grid's cell that a galaxy takes in all its replicates; None where parameters come from the prior."""
    if settings.grid is None:
        return None
    points = GRIDS[settings.grid].points()
    return points[int(hash_fraction(f"{galaxy}|{settings.seed}|grid") * len(points))]


def build_tasks(
    hosts: pa.Table, settings: ManifestSettings, sources: Mapping[str, Sequence[int]], selection_set: str
) -> pa.Table:
    """All tasks of some hosts.

    Args:
        hosts: columns of the parent sample, and int32 psf_bin and depth_bin.
        settings: of the manifest.
        sources: IDENTs of the source galaxies of each split.
        selection_set: name of the parent selection.

    Returns:
        `MANIFEST_SCHEMA`, sorted by task_id.
    """
    rows = _identities(hosts, settings, selection_set)
    index_N = np.array([row["host"] for row in rows], dtype=np.int64)
    host = {name: hosts[name].to_numpy(zero_copy_only=False)[index_N] for name in hosts.column_names}
    control_N = np.array([row["is_control"] for row in rows], dtype=bool)
    values: dict[str, Any] = {name: [row[name] for row in rows] for name in ("task_id", "config_id", "galaxy_id")}
    values["replicate"] = [row["replicate"] for row in rows]
    values["task_seed64"] = [row["seed"] for row in rows]
    values |= {name: host[name] for name in MANIFEST_SCHEMA.names if name in host}
    values |= _drawn(rows, host, control_N, settings, sources)
    count = len(rows)
    constants = {
        "experiment_id": settings.experiment_id,
        "selection_set_id": selection_set,
        "ranking_mode": "none",
        "selection_strategy": "healpix_split",
        "bandset": settings.bandset,
        "stamp_size": settings.stamp_size,
        "pipeline_version": "dark_halo_scope",
        "ab_zp_nmgy": AB_ZERO_POINT,
    }
    values |= {name: [value] * count for name, value in constants.items()}
    values["region_id"], values["region_split"] = host["healpix_128"], host["split"]
    values["is_control"] = control_N
    values["lens_model"] = np.where(control_N, CONTROL, "SIE")
    table = pa.table([_column(values[field.name], field.type) for field in MANIFEST_SCHEMA], schema=MANIFEST_SCHEMA)
    return table.sort_by("task_id")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `build_injection_manifest`."""
    parser = argument_parser("Decide what is injected where: one row per task.")
    add_arguments(parser)
    parser.add_argument("--survey", type=Path, required=True, help="survey.json, whose `sources` is the bank")
    parser.add_argument("--parent", type=Path, required=True, help="parent.json")
    parser.add_argument("--output", type=Path, required=True, help="manifest.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, ManifestSettings)
    survey = load_survey(args.survey)
    parent = load_manifest(args.parent, "parent")
    sources: dict[str, tuple[int, ...]] = {split: () for split in SPLITS}
    if settings.image_fraction > 0:
        bank = open_bank(survey.verified(survey.files.sources), SourceBankSettings())
        sources = split_sources(bank.idents.tolist(), settings.split_seed)
        empty = [split for split, idents in sources.items() if not idents]
        if empty:
            raise BadInputError(
                f"The source bank's {len(bank)} galaxies leave none for {', '.join(empty)}; give a larger bank, or "
                "set image_fraction to 0."
            )
    with (
        attempt(args.output, "manifest", MODULE, settings, [args.survey, args.parent], args.data_root) as work,
        spark_session(args.spark_master, "build_injection_manifest") as spark,
        explained(),
    ):
        _build(spark, parent, settings, sources, work)


def _build(
    spark: "SparkSession",
    parent: Manifest,
    settings: ManifestSettings,
    sources: Mapping[str, Sequence[int]],
    work: Attempt,
) -> None:
    from pyspark import StorageLevel
    from pyspark.sql import functions as sql

    names = [
        e.name for e in object_list(parent) if e.name.endswith(".parquet") and not e.name.startswith("quarantine/")
    ]
    all_hosts = _read_hosts(spark, parent, names, settings).persist(StorageLevel.MEMORY_AND_DISK)
    near = all_hosts.filter("near_border").select("ra", "dec", "healpix_128", "split").collect()
    assert_disjoint(
        np.array([row.ra for row in near], dtype=np.float64),
        np.array([row.dec for row in near], dtype=np.float64),
        np.array([row.healpix_128 for row in near], dtype=np.int64),
        np.array([row.split for row in near], dtype=str),
        settings.same_object_arcsec,
        settings.split_seed,
    )
    usable = all_hosts.filter(" and ".join(f"psfsize_{band} is not null" for band in "grz") + " and rmag is not null")
    edges = {column: _quartiles(usable, column) for column in ("psfsize_r", "psfdepth_r")}
    for bin_name, column in (("psf_bin", "psfsize_r"), ("depth_bin", "psfdepth_r")):
        above = [sql.when(sql.col(column) > edge, 1).otherwise(0) for edge in edges[column]]
        usable = usable.withColumn(bin_name, sum(above, sql.lit(0)).cast("int"))
    hosts = _limited(usable, settings)
    target = str(work.prefix) if storage.is_local(work.uri) else work.uri
    selection_set = str(parent.facts["lrg_mode"])

    def write(frame: "pd.DataFrame") -> "pd.DataFrame":
        return _write_file(frame, settings, sources, selection_set, target)

    written = hosts.groupBy("split", "file").applyInPandas(write, _WRITTEN).collect()
    unusable = all_hosts.count() - usable.count()
    all_hosts.unpersist()
    if not written:
        raise BadInputError(f"{parent.uri} holds no host for an injection; look at the selection of the parent sample.")
    work.publish(
        rows_out=sum(w.rows for w in written),
        columns={field.name: str(field.type) for field in MANIFEST_SCHEMA},
        facts={
            "settings": settings.model_dump(mode="json"),
            "experiment_id": settings.experiment_id,
            "splits": {split: sum(w.rows for w in written if w.split == split) for split in SPLITS},
            "hosts": {split: sum(w.hosts for w in written if w.split == split) for split in SPLITS},
            "controls": sum(w.controls for w in written),
            "hosts_without_all_bands": unusable,
            "sources": {split: len(idents) for split, idents in sources.items()},
            "psf_edges_arcsec": edges["psfsize_r"],
            "depth_edges_mag": edges["psfdepth_r"],
        },
        objects=sorted((ObjectEntry(name=w.name, size=w.size, sha256=w.sha256) for w in written), key=lambda e: e.name),
    )
    logger.info("%d tasks on %d hosts", sum(w.rows for w in written), sum(w.hosts for w in written))


def _read_hosts(
    spark: "SparkSession", parent: Manifest, names: Sequence[str], settings: ManifestSettings
) -> "DataFrame":
    """Hosts as a DataFrame, each file checked where it is read; with the output file and the order for a limit."""
    from pyspark.sql.pandas.types import from_arrow_schema

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                table = pq.read_table(verified_path(parent, names[number]), columns=list(_HOST_COLUMNS))
                yield from _prepared(table, settings).to_batches(max_chunksize=10_000)

    schema = from_arrow_schema(_prepared(_no_hosts(parent), settings).schema)
    numbers = spark.createDataFrame([(i,) for i in range(len(names))], "number int").repartition(max(1, len(names)))
    return numbers.mapInArrow(read, schema)


def _no_hosts(parent: Manifest) -> pa.Table:
    types = {"string": _STRING, "double": _F64, "float": pa.float32(), "int32": _I32, "int64": _I64}
    missing = [name for name in _HOST_COLUMNS if name not in parent.columns]
    if missing:
        raise BadInputError(f"{parent.uri} lacks the columns {', '.join(missing)}; make the parent sample again.")
    return pa.schema([pa.field(name, types[parent.columns[name]]) for name in _HOST_COLUMNS]).empty_table()


def _prepared(hosts: pa.Table, settings: ManifestSettings) -> pa.Table:
    """Hosts with what the Spark stages sort and group by; a cell or split that is not the position's is an error."""
    ra_N, dec_N = hosts["ra"].to_numpy(), hosts["dec"].to_numpy()
    split_N = hosts["split"].to_numpy(zero_copy_only=False).astype(str)
    # One by one, so that pairs are left to the gate over all files.
    assert_disjoint(ra_N, dec_N, hosts["healpix_128"].to_numpy(), split_N, 0.0, settings.split_seed)
    files = {split: getattr(settings.files, split) for split in SPLITS}
    galaxies = _galaxy_ids(hosts)
    names = hosts["brickname"].to_pylist()
    extra = {
        "near_border": pa.array(near_other_split(ra_N, dec_N, settings.same_object_arcsec, settings.split_seed)),
        "file": pa.array([file_of_brick(n, files[s]) for n, s in zip(names, split_N, strict=True)], _I32),
        "host_order": pa.array([hash_fraction(f"{galaxy}|{settings.seed}|host") for galaxy in galaxies], _F64),
    }
    for name, values in extra.items():
        hosts = hosts.append_column(name, values)
    return hosts


def _galaxy_ids(hosts: pa.Table) -> list[str]:
    return [f"{b}_{o}" for b, o in zip(hosts["brickname"].to_pylist(), hosts["objid"].to_pylist(), strict=True)]


def _quartiles(hosts: "DataFrame", column: str) -> list[float]:
    """The three inner quartile edges of a column, of values rounded down to a thousandth."""
    from pyspark.sql import functions as sql

    steps = sql.floor(sql.col(column).cast("double") / sql.lit(_BIN_STEP)).alias("step")
    counts = hosts.filter(sql.col(column).isNotNull()).groupBy(steps).count().collect()
    if not counts:
        return [0.0] * (_BINS - 1)
    step_K, count_K = (np.array(values) for values in zip(*sorted((row[0], row[1]) for row in counts), strict=True))
    fraction_K = np.cumsum(count_K) / count_K.sum()
    places = [int(np.searchsorted(fraction_K, quantile / _BINS)) for quantile in range(1, _BINS)]
    return [round(float(step_K[place] + 1) * _BIN_STEP, 6) for place in places]


def _limited(hosts: "DataFrame", settings: ManifestSettings) -> "DataFrame":
    """At most `max_hosts` of each split, the same number from each bin of PSF and depth, first in hash order."""
    limits = {split: getattr(settings.max_hosts, split) for split in SPLITS}
    if all(limit is None for limit in limits.values()):
        return hosts
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    window = Window.partitionBy("split", "psf_bin", "depth_bin").orderBy("host_order", "brickname", "objid")
    ranked = hosts.withColumn("rank", sql.row_number().over(window))
    place = sql.col("psf_bin") * _BINS + sql.col("depth_bin")
    kept = sql.lit(False)
    for split, limit in limits.items():
        if limit is None:
            kept = kept | (sql.col("split") == split)
            continue
        share, rest = divmod(limit, _BINS**2)
        allowed = sql.lit(share) + sql.when(place < rest, 1).otherwise(0)
        kept = kept | ((sql.col("split") == split) & (sql.col("rank") <= allowed))
    return ranked.filter(kept).drop("rank")


def _write_file(
    frame: "pd.DataFrame",
    settings: ManifestSettings,
    sources: Mapping[str, Sequence[int]],
    selection_set: str,
    target: str,
) -> "pd.DataFrame":
    """Build and write the tasks of one output file; runs in a Spark task."""
    import pandas as pd

    split, number = str(frame["split"].to_numpy()[0]), int(frame["file"].to_numpy()[0])
    hosts = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    tasks = build_tasks(hosts, settings, sources, selection_set)
    buffer = BytesIO()
    pq.write_table(tasks, buffer, compression="zstd")
    entry = write_object(target, f"manifest-{split}-{number:04d}.parquet", buffer.getvalue())
    controls = int(np.sum(tasks["is_control"].to_numpy()))
    record = {**entry.model_dump(), "split": split, "hosts": len(hosts), "rows": len(tasks), "controls": controls}
    return pd.DataFrame.from_records([record])


def _identities(hosts: pa.Table, settings: ManifestSettings, selection_set: str) -> list[dict[str, Any]]:
    """One record per task: its host's row, identity and seed."""
    rows: list[dict[str, Any]] = []
    columns = (hosts[name].to_pylist() for name in ("split", "brickname", "ra", "dec"))
    for index, (galaxy, split, brick, ra, dec) in enumerate(zip(_galaxy_ids(hosts), *columns, strict=True)):
        control, point = is_control_galaxy(galaxy, settings), grid_point(galaxy, settings)
        config = CONTROL if control else PRIOR if point is None else point.config_id
        # Replicates of a control would be the same stamp again.
        for replicate in range(1 if control else getattr(settings.replicates, split)):
            task = task_id(settings.experiment_id, selection_set, split, brick, ra, dec, config, replicate)
            rows.append(
                {
                    "host": index,
                    "task_id": task,
                    "config_id": config,
                    "galaxy_id": galaxy,
                    "replicate": replicate,
                    "seed": task_seed(task, settings.seed),
                    "is_control": control,
                    "point": point,
                    "split": split,
                }
            )
    return rows


def _drawn(
    rows: Sequence[Mapping[str, Any]],
    host: Mapping[str, NDArray],
    control_N: NDArray[np.bool_],
    settings: ManifestSettings,
    sources: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Everything that is drawn or taken from a grid, by column; zero or NaN in controls."""
    u = dict(zip(DRAWS, uniforms([row["seed"] for row in rows]).T, strict=True))
    prior = settings.prior
    rmag_N = host["rmag"].astype(np.float64)
    if settings.grid is None:
        theta_e_N = priors.theta_e(u["theta_e"], prior.theta_e)
        mag_N = priors.magnitude(u["mag_r"], prior.magnitude)
        reff_N = priors.size(u["reff"], mag_N, prior.size)
        src_e_N = priors.rayleigh(u["src_e"], prior.shape.e_scale, prior.shape.max_e)
        shear_N = priors.rayleigh(u["shear"], prior.lens.shear_scale, prior.lens.max_shear)
        dmag_N = mag_N - rmag_N
    else:
        theta_e_N, dmag_N, reff_N, src_e_N, shear_N = (
            np.array([getattr(row["point"], name) for row in rows], dtype=np.float64)
            for name in ("theta_e", "dmag", "reff", "src_e", "shear")
        )
        mag_N = rmag_N + dmag_N if settings.dmag_mode == "unlensed" else np.full(len(rows), np.nan)
    lens_e_N, lens_phi_N = priors.lens_ellipticity(
        u["lens_e1"],
        u["lens_e2"],
        host["shape_e1"].astype(np.float64),
        host["shape_e2"].astype(np.float64),
        prior.lens,
    )
    shear_phi_N = np.pi * u["shear_phi"]
    caustic_N = np.array(
        [
            0.0 if control else caustic_radius(Lens(theta_e, q, phi, g * np.cos(2 * gphi), g * np.sin(2 * gphi)))
            for control, theta_e, q, phi, g, gphi in zip(
                control_N, theta_e_N, priors.axis_ratio(lens_e_N), lens_phi_N, shear_N, shear_phi_N, strict=True
            )
        ]
    )
    x_N, y_N = priors.offset(u["offset_radius"], u["offset_angle"], prior.offset_caustics * caustic_N)
    gr_N, rz_N = priors.colours(u["colour_gr"], u["colour_rz"], prior.colour)
    image_N = ~control_N & (u["source_mode"] < settings.image_fraction)
    sersic_N = ~control_N & ~image_N
    # A galaxy image brings its own shape.
    src_e_N = np.where(image_N, 0.0, src_e_N)
    target_N = np.full(len(rows), np.nan)
    if settings.target_arc_snr is not None:
        target_N = priors.arc_snr(u["arc_snr"], settings.target_arc_snr)
    required = {
        "theta_e_arcsec": theta_e_N,
        "src_dmag": dmag_N,
        "src_reff_arcsec": reff_N,
        "src_e": src_e_N,
        "shear": shear_N,
    }
    optional = {
        "src_x_arcsec": x_N,
        "src_y_arcsec": y_N,
        "src_phi_rad": 2.0 * np.pi * u["src_phi"],
        "shear_phi_rad": shear_phi_N,
        "src_gr": gr_N,
        "src_rz": rz_N,
        "lens_e": lens_e_N,
        "lens_phi_rad": lens_phi_N,
        "src_mag_r": mag_N,
        "caustic_radius_arcsec": caustic_N,
        "target_arc_snr": target_N,
    }
    return {
        **{name: np.where(control_N, 0.0, values) for name, values in required.items()},
        **{name: np.where(control_N, np.nan, values) for name, values in optional.items()},
        "src_n": np.where(sersic_N, priors.sersic_index(u["sersic_n"], prior.shape), np.nan),
        "sampling_weight": np.where(control_N | np.isnan(target_N), 1.0, np.nan),
        "dmag_mode": [None if control else settings.dmag_mode for control in control_N],
        "source_mode": [
            None if control else "image" if image else "sersic"
            for control, image in zip(control_N, image_N, strict=True)
        ],
        "source_id": [
            _source(row, settings, sources) if image else None for row, image in zip(rows, image_N, strict=True)
        ],
    }


def _source(row: Mapping[str, Any], settings: ManifestSettings, sources: Mapping[str, Sequence[int]]) -> str:
    idents = sources[row["split"]]
    return str(idents[choice(row["task_id"], settings.source_salt, len(idents))])


def _column(values: Any, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_floating(dtype):
        return pa.array(np.asarray(values, dtype=np.float64), dtype, from_pandas=True)  # NaN becomes null
    if pa.types.is_integer(dtype):
        return pa.array(np.asarray(values).astype(dtype.to_pandas_dtype()), dtype)
    return pa.array(list(values), dtype)


if __name__ == "__main__":
    run(main)
