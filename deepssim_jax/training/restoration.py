"""Training a network that restores images, small enough to be trained many times.

Contract: images are float32 [n, s, s] in [0, 1], all on the device at once. A network is a pure state
of arrays; the same images, settings and seed give the same one.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deepssim_jax.nn.restorer import Restorer, RestorerSpec
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.degradation import Task, degrade
from deepssim_jax.typing import Array, Images

_WAIT = 20
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class RestorationSettings:
    """One training: `batch` patches of side `patch` a step, Adam (Chen et al. have 96 channels,
    patches of 64, 1e-4).
    """

    channels: int = 16
    steps: int = 600
    batch: int = 8
    patch: int = 32
    learning_rate: float = 1e-3


@functools.cache
def _graph(channels: int) -> nnx.GraphDef:
    model = nnx.eval_shape(lambda: Restorer(RestorerSpec(channels), rngs=nnx.Rngs(0)))
    return nnx.split(model, nnx.Param)[0]


@functools.partial(jax.jit, static_argnames="channels")
def _drawn(key: Array, *, channels: int) -> nnx.State:
    model = Restorer(RestorerSpec(channels), rngs=nnx.Rngs(key))
    return nnx.as_pure(nnx.state(model, nnx.Param))


def train_restorer(
    images: Images,
    *,
    task: Task,
    settings: RestorationSettings = RestorationSettings(),
    seed: int = 0,
    on_step: Callable[[int], None] = lambda step: None,
) -> nnx.State:
    """Trains one network on random patches, degraded anew every time, by the mean squared error.

    Args:
      images: [n, s, s], s at least the patch.
      task: what is taken away.
      settings: the budget.
      seed: of the weights, the patches and the noise.
      on_step: called with the steps done.

    Returns:
      The weights.

    Raises:
      ValueError: images are smaller than the patch, or the patch than the network's view.
    """
    if images.shape[1] < settings.patch or settings.patch <= 20 or settings.patch % 4:
        raise ValueError(
            f"patch {settings.patch} must be a multiple of 4, more than 20 and at most the images' "
            f"side, {images.shape[1]}"
        )
    images = jnp.asarray(images, jnp.float32)
    key = jax.random.key(seed)
    params = _drawn(key, channels=settings.channels)
    state = (params, optax.adam(settings.learning_rate).init(params))
    for number in range(settings.steps):
        state = _step(state, images, key, number, task=task, settings=settings)
        if (number + 1) % _WAIT == 0 or number + 1 == settings.steps:
            jax.block_until_ready(state)  # what is said to be done is done
            on_step(number + 1)
    return state[0]


def restore(params: nnx.State, degraded: Images, *, channels: int) -> np.ndarray:
    """What a network makes of degraded images [n, s, s]."""
    run = functools.partial(_apply, params, channels=channels)
    return np.asarray(in_batches(run, degraded, size=_BATCH))


@functools.partial(jax.jit, static_argnames="channels")
def _apply(params: nnx.State, degraded: Array, *, channels: int) -> Array:
    with jax.default_matmul_precision("highest"):  # reported figures are of these images
        return nnx.merge(_graph(channels), params, copy=True)(degraded)


# One step a program: on a CPU, XLA computes convolutions inside of its loops several times slower.
@functools.partial(jax.jit, static_argnames=("task", "settings"), donate_argnums=0)
def _step(
    state: tuple,
    images: Array,
    key: Array,
    number: Array,
    *,
    task: Task,
    settings: RestorationSettings,
) -> tuple:
    params, moments = state
    which, where, noise = jax.random.split(jax.random.fold_in(key, number), 3)
    rows = jax.random.randint(which, (settings.batch,), 0, len(images))
    last = images.shape[1] - settings.patch + 1
    corners = jax.random.randint(where, (settings.batch, 2), 0, last)
    clean = jax.vmap(lambda row, at: jax.lax.dynamic_slice(images[row], at, (settings.patch,) * 2))(
        rows, corners
    )
    given = degrade(noise, clean, task=task)

    def loss(params: nnx.State) -> Array:
        return jnp.mean((_apply(params, given, channels=settings.channels) - clean) ** 2)

    change, moments = optax.adam(settings.learning_rate).update(
        jax.grad(loss)(params), moments, params
    )
    return optax.apply_updates(params, change), moments
