"""From numbers to a verdict, and the sentences that state it."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.audit import sentences
from deepssim_jax.audit.answer import FEW_FOUND, tone_of
from deepssim_jax.audit.assess import Significance
from deepssim_jax.audit.calibration import Laws, Trial, learned
from deepssim_jax.audit.called import called, confirmed
from deepssim_jax.audit.chances import calls_of, chances_of
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import Label, Match, Thresholds
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import Assessment, Cause, Reason, Searched, Verdict, assess
from deepssim_jax.detection.calls import Call, Calls, Chance, Chances, FalseCalls
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import PAIR
from deepssim_jax.scoring.retrieval import Retrieval
from tests.audit import made

COUNTS = {
    "real": 500,
    "synthetic": 400,
    "holdout": 0,
    "unreadable_real": 0,
    "unreadable_synthetic": 0,
}


def thresholds(found: int = 50, near: int = 50, calibrated: bool = True) -> Thresholds:
    return made.thresholds(
        null_count=100,
        false_rate=clopper_pearson(0, 50),
        planted_recall=None if found < 0 else clopper_pearson(found, 50),
        planted_near_recall=clopper_pearson(near, 50),
        calibrated=calibrated,
    )


def judge(exact: int, near: int, *, counts=COUNTS, holdout=None, of=thresholds()):
    """Of exact copies by both kinds of evidence and near ones by one."""
    found = assess(
        clopper_pearson(exact + near, 400),
        sides={role: searched(counts, role) for role in (Role.REAL, Role.SYNTHETIC)},
        performance=of.performance,
        calls=Calls(exact + near, confirmed=exact, exact=exact),
        chance=chances_of(FalseCalls((0, 0), 0, 50), holdout),
    )
    return found.verdict, sentences.reasons(found.reasons)


def weighed(
    calls: Calls, total: int, *, null: FalseCalls = FalseCalls((0, 0), 0, 25), held_out=None
) -> Assessment:
    """So many calls of so many images, beside negative controls."""
    return assess(
        clopper_pearson(calls.count + calls.alike, total),
        sides={},
        performance=None,
        calls=calls,
        chance=chances_of(null, held_out),
    )


def searched(counts: dict[str, int], role: Role) -> Searched:
    return Searched(
        counts[role.value],
        counts[f"unreadable_{role.value}"],
        counts.get(f"not_comparable_{role.value}", 0),
        counts.get(f"{role.value}_with_doubles", 0),
    )


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
    pairs["partial"][4] = 0.9
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
        return Trial(np.zeros(count), points, points, partial)

    null, doubles = trial(150, 0.0), trial(50, 1.2)
    both = Trial(*(np.concatenate(c) for c in zip(vars(null).values(), vars(doubles).values())))
    clean, _ = learned(null, np.arange(150))
    found, kept = learned(both, np.arange(200))
    assert not kept[150:].any() and kept[:150].mean() > 0.98
    (a, partial), (b, others) = found.thresholds(0.005), clean.thresholds(0.005)
    assert a == pytest.approx(b, rel=0.05) and partial == pytest.approx(others, rel=0.05)
    plain = Laws.of(both, people=200).thresholds(0.005)
    assert plain[0] > 1.1 * b


@pytest.mark.parametrize(("called_", "of"), [(0, 26), (6, 30), (13, 37)])
def test_a_chance_that_few_controls_tell_is_unsure(called_: int, of: int) -> None:
    """Beside draws of the share itself; with many controls it is the binomial law."""
    rng = np.random.default_rng(1)
    shares = rng.beta(called_ + 1, of - called_ + 1, 200_000)
    chance = chances_of(FalseCalls((called_, 0), 0, of), None)
    assert chance is not None
    drawn = (rng.binomial(40, shares) >= 15).mean()
    assert chance.called.p_value(15, 40) == pytest.approx(drawn, abs=0.005)
    sure = Chance(0.2, 1e9).p_value(15, 40)
    assert sure == pytest.approx(Chance(0.2).p_value(15, 40), rel=1e-3)


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
        "thresholds allow; the probability of as many or more is 7.5e-09, and evidence is 0.05 or less).",
    )
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


def test_true_copies_that_both_kinds_confirm_are_no_chance() -> None:
    """8 of 63, 7 by both kinds, beside 25 controls of which none is called: 8 by one kind would be chance."""
    found = weighed(Calls(8, confirmed=7), 63)
    assert found.verdict is Verdict.COPIES_FOUND
    (reason,) = found.reasons
    assert reason.cause is Cause.CONFIRMED and reason.expected == pytest.approx(63 / 27**2)
    # Beside draws of the two shares.
    rng = np.random.default_rng(0)
    shares = rng.beta(1, 26, (2, 400_000)).prod(0)
    chance = chances_of(FalseCalls((0, 0), 0, 25), None)
    assert chance is not None and chance.confirmed is not None
    for count in (1, 2, 3):
        drawn = stats.binom.sf(count - 1, 63, shares).mean()
        assert chance.confirmed.p_value(count, 63) == pytest.approx(drawn, rel=0.15)
    alone = weighed(Calls(8), 63)
    assert alone.verdict is Verdict.INCONCLUSIVE
    (sentence,) = sentences.reasons(alone.reasons)
    assert sentence.startswith("8 images reached the threshold, which is no more than")
    assert "about 2.3" in sentence and "is 0.055, and evidence is 0.025 or less" in sentence


def test_one_exact_copy_that_nothing_confirms_does_not_decide() -> None:
    near, exact = Call("r1", confirmed=False), Call("r2", confirmed=False, exact=True)
    assert weighed(Calls.of([near, exact]), 63).verdict is Verdict.INCONCLUSIVE
    sure = dataclasses.replace(exact, confirmed=True)
    found = weighed(Calls.of([near, sure]), 200)
    assert found.verdict is Verdict.COPIES_FOUND
    assert sentences.reasons(found.reasons) == (
        "1 image is called a copy by both kinds of evidence, and exact by the copy score. This decides, "
        "even of one image.",
    )
    assert sentences.reasons(found.reasons, edition=Edition.SHARED) == ()


def test_doubles_that_nobody_knows_of_hide_no_copy() -> None:
    """Seven of 29 real images have one; without them no control is called."""
    null = FalseCalls((0, 0), 7, 22)
    found = weighed(Calls(8, confirmed=7), 63, null=null)
    assert found.verdict is Verdict.COPIES_FOUND
    performance = dataclasses.replace(thresholds(), false_calls=null).performance
    named = assess(clopper_pearson(0, 9), sides={}, performance=performance).reasons[0]
    assert (named.cause, named.count) == (Cause.UNKNOWN_DOUBLES, 7)
    assert "7 real images are called copies of another patient's" in sentences.reasons([named])[0]


def test_many_held_out_images_that_both_kinds_call_are_no_doubles() -> None:
    calls = Calls(8, confirmed=8)
    assert weighed(calls, 63, held_out=FalseCalls((0, 0), 4, 66)).verdict is Verdict.COPIES_FOUND
    found = weighed(calls, 63, held_out=FalseCalls((0, 0), 12, 58))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [r.cause for r in found.reasons] == [Cause.WITHIN_CHANCE, Cause.CONFIRMED]


def test_look_alikes_of_one_real_image_are_no_evidence() -> None:
    """Masks on unrelated knees, one of which is a real image, and its double; 2 of 6 by both kinds."""
    rows = [(f"r{i % 2}", i < 2, "near_duplicate") for i in range(6)]
    rows += [("r9", False, "unrelated")] * 50
    calls = calls_of(rows, [("1", "r0"), ("1", "r1")])
    assert calls == Calls(alike=6, originals=1)
    found = weighed(calls, 56)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert sentences.reasons(found.reasons) == (
        "6 images called copies all point at 1 real image. A mark, a frame or a scanner's text that they "
        "share would look the same. Look at these pairs; they do not count towards the verdict.",
    )
    (shared,) = sentences.reasons(found.reasons, edition=Edition.SHARED)
    assert shared.startswith("Some images called copies all point at the same real images.")
    # Without a word where the number could be computed, and then as if it were not known.
    few = weighed(Calls(2, alike=4, originals=1), 56)
    assert sentences.reasons(few.reasons, edition=Edition.SHARED) == ()
    assert tone_of(few, Edition.SHARED) == "copies_found"
    assert tone_of(few, Edition.INTERNAL) == "inconclusive"
    assert tone_of(weighed(Calls(2), 56), Edition.SHARED) == FEW_FOUND
    # Copies of one image that a generator made many times are mostly confirmed, and true copies beside
    # look-alikes are still found.
    many = Calls.of([Call("r1", i < 3) for i in range(6)])
    assert many == Calls(6, confirmed=3)
    beside = [Call("r1", False)] * 5 + [Call(f"q{i}", True) for i in range(4)]
    found = weighed(Calls.of(beside), 56)
    assert found.verdict is Verdict.COPIES_FOUND
    assert [r.cause for r in found.reasons] == [Cause.ONE_ORIGINAL, Cause.CONFIRMED]
    assert Calls.of([Call("r1", False)] * 2).alike == 0


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


@pytest.mark.parametrize("p", [0.0250001, 0.025, 0.0249999, 0.05, 0.0501, 3e-12])
def test_a_p_value_is_printed_on_its_own_side_of_the_limit(p: float) -> None:
    found = dataclasses.replace(
        weighed(Calls(8), 63).reasons[0], p_value=p, cause=Cause.WITHIN_CHANCE
    )
    (sentence,) = sentences.reasons([found])
    said = re.search(r"or more is ([0-9.e-]+),", sentence)
    assert said and (float(said[1]) <= 0.025) == (p <= 0.025)


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "1 held-out image is called a copy"), (2, "2 held-out images are called copies")],
)
def test_one_and_several_held_out_images_have_words_of_their_own(count: int, words: str) -> None:
    (sentence,) = sentences.reasons([Reason(Cause.HELD_OUT_CALLED, (Role.HOLDOUT,), count)])
    assert sentence.startswith(words)


def test_p_values_are_of_the_evidence_that_makes_a_copy() -> None:
    """Unrelated images that a generator drew smoother have high verified scores; a copy need not."""
    rng = np.random.default_rng(3)

    def trial(count: int, *, score: float, points: float) -> Trial:
        partial = rng.normal(0.0, 0.05, (count, 3))
        local = np.full(count, points) + rng.normal(0, 0.01, count)
        return Trial(np.full(count, score), local, local, partial)

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
    match = Match("s", "r", None, 0.7, 0.0, Label.UNRELATED, None, None, "none", 0, 0, 0, 1)
    assert match.relation.value == "unrelated"
    assert dataclasses.replace(match, comparable=False).relation.value == "not_comparable"


@pytest.mark.parametrize("total", range(1, 7))
def test_chance_of_few_images_is_a_probability(total: int) -> None:
    """Also where fewer images tell than a count that is shown outside has to have."""
    for count in range(total + 1):
        chances = chances_of(FalseCalls((count, total - count), 0, total), None)
        assert chances is not None
        for chance in (chances.called, chances.confirmed):
            assert chance is None or 0 < chance.p_value(1, 7) <= 1
