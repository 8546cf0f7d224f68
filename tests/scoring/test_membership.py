"""Membership scores against their closed forms, and figures against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.schedule import Prediction, Schedule
from deepssim_jax.scoring import membership
from deepssim_jax.scoring.membership import Attack, AttackSettings

SETTINGS = AttackSettings(times=(100, 300), draws=8, secmi_time=40, pia_time=300)


def gain(schedule: Schedule, time: int, deviation: float) -> float:
    """What the exact denoiser of N(0, deviation^2) multiplies x_t by to tell its noise."""
    a = schedule.kept[time]
    return np.sqrt(1 - a) / (a * deviation**2 + 1 - a)


def exact(schedule: Schedule, deviation: float):
    def predict(x_t, times, condition):
        del condition
        gains = jnp.asarray([gain(schedule, t, deviation) for t in range(schedule.steps)])
        noise = gains.astype(jnp.float32)[times][:, None, None] * x_t
        signal, spread = schedule.factors(times, x_t.ndim)
        return schedule.target((x_t - spread * noise) / signal, noise, times)

    return predict


def scored(attack: Attack, schedule: Schedule, x: np.ndarray) -> np.ndarray:
    keys = samplers.image_keys(jax.random.key(0), jnp.arange(len(x)))
    return np.asarray(
        membership.scores(
            exact(schedule, 0.5),
            jnp.asarray(x),
            keys,
            attack=attack,
            schedule=schedule,
            settings=SETTINGS,
        )
    )


@pytest.fixture
def x() -> np.ndarray:
    return 0.5 * np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("prediction", list(Prediction))
def test_pia_of_a_gaussian(prediction: Prediction, x: np.ndarray) -> None:
    schedule = Schedule(prediction=prediction)
    first = gain(schedule, 0, 0.5) * x
    a = schedule.kept[300]
    x_t = np.sqrt(a) * x + np.sqrt(1 - a) * first
    wanted = -((np.abs(first - gain(schedule, 300, 0.5) * x_t) ** 4).sum((1, 2)) ** 0.25)
    np.testing.assert_allclose(scored(Attack.PIA, schedule, x), wanted, rtol=1e-3)


def test_secmi_of_a_gaussian(x: np.ndarray) -> None:
    schedule = Schedule()

    def factor(here: int, there: int) -> float:
        """DDIM's step is a multiplication for a Gaussian."""
        a, b, g = schedule.kept[here], schedule.kept[there], gain(schedule, here, 0.5)
        return np.sqrt(b) * (1 - np.sqrt(1 - a) * g) / np.sqrt(a) + np.sqrt(1 - b) * g

    up = np.prod([factor(t, t + 10) for t in range(0, 40, 10)])
    error = (factor(40, 50) * factor(50, 40) - 1) * up * x
    wanted = -(error**2).mean((1, 2))
    np.testing.assert_allclose(scored(Attack.SECMI, schedule, x), wanted, rtol=2e-2)


def test_the_loss_of_a_gaussian(x: np.ndarray) -> None:
    """E (g x_t - noise)^2 = (g sqrt(1 - a) - 1)^2 + g^2 a x^2, here over 16 noises of 4 x 300."""
    x = np.repeat(x, 100, axis=2)
    wanted = 0.0
    for time in SETTINGS.times:
        a, g = Schedule().kept[time], gain(Schedule(), time, 0.5)
        wanted += (g * np.sqrt(1 - a) - 1) ** 2 + g**2 * a * (x**2).mean((1, 2))
    found = scored(Attack.LOSS, Schedule(), x)
    np.testing.assert_allclose(found, -wanted / len(SETTINGS.times), rtol=0.05)


def test_figures_are_counted() -> None:
    held = np.arange(1000.0)
    members = np.array([2000.0, 999.5, 998.5, 989.5, 988.5, -1.0])
    found = membership.figures(members, held)
    rates = dict(found.detected)
    assert rates[0.01].count == 4  # ten held-out images, 990 to 999, may lie above
    assert rates[0.001].count == 3
    assert rates[0.001].total == 6 and found.floor == 0.001
    low = stats.beta.ppf(0.025, 3, 4)
    assert rates[0.001].low == pytest.approx(low)
    pairs = (members[:, None] > held[None]).mean()
    assert found.area == pytest.approx(pairs)


def test_chance_is_a_half_and_few_held_out_images_are_strict() -> None:
    rng = np.random.default_rng(0)
    found = membership.figures(rng.standard_normal(2000), rng.standard_normal(2000))
    assert found.area == pytest.approx(0.5, abs=0.03)
    assert dict(found.detected)[0.01].value == pytest.approx(0.01, abs=0.01)
    few = membership.figures(np.array([1.0, 3.0]), np.array([2.0, 0.0]))
    assert [p.count for _, p in few.detected] == [1, 1] and few.floor == 0.5
    with pytest.raises(ValueError, match="2 members and 0 held-out"):
        membership.figures(np.zeros(2), np.zeros(0))


def test_a_memorizing_network_gives_itself_away() -> None:
    """It knows its members: noise minus anything else is told as if the nearest member were it."""
    schedule = Schedule()
    rng = np.random.default_rng(0)
    known = jnp.asarray(rng.standard_normal((6, 4, 3)), jnp.float32)
    others = jnp.asarray(rng.standard_normal((6, 4, 3)), jnp.float32)

    def predict(x_t, times, condition):
        del condition
        signal, spread = schedule.factors(times, x_t.ndim)
        away = ((x_t / signal)[:, None] - known[None]) ** 2
        nearest = known[jnp.argmin(away.sum((2, 3)), axis=1)]
        return (x_t - signal * nearest) / spread

    for attack in Attack:
        both = [
            np.asarray(
                membership.scores(
                    predict,
                    x,
                    samplers.image_keys(jax.random.key(0), jnp.arange(6)),
                    attack=attack,
                    schedule=schedule,
                    settings=SETTINGS,
                )
            )
            for x in (known, others)
        ]
        if attack is not Attack.SECMI:  # both ways lead to a member, whoever it is
            assert membership.figures(*both).area == 1.0, attack
