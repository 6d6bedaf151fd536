"""A task's name, seed and random numbers follow from what it is, and from nothing else."""

import hashlib
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dark_halo_scope.injection.tasks import DRAWS, choice, fixed_decimals, hash_fraction, task_id, task_seed, uniforms

TASK = ("train_stamp64_bandsgrz_gridgrid_sota", "v3_color_relaxed", "train", "0460m800", 46.0, -80.0, "te1", 0)


def test_the_identity_is_the_hash_of_the_documented_text():
    text = "train_stamp64_bandsgrz_gridgrid_sota|v3_color_relaxed|train|0460m800|46.000000|-80.000000|te1|0"
    assert task_id(*TASK) == hashlib.sha256(text.encode()).hexdigest()


def test_a_task_has_the_name_that_the_earlier_pipeline_gave_it():
    """By `printf ... | sha256sum`: both coordinates are exact ties, rounded half-even as format_number does."""
    text = (
        "train_stamp64_bandsgrz_gridgrid_sota|v3_color_relaxed|train|0460m800|46.007812|-80.023438|"
        "te0.5_dm0.5_re0.06_e0_g0|1"
    )
    name = task_id(*text.split("|")[:4], 46.0078125, -80.0234375, "te0.5_dm0.5_re0.06_e0_g0", 1)
    assert name == "0423966b810a84bce70096ac7b53e717cec80b0f4a5f3c2168783c6c55495ff0"


@pytest.mark.parametrize("position", range(len(TASK)))
def test_every_part_matters(position):
    changed = list(TASK)
    changed[position] = changed[position] + (1 if isinstance(changed[position], (int, float)) else "x")
    assert task_id(*changed) != task_id(*TASK)


def test_digits_beyond_a_millionth_of_a_degree_do_not_matter():
    assert task_id(*TASK[:4], 46.0000004, -80.0, *TASK[6:]) == task_id(*TASK)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5**7, "0.007812"),  # 0.0078125 exactly: a tie, goes to the even neighbour
        (3 * 0.5**7, "0.023438"),  # 0.0234375 exactly: a tie, goes up to the even neighbour
        (150.1234565, "150.123457"),  # the binary number lies above the tie
        (359.9999999, "360.000000"),
        (-0.0000001, "-0.000000"),
        (12.0, "12.000000"),
    ],
)
def test_coordinates_are_rounded_half_even(value, text):
    assert fixed_decimals(value) == text


@given(st.floats(-360, 360))
def test_rounding_is_that_of_the_exact_binary_value(value):
    assert Decimal(fixed_decimals(value)) == Decimal(value).quantize(Decimal("1e-6"), rounding=ROUND_HALF_EVEN)


def test_the_seed_is_the_hash_of_task_and_seed_and_fits_int64():
    digest = hashlib.sha256(b"abc|13").digest()
    assert task_seed("abc", 13) == int.from_bytes(digest[:8], "big") // 2
    assert task_seed("abc", 13) != task_seed("abc", 14) != task_seed("abd", 14)
    assert all(0 <= task_seed(str(i), 13) < 2**63 for i in range(100))


def test_draws_depend_on_the_tasks_own_seed_only():
    together = uniforms([5, 6, 7])
    assert (together[1] == uniforms([6])[0]).all()
    assert (together[::-1] == uniforms([7, 6, 5])).all()


def test_draws_of_a_seed_never_change():
    # PCG64(5), documented as stable: the first doubles of the stream.
    assert uniforms([5])[0, :3] == pytest.approx([0.80500292, 0.80794079, 0.51532556], abs=1e-8)


def test_draws_are_uniform_and_uncorrelated():
    draws = uniforms([task_seed(str(i), 13) for i in range(4000)])
    assert draws.shape == (4000, len(DRAWS))
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    correlation = np.corrcoef(draws, rowvar=False)
    assert np.abs(correlation - np.eye(len(DRAWS))).max() < 0.08


def test_a_choice_is_blake2b_of_task_and_salt_little_endian():
    digest = hashlib.blake2b(b"abcproduction_v1", digest_size=8).digest()
    assert choice("abc", "production_v1", 20000) == sum(b << (8 * i) for i, b in enumerate(digest)) % 20000


def test_choices_are_even():
    counts = np.bincount([choice(str(i), "salt", 10) for i in range(5000)], minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_choice_among_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to choose"):
        choice("abc", "salt", 0)


def test_hash_fractions_are_uniform():
    assert stats.kstest([hash_fraction(str(i)) for i in range(3000)], "uniform").pvalue > 1e-4
