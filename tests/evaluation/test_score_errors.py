"""What the list of errors promises: the worst first, each galaxy once, and how many there are in all."""

import csv
import io

import numpy as np
import pyarrow as pa
from scipy.special import expit

from dark_halo_scope.evaluation.realism_config import ErrorSettings
from dark_halo_scope.evaluation.score_errors import (
    COLUMNS,
    errors_csv,
    false_lenses,
    missed_injections,
    missed_lenses,
)

SETTINGS = ErrorSettings(each=3)


def _scores(kind: str, logit: list[float], objid: list[int] | None = None, x: list[float] | None = None) -> pa.Table:
    n = len(logit)
    return pa.table(
        {
            "task_id": [f"{kind}{place}" for place in range(n)],
            "kind": [kind] * n,
            "ra": np.arange(n, dtype=float),
            "dec": np.zeros(n),
            "brickname": ["0001p000"] * n,
            "objid": objid or list(range(n)),
            "control_kind": pa.array([None] * n, pa.string()),
            "theta_e_arcsec": np.ones(n),
            "theta_e_over_psf": np.array(x or [1.5] * n),
            "arc_snr": np.full(n, 20.0),
            "packed_row": np.arange(n),
            "logit": np.array(logit, dtype=float),
            "score": expit(np.array(logit, dtype=float)),
        }
    )


def test_negatives_are_listed_by_kind_the_highest_score_first() -> None:
    scores = pa.concat_tables([_scores("control", [-4, 3, 1, -2, 2]), _scores("hard_negative", [-1, -3])])
    rows, counts = false_lenses(scores, SETTINGS)
    assert [(row["group"], row["rank"], row["name"]) for row in rows] == [
        ("control taken for a lens", 1, "control1"),
        ("control taken for a lens", 2, "control4"),
        ("control taken for a lens", 3, "control2"),
        ("hard negative taken for a lens", 1, "hard_negative0"),
        ("hard negative taken for a lens", 2, "hard_negative1"),
    ]
    assert [row["is_error"] for row in rows] == [True, True, True, False, False]
    assert counts["control"] == {"n": 5, "called_lenses": 3, "confident": 1}
    assert counts["negative"] == {"n": 0, "called_lenses": 0, "confident": 0}


def test_a_galaxy_is_shown_once_however_many_arcs_it_bears() -> None:
    scores = pa.concat_tables(
        [
            _scores("control", [5, 5, 5, 2], objid=[1, 1, 1, 2]),  # one image three times, and another
            _scores("hard_negative", [3, 4, 5, 2], objid=[1, 1, 1, 2]),  # four images of two galaxies
        ]
    )
    rows, counts = false_lenses(scores, SETTINGS)
    assert [row["name"] for row in rows] == ["control0", "control3", "hard_negative2", "hard_negative3"]
    assert counts["control"]["called_lenses"] == 2
    assert counts["hard_negative"]["called_lenses"] == 4


def test_a_missed_injection_is_a_resolved_one() -> None:
    rows, counts = missed_injections(_scores("positive", [-5, -1, 2, 4], x=[0.4, 1.0, 2.0, 3.0]), SETTINGS)
    assert [row["name"] for row in rows] == ["positive1", "positive2", "positive3"]
    assert counts == {"n": 3, "missed": 1, "confident": 0}


def test_missed_lenses_are_those_of_the_tier() -> None:
    logit = np.array([-3.0, -2.0, 1.0, 0.0])
    lenses = pa.table(
        {
            "name": ["a", "b", "c", "d"],
            "kind": ["lens"] * 4,
            "tier_grade": ["B", "A", "A", None],
            "cutout_row": [7, 8, 9, 10],
            "ra": np.zeros(4),
            "dec": np.zeros(4),
        }
    )
    rows, counts = missed_lenses(lenses, logit, expit(logit), SETTINGS)
    assert [(row["name"], row["row"], row["source"], row["is_error"]) for row in rows] == [
        ("b", 8, "cutouts", True),
        ("c", 9, "cutouts", False),
    ]
    assert counts == {"tier": "tier_grade A", "n": 2, "missed": 1, "confident": 0}


def test_the_csv_keeps_every_digit_and_leaves_empty_what_is_not_known() -> None:
    rows, _ = false_lenses(_scores("control", [1 / 3]), SETTINGS)
    [row] = csv.DictReader(io.StringIO(errors_csv(rows)))
    assert tuple(row) == COLUMNS
    assert float(row["logit"]) == 1 / 3
    assert row["class"] == ""
    assert row["row"] == "0"


def test_without_errors_the_csv_has_its_heading() -> None:
    assert errors_csv([]) == ",".join(COLUMNS) + "\n"
