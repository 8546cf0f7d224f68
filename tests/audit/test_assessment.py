"""From numbers to a verdict, and the sentences that state it."""

import dataclasses
import re

import pytest
from scipy import stats

from deepssim_jax.audit import sentences
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import Cause, Reason, Searched, Verdict, assess
from deepssim_jax.detection.calls import Calls, Chance, Chances, FalseCalls
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.retrieval import Retrieval
from tests.audit.judged import COUNTS, judge, thresholds, weighed


def test_one_exact_copy_is_enough() -> None:
    verdict, reasons = judge(1, 0)
    assert verdict is Verdict.COPIES_FOUND
    assert reasons == (
        "1 image is called a copy by both kinds of evidence, and exact by the copy score. This decides, "
        "even of one image.",
    )


def test_copies_beside_which_no_chance_was_measured_are_said_to_be_so() -> None:
    found = assess(clopper_pearson(2, 40), sides={}, performance=thresholds().performance)
    assert found.verdict is Verdict.COPIES_FOUND
    (sentence,) = sentences.reasons(found.reasons)
    assert sentence.startswith(
        "2 images reached the threshold. How many would by chance alone could not be"
    )


def test_nothing_found_holds_within_its_interval() -> None:
    verdict, reasons = judge(0, 0)
    assert verdict is Verdict.NONE_FOUND_WITHIN_LIMITS
    assert "below 0.92% at 95% confidence" in reasons[-1]


def test_what_would_have_been_missed_is_said() -> None:
    verdict, reasons = judge(0, 0, of=thresholds(near=7))
    assert verdict is Verdict.NONE_FOUND_WITHIN_LIMITS
    assert "7 of 50 were found: most such copies would have been missed" in reasons[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"of": thresholds(calibrated=False)}, "could not be calibrated"),
        ({"of": thresholds(found=-1)}, "was not measured"),
        ({"of": thresholds(found=40)}, "copies could have been missed"),
        ({"counts": {**COUNTS, "unreadable_real": 20}}, "1% of the real images are untested"),
        ({"counts": {**COUNTS, "not_comparable_real": 6}}, "1% of the real images are untested"),
        ({"counts": {**COUNTS, "unreadable_synthetic": 5}}, "the synthetic images are untested"),
        (
            {"counts": {**COUNTS, "not_comparable_synthetic": 5}},
            "the synthetic images are untested",
        ),
    ],
)
def test_nothing_found_proves_nothing_where_little_was_tested(change: dict, words: str) -> None:
    verdict, reasons = judge(0, 0, **change)
    assert verdict is Verdict.INCONCLUSIVE
    assert any(words in reason for reason in reasons)


def test_a_few_images_that_cannot_be_compared_are_named_on_either_side() -> None:
    few = {"not_comparable_real": 5, "unreadable_synthetic": 3, "not_comparable_synthetic": 1}
    verdict, reasons = judge(0, 0, counts={**COUNTS, **few})
    assert verdict is Verdict.NONE_FOUND_WITHIN_LIMITS
    assert reasons[0].startswith("5 real images could not be compared")
    assert reasons[1] == "3 synthetic images could not be read; nothing is known of them."
    assert reasons[2].startswith("1 synthetic image could not be compared")


def test_a_few_near_copies_may_be_chance_and_many_are_not() -> None:
    control = FalseCalls((1, 1), 0, 100)
    verdict, reasons = judge(0, 5, holdout=control)
    assert verdict is Verdict.INCONCLUSIVE and "chance alone" in reasons[-1]
    assert judge(0, 60, holdout=control)[0] is Verdict.COPIES_FOUND


def test_counts_to_share_are_never_small() -> None:
    found = assess(
        clopper_pearson(1, 400),
        sides={Role.REAL: Searched(500, unreadable=3), Role.SYNTHETIC: Searched(400)},
        performance=thresholds().performance,
    )
    reasons = sentences.reasons(found.reasons, edition=Edition.SHARED)
    assert reasons == ("Some real images could not be read; copies of them cannot be detected.",)


def test_notes_name_what_was_left_out() -> None:
    assert len(sentences.notes(128, "axial:0.5", Retrieval.BOTH, left_out=0)) + 1 == len(
        sentences.notes(128, "axial:0.5", Retrieval.BOTH, left_out=2)
    )


def test_near_empty_images_and_doubles_are_named() -> None:
    counts = {**COUNTS, "not_comparable_synthetic": 1, "real_with_doubles": 72}
    reasons = " ".join(judge(0, 0, counts=counts)[1])
    assert "1 synthetic image could not be compared" in reasons
    assert "72 real images are copies of each other" in reasons


def test_many_unrelated_images_called_copies_are_named() -> None:
    of = dataclasses.replace(thresholds(), false_rate=clopper_pearson(10, 50))
    assert "10 real images are called copies" in " ".join(judge(0, 0, of=of)[1])
    assert "called copies of another" not in " ".join(judge(0, 0)[1])


SIDES = {Role.REAL: Searched(500), Role.SYNTHETIC: Searched(400)}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"calibrated": False}, Cause.NOT_CALIBRATED),
        ({"recall": None}, Cause.NO_POSITIVE_CONTROLS),
        ({"false_rate": None}, Cause.NO_NEGATIVE_CONTROLS),
        ({"recall": clopper_pearson(40, 50)}, Cause.LOW_RECALL),
        ({}, Cause.NONE_FOUND),
    ],
)
@pytest.mark.parametrize("words", [sentences.IMAGES, sentences.VOLUMES])
@pytest.mark.parametrize("edition", list(Edition))
def test_every_cause_has_a_sentence_of_its_own(change, cause, words, edition) -> None:
    performance = dataclasses.replace(thresholds().performance, **change)
    found = assess(clopper_pearson(0, 400), sides=SIDES, performance=performance)
    assert found.reasons[-1].cause is cause
    (sentence,) = sentences.reasons(found.reasons, words=words, edition=edition)
    assert sentence.startswith(f"No {words.copy} was found")
    assert words.image in sentence and "{" not in sentence


def test_many_calls_beyond_chance_state_it_and_the_shared_edition_does_not() -> None:
    """Of 400 unrelated volumes at 1 %, 20 or more are called with p = 7e-9 (SciPy's binomial law)."""
    found = assess(
        clopper_pearson(20, 400),
        sides=SIDES,
        performance=thresholds().performance,
        chance=Chances(Chance(0.01)),
    )
    assert found.verdict is Verdict.COPIES_FOUND
    assert found.reasons[0].p_value == pytest.approx(
        stats.binomtest(20, 400, 0.01, "greater").pvalue
    )
    assert sentences.reasons(found.reasons, words=sentences.VOLUMES) == (
        "20 volumes reached the threshold, more than chance alone would give (about 4 by the rate that the "
        "thresholds allow; the probability of as many or more is less than 0.000001, and evidence is 0.05 or "
        "less).",
    )
    # What a law of few volumes says beyond its reach is not given as a number.
    rare = assess(
        clopper_pearson(16, 21), sides=SIDES, performance=None, chance=Chances(Chance(1e-31))
    )
    (sentence,) = sentences.reasons(rare.reasons[:1], words=sentences.VOLUMES)
    assert "(fewer than 0.000001 by the rate" in sentence
    assert sentences.reasons(found.reasons, edition=Edition.SHARED) == ()


def test_within_chance_is_inconclusive_and_its_number_stays_inside() -> None:
    found = assess(
        clopper_pearson(1, 400), sides=SIDES, performance=None, chance=Chances(Chance(0.01))
    )
    assert found.verdict is Verdict.INCONCLUSIVE
    (sentence,) = sentences.reasons(found.reasons, words=sentences.VOLUMES)
    assert sentence.startswith("1 volume reached the threshold, which is no more than chance alone")
    how = {"words": sentences.VOLUMES, "edition": Edition.SHARED}
    assert sentences.reasons(found.reasons, **how) == ()  # of so few, not even that
    many = assess(
        clopper_pearson(6, 400), sides=SIDES, performance=None, chance=Chances(Chance(0.02))
    )
    (shared,) = sentences.reasons(many.reasons, **how)
    assert not re.search(r"\d", shared)


def test_a_set_searched_against_itself_states_what_was_found_alone() -> None:
    for count, verdict in ((0, Verdict.NONE_FOUND_WITHIN_LIMITS), (1, Verdict.COPIES_FOUND)):
        found = assess(clopper_pearson(count, 9), sides={Role.REAL: Searched(9)}, performance=None)
        assert (found.verdict, found.reasons, found.subjects) == (verdict, (), None)


@pytest.mark.parametrize("p", [0.0250001, 0.025, 0.0249999, 0.05, 0.0501, 3e-12])
def test_a_p_value_is_printed_on_its_own_side_of_the_limit(p: float) -> None:
    found = dataclasses.replace(
        weighed(Calls(8), 63).reasons[0], p_value=p, cause=Cause.WITHIN_CHANCE
    )
    (sentence,) = sentences.reasons([found])
    said = re.search(r"or more is (?:less than )?([0-9.e-]+),", sentence)
    assert said and (float(said[1]) <= 0.025) == (p <= 0.025)


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "1 held-out image is called a copy"), (2, "2 held-out images are called copies")],
)
def test_one_and_several_held_out_images_have_words_of_their_own(count: int, words: str) -> None:
    (sentence,) = sentences.reasons([Reason(Cause.HELD_OUT_CALLED, (Role.HOLDOUT,), count)])
    assert sentence.startswith(words)
