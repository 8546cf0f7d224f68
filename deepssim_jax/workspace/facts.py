"""What a folder's outputs are of: settings and hashes by name, noted down once and compared with later ones.

Contract: a fact is noted as its hash (`keys.key_of`) and as it is shown to people.
"""

from collections.abc import Mapping

from deepssim_jax.workspace.keys import key_of

Noted = Mapping[str, list[str]]
_MISSING = ["", "not known"]


def noted(facts: Mapping[str, object]) -> Noted:
    """The hash of each fact, and how it is shown."""
    return {fact: [key_of(value), _shown(value)] for fact, value in facts.items()}


def differences(known: Noted, now: Noted) -> list[str]:
    """Every fact of now that was another one, with both values, for a message."""
    return [
        f"{fact} ({known.get(fact, _MISSING)[1]} there, {now[fact][1]} now)"
        for fact in sorted(now)
        if known.get(fact, _MISSING)[0] != now[fact][0]
    ]


def _shown(value: object) -> str:
    """A fact in a message: short settings as they are, of longer ones the start of their hash."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{key_of(value)[:8]}..."
