"""From numbers to a verdict, and the sentences around it."""

from scipy import stats

from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import Coverage, Label, Membership, Thresholds, Verdict
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.membership import RATES, Attack
from deepssim_jax.scoring.retrieval import Retrieval

# An audit in which more images of a side than this share could not be read or compared proves little.
MAX_UNREADABLE = 0.01
# Below this lower bound on the planted recall, finding nothing says nothing.
MIN_RECALL = 0.8


def verdict(
    counts: dict[str, int],
    classes: dict[str, int],
    rate: decide.Proportion,
    holdout: decide.Proportion | None,
    thresholds: Thresholds,
    *,
    edition: Edition = Edition.INTERNAL,
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and in full sentences why, and what would be needed for a clearer one.

    Args:
      counts: of `AuditResult`.
      classes: of `AuditResult`.
      rate: share of the synthetic images that could be compared called copies.
      holdout: the same share of held-out images, if there are any.
      thresholds: and what the detector is worth at them.
      edition: who reads the sentences. Outside, no number stands in them from which together with the
        verdict, which follows from all of them, a small count could be told.
    """
    reasons = []
    shared = edition is Edition.SHARED
    untested = []
    for role, unknown in (
        ("real", "copies of them cannot be detected"),
        ("synthetic", "nothing is known of them"),
    ):
        unread, empty = counts[f"unreadable_{role}"], counts.get(f"not_comparable_{role}", 0)
        for number, why in (
            (unread, f"could not be read; {unknown}."),
            (empty, "could not be compared: too little structure to be told apart from others."),
        ):
            if number:
                images = f"Some {role} images" if shared else f"{number:,} {role} {_images(number)}"
                reasons.append(f"{images} {why}")
        if unread + empty > MAX_UNREADABLE * (counts[role] + unread):
            untested.append(role)
    doubled = counts.get("real_with_doubles", 0)
    if doubled:
        number = "Some" if shared else f"{doubled:,}"
        reasons.append(
            f"{number} real images are copies of each other (real_duplicates.csv); copies of one image "
            "count as one patient."
        )
    if rate.count:
        chance = holdout or thresholds.false_rate
        if chance is not None and not classes[Label.EXACT.value]:
            # Laplace's rule keeps an unseen error from being taken for an impossible one.
            expected = (chance.count + 1) / (chance.total + 2)
            p = float(stats.binom.sf(rate.count - 1, rate.total, expected))
            if p > 0.05:
                number = (
                    "The near images that"
                    if shared
                    else f"{rate.count:,} near {_images(rate.count)}"
                )
                chance = "" if shared else f" (binomial p = {p:.2f})"
                return Verdict.INCONCLUSIVE, (
                    *reasons,
                    f"{number} reached the threshold {'are' if shared else 'which is'} no more than "
                    f"unrelated images would by chance{chance}. Look at the pairs; more real or held-out "
                    "images would sharpen this.",
                )
        return Verdict.COPIES_FOUND, tuple(reasons)
    recall = thresholds.planted_recall
    if not thresholds.calibrated:
        reasons.append(
            f"No copy was found, but the thresholds could not be calibrated here: they need images "
            f"of at least {2 * decide.MIN_NULL} patients, about half of them to choose thresholds and "
            "half to check them."
        )
        return Verdict.INCONCLUSIVE, tuple(reasons)
    if recall is None or thresholds.false_rate is None:
        what = "copies of these images" if recall is None else "images of other patients"
        reasons.append(
            f"No copy was found, but what this check finds was not measured: there were no {what} to test "
            "it on in the half of the patients that is kept for that. More images would be needed."
        )
        return Verdict.INCONCLUSIVE, tuple(reasons)
    if recall.low < MIN_RECALL:
        found = "too few" if shared else f"{recall.count} of {recall.total}"
        reasons.append(
            f"No copy was found, but only {found} of the copies planted into these images were found, so "
            "copies could have been missed."
        )
        return Verdict.INCONCLUSIVE, tuple(reasons)
    if untested:
        reasons.append(
            f"No copy was found, but more than {MAX_UNREADABLE:.0%} of the {' and of the '.join(untested)} "
            "images are untested. Repair or remove them and run again."
        )
        return Verdict.INCONCLUSIVE, tuple(reasons)
    reasons.append(
        f"No copy was found among {rate.total} images; the share of copies that a generator like this "
        f"makes is below {rate.high:.2%} at {rate.level:.0%} confidence."
    )
    near = thresholds.planted_near_recall
    if near is not None and near.low < MIN_RECALL:
        found = "too few" if shared else f"{near.count} of {near.total}"
        missed = ": most such copies would have been missed" if near.value < 0.5 else ""
        reasons.append(
            "This holds for copies of whole images. Of copies in which something was added, hidden, bent or "
            f"replaced, planted into these images, {found} were found{missed}."
        )
    return Verdict.NONE_FOUND_WITHIN_LIMITS, tuple(reasons)


def _candidates(retrieval: Retrieval) -> str:
    """Which pairs were verified, in words."""
    asked = retrieval.proposals
    ways = [
        (asked.aligned, "of the best correlation in a search over a grid of transformations"),
        (asked.likely, "that agree best tile by tile after it"),
        (asked.unmoved, "that agree best where they lie"),
        (asked.encoder, "from the encoder"),
    ]
    return ", ".join(["2 from local features", *(f"{n} {what}" for n, what in ways if n)])


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


ATTACKS = {
    Attack.LOSS: "loss threshold",
    Attack.SECMI: "SecMI",
    Attack.PIA: "PIA",
}


def membership(found: Membership, *, edition: Edition = Edition.INTERNAL) -> tuple[str, ...]:
    """What membership inference means, in full sentences.

    Args:
      found: the figures.
      edition: who reads them.
    """
    lines, count = [], edition.count
    if found.coverage is not Coverage.ALL:
        lines.append(
            f"{'Not all' if found.coverage is Coverage.SOME else 'None'} of the images that this model "
            "was trained on are among the real images of this audit: make sure that it is the model "
            "whose images were audited."
        )
    if not found.figures:
        lines.append(
            "When this model was trained nobody was held out, so there is nothing to tell its training "
            "images from, and nothing can be inferred about membership, neither that it leaks nor that "
            "it does not. A training with --config.held_out=0.1 can be asked."
        )
        return tuple(lines)
    # Three attacks have three chances to look good.
    level = 1 - (1 - found.level) / len(found.figures)
    better = [
        ATTACKS[attack]
        for attack, f in found.figures.items()
        if decide.area_interval(f.area, f.members, f.held_out, level=level)[0] > 0.5
    ]
    if better:
        lines.append(
            f"Better than chance at telling {count(found.members)} training images from "
            f"{count(found.held_out)} held-out ones: {', '.join(better)}. Whoever has these weights and "
            "an image of a person can learn from them something about whether it was trained on, so the "
            "weights must be kept as the training images are."
        )
    else:
        lines.append(
            f"None of these attacks was shown to tell {count(found.members)} training images from "
            f"{count(found.held_out)} held-out ones better than chance. That is no proof that nobody "
            "can: the intervals say how much may have been missed, and there are stronger attacks."
        )
    rates = [r for r in RATES if not all(f.measurable(r) for f in found.figures.values())]
    lines += [
        f"A false positive rate of {rate:.1%} cannot be measured with {count(found.held_out)} "
        f"held-out images; it takes {round(1 / rate):,} of them at least."
        for rate in rates
    ]
    return tuple(lines)


def notes(
    size: int, slice_spec: str, retrieval: Retrieval, *, left_out: int, attacked: bool = False
) -> tuple[str, ...]:
    """What was done to the images, and what was not tested; `left_out` held-out images share a
    patient with the real side; `attacked` says that membership was inferred.
    """
    lines = [
        f"Every image was brought to {size} x {size} pixels with its aspect kept and "
        "to mean 0 and standard deviation 1.",
        f"Of volumes, the slice {slice_spec} was compared, after orientation by the affine.",
        "Copies are looked for by local features, under any rotation, mirroring, negative, crop, change "
        "of aspect and zoom; and among the images that look alike as they lie, which bears noise and "
        "blur best.",
        "Not tested: copies of a region that is small or holds little structure, "
        f"{'' if attacked else 'membership inference, '}and attributes.",
        "Each synthetic image was verified against its best few candidates, not against every "
        f"image: {_candidates(retrieval)}.",
    ]
    if left_out:
        lines.append(
            "Held-out images that belong to patients of the real side were left out of the control."
        )
    return tuple(lines)
