"""The rule for copies follows what is alike in the folder, not a fixed number."""

import numpy as np
import pytest

from deepssim_jax.jobs.copy_rule import LEAST_EVIDENCE, CopyRule
from deepssim_jax.scoring.match import PAIR

RNG = np.random.default_rng(0)
UNRELATED = RNG.gumbel(0.17, 0.07, 200)


def pairs(*rows: tuple[int, int, float, float, float]) -> np.ndarray:
    """`PAIR` from (query, reference, evidence, points, verified)."""
    out = np.zeros(len(rows), PAIR)
    for name, column in zip(
        ("query", "reference", "evidence", "points", "verified"), zip(*rows, strict=True)
    ):
        out[name] = column
    return out


def rule(found: np.ndarray, count: int = 100) -> CopyRule:
    return CopyRule.of(found, UNRELATED, count=count, rate=0.05)


def test_without_look_alikes_a_part_of_an_image_is_enough() -> None:
    found = pairs(
        (0, 1, 1.5, 30.0, 0.4),
        (2, 3, 0.9, 30.0, 0.95),
        (4, 5, 1.4, 12.0, 0.8),
        (6, 7, 1.25, 31.0, 0.82),
    )
    made = rule(found)
    assert made.points == 25
    assert made.copies(found).tolist() == [True, False, False, False]
    assert made.alike(found).tolist() == [True, False, True, True]


def test_neighbouring_slices_raise_the_points() -> None:
    slices = [(row, row + 1, 1.2, 17.0, 0.85) for row in range(0, 100, 2)]
    closest, copy = (0, 3, 2.1, 69.0, 0.87), (4, 7, 1.5, 40.0, 0.95)
    found = pairs(*slices, closest, copy)
    made = rule(found)
    assert made.points == pytest.approx(4.5 * 17)
    assert made.copies(found).tolist() == [False] * 51 + [True]


def test_copies_are_not_taken_for_look_alikes() -> None:
    copies = [(row, row + 1, 2.6, 110.0, 0.97) for row in range(0, 100, 2)]
    made = rule(pairs(*copies))
    assert made.points == 25 and made.copies(pairs(*copies)).all()


def test_the_evidence_follows_the_law_and_has_a_floor() -> None:
    none = pairs((0, 1, 0.1, 1.0, 0.1))
    assert rule(none).evidence == LEAST_EVIDENCE
    wide = CopyRule.of(none, RNG.gumbel(0.5, 0.2, 200), count=100, rate=0.05)
    assert wide.evidence > 1.5 and wide.chance <= 0.05 / 100 * 1.01
