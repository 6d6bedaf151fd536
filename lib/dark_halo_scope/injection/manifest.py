"""The injection manifest: what is injected where, one row per task.

A row is a pure function of its host and the settings: identity, seed and every drawn number follow from hashes, so that
cores, partitions and the order of files change nothing. Columns are those of earlier manifests (phase 4a), then:

- `galaxy_id`, `objid`, `release`, `type`, shape, magnitudes, photo-z, cell and split of the host;
- `src_mag_r`, the unlensed r magnitude (null where `dmag_mode` is lensed: `src_dmag` then refers to the arc);
- `source_mode` (image, clumpy, sersic), `source_id` (IDENT in the bank, as text; null unless image), `src_n` (Sersic);
- `caustic_radius_arcsec`, within whose multiple the source position was drawn;
- `target_arc_snr`: where it is not null, whoever renders the arc scales the unlensed flux in all bands until the arc's
  matched-filter arc_snr over g, r, z equals it, sets src_mag_r and src_dmag accordingly, and sampling_weight, null
  until then, to `priors.magnitude_weight(src_mag_r, settings, src_reff_arcsec)`; `settings` is a fact of the manifest;
- `sampling_weight`, prior density over sampling density: 1 where nothing was reweighted.

A control row (`is_control` = 1, `control_kind` unpaired, only with `controls: unpaired`) has no lens and no source.
Paired datasets have none: every positive brings the stamp without its arc.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from io import BytesIO
from math import ceil
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dark_halo_scope.catalogue.splits import SPLITS, assert_disjoint, near_other_split
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
from dark_halo_scope.injection.assignment import Stratum, assign
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.schema import UNPAIRED
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.injection.tasks import DRAWS, choice, hash_fraction, task_id, task_seed, uniforms
from dark_halo_scope.lensing.lens import Lens
from dark_halo_scope.lensing.magnification import caustic_radius
from dark_halo_scope.spark.session import add_arguments, spark_session

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

MODULE = "dark_halo_scope.injection.manifest"

AB_ZERO_POINT = 22.5
CONTROL = "CONTROL"
PRIOR = "PRIOR"

_BINS = 4
_ORDER_STEPS = 1024  # of the hash that orders hosts, to find about where a limit lies
_READ_ROWS = 10_000  # of the parent sample, at once
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
        *_fields("dmag_mode source_mode source_id control_kind", _STRING, True),
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


def read_sources(path: Path, settings: ManifestSettings) -> dict[str, tuple[int, ...]]:
    """Usable source galaxies of each split, in order of IDENT, from sources.json; none where no source is an image.

    Raises:
        BadInputError: a split would have no galaxy, or galaxies were split by another seed than hosts are.
    """
    if settings.source_fractions.image == 0:
        return {split: () for split in SPLITS}
    measured = load_manifest(path, "sources")
    seed = SourceCheckSettings.model_validate(measured.facts["settings"]).split_seed
    if seed != settings.split_seed:
        raise BadInputError(
            f"{path} splits source galaxies with split_seed {seed}, and this manifest its hosts with "
            f"{settings.split_seed}; give the survey's sources and the dataset the same split_seed."
        )
    table = pq.read_table(verified_path(measured, "sources.parquet"), columns=["source_id", "usable", "split"])
    usable = table.filter(table["usable"])
    splits = usable["split"].to_pylist()
    galaxies = sorted(zip(map(int, usable["source_id"].to_pylist()), splits, strict=True))
    sources = {split: tuple(ident for ident, own in galaxies if own == split) for split in SPLITS}
    empty = [split for split, group in sources.items() if not group]
    if empty:
        raise BadInputError(
            f"The {len(galaxies)} usable galaxies of {path} leave none for {', '.join(empty)}; give a larger source "
            "bank, or set source_fractions.image to 0."
        )
    return sources


def build_tasks(
    hosts: pa.Table, settings: ManifestSettings, sources: Mapping[str, Sequence[int]], selection_set: str
) -> pa.Table:
    """All tasks of some hosts.

    Args:
        hosts: columns of the parent sample, and int32 psf_bin, depth_bin and rank (from 0, within the stratum).
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
    values["control_kind"] = [UNPAIRED if control else None for control in control_N]
    table = pa.table([_column(values[field.name], field.type) for field in MANIFEST_SCHEMA], schema=MANIFEST_SCHEMA)
    return table.sort_by("task_id")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `build_injection_manifest`."""
    parser = argument_parser("Decide what is injected where: one row per task.")
    add_arguments(parser)
    parser.add_argument("--sources", type=Path, required=True, help="sources.json, the measured source galaxies")
    parser.add_argument("--parent", type=Path, required=True, help="parent.json")
    parser.add_argument("--output", type=Path, required=True, help="manifest.json")
    parser.add_argument("--data-root", help="where the data go (default: beside the manifest)")
    args = parser.parse_args(argv)
    settings = load_settings(args.settings, ManifestSettings)
    parent = load_manifest(args.parent, "parent")
    sources = read_sources(args.sources, settings)
    with (
        attempt(args.output, "manifest", MODULE, settings, [args.sources, args.parent], args.data_root) as work,
        spark_session(args.spark_master, "build_injection_manifest") as spark,
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
    kept = _kept(usable, settings)
    files = {
        split: ceil(
            sum(taken.hosts for stratum, taken in kept.items() if stratum.split == split) / settings.hosts_per_file
        )
        for split in SPLITS
    }
    hosts = _with_files(_ranked(usable, kept), files)
    target = work.target.uri
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
    """Hosts as a DataFrame, each file checked where it is read, with what orders hosts and bricks."""
    from pyspark.sql.pandas.types import from_arrow_schema

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                file = pq.ParquetFile(verified_path(parent, names[number]))
                for part in file.iter_batches(_READ_ROWS, columns=list(_HOST_COLUMNS)):
                    yield from _prepared(pa.Table.from_batches([part]), settings).to_batches()

    schema = from_arrow_schema(_prepared(_no_hosts(parent), settings).schema)
    numbers = spark.createDataFrame([(i,) for i in range(len(names))], "number int").repartition(max(1, len(names)))
    return numbers.mapInArrow(read, schema)


def _no_hosts(parent: Manifest) -> pa.Table:
    types = {"string": _STRING, "double": _F64, "float": pa.float32(), "int32": _I32, "int64": _I64}
    missing = [name for name in _HOST_COLUMNS if name not in parent.columns]
    if missing:
        raise BadInputError(f"{parent.uri} lacks the columns {', '.join(missing)}; make the parent sample again.")
    rounded = [name for name in ("ra", "dec") if parent.columns[name] != "double"]
    if rounded:
        raise BadInputError(
            f"{parent.uri} has {' and '.join(rounded)} as {parent.columns[rounded[0]]}, and 32 bits move a position by "
            "up to 0.1 arcsec, and with it a task's name and split; make the parent sample again with 64."
        )
    return pa.schema([pa.field(name, types[parent.columns[name]]) for name in _HOST_COLUMNS]).empty_table()


def _prepared(hosts: pa.Table, settings: ManifestSettings) -> pa.Table:
    """Hosts with what the Spark stages sort and group by; a cell or split that is not the position's is an error."""
    ra_N, dec_N = hosts["ra"].to_numpy(), hosts["dec"].to_numpy()
    split_N = hosts["split"].to_numpy(zero_copy_only=False).astype(str)
    # One by one, so that pairs are left to the gate over all files.
    assert_disjoint(ra_N, dec_N, hosts["healpix_128"].to_numpy(), split_N, 0.0, settings.split_seed)
    extra = {
        "near_border": pa.array(near_other_split(ra_N, dec_N, settings.same_object_arcsec, settings.split_seed)),
        "brick_order": pa.array([hash_fraction(name) for name in hosts["brickname"].to_pylist()], _F64),
        "host_order": pa.array([hash_fraction(f"{name}|{settings.seed}|host") for name in _galaxy_ids(hosts)], _F64),
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


@dataclass(frozen=True)
class _Kept:
    """Which hosts of a stratum take part: the first `hosts` in hash order, all of which have less than `below`."""

    hosts: int
    below: float


def _kept(hosts: "DataFrame", settings: ManifestSettings) -> dict[Stratum, _Kept]:
    """All hosts of each stratum, or at most an even share of the split's `max_hosts`."""
    from pyspark.sql import functions as sql

    step = sql.floor(sql.col("host_order") * _ORDER_STEPS).alias("step")
    steps: dict[Stratum, Counter[int]] = {}
    for *key, place, count in hosts.groupBy("split", "psf_bin", "depth_bin", step).count().collect():
        steps.setdefault(Stratum(*key), Counter())[place] = count
    kept = {}
    for stratum, counts in steps.items():
        limit = getattr(settings.max_hosts, stratum.split)
        number = sum(counts.values())
        if limit is not None:
            share, rest = divmod(limit, _BINS**2)
            number = min(number, share + (stratum.psf_bin * _BINS + stratum.depth_bin < rest))
        place_K, count_K = (np.array(values) for values in zip(*sorted(counts.items()), strict=True))
        last = place_K[np.searchsorted(np.cumsum(count_K), number)]
        kept[stratum] = _Kept(number, (int(last) + 1) / _ORDER_STEPS)
    return kept


def _ranked(hosts: "DataFrame", kept: Mapping[Stratum, _Kept]) -> "DataFrame":
    """The hosts that take part, each with its `rank` in its stratum.

    Only hosts that can be among the first are sorted, so that a limit far below the parent sample is cheap; what is
    sorted may be any number, because Spark's sort and a window's buffer (4,096 rows) go to disk where memory is short.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    below, number = sql.lit(0.0), sql.lit(0)
    for stratum, taken in kept.items():
        values = asdict(stratum)
        here = reduce(and_, (sql.col(name) == value for name, value in values.items()))
        below, number = sql.when(here, taken.below).otherwise(below), sql.when(here, taken.hosts).otherwise(number)
    window = Window.partitionBy("split", "psf_bin", "depth_bin").orderBy("host_order", "brickname", "objid")
    ranked = hosts.filter(sql.col("host_order") < below).withColumn("rank", sql.row_number().over(window) - 1)
    return ranked.filter(sql.col("rank") < number)


def _with_files(hosts: "DataFrame", files: Mapping[str, int]) -> "DataFrame":
    """Hosts with the number of the output file that their brick goes to, of so many files of their split."""
    from pyspark.sql import functions as sql

    count = sql.lit(0)
    for split, number in files.items():
        count = sql.when(sql.col("split") == split, number).otherwise(count)
    return hosts.withColumn("file", sql.floor(sql.col("brick_order") * count).cast("int"))


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
    columns = (hosts[name].to_pylist() for name in ("split", "psf_bin", "depth_bin", "rank", "brickname", "ra", "dec"))
    for index, (galaxy, split, psf_bin, depth_bin, rank, brick, ra, dec) in enumerate(
        zip(_galaxy_ids(hosts), *columns, strict=True)
    ):
        assigned = assign(Stratum(split, psf_bin, depth_bin), rank, settings)
        control, point = assigned.is_control, assigned.point
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
    mag_N = priors.magnitude(u["mag_r"], prior.magnitude)
    parameters = {
        "theta_e": priors.theta_e(u["theta_e"], prior.theta_e),
        "dmag": mag_N - rmag_N,
        "reff": priors.size(u["reff"], mag_N, prior.size),
        "src_e": priors.rayleigh(u["src_e"], prior.shape.e_scale, prior.shape.max_e),
        "shear": priors.rayleigh(u["shear"], prior.lens.shear_scale, prior.lens.max_shear),
    }
    gridded_N = np.array([row["point"] is not None for row in rows], dtype=bool)
    for name, values_N in parameters.items():
        values_N[gridded_N] = [getattr(row["point"], name) for row in rows if row["point"] is not None]
    theta_e_N, dmag_N, reff_N, src_e_N, shear_N = parameters.values()
    mag_N[gridded_N] = (rmag_N + dmag_N)[gridded_N] if settings.dmag_mode == "unlensed" else np.nan
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
    fractions = settings.source_fractions
    image_N = ~control_N & (u["source_mode"] < fractions.image)
    clumpy_N = ~control_N & ~image_N & (u["source_mode"] < fractions.image + fractions.clumpy)
    sersic_N = ~(control_N | image_N | clumpy_N)
    # A galaxy image brings its own shape.
    src_e_N = np.where(image_N, 0.0, src_e_N)
    target_N = np.full(len(rows), np.nan)
    if settings.target_arc_snr is not None:
        target_N[~gridded_N] = priors.arc_snr(u["arc_snr"][~gridded_N], settings.target_arc_snr)
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
        "dmag_mode": _labels((~control_N, "unlensed"), (gridded_N, settings.dmag_mode)),
        "source_mode": _labels((image_N, "image"), (clumpy_N, "clumpy"), (sersic_N, "sersic")),
        "source_id": [
            _source(row, settings, sources) if image else None for row, image in zip(rows, image_N, strict=True)
        ],
    }


def _source(row: Mapping[str, Any], settings: ManifestSettings, sources: Mapping[str, Sequence[int]]) -> str:
    idents = sources[row["split"]]
    return str(idents[choice(row["task_id"], settings.source_salt, len(idents))])


def _labels(*places: tuple[NDArray[np.bool_], str]) -> list[str | None]:
    """The label of each row, the last one given whose rows these are; None where there is none."""
    labels: list[str | None] = [None] * len(places[0][0])
    for rows_N, label in places:
        for row in np.flatnonzero(rows_N):
            labels[row] = label
    return labels


def _column(values: Any, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_floating(dtype):
        return pa.array(np.asarray(values, dtype=np.float64), dtype, from_pandas=True)  # NaN becomes null
    if pa.types.is_integer(dtype):
        return pa.array(np.asarray(values).astype(dtype.to_pandas_dtype()), dtype)
    return pa.array(list(values), dtype)


if __name__ == "__main__":
    run(main)
