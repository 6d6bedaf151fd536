"""The manifest: a pure function of hosts and settings, that leaks nothing and draws what it says."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_survey
from dark_halo_scope.catalogue import lenses, parent
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, sha256_file, write_json
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.injection import manifest
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.grids import GRIDS
from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA, build_tasks, split_sources
from dark_halo_scope.injection.tasks import fixed_decimals
from dark_halo_scope.spark.session import spark_session

MASTER = "local[2]"
REPLICATES = {"train": 3, "val": 2, "test": 2}
MAGNITUDES = ("gmag", "rmag", "zmag", "w1mag", "rz", "zw1")
SOURCES = {"train": (1, 2, 3, 5), "val": (7,), "test": (8, 9)}


def settings_for(**changes) -> ManifestSettings:
    return ManifestSettings.model_validate({"replicates": REPLICATES} | changes)


def hosts(count: int = 60, seed: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), rng.uniform(-30, 30, count)
    cells = healpix_cell(ra, dec)
    values = {
        "brickname": [f"{i:04d}p000" for i in range(count)],
        "objid": np.arange(count),
        "release": np.full(count, 10000, np.int32),
        "type": ["SER"] * count,
        "ra": ra,
        "dec": dec,
        "maskbits": np.zeros(count, np.int64),
        "healpix_128": cells,
        "split": split_of_cells(cells).tolist(),
        "psf_bin": rng.integers(0, 4, count).astype(np.int32),
        "depth_bin": rng.integers(0, 4, count).astype(np.int32),
    }
    strata = list(zip(values["split"], values["psf_bin"], values["depth_bin"], strict=True))
    values["rank"] = np.array([strata[:i].count(stratum) for i, stratum in enumerate(strata)], np.int32)
    for name in (*MAGNITUDES, "sersic", "z_phot", "z_phot_std", "psfdepth_g", "psfdepth_r", "psfdepth_z", "ebv"):
        values[name] = rng.uniform(18, 21, count).astype(np.float32)
    for name in ("psfsize_g", "psfsize_r", "psfsize_z"):
        values[name] = rng.uniform(1.0, 1.5, count).astype(np.float32)
    values["shape_r"] = np.full(count, 1.0, np.float32)
    values["shape_e1"], values["shape_e2"] = rng.uniform(-0.3, 0.3, (2, count)).astype(np.float32)
    return pa.table(values)


def build(table: pa.Table | None = None, **changes) -> pa.Table:
    return build_tasks(hosts() if table is None else table, settings_for(**changes), SOURCES, "v3_color_relaxed")


def test_each_host_has_its_splits_replicates_and_tasks_are_sorted():
    tasks = build()
    assert tasks.schema.equals(MANIFEST_SCHEMA)
    ids = tasks["task_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    per_host = {split: REPLICATES[split] * hosts()["split"].to_pylist().count(split) for split in REPLICATES}
    assert {split: tasks["split"].to_pylist().count(split) for split in REPLICATES} == per_host


def test_the_task_id_is_the_documented_hash_of_the_rows_own_columns():
    for row in build().to_pylist()[:20]:
        text = "|".join(
            [
                *(row[name] for name in ("experiment_id", "selection_set_id", "region_split", "brickname")),
                *(f"{row['ra']:.6f}", f"{row['dec']:.6f}", row["config_id"], str(row["replicate"])),
            ]
        )
        assert row["task_id"] == hashlib.sha256(text.encode()).hexdigest()
        assert row["experiment_id"] == "train_stamp64_bandsgrz_gridprior"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=8, unique=True))
def test_a_task_does_not_depend_on_the_other_hosts(chosen):
    everything = {row["task_id"]: row for row in _all_rows()}
    for row in build(hosts().take(pa.array(chosen))).to_pylist():
        assert row == everything[row["task_id"]]


_ROWS: list[dict] = []


def _all_rows() -> list[dict]:
    if not _ROWS:
        _ROWS.extend(build().to_pylist())
    return _ROWS


def test_another_hash_seed_changes_nothing(project_root, tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import test_manifest as t, pyarrow.parquet as pq\n"
        "pq.write_table(t.build(), sys.argv[3])\n"
    )
    hashes = []
    for seed in ("1", "99"):
        path = tmp_path / f"{seed}.parquet"
        paths = [str(Path(__file__).parent), str(project_root / "tests" / "support"), str(path)]
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(project_root / "lib")}
        subprocess.run([sys.executable, "-c", code, *paths], check=True, env=env)
        hashes.append(sha256_file(path))
    assert hashes[0] == hashes[1]


def test_replicates_differ_in_everything_that_is_drawn():
    everything = _all_rows()
    rows = [row for row in everything if row["galaxy_id"] == everything[0]["galaxy_id"]]
    assert len(rows) > 1
    for name in ("theta_e_arcsec", "src_mag_r", "src_x_arcsec", "lens_phi_rad", "src_gr", "shear", "task_seed64"):
        assert len({row[name] for row in rows}) == len(rows)


def test_strata_of_the_gates_are_filled():
    tasks = build(hosts(400))
    x = tasks["theta_e_arcsec"].to_numpy() / tasks["psfsize_r"].to_numpy()
    assert np.mean(x >= 1.0) > 0.5
    assert np.mean((x >= 0.5) & (x < 1.0)) > 0.2
    assert 0.01 < np.mean(x < 0.5) < 0.15


def test_sources_lie_within_their_multiple_of_the_caustic():
    for multiple in (0.4, 1.0):
        tasks = build(prior={"offset_caustics": multiple})
        offset = np.hypot(tasks["src_x_arcsec"].to_numpy(), tasks["src_y_arcsec"].to_numpy())
        caustic = tasks["caustic_radius_arcsec"].to_numpy()
        assert (offset <= multiple * caustic).all()
        assert offset.max() > 0.9 * multiple * caustic.min()
        # A singular isothermal ellipsoid's cut is about the Einstein radius.
        assert np.median(caustic / tasks["theta_e_arcsec"].to_numpy()) == pytest.approx(1.0, abs=0.25)


def test_contrast_is_the_sources_magnitude_less_the_hosts():
    tasks = build()
    dmag = tasks["src_mag_r"].to_numpy() - tasks["rmag"].to_numpy()
    assert tasks["src_dmag"].to_numpy() == pytest.approx(dmag)
    assert tasks["dmag_mode"].unique().to_pylist() == ["unlensed"]


def test_source_galaxies_are_those_of_the_tasks_split():
    for row in build(hosts(200)).to_pylist():
        assert row["source_mode"] == "image"
        assert int(row["source_id"]) in SOURCES[row["split"]]
        assert row["src_n"] is None
        assert row["src_e"] == 0.0


def test_a_source_galaxy_is_in_one_split_whatever_the_bank():
    small, large = split_sources(range(1000, 1100), 42), split_sources(range(2000), 42)
    assert sum(len(idents) for idents in small.values()) == 100
    assert not set(large["train"]) & (set(large["val"]) | set(large["test"]))
    assert all(set(small[split]) <= set(large[split]) for split in small)
    assert len(large["train"]) / 2000 == pytest.approx(0.70, abs=0.04)


def test_sersic_sources_have_a_shape_and_no_galaxy():
    rows = build(source_fractions={"sersic": 1, "image": 0}).to_pylist()
    assert {row["source_mode"] for row in rows} == {"sersic"}
    assert all(row["source_id"] is None and 0.5 <= row["src_n"] <= 4 for row in rows)
    assert len({row["src_e"] for row in rows}) > 10
    modes = build(hosts(200), source_fractions={"sersic": 0.5, "image": 0.5})["source_mode"].to_pylist()
    assert modes.count("image") / len(modes) == pytest.approx(0.5, abs=0.08)


def test_weights_are_one_or_left_to_whoever_scales_the_flux():
    assert build()["sampling_weight"].unique().to_pylist() == [1.0]
    reweighted = build(target_arc_snr={"low": 10, "high": 100})
    snr = reweighted["target_arc_snr"].to_numpy()
    assert ((snr >= 10) & (snr <= 100)).all()
    assert np.median(snr) == pytest.approx(31.6, rel=0.3)
    assert reweighted["sampling_weight"].null_count == len(reweighted)
    # The rest of a task is as without reweighting.
    assert reweighted["theta_e_arcsec"].equals(build()["theta_e_arcsec"])


def test_a_grid_fixes_its_five_parameters_per_galaxy():
    tasks = build(hosts(300), grid="sota", dmag_mode="lensed")
    points = {(p.config_id, p.theta_e, p.dmag, p.reff, p.shear) for p in GRIDS["sota"].points()}
    configs: dict[str, set[str]] = {}
    for row in tasks.to_pylist():
        key = ("config_id", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "shear")
        assert tuple(row[name] for name in key) in points
        assert row["src_mag_r"] is None
        configs.setdefault(row["galaxy_id"], set()).add(row["config_id"])
    assert all(len(ids) == 1 for ids in configs.values())
    assert len(set.union(*configs.values())) > 150
    assert tasks["experiment_id"][0].as_py() == "train_stamp64_bandsgrz_gridgrid_sota"
    unlensed = build(grid="small")
    mag = unlensed["rmag"].to_numpy() + unlensed["src_dmag"].to_numpy()
    assert unlensed["src_mag_r"].to_numpy() == pytest.approx(mag)


def test_a_paired_dataset_has_no_control_rows():
    assert build()["is_control"].unique().to_pylist() == [0]


def test_unpaired_controls_are_whole_galaxies_without_lens_or_source():
    tasks = build(hosts(400), controls="unpaired").to_pylist()
    kinds: dict[str, set[int]] = {}
    for row in tasks:
        kinds.setdefault(row["galaxy_id"], set()).add(row["is_control"])
    assert all(len(kind) == 1 for kind in kinds.values())
    assert np.mean([kind == {1} for kind in kinds.values()]) == pytest.approx(0.5, abs=0.08)
    controls = [row for row in tasks if row["is_control"]]
    assert len(controls) == len({row["galaxy_id"] for row in controls}), "replicates would be the same stamp again"
    for row in controls:
        assert (row["config_id"], row["lens_model"], row["theta_e_arcsec"]) == ("CONTROL", "CONTROL", 0.0)
        assert row["source_id"] is row["source_mode"] is row["src_x_arcsec"] is row["lens_e"] is None
        assert row["sampling_weight"] == 1.0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dmag_mode": "lensed"}, "dmag_mode lensed needs a grid"),
        ({"grid": "sota", "target_arc_snr": {"low": 10, "high": 100}}, "a grid has none"),
        ({"target_arc_snr": {"low": 100, "high": 10}}, "low must be less"),
        ({"replicates": {"train": 0, "val": 1, "test": 1}}, "replicates.train"),
        ({"prior": {"theta_e": {"low": float("nan")}}}, "theta_e"),
        ({"theta": 1}, "theta"),
    ],
)
def test_contradictory_settings_fail_at_once(changes, what):
    with pytest.raises(ValueError, match=what):
        settings_for(**changes)


def test_the_datasets_file_is_valid_and_says_what_the_plan_says(project_root):
    text = (project_root / "config" / "datasets" / "v5_cosmos_paired.yaml").read_text()
    dataset = ManifestSettings.model_validate(yaml.safe_load(text)["manifest"])
    assert (dataset.prior.theta_e.low, dataset.prior.theta_e.high) == (0.5, 2.5)
    assert (dataset.stamp_size, dataset.bandset, dataset.controls) == (64, "grz", "paired")


# --- With Spark ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark():
    with spark_session(MASTER, "tests") as session:
        yield session


@pytest.fixture(scope="module")
def survey(spark, tmp_path_factory) -> Path:
    """A tiny survey with lenses.json and parent.json."""
    directory = tmp_path_factory.mktemp("survey")
    rows = tiny_survey.field_rows(10)
    rows["PSFSIZE_Z"][4] = 0.0
    tiny_survey.write_survey(directory, {"sweep-000p000-360p090": rows})
    lenses.main(["--survey", str(directory / "survey.json"), "--output", str(directory / "lenses.json")])
    arguments = ["--survey", str(directory / "survey.json"), "--lenses", str(directory / "lenses.json")]
    parent.main([*arguments, "--output", str(directory / "parent.json"), "--spark-master", MASTER])
    return directory


def run(survey: Path, output: Path, **changes) -> Path:
    text = settings_for(**({"hosts_per_file": 30} | changes)).model_dump_json()
    arguments = ["--survey", str(survey / "survey.json"), "--parent", str(survey / "parent.json")]
    manifest.main([*arguments, "--output", str(output), "--settings", text, "--spark-master", MASTER])
    return output


def tasks_of(path: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in verified_paths(load_manifest(path, "manifest")))


def test_the_rule_writes_tasks_of_every_usable_parent(survey, tmp_path):
    path = run(survey, tmp_path / "manifest.json")
    found, tasks = load_manifest(path, "manifest"), tasks_of(path)
    parents = load_manifest(survey / "parent.json")
    assert found.rows_out == len(tasks)
    assert found.facts["hosts_without_all_bands"] == 1
    assert sum(found.facts["hosts"].values()) == parents.rows_out - 1
    assert found.facts["splits"] == {split: found.facts["hosts"][split] * count for split, count in REPLICATES.items()}
    assert ManifestSettings.model_validate(found.facts["settings"]).replicates.train == 3
    assert len(found.facts["psf_edges_arcsec"]) == 3
    assert set(tasks["psf_bin"].to_pylist()) == {0, 1, 2, 3}
    split = split_of_cells(healpix_cell(tasks["ra"].to_numpy(), tasks["dec"].to_numpy()))
    assert tasks["split"].to_pylist() == split.tolist()
    for entry in object_list(found):
        ids = pq.read_table(Path(found.uri) / entry.name)["task_id"].to_pylist()
        assert ids == sorted(ids)


def test_the_same_bytes_from_one_partition_and_four(survey, spark, tmp_path):
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    hashes = set()
    try:
        for count in ("1", "4"):
            spark.conf.set("spark.sql.shuffle.partitions", count)
            hashes.add(load_manifest(run(survey, tmp_path / count / "manifest.json")).sha256)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert len(hashes) == 1


def test_a_limit_takes_the_same_number_of_every_bin(survey, tmp_path):
    limit = {"train": 16, "val": None, "test": None}
    path = run(survey, tmp_path / "manifest.json", max_hosts=limit)
    tasks = tasks_of(path).to_pylist()
    bins: dict[tuple, set] = {}
    for row in tasks:
        if row["split"] == "train":
            bins.setdefault((row["psf_bin"], row["depth_bin"]), set()).add(row["galaxy_id"])
    assert all(len(galaxies) == 1 for galaxies in bins.values())
    assert load_manifest(path).facts["hosts"]["train"] == len(bins) > 8


def with_parents(survey: Path, directory: Path, change) -> Path:
    """A copy of the survey whose parent rows went through `change`, with a manifest that fits them."""
    directory.mkdir()
    shutil.copy(survey / "survey.json", directory / "survey.json")
    values = read_json(survey / "parent.json")
    table = pa.concat_tables(pq.read_table(p) for p in verified_paths(load_manifest(survey / "parent.json")))
    data = directory / "parent" / "0000000000000000"
    data.mkdir(parents=True)
    pq.write_table(change(table), data / "parent-0000.parquet")
    path = data / "parent-0000.parquet"
    entries = [{"name": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)}]
    (data / "_objects.json").write_text(json.dumps(entries))
    values |= {"uri": str(data), "objects": 1, "bytes": entries[0]["size"]}
    write_json(directory / "parent.json", values | {"sha256": sha256_file(data / "_objects.json")})
    return directory


def test_a_pair_across_ra_0_in_two_splits_stops_the_run(survey, tmp_path):
    """Fault 29, planted behind the parent sample's back: 0.5 arcsec apart, in two bricks, cells and splits."""
    ra, dec = tiny_survey.pair_across_ra_0()
    cells = healpix_cell(ra, dec)

    def plant(table: pa.Table) -> pa.Table:
        frame = table.slice(0, 2).to_pandas()
        frame["ra"], frame["dec"], frame["healpix_128"], frame["split"] = ra, dec, cells, split_of_cells(cells)
        return pa.concat_tables([table, pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)])

    leaking = with_parents(survey, tmp_path / "leak", plant)
    with pytest.raises(CorruptDataError, match="both sides of a split"):
        run(leaking, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()


def test_a_parent_in_the_wrong_split_stops_the_run(survey, tmp_path):
    def move(table: pa.Table) -> pa.Table:
        split = ["val" if s == "train" else s for s in table["split"].to_pylist()]
        return table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), pa.array(split))

    moved = with_parents(survey, tmp_path / "moved", move)
    with pytest.raises(CorruptDataError, match="not their cell's"):
        run(moved, tmp_path / "manifest.json")


def test_a_changed_parent_file_stops_the_run(survey, tmp_path):
    damaged = with_parents(survey, tmp_path / "damaged", lambda table: table)
    path = next((damaged / "parent").rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"parent-0000\.parquet"):
        run(damaged, tmp_path / "manifest.json")


def test_a_bank_without_galaxies_for_a_split_is_refused(survey, spark, tmp_path):
    small = tiny_survey.write_survey(tmp_path / "survey", {}, sources=2)
    for name in ("parent.json",):
        shutil.copy(survey / name, small.directory / name)
    with pytest.raises(BadInputError, match="give a larger bank"):
        run(small.directory, tmp_path / "manifest.json")


def test_spark_rounds_coordinates_as_the_task_id_does(spark):
    values = [0.5**7, 3 * 0.5**7, 150.1234565, 359.9999999, -0.0000004, 12.0, 46.0000005]
    rows = spark.createDataFrame([(v,) for v in values], "x double").selectExpr("format_number(x, 6) as text").collect()
    assert [row.text for row in rows] == [fixed_decimals(v) for v in values]
