"""What the copies of an audit rest on, and how many of them chance gives: for the verdict and its check."""

from collections.abc import Sequence

from deepssim_jax.audit.disclosure import SMALL, is_small
from deepssim_jax.audit.result import Label
from deepssim_jax.detection.calls import Call, Calls, Chance, Chances, FalseCalls, originals_of


def calls_of(
    found: Sequence[tuple[str, bool, str]], doubles: Sequence[tuple[object, str]]
) -> Calls:
    """What the copies rest on.

    Args:
      found: of each synthetic image the id of its best real one, whether both kinds of evidence call it a
        copy of that, and its label.
      doubles: (group, id) of real images that are copies of each other.
    """
    called = [row for row in found if row[2] != Label.UNRELATED]
    names = originals_of([row[0] for row in called], doubles)
    return Calls.of(
        [
            Call(name, confirmed, exact=label == Label.EXACT)
            for name, (_, confirmed, label) in zip(names, called, strict=True)
        ]
    )


def chances_of(false: FalseCalls | None, held_out: FalseCalls | None) -> Chances | None:
    """How often an image without a copy is called one; None where no image tells.

    Held-out images take the place of negative controls. Of these, such that both kinds of evidence call are
    doubles that nobody knows of, and prove nothing; of held-out images they can be a few that were
    trained on, but many say that images without a copy are called by both. Errors too few to be shown
    outside count alike, so that the verdict does not tell them.
    """
    seen = held_out or false
    if seen is None or not seen.total + seen.both:
        return None
    called, total = sum(seen.alone), seen.total
    kinds = [Chance.seen(_blurred(count, total), total) for count in seen.alone]
    both = kinds[0].and_also(kinds[1])
    if held_out is not None and held_out.both >= SMALL:
        called, total = called + held_out.both, total + held_out.both
        both = Chance.seen(held_out.both, total)
    return Chances(Chance.seen(_blurred(called, total), total), both)


def _blurred(count: int, total: int) -> int:
    return min(SMALL - 1, total) if is_small(count) else count
