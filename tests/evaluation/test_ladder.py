"""The ladder: a rung that looks like real lenses cannot be told from them, and one that does not can."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dark_halo_scope.evaluation.dataset_config import ShortcutSettings
from dark_halo_scope.evaluation.ladder import MATCHED, Seen, measure_ladder, recall, show
from dark_halo_scope.evaluation.ladder_config import LadderSettings
from dark_halo_scope.evaluation.measure_ladder import ladder_injections
from dark_halo_scope.evaluation.realism import Galaxies
from dark_halo_scope.evaluation.realism_config import MatchSettings
from dark_halo_scope.injection.recovery_config import RUNGS, RecoverySettings

SETTINGS = LadderSettings(classifiers=ShortcutSettings(min_pairs=20, folds=3, bootstraps=30), floor_repeats=4)
THRESHOLDS = {"p0.5": 0.0, "p0.9": 2.2}


def _seen(count: int, seed: int, shift: float = 0.0, bright: float = 0.0, snr: float = 40.0) -> Seen:
    """Galaxies with features off by `shift` and magnitudes by `bright`."""
    rng = np.random.default_rng(seed)
    rows = pa.table({"healpix_128": np.arange(count) // 10, "arc_snr": np.full(count, snr)})
    photometry = {
        "mag_r": rng.normal(19.0 - bright, 0.8, count),
        **{name: rng.normal(1.0, 0.2, count) for name in ("colour_gr", "colour_rz", "concentration")},
    }
    features = rng.normal(shift, 1.0, (count, 4))
    features[:, 0] += photometry["mag_r"]
    galaxies = Galaxies(np.zeros((count, 0)), rows, np.zeros((count, 2)), np.arange(count), photometry, features)
    return Seen(galaxies, rng.normal(1.0, 1.0, count))


def _seeing(seen: Seen, psfsize: np.ndarray) -> Seen:
    photometry = {**seen.galaxies.photometry, "psfsize_r": psfsize, "psfdepth_r": np.full(len(psfsize), np.nan)}
    return Seen(replace(seen.galaxies, photometry=photometry), seen.logit)


@pytest.fixture(scope="module")
def ladder() -> dict:
    rungs = {
        "sersic_fwhm": _seen(300, 1, shift=3.0),
        "sersic_noise": _seen(300, 2, shift=0.8),
        "image": _seen(600, 3, bright=-1.0),
    }
    return measure_ladder(_seen(200, 0), rungs, _seen(600, 4), THRESHOLDS, SETTINGS)


def test_rungs_come_in_their_order_and_the_matched_one_last(ladder: dict) -> None:
    assert [rung["rung"] for rung in ladder["rungs"]] == ["sersic_fwhm", "sersic_noise", "image", MATCHED]
    assert [rung["number"] for rung in ladder["rungs"]] == [1, 2, 3, 4]


def test_a_rung_nearer_to_real_lenses_has_a_lower_probe(ladder: dict) -> None:
    first, second, *_ = (rung["probe"]["value"] for rung in ladder["rungs"])
    assert first > 0.98
    assert 0.7 < second < first - 0.02


def test_matching_hosts_removes_what_hosts_alone_tell(ladder: dict) -> None:
    image, matched = (rung["probe"]["value"] for rung in ladder["rungs"][2:])
    assert image > 0.65
    assert matched < image - 0.08
    assert ladder["floor"]["value"] == pytest.approx(0.5, abs=0.1)


def test_matching_holds_what_conditions_are_known_too() -> None:
    """Depth is unknown for all; it had matched nothing."""
    rng = np.random.default_rng(5)
    lenses = _seeing(_seen(100, 0), rng.normal(1.1, 0.05, 100))
    rungs = {"image": _seeing(_seen(800, 3), rng.normal(1.2, 0.1, 800))}
    bare = _seeing(_seen(600, 4), rng.normal(1.2, 0.1, 600))
    result = measure_ladder(lenses, rungs, bare, THRESHOLDS, SETTINGS)
    seeing = result["rungs"][-1]["matching"]["psfsize_r"]
    assert seeing["difference_before"] < -0.8
    assert abs(seeing["difference_after"]) < 0.25
    assert result["rungs"][-1]["counts"]["compared"] > 60
    assert result["floor"]["value"] is not None
    alone = SETTINGS.model_copy(update={"match": MatchSettings(conditions=())})
    [*_, last] = measure_ladder(lenses, rungs, bare, THRESHOLDS, alone)["rungs"]
    assert last["matching"]["psfsize_r"]["difference_after"] < -0.5


def test_the_matched_rung_was_injected_as_often_as_the_one_before() -> None:
    faint = _seen(300, 3)
    snr = np.where(np.arange(300) < 50, 3.0, 40.0)
    rows = faint.galaxies.rows.set_column(1, "arc_snr", pa.array(snr))
    rungs = {"image": Seen(replace(faint.galaxies, rows=rows), faint.logit)}
    image, matched = measure_ladder(_seen(100, 0), rungs, _seen(100, 2), THRESHOLDS, SETTINGS)["rungs"]
    assert image["counts"] == {"injected": 300, "compared": 250}
    assert matched["counts"]["injected"] == 300
    assert matched["counts"]["compared"] == matched["recall"]["p0.5"]["n"] <= 100


def test_arcs_that_nobody_could_see_are_not_compared() -> None:
    faint = {"image": _seen(100, 1, snr=3.0)}
    rungs = measure_ladder(_seen(100, 0), faint, _seen(100, 2), THRESHOLDS, SETTINGS)["rungs"]
    assert rungs[0]["counts"] == {"injected": 100, "compared": 0}
    assert rungs[0]["probe"]["value"] is None
    assert rungs[0]["recall"]["p0.5"]["status"] == "not measurable: nothing was shown"


def test_real_lenses_and_bare_hosts_are_counted_at_the_same_thresholds(ladder: dict) -> None:
    """Hosts that pass without an arc are the floor under every completeness."""
    lenses, hosts = ladder["real_lenses"]["recall"], ladder["hosts_alone"]["recall"]
    assert lenses == recall(_seen(200, 0).logit, THRESHOLDS, SETTINGS.classifiers.confidence)
    assert hosts == recall(_seen(600, 4).logit, THRESHOLDS, SETTINGS.classifiers.confidence)
    assert ladder["hosts_alone"]["value"] is not None


def test_recall_has_its_exact_interval() -> None:
    found = recall(np.array([-1.0, 0.0, 1.0, 3.0]), THRESHOLDS, 0.95)
    assert found["p0.5"]["value"] == 0.75
    assert found["p0.5"]["interval"] == pytest.approx([0.1941, 0.9937], abs=1e-4)
    assert found["p0.9"]["n"] == 4


def test_the_ladder_injects_as_recovery_did_but_for_rungs_and_number() -> None:
    recovery = RecoverySettings(rungs=("clumpy",), seed=5, exclude_arcsec=20.0)
    settings = ladder_injections(recovery, LadderSettings(max_hosts=7))
    assert (settings.rungs, settings.replicates, settings.max_hosts) == (RUNGS, 1, 7)
    assert (settings.seed, settings.exclude_arcsec, settings.prior) == (5, 20.0, recovery.prior)


def test_what_is_shown_keeps_no_pixels() -> None:
    rng = np.random.default_rng(0)
    rows = pa.table(
        {
            **{name: np.full(3, 1.2) for name in ("psfsize_r", "psfdepth_r")},
            "brickname": ["a"] * 3,
            "objid": np.arange(3),
        }
    )
    images = rng.normal(1.0, 0.1, (3, 3, 64, 64))
    seen = show(
        lambda pixels, rows: (pixels.mean(axis=(2, 3)), pixels.mean(axis=(1, 2, 3))), images, rows, MatchSettings()
    )
    assert seen.galaxies.features.shape == (3, 3)
    assert seen.galaxies.images.size == 0
    assert len(seen.galaxies) == 3
