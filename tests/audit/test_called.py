"""Which pairs are called copies, and by which evidence."""

import dataclasses

import numpy as np
import pytest

from deepssim_jax.audit.assess import Significance
from deepssim_jax.audit.calibration import Laws, Trial, learned
from deepssim_jax.audit.called import called, confirmed
from deepssim_jax.audit.result import Label, Match
from deepssim_jax.scoring.evidence import partial_for_copy
from deepssim_jax.scoring.match import PAIR
from tests.audit.judged import thresholds


def test_either_kind_of_evidence_makes_a_copy() -> None:
    """Query 0 by its pixels, 1 by its points, 2 by neither, whatever its score; what points alone propose
    is left out.
    """
    pairs = np.zeros(5, PAIR)
    pairs["query"], pairs["reference"] = [0, 1, 1, 2, 2], [4, 5, 6, 7, 8]
    pairs["verified"] = [0.8, 0.5, 0.6, 0.97, 0.99]
    pairs["partial"][0] = 0.9
    pairs["by_points"] = [False, True, False, False, True]
    pairs["evidence"] = [0, 2.0, 0, 0, 1.0]
    found, copy, _ = called(pairs, thresholds())
    assert found["reference"].tolist() == [4, 5, 6, 7]
    assert copy.tolist() == [True, True, False, False]


def test_one_band_of_partial_correlation_is_enough() -> None:
    pairs = np.zeros(2, PAIR)
    pairs["query"], pairs["reference"], pairs["verified"] = [0, 1], [4, 5], 0.3
    pairs["partial"] = [[0.1, 0.7, 0.1], [0.4, 0.5, 0.6]]
    assert called(pairs, thresholds())[1].tolist() == [True, False]
    assert Trial.of(pairs, 2).copies(thresholds()).tolist() == [True, False]


def test_what_lies_as_another_image_of_the_patient_does_is_no_copy() -> None:
    """Query 0 lies loosely, 1 exactly, 2 loosely with many matches, 3 loosely where pixels say copy."""
    pairs = np.zeros(5, PAIR)
    pairs["query"], pairs["reference"] = [0, 0, 1, 2, 3], [4, 5, 6, 7, 8]
    pairs["verified"], pairs["by_points"] = (
        [0.5, 0.6, 0.5, 0.5, 0.5],
        [True, False, True, True, True],
    )
    pairs["evidence"], pairs["exact"] = [1.2, 0, 1.2, 2.0, 1.2], [0.4, 0, 0.9, 0.4, 0.4]
    pairs["partial"][4] = 1.4
    limits = dataclasses.replace(thresholds(), local=1.0)
    found, copy, other = called(pairs, limits)
    assert found["reference"].tolist() == [4, 5, 6, 7, 8]
    assert copy.tolist() == [False, False, True, True, True]
    assert other.tolist() == [True, False, False, False, False]
    before = pairs.copy()
    trial = Trial.of(pairs, 4)
    assert (pairs == before).all()
    assert trial.copies(limits).tolist() == [False, True, True, True]
    assert trial.points.tolist() == pytest.approx([1.2, 1.2, 2.0, 1.2])
    laws = Laws.of(trial)
    assert laws.p_values(trial)[0] >= 1


def test_pixels_count_half_where_points_lie_as_those_of_another_image() -> None:
    """Of each query a pair found in place and by points; the threshold of partial correlations is 0.65.

    Query 0: points loose, at the same place; 1: loose, but at a place where pixels do not agree; 2: exact;
    3: as 0, and pixels agree by more than twice the threshold. Query 4 has loose points on another image.
    """
    pairs = np.zeros(10, PAIR)
    pairs["query"], pairs["reference"] = np.repeat(np.arange(5), 2), np.repeat(np.arange(5), 2)
    pairs["reference"][9] = 7
    pairs["verified"], pairs["by_points"] = 0.5, [False, True] * 5
    pairs["evidence"][1::2] = 0.4
    pairs["exact"][1::2] = [0.4, 0.4, 0.8, 0.4, 0.4]
    pairs["partial"][:, 1] = [0.9, 0.8, 0.9, 0.1, 0.9, 0.9, 1.4, 1.4, 0.9, 0.8]
    kept, copy, other = called(pairs, thresholds())
    first = np.unique(kept["query"], return_index=True)[1]
    assert copy[first].tolist() == [False, True, True, True, True]
    assert other[first].tolist() == [True, False, False, False, False]
    assert kept["partial"][first[0], 1] == np.float32(0.9)
    trial = Trial.of(pairs, 5)
    assert trial.copies(thresholds()).tolist() == [False, True, True, True, True]
    assert trial.partial[:, 1].tolist() == pytest.approx([0.9, 0.9, 0.9, 1.4, 0.9])
    assert trial.copied_partial[0, 1] == pytest.approx(0.45)


def test_pixels_count_in_full_where_noise_or_compression_moved_the_points() -> None:
    """Loose points: of another image; of a copy that agrees evenly; of one that has lost its fine detail."""
    pairs = np.zeros(3, PAIR)
    pairs["query"], pairs["by_points"], pairs["exact"] = range(3), True, 0.4
    pairs["share"] = [0.85, 0.95, 0.85]
    pairs["partial"] = [[0.6, 0.8, 0.9], [0.6, 0.8, 0.9], [0.4, 0.8, 0.9]]
    full = pairs["partial"].copy()
    counted = partial_for_copy(pairs)
    assert counted[0].tolist() == pytest.approx([0.3, 0.4, 0.45])
    assert (counted[1:] == full[1:]).all() and (pairs["partial"] == full).all()
    assert partial_for_copy(pairs[:0]).shape == (0, 3)


def test_a_pair_found_both_ways_keeps_the_better_alignment_and_the_thresholds() -> None:
    pairs = np.zeros(2, PAIR)
    pairs["reference"], pairs["verified"], pairs["by_points"] = 3, [0.99, 0.9], [False, True]
    pairs["evidence"], pairs["points"] = [0, 4.0], [0, 80]
    found, copy, _ = called(pairs, thresholds())
    assert len(found) == 1 and copy[0] and not found["by_points"][0]
    assert found["verified"][0] == np.float32(0.99) and found["evidence"][0] == 4.0


def test_a_pair_of_two_alignments_is_a_copy_by_either() -> None:
    pairs = np.zeros(2, PAIR)
    pairs["reference"], pairs["verified"], pairs["by_points"] = 3, [0.7, 0.9], [False, True]
    pairs["partial"][0] = 0.9
    found, copy, _ = called(pairs, thresholds())
    assert copy.tolist() == [True] and found["verified"][0] == np.float32(0.9)


def test_laws_set_aside_what_they_call_copies() -> None:
    """A quarter of the images have a double that nobody knows of; thresholds hardly move."""
    rng = np.random.default_rng(0)

    def trial(count: int, shift: float) -> Trial:
        partial = np.sort(rng.normal(shift, 0.1, (count, 8, 3)), 1)[:, -1]
        points = rng.gumbel(0.2 + shift, 0.08, count)
        return Trial(np.zeros(count), points, points, partial, partial)

    null, doubles = trial(150, 0.0), trial(50, 1.2)
    both = Trial(*(np.concatenate(c) for c in zip(vars(null).values(), vars(doubles).values())))
    clean, _ = learned(null, np.arange(150))
    found, kept = learned(both, np.arange(200))
    assert not kept[150:].any() and kept[:150].mean() > 0.98
    (a, partial), (b, others) = found.thresholds(0.005), clean.thresholds(0.005)
    assert a == pytest.approx(b, rel=0.05) and partial == pytest.approx(others, rel=0.05)
    plain = Laws.of(both, people=200).thresholds(0.005)
    assert plain[0] > 1.1 * b


def test_a_pair_is_confirmed_by_both_kinds_on_one_image_or_its_double() -> None:
    """Query 0: points on 4, pixels on its double 5; query 1: on two images; query 2: both on one."""
    pairs = np.zeros(6, PAIR)
    pairs["query"], pairs["reference"] = [0, 0, 1, 1, 2, 2], [4, 5, 4, 6, 6, 6]
    pairs["verified"], pairs["by_points"] = 0.5, [True, False] * 3
    pairs["evidence"][::2], pairs["partial"][1::2] = 2.0, 0.9
    originals = np.array([0, 1, 2, 3, 4, 4, 6])
    kept, copy, _ = called(pairs, thresholds())
    assert copy.all() and kept["reference"].tolist() == [4, 5, 4, 6, 6]
    assert confirmed(pairs, thresholds(), originals, kept).tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_p_values_are_of_the_evidence_that_makes_a_copy() -> None:
    """Unrelated images that a generator drew smoother have high verified scores; a copy need not."""
    rng = np.random.default_rng(3)

    def trial(count: int, *, score: float, points: float) -> Trial:
        partial = rng.normal(0.0, 0.05, (count, 3))
        local = np.full(count, points) + rng.normal(0, 0.01, count)
        return Trial(np.full(count, score), local, local, partial, partial)

    laws = Laws.of(trial(60, score=0.5, points=0.2))
    held_out, smooth = trial(39, score=0.5, points=0.2), trial(10, score=0.95, points=0.2)
    copy = trial(2, score=0.4, points=4.0)
    found = Trial(*(np.concatenate(c) for c in zip(vars(smooth).values(), vars(copy).values())))
    compared = np.arange(12) != 0
    of = Significance.of(laws, held_out, found, compared)
    assert of.p_values is not None and of.q_values is not None
    assert of.p_values[10:].tolist() == [1 / 40, 1 / 40]
    assert of.p_values[1:10].mean() > 0.2 and np.isnan(of.p_values[0]) and np.isnan(of.q_values[0])
    assert Significance.of(laws, None, found, compared).p_values is None


def test_an_image_that_was_not_compared_has_a_relation_of_its_own() -> None:
    match = Match("s", "r", None, 0.7, 0.0, Label.UNRELATED, None, None)
    assert match.relation.value == "unrelated"
    assert dataclasses.replace(match, comparable=False).relation.value == "not_comparable"
