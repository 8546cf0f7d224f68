"""A backbone: stages one behind the other, each of which some head reads.

Contract: images or volumes float [n, *space, c] to the list of what every stage gives, fine to coarse.
"""

from collections.abc import Iterable

from flax import nnx

from deepssim_jax.typing import Array


class Stages(nnx.Module):
    """The stages; calling it gives the output of each."""

    def __init__(self, stages: Iterable[nnx.Module]):
        self.stages = nnx.List(stages)

    def __call__(self, x: Array) -> list[Array]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs
