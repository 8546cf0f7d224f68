"""What results mean, in full sentences: reasons of a verdict, membership, and what was not tested."""

import dataclasses
from collections.abc import Iterable

from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import Coverage, Membership
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import MAX_UNTESTED, Cause, Reason
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.membership import RATES, Attack
from deepssim_jax.scoring.retrieval import Retrieval


@dataclasses.dataclass(frozen=True)
class Words:
    """What is searched for, what a calibration `needs`, `more` of what would tell chance from copying, and
    what can be `shared` by unrelated ones.
    """

    image: str
    copy: str
    copies: str
    needs: str
    more: str
    shared: str


IMAGES = Words(
    image="image",
    copy="copy",
    copies="copies",
    needs=f"images of at least {2 * decide.MIN_NULL} patients, about half of them to choose thresholds and "
    "half to check them",
    more="real or held-out images",
    shared="A mark, a frame or a scanner's text",
)
VOLUMES = Words(
    image="volume",
    copy="replica",
    copies="replicas",
    needs=f"volumes of at least {decide.MIN_NULL} patients",
    more="real volumes",
    shared="A head holder, a marker or a mask",
)
_SENTENCES = {
    Cause.HELD_OUT_DIFFER: "The held-out {image}s are of another make than the real ones ({detail}): the "
    "control and the p-values may tell the make, and not copies.",
    Cause.HELD_OUT_KNOWN: "All held-out {image}s are of patients of the real side, so there is no control.",
    Cause.HELD_OUT_CALLED: "{number} held-out {things} {is_are} called {a_copy} of a real one: look whether "
    "{it_is} of the training set; an audit of --holdout as --synthetic lists {it}.",
    Cause.FEW_PATIENTS: "The real {image}s are of {patients} only, too few to test what is called a {copy} "
    "on other patients: look at the pairs, and at --subject_regex if there are more patients.",
    Cause.UNKNOWN_DOUBLES: "{number} real {things} {is_are} called {a_copy} of another patient's by both "
    "kinds of evidence, most likely one picture under two names: see what `deepssim duplicates` lists. The "
    "share of unrelated {image}s called {copies} is without {it}.",
    Cause.MANY_ALIKE: "{number} real {things} {is_are} called {a_copy} of another patient's where there "
    "should be none: the folder holds duplicates under several names, some of which `deepssim duplicates` "
    "lists, or unrelated {image}s of this kind look alike, and so may some of the {copies} found here.",
    Cause.UNREADABLE: "{side} could not be read; {unknown}.",
    Cause.NOT_COMPARABLE: "{side} could not be compared: too little structure to be distinguished.",
    Cause.DUPLICATED: "{number} real {image}s are copies of each other (real_duplicates.csv); copies of one "
    "{image} count as one patient.",
    Cause.ONE_ORIGINAL: "{number} {image}s called {copies} all point at {originals}. {shared} that they "
    "share would look the same. Look at these pairs; they do not count towards the verdict{rest}.",
    Cause.WITHIN_CHANCE: "{reached} no more than chance alone would give{p_value}. Look at the pairs; more "
    "{more} would sharpen this.",
    Cause.BEYOND_CHANCE: "{number} {things} reached the threshold, more than chance alone would "
    "give{p_value}.",
    Cause.CONFIRMED: "{number} {things} {is_are} called {a_copy} by both kinds of evidence{p_value}.",
    Cause.EXACT: "{number} {things} {is_are} called {a_copy} by both kinds of evidence, and exact by the "
    "copy score. This decides, even of one {image}.",
    Cause.CHANCE_NOT_KNOWN: "{number} {things} reached the threshold. How many would by chance alone could "
    "not be measured: there were no {image}s of other patients to test it on.",
    Cause.NOT_CALIBRATED: "{none}, but the thresholds could not be calibrated here: they need {needs}.",
    Cause.NO_POSITIVE_CONTROLS: "{none}, but what this check finds was not measured: there were no copies of "
    "these {image}s to test it on in the reporting split of the patients. More {image}s would be needed.",
    Cause.NO_NEGATIVE_CONTROLS: "{none}, but what this check finds was not measured: there were no "
    "{image}s of other patients to test it on in the reporting split of the patients. More {image}s would be "
    "needed.",
    Cause.LOW_RECALL: "{none}, but only {recall} of the positive controls, copies made from these {image}s, "
    "were found, so {copies} could have been missed.",
    Cause.UNTESTED: "{none}, but more than {most:.0%} of the {sides} {image}s are untested. Repair or remove "
    "them and run again.",
    Cause.NONE_FOUND: "{none} among {total} {image}s; the share of {copies} that a generator like this makes "
    "is below {high:.2%} at {level:.0%} confidence.",
    Cause.LOW_LOCAL_RECALL: "This holds for copies of whole {image}s. Of positive controls in "
    "which something was added, hidden, warped or replaced, {recall} were found{missed}.",
}

# Outside, of fewer copies, or among fewer images, than may be counted.
FEW = "So few can be chance; whether they are is not stated here, because it would tell how many they are."
# What follows from counts that may be small: outside not of few copies, or never.
_CHANCE = (Cause.WITHIN_CHANCE, Cause.BEYOND_CHANCE, Cause.CONFIRMED, Cause.ONE_ORIGINAL)
_INSIDE = (
    Cause.EXACT,
    Cause.CHANCE_NOT_KNOWN,
    Cause.BEYOND_CHANCE,
    Cause.CONFIRMED,
    Cause.UNKNOWN_DOUBLES,
    Cause.MANY_ALIKE,
    Cause.HELD_OUT_CALLED,
)
# By the law of the number of calls: of what its rate is.
_LEAST_SAID = 1e-6  # what a law of a few hundred images can say
_RATES = {
    "binomial": "by the rate that the thresholds allow",
    "beta-binomial": "by the rate among unrelated images",
}
_OF_FEW = "{none}; so few {image}s say little about the share of {copies} that a generator like this makes."


def reasons(
    found: Iterable[Reason], *, words: Words = IMAGES, edition: Edition = Edition.INTERNAL
) -> tuple[str, ...]:
    """Why a verdict is what it is, and what would be needed for a clearer one.

    Args:
      found: of an `Assessment`.
      words: what was searched for.
      edition: who reads. Outside, no number stands in the sentences from which together with the
        verdict, which follows from all of them, a small count could be computed, and of a few copies
        nobody learns whether chance gives as many.
    """
    found, shared = tuple(found), edition is Edition.SHARED
    untold = withheld(found, edition)
    out = []
    for reason in found:
        sentence, share = _SENTENCES[reason.cause], reason.share
        if reason.cause in _CHANCE and untold or shared and reason.cause in _INSIDE:
            continue
        if reason.cause is Cause.NONE_FOUND and share and not edition.shows(share.total):
            sentence = _OF_FEW
        values = dataclasses.asdict(words) | _values(reason, words, shared=shared)
        out.append(sentence.format(**values))
    return tuple(out)


def withheld(found: Iterable[Reason], edition: Edition) -> bool:
    """Whether nothing may be said of chance, because it would tell how many copies there are, how many of
    them look like one real image, or how many do not.
    """
    return any(
        not edition.shows(
            reason.share.count,
            *((reason.count, reason.share.count - reason.count) if reason.originals else ()),
        )
        for reason in found
        if reason.cause in _CHANCE and reason.share is not None
    )


def _values(reason: Reason, words: Words, *, shared: bool) -> dict[str, object]:
    """What the sentence of a reason is filled with."""
    roles, share, one = [role.value for role in reason.roles], reason.share, reason.count == 1
    out: dict[str, object] = {
        "none": f"No {words.copy} was found",
        "detail": reason.detail,
        "patients": "few patients" if shared else several(reason.count, "patient"),
        "number": "Some" if shared else f"{reason.count:,}",
        "things": _several(reason.count, words.image),
        "is_are": "is" if one else "are",
        "a_copy": f"a {words.copy}" if one else words.copies,
        "it_is": "it is" if one else "they are",
        "it": "it" if one else "them",
        "originals": f"the same real {words.image}s"
        if shared
        else f"{reason.originals:,} real {_several(reason.originals, words.image)}",
        "side": f"Some {' '.join(roles)} {words.image}s",
        "sides": " and of the ".join(roles),
        "unknown": "nothing is known of them"
        if Role.SYNTHETIC in reason.roles
        else f"{words.copies} of them cannot be detected",
        "most": MAX_UNTESTED,
        "reached": f"The {words.image}s that reached the threshold are",
        "p_value": "",
        "rest": "",
    }
    if not shared:
        out["side"] = f"{reason.count:,} {' '.join(roles)} {_several(reason.count, words.image)}"
    if share is None:
        return out
    out |= {"total": share.total, "high": share.high, "level": share.level}
    out["recall"] = "too few" if shared else f"{share.count} of {share.total}"
    rest = share.count - reason.count
    if rest and not shared:
        out["rest"] = f", and the other {rest:,} do" if rest > 1 else ", and the other one does"
    out["missed"] = ": most such copies would have been missed" if share.value < 0.5 else ""
    if not shared and reason.p_value is not None:
        out["reached"] = f"{out['number']} {out['things']} reached the threshold, which is"
        out["p_value"] = _by_chance(reason)
    return out


def _by_chance(reason: Reason) -> str:
    """How many calls chance gives, and how probable as many as there are would be."""
    p_value, limit, expected = reason.p_value or 0.0, reason.limit or 0.0, reason.expected or 0.0
    digits = 2  # so many that the number lies on its own side of the limit
    while digits < 17 and (float(f"{p_value:.{digits}g}") <= limit) != (p_value <= limit):
        digits += 1
    many = f"about {expected:.2g}" if expected < 10 else f"about {expected:,.0f}"
    probable = f"{p_value:.{digits}g}"
    if expected < _LEAST_SAID:
        many = f"fewer than {_LEAST_SAID:.6f}"
    if p_value < _LEAST_SAID < limit:
        probable = f"less than {_LEAST_SAID:.6f}"
    return (
        f" ({many} {_RATES[reason.detail]}; the probability of as many or more is {probable}, and "
        f"evidence is {limit:g} or less)"
    )


def _candidates(retrieval: Retrieval) -> str:
    """Which pairs were verified, in words."""
    asked = retrieval.proposals
    ways = [
        (asked.aligned, "of the best correlation in a search over a grid of transformations"),
        (asked.likely, "that agree best tile by tile after it"),
        (asked.in_place, "that agree best where they lie"),
        (asked.encoder, "from the encoder"),
    ]
    return ", ".join(["2 from local features", *(f"{n} {what}" for n, what in ways if n)])


def several(number: int, what: str) -> str:
    """So many of them: `1 pair`, `1,200 pairs`."""
    return f"{number:,} {_several(number, what)}"


def _several(count: int, what: str) -> str:
    return what if count == 1 else f"{what}s"


# Kinds of edit whose names in files do not explain themselves.
_EDITS = {
    "identity": "nothing",
    "d4": "mirroring and quarter turns",
    "downsample": "made smaller",
    "histogram": "grey levels equalised, windowed or merged",
    "marks": "letters and marks",
}


def edit(change: str) -> str:
    """A kind of edit as the report and the screen call it."""
    return _EDITS.get(change, change)


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
    size: int,
    slice_spec: str,
    retrieval: Retrieval,
    *,
    left_out: int,
    attacked: bool = False,
    kinds: tuple[int, ...] = (),
) -> tuple[str, ...]:
    """What was done to the images, and what was not tested; `left_out` held-out images share a
    patient with the real side; `attacked` says that membership was inferred; `kinds` are the images of
    each kind, if there are several.
    """
    lines = [
        f"Every image was brought to {size} x {size} pixels with its aspect kept and "
        "to mean 0 and standard deviation 1.",
        f"Of volumes, the slice {slice_spec} was compared, after orientation by the affine.",
        "Copies are looked for by local features, under any rotation, mirroring, negative, crop, change "
        "of aspect and zoom; and among the images that are similar in the same position, where copies "
        "with noise or blur are found best.",
        "Not tested: the pictures of a sheet one by one where no lines part them, copies of a region "
        "that is small or holds little structure, "
        f"{'' if attacked else 'membership inference, '}and attributes.",
        "Each synthetic image was verified against its best few candidates, not against every "
        f"image: {_candidates(retrieval)}.",
    ]
    if len(kinds) > 1:
        sizes = f"{', '.join(f'{size:,}' for size in kinds[:-1])} and {kinds[-1]:,}"
        lines.append(
            f"The real images are of {len(kinds)} kinds, which differ in how much images of different "
            f"patients resemble each other (seen on {sizes} of them). Each kind is judged by its own images; "
            "an audit for each kind is more exact."
        )
    if left_out:
        lines.append(
            "Held-out images that belong to patients of the real side were left out of the control."
        )
    return tuple(lines)
