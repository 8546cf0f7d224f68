"""The benchmark of the tail: its queries are what they say, and it counts rightly where p values are true."""

import numpy as np
import pytest

from benchmarks.cases.null_tail import audits, composite, exceeded, varied


def test_a_composite_holds_the_window_of_one_image_and_the_rest_of_another() -> None:
    found = composite(np.ones((64, 64)), np.zeros((64, 64)), np.array([0.25, 0, 1]))
    expected = np.zeros((64, 64))
    expected[16:48, 32:] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_varied_image_is_another_each_time_and_stays_in_range() -> None:
    image = np.random.default_rng(0).random((40, 60), np.float32)
    first, second = (varied(image, np.random.default_rng(seed), side=64) for seed in (1, 2))
    assert first.shape == second.shape == (64, 64)
    assert np.abs(first - second).mean() > 0.01
    assert first.min() >= 0 and first.max() <= 1


def test_counts_are_nominal_where_the_law_holds() -> None:
    p_values = np.random.default_rng(0).random(100_000)
    for row in exceeded(p_values):
        assert row["low"] <= row["p"] * 1.1 and row["high"] >= row["p"] * 0.9
    sizes = {row["images"]: row for row in audits(p_values, np.random.default_rng(0))}
    assert set(sizes) == {100, 1_000, 10_000, 100_000}
    assert sizes[100]["with_false"] / sizes[100]["audits"] == pytest.approx(0.05, abs=0.02)


def test_false_calls_are_seen_where_the_tail_is_heavier() -> None:
    p_values = np.random.default_rng(0).random(20_000) ** 2
    (at, *_) = [row for row in exceeded(p_values) if row["p"] == 1e-3]
    assert at["low"] > 1e-3
    sizes = {row["images"]: row for row in audits(p_values, np.random.default_rng(0))}
    assert sizes[1_000]["low"] > 0.05
