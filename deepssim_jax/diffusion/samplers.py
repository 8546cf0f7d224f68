"""From noise to images in few steps, as one scan.

Contract: every sampler here is a table of numbers. Its step is
x <- keep x + clean x_0 + before x_0' + fresh noise, where x_0 is what the network's answer says the
clean image is, and x_0' what it said a step earlier. The last step gives x_0. Noise belongs to the
image and the step, not to the batch: `keys` holds one key an image.
"""

import dataclasses
import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.diffusion.objective import Predict
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.typing import Array


class Sampler(enum.StrEnum):
    """DDIM without noise (Song et al., ICLR 2021), its ancestral form with the noise of the
    posterior (Ho et al., NeurIPS 2020), and DPM-Solver++(2M) (Lu et al., arXiv 2211.01095).
    """

    DDIM = "ddim"
    ANCESTRAL = "ancestral"
    DPM = "dpm"


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers of each step, [steps] each, in the order they are taken."""

    times: np.ndarray
    keep: np.ndarray
    clean: np.ndarray
    before: np.ndarray
    fresh: np.ndarray


def times_of(schedule: Schedule, steps: int) -> np.ndarray:
    """Falling int32 [steps], evenly spaced, the first one the noisiest there is (Lin et al., WACV
    2024, section 3.3): a start at less noise would not be what pure noise is.
    """
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"steps {steps} must lie in [1, {schedule.steps}], those of training")
    spaced = np.round(schedule.steps - np.arange(steps) * schedule.steps / steps)
    return spaced.astype(np.int32) - 1


def table(schedule: Schedule, *, sampler: Sampler, steps: int) -> Table:
    """The numbers of a sampler.

    Raises:
      ValueError: there are more steps than in training, or none.
    """
    times = times_of(schedule, steps)
    kept = schedule.kept[times]
    following = np.append(kept[1:], 1.0)
    if sampler is Sampler.DPM:
        return Table(times, *_dpm(kept, following), np.zeros(steps))
    # Song et al., eq. 12 and 16; the noise is none for DDIM, that of the posterior otherwise.
    noise = np.zeros(steps)
    if sampler is Sampler.ANCESTRAL:
        noise = np.sqrt((1 - following) / (1 - kept) * (1 - kept / following))
    direction = np.sqrt(np.maximum(1 - following - noise**2, 0.0)) / np.sqrt(1 - kept)
    clean = np.sqrt(following) - direction * np.sqrt(kept)
    return Table(times, direction, clean, np.zeros(steps), noise)


def _dpm(kept: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lu et al., algorithm 2; the first and the last step are of first order."""
    steps = len(kept)
    half = np.zeros(steps)
    with np.errstate(divide="ignore"):
        lam = 0.5 * (np.log(kept) - np.log1p(-kept))
        target = 0.5 * (np.log(following) - np.log1p(-following))
    size = target - lam
    if steps > 2:
        half[1:-1] = 0.5 * size[1:-1] / size[:-2]
    gain = -np.sqrt(following) * np.expm1(-size)
    return np.sqrt((1 - following) / (1 - kept)), gain * (1 + half), -gain * half


def guided(predict: Predict, condition: Array | None, *, guidance: float = 1.0) -> Predict:
    """The network with a condition of its own, and called a second time without it where that differs.

    Args:
      predict: the network.
      condition: [n, ...] what it is conditioned on, or None; zeros are "nothing is known".
      guidance: how far to go beyond the answer without the condition (Ho and Salimans, arXiv
        2207.12598, eq. 6, with w + 1 as `guidance`); 1 is the condition alone.
    """

    def answer(x: Array, times: Array, _: Array | None) -> Array:
        found = predict(x, times, condition)
        if condition is None or guidance == 1.0:
            return found
        without = predict(x, times, jnp.zeros_like(condition))
        return without + guidance * (found - without)

    return answer


def sample(
    predict: Predict,
    keys: Array,
    *,
    shape: tuple[int, ...],
    schedule: Schedule,
    sampler: Sampler = Sampler.DDIM,
    steps: int = 50,
    correct: Callable[[Array], Array] = lambda clean: clean,
) -> Array:
    """Draws one image a key.

    Args:
      predict: the network; `guided` where it is conditioned on something.
      keys: typed keys [n].
      shape: of one image.
      schedule: the one the network was trained with.
      sampler: how.
      steps: calls of the network.
      correct: what is made of every estimate of the clean images [n, *shape] before it is used.

    Returns:
      float32 [n, *shape].
    """
    plan = table(schedule, sampler=sampler, steps=steps)
    numbers = [plan.keep, plan.clean, plan.before, plan.fresh]
    rows = jnp.asarray(np.stack(numbers, 1), jnp.float32)

    def normal(step: Array) -> Array:
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape))(keys)

    def step(carry: tuple[Array, Array], now: tuple[Array, Array, Array]):
        x, before = carry
        number, time, row = now
        times = jnp.broadcast_to(time, keys.shape)
        clean = correct(schedule.split(x, predict(x, times, None), times)[0])
        x = row[0] * x + row[1] * clean + row[2] * before
        if sampler is Sampler.ANCESTRAL:
            x = x + row[3] * normal(number)
        return (x, clean), None

    start = normal(jnp.int32(0))
    order = (jnp.arange(1, steps + 1), jnp.asarray(plan.times), rows)
    (x, _), _ = jax.lax.scan(step, (start, jnp.zeros_like(start)), order)
    return x


def image_keys(key: Array, indices: Array) -> Array:
    """The key of each image [n]: it depends on the key of all and the image's own number alone."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
