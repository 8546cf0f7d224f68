"""Half precision: which trainings compute in it, and how their arrays come to it."""

from typing import Any

import jax
import jax.numpy as jnp


def computes_in_half(choice: str) -> bool:
    """Whether to compute in bfloat16: "yes", "no", or "auto" for accelerators only.

    Raises:
      ValueError: for anything else.
    """
    if choice not in ("auto", "yes", "no"):
        raise ValueError(f"half {choice!r} must be auto, yes or no")
    return choice == "yes" or (choice == "auto" and jax.default_backend() != "cpu")


def in_bfloat16(tree: Any) -> Any:
    """Every array of a tree as bfloat16."""
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
