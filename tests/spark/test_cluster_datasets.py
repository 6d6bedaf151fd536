"""The rules that only some datasets need give the bytes of a local run on a real cluster too, with Spark 3.5 and 4."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from brick_scene import SIDE
from checkouts import Checkout, make_checkout
from dark_halo_scope.catalogue import sample_negatives
from dark_halo_scope.core.manifest import load_manifest
from dark_halo_scope.injection import adopt_stored, cut_negatives, list_stored
from dark_halo_scope.survey.cache_coadds import cache_coadds
from dark_halo_scope.survey.config import CoaddSettings
from spark_cluster import VERSIONS, Call, Spark, call_of, spark_of
from stored_scene import stored_rows, survey_json, write_stored

# Each first makes its reference here, up to stamps, and then runs on two clusters.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CONFUSERS = "results/catalogue/confusers.json"
POOL, NEGATIVES = "results/catalogue/negative_pool.json", "results/catalogue/negatives.json"
DATASET = "results/datasets/v5_cosmos"
VARIANT = "v3_color_relaxed"


@dataclass(frozen=True)
class Made:
    """Calls whose artifacts have been made here, by rule; and the code that made them."""

    calls: dict[str, Call]
    lib: Path


@pytest.fixture(scope="module")
def made(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Confusers of v5_cosmos and negatives of real images on the tiny survey, and a few stored stamps, taken over."""
    folder = tmp_path_factory.mktemp("made")
    checkout = make_checkout(project_root, folder / "checkout")
    run = checkout.snakemake(f"{DATASET}/negatives.json", NEGATIVES, timeout=1200)
    assert run.returncode == 0, run.stderr[-6000:]
    lib = checkout.path / "lib"
    calls = {
        "select_confusers": call_of(checkout, CONFUSERS),
        "cut_negatives": _cut_negatives(checkout),
        "build_negative_pool": call_of(checkout, POOL),
        "sample_negatives": _sample_negatives(checkout),
        **_stored(folder / "stored", lib),
    }
    for call in calls.values():
        assert load_manifest(call.artifact).rows_out, f"{call.artifact} has no rows: it would be the same anywhere"
    return Made(calls, lib)


def _cut_negatives(checkout: Checkout) -> Call:
    """Its provenance has two sections of settings in one."""
    artifact = checkout.path / DATASET / "negatives.json"
    settings = json.loads(artifact.with_suffix(".provenance.json").read_text())["settings"]
    arguments = (
        *("--confusers", CONFUSERS, "--stamps", f"{DATASET}/stamps.json", "--coadds", f"{DATASET}/coadds.json"),
        *("--settings", json.dumps(settings["negatives"]), "--stamp-settings", json.dumps(settings["stamps"])),
    )
    return Call(checkout.path, cut_negatives.MODULE, arguments, artifact)


def _sample_negatives(checkout: Checkout) -> Call:
    """The pool is not called as its option is."""
    settings = json.loads((checkout.path / NEGATIVES).with_suffix(".provenance.json").read_text())["settings"]
    arguments = ("--pool", POOL, "--settings", json.dumps(settings))
    return Call(checkout.path, sample_negatives.MODULE, arguments, checkout.path / NEGATIVES)


def _stored(folder: Path, lib: Path) -> dict[str, Call]:
    """Stored stamps of every split on a survey of their own, listed and adopted."""
    survey = survey_json(folder)
    write_stored(folder / "old", stored_rows(VARIANT, hosts=2), VARIANT)
    # Relative: executors start in folders of their own.
    settings = ("--settings", json.dumps({"uri": "old/stamps", "variant": VARIANT, "rows_per_file": 5}))
    listed, coadds = folder / "manifest.json", folder / "coadds.json"
    listing = Call(folder, list_stored.MODULE, settings, listed)
    listing.make(lib)
    one_try = CoaddSettings(pixels=SIDE, min_finite_fraction=1.0, max_missing_fraction=0.0, attempts=1)
    # Manifests name their data relative to where they were made.
    with contextlib.chdir(folder):
        cache_coadds(survey, listed, coadds, one_try, folder / "cache", 1)
    inputs = ("--manifest", "manifest.json", "--coadds", "coadds.json")
    adopting = Call(folder, adopt_stored.MODULE, (*inputs, *settings), folder / "stamps.json")
    adopting.make(lib)
    return {"list_stored_stamps": listing, "adopt_stored_stamps": adopting}


@pytest.fixture(scope="module", params=list(VERSIONS))
def spark(
    request: pytest.FixtureRequest, project_root: Path, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Spark]:
    """A master and two workers of each version of Spark."""
    with spark_of(request.param, made.lib, tmp_path_factory.mktemp("spark"), project_root) as spark:
        yield spark


@pytest.mark.parametrize(
    "rule",
    [
        *("select_confusers", "cut_negatives", "list_stored_stamps", "adopt_stored_stamps"),
        *("build_negative_pool", "sample_negatives"),
    ],
)
def test_a_rule_beside_the_main_job_writes_the_same_bytes_on_a_cluster_as_here(
    spark: Spark, rule: str, made: Made, tmp_path: Path
) -> None:
    spark.makes_the_same(made.calls[rule], tmp_path / "out.json")
