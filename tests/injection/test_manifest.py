"""The manifest: a pure function of hosts and settings, that leaks nothing and draws what it says."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_survey
from dark_halo_scope.catalogue import lenses, parent
from dark_halo_scope.catalogue.splits import healpix_cell, split_of_cells, split_of_key
from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import read_json, sha256_file, write_json
from dark_halo_scope.core.manifest import load_manifest, object_list, verified_paths
from dark_halo_scope.injection import manifest
from dark_halo_scope.injection.config import ManifestSettings
from dark_halo_scope.injection.grids import GRIDS
from dark_halo_scope.injection.manifest import MANIFEST_SCHEMA, build_tasks, read_sources
from dark_halo_scope.injection.source_config import SourceCheckSettings
from dark_halo_scope.injection.tasks import fixed_decimals
from dark_halo_scope.spark.session import spark_session
from dark_halo_scope.workflow.resolve import resolve
from source_banks import write_sources

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


def test_a_source_galaxy_is_in_one_split_whatever_the_bank(tmp_path):
    small, large = (
        read_sources(write_sources(tmp_path / f"{len(idents)}.json", idents), settings_for())
        for idents in (range(1000, 1100), range(2000))
    )
    assert sum(len(idents) for idents in small.values()) == 100
    assert not set(large["train"]) & (set(large["val"]) | set(large["test"]))
    assert all(set(small[split]) <= set(large[split]) for split in small)
    assert len(large["train"]) / 2000 == pytest.approx(0.70, abs=0.04)


def test_sersic_sources_have_a_shape_and_no_galaxy():
    rows = build(source_fractions={"sersic": 1, "image": 0}).to_pylist()
    assert {row["source_mode"] for row in rows} == {"sersic"}
    assert all(row["source_id"] is None and 0.5 <= row["src_n"] <= 4 for row in rows)
    assert len({row["src_e"] for row in rows}) > 10


def test_kinds_of_sources_have_their_shares_and_what_belongs_to_them():
    shares = {"sersic": 0.2, "clumpy": 0.3, "image": 0.5}
    rows = build(hosts(400), source_fractions=shares).to_pylist()
    modes = Counter(row["source_mode"] for row in rows)
    assert {mode: count / len(rows) for mode, count in modes.items()} == pytest.approx(shares, abs=0.06)
    for row in rows:
        assert (row["source_id"] is not None) == (row["source_mode"] == "image")
        assert (row["src_n"] is not None) == (row["source_mode"] == "sersic")
        assert (row["src_e"] == 0) == (row["source_mode"] == "image")
        assert row["src_reff_arcsec"] > 0


def test_more_clumps_leave_the_real_galaxies_where_they_were():
    fewer = build(source_fractions={"image": 0.4, "clumpy": 0.6}).to_pylist()
    assert [row["source_id"] for row in fewer if row["source_mode"] == "image"] == [
        row["source_id"] for row, other in zip(_all_rows(), fewer, strict=True) if other["source_mode"] == "image"
    ]


def test_only_usable_galaxies_become_sources_in_the_split_of_their_ident(tmp_path):
    path = write_sources(tmp_path / "sources.json", range(1000, 1060), unusable=range(1000, 1030))
    found = read_sources(path, settings_for())
    assert found == {
        split: tuple(ident for ident in range(1030, 1060) if split_of_key(f"source_{ident}", 42) == split)
        for split in ("train", "val", "test")
    }
    assert sorted(ident for group in found.values() for ident in group) == list(range(1030, 1060))


def test_galaxies_split_by_another_seed_than_hosts_are_refused(tmp_path):
    path = write_sources(tmp_path / "sources.json", range(1000, 1060), settings=SourceCheckSettings(split_seed=7))
    with pytest.raises(BadInputError, match=r"split_seed 7, and this manifest its hosts with 42; give .* the same"):
        read_sources(path, settings_for())
    found = read_sources(path, settings_for(split_seed=7))
    assert all(split_of_key(f"source_{ident}", 7) == split for split, idents in found.items() for ident in idents)


def test_a_bank_without_galaxies_for_a_split_is_refused(tmp_path):
    path = write_sources(tmp_path / "sources.json", range(1000, 1060), unusable=range(1002, 1060))
    with pytest.raises(BadInputError, match=r"The 2 usable galaxies of .*sources\.json .* give a larger source bank"):
        read_sources(path, settings_for())


def test_a_dataset_without_real_galaxies_needs_no_bank(tmp_path):
    sersic = settings_for(source_fractions={"sersic": 1, "image": 0})
    assert read_sources(tmp_path / "none.json", sersic) == {"train": (), "val": (), "test": ()}


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


def test_a_grid_and_a_prior_share_the_hosts():
    target = {"low": 10, "high": 100}
    changes = {"dmag_mode": "lensed", "grid_fraction": 0.25, "target_arc_snr": target}
    rows = build(hosts(300), grid="sota", **changes).to_pylist()
    gridded = [row for row in rows if row["config_id"] != "PRIOR"]
    assert len(gridded) / len(rows) == pytest.approx(0.25, abs=0.06)
    for row in gridded:
        assert row["theta_e_arcsec"] in GRIDS["sota"].theta_e
        assert (row["dmag_mode"], row["src_mag_r"], row["target_arc_snr"]) == ("lensed", None, None)
        assert row["sampling_weight"] == 1.0
    # The others are what a dataset of the prior alone has, but for their names.
    others = [row for row in rows if row["config_id"] == "PRIOR"]
    for row in others:
        assert row["dmag_mode"] == "unlensed"
        assert row["src_dmag"] == pytest.approx(row["src_mag_r"] - row["rmag"])
        assert 10 <= row["target_arc_snr"] <= 100
        assert row["sampling_weight"] is None
    assert len({row["theta_e_arcsec"] for row in others}) == len(others)
    assert {row["experiment_id"] for row in rows} == {"train_stamp64_bandsgrz_gridgrid_sota_prior"}


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
        assert row["control_kind"] == "unpaired"
        assert row["source_id"] is row["source_mode"] is row["src_x_arcsec"] is row["lens_e"] is None
        assert row["sampling_weight"] == 1.0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dmag_mode": "lensed"}, "dmag_mode lensed needs a grid"),
        ({"grid": "sota", "target_arc_snr": {"low": 10, "high": 100}}, "a grid has none"),
        ({"target_arc_snr": {"low": 100, "high": 10}}, "low must be less"),
        ({"grid_fraction": 0.5}, "grid_fraction needs a grid"),
        ({"source_fractions": {"sersic": 0.5, "image": 0.4}}, "must sum to 1, not 0.9"),
        ({"source_fractions": {"sersic": 1}}, "must sum to 1, not 2"),
        ({"replicates": {"train": 0, "val": 1, "test": 1}}, "replicates.train"),
        ({"prior": {"theta_e": {"low": float("nan")}}}, "theta_e"),
        ({"theta": 1}, "theta"),
    ],
)
def test_contradictory_settings_fail_at_once(changes, what):
    with pytest.raises(ValueError, match=what):
        settings_for(**changes)


@pytest.mark.parametrize("survey_name", ["mini", "dr10"])
def test_every_dataset_is_what_its_name_says(project_root, survey_name):
    files = resolve(project_root / "config", survey_name).datasets
    found = {name: (file.manifest, file.stamps.psf) for name, file in files.items() if file.source == "build"}
    grids = {
        "v3_color_relaxed": "small",
        "v4_sota": "sota",
        "v4_sota_moffat": "sota",
        "v4_sota_handoff": "sota_handoff",
    }
    assert {name: made.grid for name, (made, _) in found.items()} == grids | {
        "v5_cosmos": None,
        "v5_cosmos_paired": None,
        "v5_cosmos_paired_gaussian": None,
    }
    gaussian = {*grids, "v5_cosmos_paired_gaussian"} - {"v4_sota_moffat"}
    for name, (made, psf) in found.items():
        assert (made.stamp_size, made.bandset) == (64, "grz")
        assert made.controls == ("paired" if name.startswith("v5_cosmos_paired") else "unpaired")
        assert made.control_fraction == 0.5
        assert psf.kind == ("gaussian" if name in gaussian else "moffat")
        assert (made.source_fractions.sersic, made.source_fractions.image) == ((1, 0) if name in grids else (0, 1))
        # Nothing has the same colour everywhere.
        assert min(made.prior.colour.gr_scatter, made.prior.colour.rz_scatter) >= 0.2
    prior = found["v5_cosmos_paired"][0].prior
    assert (prior.theta_e.low, prior.theta_e.high) == (0.5, 2.5)


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
    write_sources(directory / "sources.json", range(1000, 1060))
    return directory


def run(survey: Path, output: Path, **changes) -> Path:
    text = settings_for(**({"hosts_per_file": 30} | changes)).model_dump_json()
    arguments = ["--sources", str(survey / "sources.json"), "--parent", str(survey / "parent.json")]
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


def varied_parents(like: pa.Table) -> pa.Table:
    """3,000 hosts in 300 bricks; seeing and depth differ from brick to brick much more than within one."""
    rng = np.random.default_rng(8)
    count, bricks = 3000, 300
    brick = rng.integers(0, bricks, count)
    ra = rng.uniform(0, 359, bricks)[brick] + rng.uniform(0, 0.25, count)
    dec = rng.uniform(-30, 30, bricks)[brick] + rng.uniform(0, 0.25, count)
    cells = healpix_cell(ra, dec)
    frame = like.slice(0, 1).to_pandas().sample(count, replace=True, ignore_index=True)
    frame["brickname"], frame["objid"] = [f"{number:04d}p000" for number in brick], np.arange(count)
    frame["ra"], frame["dec"], frame["healpix_128"], frame["split"] = ra, dec, cells, split_of_cells(cells)
    seeing, depth = rng.gamma(4.0, 0.15, bricks), rng.normal(0, 0.8, bricks)
    for band, width, limit in (("g", 1.2, 24.5), ("r", 1.1, 24.0), ("z", 1.0, 23.0)):
        frame[f"psfsize_{band}"] = width + seeing[brick] + rng.normal(0, 0.02, count)
        frame[f"psfdepth_{band}"] = limit + depth[brick] - seeing[brick] + rng.normal(0, 0.05, count)
    return pa.Table.from_pandas(frame, schema=like.schema, preserve_index=False)


UNPAIRED_GRID = {
    "controls": "unpaired",
    "grid": "small",
    "replicates": {"train": 2, "val": 1, "test": 1},
    "source_fractions": {"sersic": 1, "image": 0},
    "hosts_per_file": 100,
}


@pytest.fixture(scope="module")
def unpaired(survey, tmp_path_factory) -> Path:
    """An unpaired manifest of a small grid on hosts of very different seeing and depth."""
    varied = with_parents(survey, tmp_path_factory.mktemp("varied") / "one_file", varied_parents)
    return run(varied, varied / "manifest.json", **UNPAIRED_GRID)


def hosts_of(path: Path) -> list[dict]:
    """One row of each host."""
    return [row for row in tasks_of(path).to_pylist() if row["replicate"] == 0]


def test_half_of_every_bin_of_psf_and_depth_are_controls_of_other_galaxies(unpaired):
    strata: dict[tuple, Counter] = {}
    for row in hosts_of(unpaired):
        counts = strata.setdefault((row["split"], row["psf_bin"], row["depth_bin"]), Counter())
        counts[row["is_control"]] += 1
    assert len(strata) > 40
    assert all(abs(counts[1] - counts[0]) <= 2 for counts in strata.values())
    assert load_manifest(unpaired).facts["controls"] == sum(counts[1] for counts in strata.values())


def test_seeing_and_depth_do_not_tell_positives_from_controls(unpaired):
    # Here, so that the processes that only import this module start sooner.
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    rows = hosts_of(unpaired)
    names = [f"{kind}_{band}" for kind in ("psfsize", "psfdepth") for band in "grz"]
    features = np.array([[row[name] for name in names] for row in rows])
    labels = np.array([row["is_control"] for row in rows])
    scores = cross_val_predict(
        GradientBoostingClassifier(n_estimators=30, random_state=0), features, labels, cv=5, method="predict_proba"
    )
    assert len(rows) == 3000
    # Five standard deviations of an AUC of 1,500 against 1,500 that knows nothing.
    assert roc_auc_score(labels, scores[:, 1]) == pytest.approx(0.5, abs=0.053)
    edges = np.quantile(features[:, 1], np.linspace(0, 1, 9))
    for low, high in itertools.pairwise(edges):
        inside = (features[:, 1] >= low) & (features[:, 1] <= high)
        assert labels[inside].mean() == pytest.approx(0.5, abs=0.1)


def test_every_cell_of_the_grid_is_as_frequent_as_any_other_in_a_bin(unpaired):
    strata: dict[tuple, list[dict]] = {}
    for row in hosts_of(unpaired):
        if not row["is_control"]:
            strata.setdefault((row["split"], row["psf_bin"], row["depth_bin"]), []).append(row)
    for rows in strata.values():
        cells, radii = Counter(row["config_id"] for row in rows), Counter(row["theta_e_arcsec"] for row in rows)
        assert max(cells.values()) <= -(-len(rows) // 48)
        assert max(radii.values()) - min(radii[value] for value in GRIDS["small"].theta_e) <= 1
    assert max(len(rows) for rows in strata.values()) > 48, "no bin has more hosts than cells"


def test_files_are_as_many_as_hosts_need_and_hold_whole_bricks(unpaired):
    found = load_manifest(unpaired)
    sizes: dict[str, list[int]] = {}
    bricks: list[str] = []
    for entry in object_list(found):
        rows = pq.read_table(Path(found.uri) / entry.name, columns=["galaxy_id", "brickname", "split"]).to_pylist()
        sizes.setdefault(rows[0]["split"], []).append(len({row["galaxy_id"] for row in rows}))
        bricks += {(row["split"], row["brickname"]) for row in rows}
    assert len(bricks) == len(set(bricks)), "a brick is in two files"
    hosts_per_split = found.facts["hosts"]
    for split, counts in sizes.items():
        assert sum(counts) == hosts_per_split[split]
        # A file may stay empty: bricks choose by a hash.
        assert 0.8 * hosts_per_split[split] / 100 <= len(counts) <= -(-hosts_per_split[split] // 100)
        # Bricks of 10 hosts scatter about their mean.
        assert max(counts) < 100 + 5 * np.sqrt(10 * 100)


def test_the_same_bytes_however_the_work_and_the_parent_sample_are_cut(survey, spark, unpaired, tmp_path):
    def shuffled(table: pa.Table) -> pa.Table:
        varied = varied_parents(table)
        return varied.take(pa.array(np.random.default_rng(1).permutation(len(varied))))

    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    pieces = with_parents(survey, tmp_path / "pieces", shuffled, files=5)
    try:
        spark.conf.set("spark.sql.shuffle.partitions", "1")
        again = load_manifest(run(pieces, tmp_path / "manifest.json", **UNPAIRED_GRID))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert again.sha256 == load_manifest(unpaired).sha256


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


def with_parents(survey: Path, directory: Path, change, files: int = 1) -> Path:
    """A copy of the survey whose parent rows went through `change`, with a manifest that fits them."""
    directory.mkdir()
    write_sources(directory / "sources.json", range(1000, 1060))
    values = read_json(survey / "parent.json")
    table = pa.concat_tables(pq.read_table(p) for p in verified_paths(load_manifest(survey / "parent.json")))
    data = directory / "parent" / "0000000000000000"
    data.mkdir(parents=True)
    changed, entries = change(table), []
    for number in range(files):
        path = data / f"parent-{number:04d}.parquet"
        pq.write_table(changed.take(pa.array(np.arange(number, len(changed), files))), path, row_group_size=500)
        entries.append({"name": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)})
    (data / "_objects.json").write_text(json.dumps(entries))
    values |= {"uri": str(data), "objects": files, "bytes": sum(entry["size"] for entry in entries)}
    values["columns"] = {field.name: str(field.type) for field in changed.schema}
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


def test_a_parent_with_rounded_positions_is_refused(survey, tmp_path):
    """32 bits move a position by up to 0.1 arcsec, and with it the task's name."""

    def rounded(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("ra")
        return table.set_column(place, "ra", table["ra"].cast(pa.float32()))

    with pytest.raises(BadInputError, match="has ra as float, and 32 bits move a position"):
        run(with_parents(survey, tmp_path / "rounded", rounded), tmp_path / "manifest.json")


def test_a_changed_parent_file_stops_the_run(survey, tmp_path):
    damaged = with_parents(survey, tmp_path / "damaged", lambda table: table)
    path = next((damaged / "parent").rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"parent-0000\.parquet"):
        run(damaged, tmp_path / "manifest.json")


def test_spark_rounds_coordinates_as_the_task_id_does(spark):
    values = [0.5**7, 3 * 0.5**7, 150.1234565, 359.9999999, -0.0000004, 12.0, 46.0000005]
    rows = spark.createDataFrame([(v,) for v in values], "x double").selectExpr("format_number(x, 6) as text").collect()
    assert [row.text for row in rows] == [fixed_decimals(v) for v in values]
