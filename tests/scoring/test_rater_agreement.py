"""Coefficients of agreement are those of published examples and of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from deepssim_jax.scoring.rater_agreement import (
    among_all,
    cohen_kappa,
    counted,
    fleiss_kappa,
    gwet_ac1,
)

# Fleiss (1971) as it is printed in textbooks: ten subjects, fourteen raters, five categories; kappa 0.210.
TEXTBOOK = np.array([
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
])  # fmt: skip
# The eight complete rows of Gwet's example of four raters; values by irrCAC 0.4.4.
GWET = np.array([
    [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4], [1, 1, 2, 1],
    [2, 2, 2, 2],
])  # fmt: skip


def test_fleiss_kappa_of_the_textbook_example() -> None:
    assert fleiss_kappa(TEXTBOOK) == pytest.approx(0.2099, abs=5e-5)


def test_four_raters_as_published() -> None:
    counts = counted(GWET - 1, categories=4)
    assert gwet_ac1(counts) == pytest.approx(0.67430, abs=1e-5)
    assert fleiss_kappa(counts) == pytest.approx(0.64146, abs=1e-5)


def test_ac1_does_not_fall_where_one_category_prevails() -> None:
    """The paradox of kappa (Gwet, 2002): 118 and 0 agreements, 5 and 2 disagreements."""
    ratings = np.array([(0, 0)] * 118 + [(0, 1)] * 5 + [(1, 0)] * 2)
    counts = counted(ratings, categories=2)
    assert gwet_ac1(counts) == pytest.approx(0.94078, abs=1e-5)
    assert cohen_kappa(*ratings.T).value == pytest.approx(-0.0234, abs=1e-4)
    # Gwet's own interval, by his variance, is 0.895 to 0.986.
    ac1 = among_all(ratings, categories=2)[1]
    assert ac1.low and ac1.high
    assert ac1.low == pytest.approx(0.895, abs=0.012) and ac1.high == pytest.approx(
        0.986, abs=0.012
    )


def test_cohen_kappa_is_scikit_learns_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 80)
    second = np.where(rng.random(80) < 0.7, first, rng.integers(0, 3, 80))
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low < found.value < found.high and found.pairs == 80


def test_full_agreement_is_one_also_of_one_category() -> None:
    same = np.zeros((5, 3), int)
    assert [x.value for x in among_all(same, categories=3)] == [1.0, 1.0]
    assert cohen_kappa(same[:, 0], same[:, 1]).value == 1.0


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0], "fewer than 10 pairs"),
        ([0, 1] * 10, [0, 1] * 10, "vary too little"),  # full agreement
        ([0, 1] * 10, [0] * 20, "vary too little"),  # a constant reader
    ],
)
def test_no_interval_is_given_where_draws_say_nothing(first, second, reason: str) -> None:
    found = cohen_kappa(np.array(first), np.array(second))
    assert (found.low, found.high) == (None, None) and reason in found.reason


def test_one_reader_cannot_disagree() -> None:
    with pytest.raises(ValueError, match="two or more"):
        among_all(np.zeros((5, 1), int), categories=3)
