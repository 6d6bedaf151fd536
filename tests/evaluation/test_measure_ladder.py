"""The ladder as a job: every rung in one file, of the finder that recovery was made with and of no other."""

import json
from pathlib import Path

import pytest

from dark_halo_scope.core.files import read_json
from dark_halo_scope.evaluation import inject_recovery, measure_ladder
from dark_halo_scope.evaluation.freeze import FrozenChangedError
from dark_halo_scope.evaluation.ladder import MATCHED
from dark_halo_scope.injection.recovery_config import RUNGS

from . import toys
from .frozen_scene import ARGUMENTS, SCENE, freeze, write_scene
from .packed_files import write_packed

LENSES = 12
FEW = {"arc_snr": {"low": 0.1, "high": 1e6}, "classifiers": {"min_pairs": 3, "folds": 2, "bootstraps": 5}} | {
    "match": {"sky_arcsec": 3.0}
}
COMMAND = [*SCENE, "--device", "cpu", "--threads", "1", "--recovery", "recovery.json", "--packed", "packed.json"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A frozen finder, its recovery, and twelve lenses of the test split."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path)
    write_packed(Path("packed.json"), {"test": toys.make_split(LENSES)})
    inject_recovery.main([*ARGUMENTS, "--output", "recovery.json"])
    return tmp_path


def test_the_ladder_has_every_rung_though_recovery_injected_two(here: Path) -> None:
    settings = json.dumps({**FEW, "max_hosts": 6, "floor_repeats": 2})
    measure_ladder.main([*COMMAND, "--settings", settings, "--output", "ladder.json"])
    ladder = read_json(Path("ladder.json"))
    assert [rung["rung"] for rung in ladder["rungs"]] == [*RUNGS, MATCHED]
    assert ladder["lenses"] == {"listed": LENSES, "probed": LENSES, "excluded": {}}
    assert ladder["real_lenses"]["recall"]["p0.5"]["n"] == LENSES
    # One host lies off its brick's edge; rungs share the others.
    hosts = ladder["hosts_alone"]["recall"]["p0.5"]["n"]
    assert {rung["counts"]["injected"] for rung in ladder["rungs"][:-1]} == {hosts}
    assert 4 <= hosts <= 6
    assert set(ladder["thresholds"]) == {"p0.5"}


def test_lenses_beyond_the_most_are_counted(here: Path) -> None:
    settings = json.dumps({**FEW, "max_hosts": 6, "max_lenses": 5, "floor_repeats": 2})
    measure_ladder.main([*COMMAND, "--settings", settings, "--output", "ladder.json"])
    assert read_json(Path("ladder.json"))["lenses"] == {
        "listed": LENSES,
        "probed": 5,
        "excluded": {"not drawn": LENSES - 5},
    }


def test_a_recovery_of_another_card_is_refused(here: Path) -> None:
    freeze(Path("best.json"), Path("frozen.json"), {"p0.5": {"logit": 0.1, "status": "measured"}})
    with pytest.raises(FrozenChangedError, match=r"recovery\.json"):
        measure_ladder.main([*COMMAND, "--settings", "{}", "--output", "ladder.json"])
    assert not Path("ladder.json").exists()
