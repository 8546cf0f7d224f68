"""The benchmark of the tail: its queries are what they say, and it counts rightly where the law is true."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.cases.null_tail import audits, composite, exceeded
from deepssim_jax.scoring.evidence import GumbelLaw
from deepssim_jax.scoring.points import SIDE, PointSet

LAW = GumbelLaw(0.2, 0.05, 100)


def test_a_composite_holds_the_window_of_one_image_and_the_rest_of_another() -> None:
    rng = np.random.default_rng(0)
    geometry = np.zeros((2, 50, 6), np.float32)
    geometry[..., :2] = rng.uniform(-SIDE / 2, SIDE / 2, (2, 50, 2))
    geometry[..., 5] = 1
    descriptors = np.repeat(np.arange(2, dtype=np.uint8)[:, None, None], 50, 1).repeat(128, 2)
    found = composite(PointSet(geometry, descriptors), np.array([[0, 1]]), np.array([[0.25, 0, 0]]))
    there = found.valid[0]
    inside = (np.abs(found.geometry[0, :, :2]) <= SIDE / 4).all(-1)
    assert 0 < there.sum() <= 50
    np.testing.assert_array_equal(found.descriptors[0, there, 0], np.where(inside[there], 0, 1))


def test_counts_are_nominal_where_the_law_holds() -> None:
    evidence = stats.gumbel_r.rvs(LAW.location, LAW.scale, size=100_000, random_state=0)
    for row in exceeded(LAW, evidence):
        assert row["low"] <= row["p"] * 1.1 and row["high"] >= row["p"] * 0.9
    sizes = {row["images"]: row for row in audits(LAW, evidence, np.random.default_rng(0))}
    assert set(sizes) == {100, 1_000, 10_000, 100_000}
    assert sizes[100]["with_false"] / sizes[100]["audits"] == pytest.approx(0.05, abs=0.02)


def test_false_calls_are_seen_where_the_tail_is_heavier() -> None:
    evidence = stats.gumbel_r.rvs(LAW.location, 2 * LAW.scale, size=20_000, random_state=0)
    (at, *_) = [row for row in exceeded(LAW, evidence) if row["p"] == 1e-3]
    assert at["low"] > 1e-3
    sizes = {row["images"]: row for row in audits(LAW, evidence, np.random.default_rng(0))}
    assert sizes[1_000]["low"] > 0.05
