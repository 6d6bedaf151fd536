"""Toy pairs for every test of the package."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .toys import ToySplit, write_toy_split


@pytest.fixture
def toy_split(tmp_path: Path) -> Callable[..., ToySplit]:
    """`toy_split(name, pairs, seed)`."""

    def make(name: str, pairs: int, seed: int, **options: float) -> ToySplit:
        return write_toy_split(tmp_path / name, pairs, seed, **options)

    return make
