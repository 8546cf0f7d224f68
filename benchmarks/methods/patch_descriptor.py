"""A learned descriptor of a keypoint: a small network on what RootSIFT pools.

Contract: a patch is float [n, 2, 16, 16], the gradient along and across the keypoint's orientation at the
places that RootSIFT reads (`features.descriptors`), of unit root mean square. The descriptor is float32
[n, d] of unit norm, of which a mirror image keeps the first `EVEN` numbers and negates the others, as
those of `features.basis` do: it is the network's answer to the patch, and to the mirrored patch, added
and subtracted. So it takes RootSIFT's place in the search byte for byte.

Loss: the hardest other keypoint of the batch in a triplet (Mishchuk et al., NeurIPS 2017, eq. 1 to 4).
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.features import descriptors
from deepssim_jax.features.basis import EVEN, ODD
from deepssim_jax.features.extract import POINTS, LocalFeatures, features_of, oriented
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.typing import Array

SIDE = descriptors.SAMPLES
_MARGIN = 1.0
_AT_ONCE = 4096


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("features", "patches"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class Described:
    """The points of n images, and what is around them: `patches` float16 [n, k, 2, 16, 16]."""

    features: LocalFeatures
    patches: Array

    @classmethod
    def of(cls, canvases: np.ndarray, content: np.ndarray) -> "Described":
        """Of canvases [n, s, s], one after the other; see `features.extract`."""
        return in_batches(_described, canvases, content, size=1)


@jax.jit
def _described(canvases: Array, content: Array) -> Described:
    field, found, angles = oriented(canvases, content, points=POINTS)
    gradient = descriptors.around(field, found, angles) * jnp.exp(-1j * angles)[..., None]
    patches = jnp.stack([gradient.real, gradient.imag], 2)
    size = jnp.sqrt((patches**2).mean((2, 3), keepdims=True))
    patches = (patches / jnp.maximum(size, 1e-9)).reshape(*angles.shape, 2, SIDE, SIDE)
    features = features_of(field, found, angles, side=canvases.shape[-1])
    return Described(features, patches.astype(jnp.float16))


class PatchNet(nnx.Module):
    """Three convolutions and a matrix; see the module."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        sizes = ((2, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 2))
        self.layers = nnx.List(
            [nnx.Conv(a, b, (3, 3), strides=stride, rngs=rngs) for a, b, stride in sizes]
        )
        self.last = nnx.Linear(2 * width * (SIDE // 4) ** 2, EVEN + ODD, rngs=rngs)

    def _plain(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.last(x.reshape(len(x), -1))

    def __call__(self, patches: Array) -> Array:
        x = jnp.moveaxis(patches.astype(jnp.float32), 1, -1)
        # A mirror turns the axis across the orientation, and what points along that axis.
        flipped = x[:, :, ::-1] * jnp.asarray([1.0, -1.0])[None, None, None]
        once, twice = self._plain(x), self._plain(flipped)
        rows = jnp.concatenate([(once + twice)[:, :EVEN], (once - twice)[:, EVEN:]], 1)
        return rows / (jnp.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)


def hardest_triplets(rows: Array) -> Array:
    """The loss of pairs [n, 2, d] of unit norm, each of another keypoint."""
    products = rows[:, 0] @ rows[:, 1].T
    away = jnp.sqrt(jnp.maximum(2 - 2 * products, 1e-6))
    right = jnp.diagonal(away)
    others = away + 10.0 * jnp.eye(len(away)) + 10.0 * (away < 8e-3)
    wrong = jnp.minimum(others.min(0), others.min(1))
    return jnp.maximum(_MARGIN + right - wrong, 0).mean()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "optimizer"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class PatchState:
    """Everything that a checkpoint keeps."""

    step: Array
    params: nnx.State
    optimizer: optax.OptState


@dataclasses.dataclass(frozen=True)
class PatchPairs:
    """Batches of pairs of patches [n, 2, 2, 16, 16], a pure function of (seed, step); the last tenth of
    `pairs` is for validation.
    """

    pairs: np.ndarray
    batch: int
    seed: int

    def __call__(self, step: int) -> np.ndarray:
        """The pairs of one step."""
        rng = np.random.default_rng([self.seed, step + 2**31])
        edge = len(self.pairs) * 9 // 10
        low, high = (0, edge) if step >= 0 else (edge, len(self.pairs))
        return self.pairs[low + rng.choice(high - low, self.batch, replace=high - low < self.batch)]

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the keypoints of seed {self.seed}, step {step}"


@dataclasses.dataclass(frozen=True)
class PatchDescriptor:
    """The job of `training.loop`."""

    width: int
    steps: int
    rate: float

    images_an_item = 2
    criterion = "validation_loss"

    @property
    def mark(self) -> str:
        """The architecture in words."""
        return f"a network of patches of {self.width} channels"

    def init(self, seed: int) -> PatchState:
        """A fresh state."""
        return self.start(PatchNet(self.width, rngs=nnx.Rngs(seed)))

    def start(self, model: PatchNet) -> PatchState:
        """The state of a run that begins with this network's weights."""
        params = nnx.as_pure(nnx.split(model, nnx.Param)[1])
        return PatchState(jnp.zeros((), jnp.int32), params, self._optimizer.init(params))

    @functools.cached_property
    def compiled_step(self) -> jax.stages.Wrapped:
        """The jitted step."""

        def step(state: PatchState, pairs: Array) -> tuple[PatchState, dict]:
            value, gradients = jax.value_and_grad(self._loss)(state.params, pairs)
            updates, optimizer = self._optimizer.update(gradients, state.optimizer, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            return PatchState(state.step + 1, params, optimizer), {"loss": value}

        return jax.jit(step, donate_argnums=0)

    def validate(self, state: PatchState, batches: Iterator[Array]) -> dict[str, float]:
        """The loss on keypoints of other images."""
        run, params = self._compiled_loss, state.params
        losses = [parallel.compiled(run, params, b)(params, b) for b in batches]
        return {"validation_loss": float(np.mean(losses))}

    def describe(self, state: PatchState, patches: np.ndarray) -> np.ndarray:
        """Float32 [..., d] of patches [..., 2, 16, 16]."""
        flat = patches.reshape(-1, *patches.shape[-3:])
        run = functools.partial(self._compiled_rows, state.params)
        return in_batches(run, flat, size=_AT_ONCE).reshape(*patches.shape[:-3], -1)

    @functools.cached_property
    def _compiled_loss(self) -> jax.stages.Wrapped:
        return jax.jit(self._loss)

    @functools.cached_property
    def _compiled_rows(self) -> jax.stages.Wrapped:
        return jax.jit(lambda params, patches: nnx.merge(self._graph, params)(patches))

    def _loss(self, params: Any, pairs: Array) -> Array:
        rows = nnx.merge(self._graph, params)(pairs.reshape(-1, *pairs.shape[2:]))
        return hardest_triplets(parallel.everywhere(rows).reshape(len(pairs), 2, -1))

    @functools.cached_property
    def _graph(self) -> nnx.GraphDef:
        model = nnx.eval_shape(lambda: PatchNet(self.width, rngs=nnx.Rngs(0)))
        return nnx.split(model, nnx.Param)[0]

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(self.rate, self.steps))
