"""Variety of two sets, on cases small enough to count by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from deepssim_jax.scoring.diversity import diversity


def test_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # to the nearest other: 1, 1, 2, 7
    made = np.array([[0.5], [0.6], [5.0]])  # 0.1, 0.1, 4.4
    found = diversity(real, made, k=1)
    assert found.precision == 1.0  # 5.0 lies within 7 of 10
    assert found.recall == pytest.approx(2 / 4)  # 1 and 3 lie within 4.4 of 5 (as 0.6 to 9.4)
    assert found.coverage == 1.0


def test_against_the_definition() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((1100, 5)), 1.3 * rng.standard_normal((700, 5)) + 0.4
    own, other, across = cdist(real, real), cdist(made, made), cdist(made, real)
    r, m = np.sort(own, 1)[:, 3], np.sort(other, 1)[:, 3]
    found = diversity(real, made, k=3)
    assert found.precision == pytest.approx((across <= r[None]).any(1).mean())
    assert found.recall == pytest.approx((across <= m[:, None]).any(0).mean())
    assert found.coverage == pytest.approx((across <= r[None]).any(0).mean())


def test_copies_of_few_cover_little() -> None:
    rng = np.random.default_rng(1)
    real = rng.standard_normal((200, 8))
    few = real[rng.integers(0, 10, 200)] + 1e-3 * rng.standard_normal((200, 8))
    assert diversity(real, few).coverage < 0.4 < 0.9 < diversity(real, real).coverage
