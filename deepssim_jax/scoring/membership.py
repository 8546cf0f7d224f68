"""Was this image among those that one's own diffusion model was trained on?

Contract: latents float32 [n, ...] scaled as in training; `predict` is the network, as in
`diffusion.objective`. A score is higher for what looks more like a member. Members and held-out
images must come from the same people's pool and differ by training alone, or the figures say
how they differ otherwise.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from deepssim_jax.diffusion.objective import Predict
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.scoring.decide import Proportion, area_interval, clopper_pearson
from deepssim_jax.typing import Array

RATES = (0.01, 0.001)


class Attack(enum.StrEnum):
    """What gives a member away: a small loss (Yeom et al., CSF 2018), a small error of one step
    there and back (SecMI, Duan et al., ICML 2023), or noise that agrees with that at time 0 (PIA,
    Kong et al., ICLR 2024, eq. 9).
    """

    LOSS = "loss"
    SECMI = "secmi"
    PIA = "pia"


@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """Times in steps of training; the published ones.

    `draws` noises at each of `times` for the loss; SecMI goes up to `secmi_time` in steps of
    `secmi_step`; PIA looks at `pia_time` by the norm `pia_norm`.
    """

    times: tuple[int, ...] = (50, 150, 250, 350)
    draws: int = 4
    secmi_time: int = 100
    secmi_step: int = 10
    pia_time: int = 200
    pia_norm: float = 4.0


def scores(
    predict: Predict,
    x: Array,
    keys: Array,
    *,
    attack: Attack,
    schedule: Schedule,
    condition: Array | None = None,
    settings: AttackSettings = AttackSettings(),
) -> Array:
    """Higher for members, [n].

    Args:
      predict: the network.
      x: clean latents [n, ...].
      keys: typed keys [n], of the noise of `Attack.LOSS`; the others draw none.
      attack: which.
      schedule: the network's.
      condition: what it was conditioned on in training, or None.
      settings: times.
    """

    def noise_in(x_t: Array, time: int) -> Array:
        times = jnp.full(len(x), time)
        # The score is a small difference of what the network predicts; rounded products blur it.
        with jax.default_matmul_precision("highest"):
            return schedule.split(x_t, predict(x_t, times, condition), times)[1]

    if attack is Attack.LOSS:
        return -_loss(noise_in, x, keys, schedule, settings)
    if attack is Attack.SECMI:
        return -_secmi(noise_in, x, schedule, settings)
    at_start = noise_in(x, 0)
    times = jnp.full(len(x), settings.pia_time)
    there = noise_in(schedule.noisy(x, at_start, times), settings.pia_time)
    power = (jnp.abs(at_start - there) ** settings.pia_norm).sum(_rest(x))
    return -(power ** (1 / settings.pia_norm))


def _rest(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def _loss(noise_in, x: Array, keys: Array, schedule: Schedule, settings: AttackSettings) -> Array:
    total = jnp.zeros(len(x))
    for number, time in enumerate(settings.times):
        times = jnp.full(len(x), time)
        for draw in range(settings.draws):
            step = number * settings.draws + draw
            noise = jax.vmap(
                lambda k, s=step: jax.random.normal(jax.random.fold_in(k, s), x.shape[1:])
            )(keys)
            error = (noise_in(schedule.noisy(x, noise, times), time) - noise) ** 2
            total = total + error.mean(_rest(x))
    return total / (len(settings.times) * settings.draws)


def _secmi(noise_in, x: Array, schedule: Schedule, settings: AttackSettings) -> Array:
    """Duan et al., eq. 9: up by DDIM to the time, one step further, and back."""

    def moved(x_t: Array, here: int, there: int) -> Array:
        noise = noise_in(x_t, here)
        a, b = (float(schedule.kept[time]) for time in (here, there))
        clean = (x_t - np.float32(np.sqrt(1 - a)) * noise) / np.float32(np.sqrt(a))
        return np.float32(np.sqrt(b)) * clean + np.float32(np.sqrt(1 - b)) * noise

    step = settings.secmi_step
    for time in range(0, settings.secmi_time, step):
        x = moved(x, time, time + step)
    further = moved(x, settings.secmi_time, settings.secmi_time + step)
    back = moved(further, settings.secmi_time + step, settings.secmi_time)
    return ((back - x) ** 2).mean(_rest(x))


@dataclasses.dataclass(frozen=True)
class MembershipFigures:
    """How well members are distinguished from held-out images.

    `area` lies under the ROC curve, between `area_low` and `area_high`. `detected` has, for each
    false positive rate of `RATES`, the share of members found with its interval; `floor` is the
    smallest such rate that so many held-out images can show.
    """

    area: float
    area_low: float
    area_high: float
    detected: tuple[tuple[float, Proportion], ...]
    members: int
    held_out: int
    floor: float

    def measurable(self, rate: float) -> bool:
        """Whether there are held-out images enough for this false positive rate."""
        return rate >= self.floor - 1e-12


def figures(members: np.ndarray, held_out: np.ndarray, *, level: float = 0.95) -> MembershipFigures:
    """Figures of scores.

    The threshold for a false positive rate is the lowest at which at most that share of held-out
    images lies above it. Below `floor` none may: it is then the highest of their scores.

    Args:
      members: scores [m] of images trained on.
      held_out: scores [k] of images that were not.
      level: of the intervals (Clopper and Pearson; of the area, Newcombe).

    Raises:
      ValueError: one of the two is empty.
    """
    if not len(members) or not len(held_out):
        raise ValueError(
            f"{len(members)} members and {len(held_out)} held-out images: both are needed; train with "
            "--config.held_out"
        )
    area = stats.mannwhitneyu(members, held_out).statistic / (len(members) * len(held_out))
    falling = np.sort(held_out)[::-1]
    detected = []
    for rate in RATES:
        allowed = int(np.floor(rate * len(held_out) + 1e-9))
        found = int((members > falling[allowed]).sum()) if allowed < len(falling) else len(members)
        detected.append((rate, clopper_pearson(found, len(members), level=level)))
    bounds = area_interval(float(area), len(members), len(held_out), level=level)
    return MembershipFigures(
        float(area), *bounds, tuple(detected), len(members), len(held_out), 1 / len(held_out)
    )
