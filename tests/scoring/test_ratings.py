"""Balanced accuracy in and out of sample, and agreement of raters, against independent values."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from deepssim_jax.scoring.ratings import (
    IN_FOLDS,
    best_threshold,
    fleiss_kappa,
    rate_measures,
    read_ratings,
)


def test_kappa_of_the_published_example() -> None:
    """Two raters, by hand: they agree on 3 of 4; P = 0.75, chance = 0.625^2 + 0.375^2."""
    votes = np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool)
    chance = 0.625**2 + 0.375**2
    assert fleiss_kappa(votes) == pytest.approx((0.75 - chance) / (1 - chance))
    assert fleiss_kappa(np.ones((3, 4), bool)) == 1.0


def test_kappa_equals_statsmodels() -> None:
    if importlib.util.find_spec("statsmodels") is None:
        pytest.skip("statsmodels is not installed")
    from statsmodels.stats import inter_rater

    votes = np.random.default_rng(0).random((40, 5)) < 0.4
    counts = np.stack([(~votes).sum(1), votes.sum(1)], 1)
    assert fleiss_kappa(votes) == pytest.approx(inter_rater.fleiss_kappa(counts))


def test_the_threshold_stands_in_the_widest_gap() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    threshold, accuracy, gap = best_threshold(scores, scores > 0.5)
    assert threshold == pytest.approx(0.55)
    assert accuracy == 1.0
    assert gap == pytest.approx(0.5 / 0.8)


def test_no_threshold_is_better() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=60), rng.random(60) < 0.3
    threshold, accuracy, _ = best_threshold(scores, labels)
    assert accuracy == pytest.approx(balanced_accuracy_score(labels, scores >= threshold))
    tried = [balanced_accuracy_score(labels, scores >= t) for t in [*scores, np.inf]]
    assert accuracy == pytest.approx(max(tried))


def test_a_measure_that_knows_nothing_flatters_in_sample_alone() -> None:
    """With 5 of 50 and many useless measures the best one in sample looks good; held out, it is not."""
    rng = np.random.default_rng(2)
    labels = np.arange(50) < 5
    noise = {("voxel", f"m{i}"): rng.normal(size=50) for i in range(20)}
    chosen = rate_measures(noise, labels)[-1]
    assert chosen.measure == IN_FOLDS
    assert chosen.in_sample.value > 0.75
    assert chosen.cross_validated.value < 0.65


def test_a_perfect_measure_is_chosen_and_its_interval_is_not_a_point() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(50) < 5
    scores = {
        ("voxel", "bad"): rng.normal(size=50),
        ("feature", "good"): labels + 0.1 * rng.random(50),
    }
    bad, good, chosen = rate_measures(scores, labels)
    assert good.cross_validated.value == chosen.cross_validated.value == 1.0
    assert 0.5 < good.cross_validated.low < 0.9
    assert good.auc == 1.0
    assert bad.auc == pytest.approx(roc_auc_score(labels, scores["voxel", "bad"]))


def test_one_class_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="at least two of each"):
        rate_measures({("voxel", "ncc"): np.arange(5.0)}, np.arange(5) < 1)


def test_reads_one_column_or_one_a_rater(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("synthetic_id,anna,ben,carl\na.nii,1,yes,0\nb.nii,0,no,True\n")
    ratings = read_ratings(path)
    assert ratings.raters == ("anna", "ben", "carl")
    np.testing.assert_array_equal(ratings.majority, [True, False])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,replica\na,1\n", "synthetic_id"),
        ("synthetic_id,replica\na,maybe\n", "line 2, column 2: it is neither"),
        ("synthetic_id,replica\na,1\na,0\n", "line 3: rated before"),
        ("synthetic_id,replica\n", "no rating"),
        ('synthetic_id,replica\n"a,1\nb,1\nc",1\n', "line 2: its quotes"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_ratings(path)


def test_no_cell_of_a_file_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for text in ("mueller-anna,1\nb,0\n", "synthetic_id,mueller-anna\nb,mueller-anna\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="r.csv") as error:
            read_ratings(path)
        assert "mueller" not in str(error.value)
