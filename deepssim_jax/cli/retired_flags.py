"""Flags that a command no longer has: for one release they are taken with a warning, and change nothing."""

from collections.abc import Sequence

from deepssim_jax.cli import console

_MOVED = "that method has moved to benchmarks/generic_embeddings.py; the run continues without it"
# By command, with what to do instead. An entry goes with the release after the one that retired the flag.
RETIRED = {"stress": {"efficientnet": _MOVED, "sscd": _MOVED}}


def without(command: str, args: Sequence[str]) -> list[str]:
    """The arguments of a command without its retired flags and their values; warns of each."""
    kept: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, equals, _ = arg.lstrip("-").partition("=")
        instead = RETIRED.get(command, {}).get(name) if arg.startswith("-") else None
        if instead is None:
            kept.append(arg)
            continue
        if not equals:
            next(rest, None)  # its value is an argument of its own
        console.error(f"deepssim {command}: --{name} is retired: {instead}")
    return kept
