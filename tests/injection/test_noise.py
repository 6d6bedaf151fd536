"""What the compiled Poisson numbers promise: NumPy's own, bit by bit, for any mean."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dark_halo_scope.injection.noise import poisson


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_the_numbers_are_those_of_numpy_and_leave_the_generator_where_numpy_does(seed: int) -> None:
    draw = np.random.default_rng([seed, 1])
    means = np.concatenate(
        [10 ** draw.uniform(-14, 5, 4000), draw.uniform(0, 30, 4000), draw.uniform(9.99, 10.01, 50), np.zeros(50)]
    )
    draw.shuffle(means)
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    np.testing.assert_array_equal(poisson(means, one), other.poisson(means))
    assert one.bit_generator.state == other.bit_generator.state


def test_no_light_draws_no_number() -> None:
    rng = np.random.default_rng(0)
    assert not poisson(np.zeros(100), rng).any()
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
