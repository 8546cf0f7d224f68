"""Schedules, objectives and samplers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.diffusion import objective, samplers
from deepssim_jax.diffusion.samplers import Sampler
from deepssim_jax.diffusion.schedule import Prediction, Schedule

SHAPE = (4, 3, 2)
BOTH = [Schedule(prediction=p) for p in Prediction]


def drawn(seed: int, n: int = 6) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (n, *SHAPE))


def test_the_schedule_is_the_published_one() -> None:
    kept = Schedule().kept
    beta = 1 - kept / np.append(1.0, kept[:-1])
    assert beta[0] == pytest.approx(0.0015)
    assert beta[-1] == pytest.approx(0.0205)
    np.testing.assert_allclose(np.diff(np.sqrt(beta)), np.diff(np.sqrt(beta))[0], rtol=1e-6)
    assert (np.diff(kept) < 0).all() and kept[-1] < 1e-3


@pytest.mark.parametrize("schedule", BOTH, ids=lambda s: s.prediction.value)
def test_noise_and_image_come_apart_again(schedule: Schedule) -> None:
    x, noise, times = drawn(0), drawn(1), jnp.array([0, 1, 250, 500, 900, 999])
    x_t = schedule.noisy(x, noise, times)
    clean, found = schedule.split(x_t, schedule.target(x, noise, times), times)
    signal, _ = schedule.factors(times, x.ndim)
    np.testing.assert_allclose(clean * signal, x * signal, atol=1e-5)
    np.testing.assert_allclose(found, noise, atol=1e-5)


def test_noisy_images_keep_unit_variance() -> None:
    x, noise = drawn(0, 4000), drawn(1, 4000)
    for time in (0, 400, 999):
        x_t = Schedule().noisy(x, noise, jnp.full(4000, time))
        assert float(x_t.var()) == pytest.approx(1.0, abs=0.02)


def test_min_snr_weighs_the_error_of_the_clean_image_alike() -> None:
    """Both predictions weigh the error of x_0 by min(snr, 5)."""
    times = jnp.array([0, 100, 400, 800])
    snr = (Schedule().kept / (1 - Schedule().kept))[np.asarray(times)]
    noise_weight, v_weight = (objective.weights(s, times, min_snr=5.0) for s in BOTH)
    np.testing.assert_allclose(noise_weight * snr, np.minimum(snr, 5), rtol=1e-5)
    np.testing.assert_allclose(v_weight * (snr + 1), np.minimum(snr, 5), rtol=1e-5)
    np.testing.assert_array_equal(objective.weights(BOTH[0], times, min_snr=None), 1.0)


def test_the_loss_of_an_oracle_is_nothing_and_of_silence_is_one() -> None:
    x, noise = drawn(0, 500), drawn(1, 500)
    times = jax.random.randint(jax.random.key(2), (500,), 0, 1000)
    common = {"noise": noise, "times": times, "condition": None, "schedule": Schedule()}
    np.testing.assert_allclose(objective.loss(lambda *_: noise, x, **common), 0.0)
    silent = objective.loss(lambda x, *_: jnp.zeros_like(x), x, **common)
    assert float(silent.mean()) == pytest.approx(1.0, abs=0.05)


def oracle(x: jax.Array, schedule: Schedule):
    """Knows x_0 and so what the network should say of any x_t."""

    def predict(x_t, times, condition):
        del condition
        signal, deviation = schedule.factors(times, x.ndim)
        noise = (x_t - signal * x) / deviation
        return schedule.target(x, noise, times)

    return predict


@pytest.mark.parametrize("sampler", list(Sampler))
@pytest.mark.parametrize("schedule", BOTH, ids=lambda s: s.prediction.value)
def test_with_an_oracle_every_sampler_recovers_the_image(schedule, sampler) -> None:
    x = drawn(0)
    keys = samplers.image_keys(jax.random.key(5), jnp.arange(len(x)))
    for steps in (1, 2, 7, 50):
        found = samplers.sample(
            oracle(x, schedule), keys, shape=SHAPE, schedule=schedule, sampler=sampler, steps=steps
        )
        np.testing.assert_allclose(found, x, atol=2e-4)


def gaussian(schedule: Schedule, deviation: float, mean: float):
    """The exact denoiser of images whose pixels are N(mean, deviation^2)."""

    def predict(x_t, times, condition):
        del condition
        signal, noise = schedule.factors(times, x_t.ndim)
        shift = x_t - signal * mean
        clean = mean + signal * deviation**2 * shift / (signal**2 * deviation**2 + noise**2)
        return schedule.target(clean, (x_t - signal * clean) / noise, times)

    return predict


@pytest.mark.parametrize(
    ("sampler", "steps"),
    # Of first order they need every step for what the second-order one reaches in a tenth of them.
    [(Sampler.DDIM, 1000), (Sampler.ANCESTRAL, 1000), (Sampler.DPM, 100)],
)
def test_samples_of_a_gaussian_are_gaussian(sampler: Sampler, steps: int) -> None:
    schedule, keys = Schedule(), samplers.image_keys(jax.random.key(0), jnp.arange(600))
    found = samplers.sample(
        gaussian(schedule, 0.5, 2.0),
        keys,
        shape=SHAPE,
        schedule=schedule,
        sampler=sampler,
        steps=steps,
    )
    assert float(found.mean()) == pytest.approx(2.0, abs=0.03)
    assert float(found.std()) == pytest.approx(0.5, abs=0.03)


def test_ddim_with_all_steps_is_its_closed_form() -> None:
    """For a Gaussian, DDIM's path has one: x_t - mean shrinks with the deviation at t."""
    schedule, keys = Schedule(), samplers.image_keys(jax.random.key(3), jnp.arange(8))
    found = samplers.sample(
        gaussian(schedule, 0.5, 0.0), keys, shape=SHAPE, schedule=schedule, steps=1000
    )
    start = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 0), SHAPE))(keys)
    at_start = np.sqrt(schedule.kept[-1] * 0.25 + 1 - schedule.kept[-1])
    np.testing.assert_allclose(found, start * 0.5 / at_start, rtol=0.02, atol=2e-3)


def test_ddim_is_written_out() -> None:
    """Three steps by hand, in float64, by equation 12."""
    schedule = Schedule()
    keys = samplers.image_keys(jax.random.key(1), jnp.arange(2))
    predict = gaussian(schedule, 0.3, 1.0)
    found = samplers.sample(predict, keys, shape=SHAPE, schedule=schedule, steps=3)
    x = np.stack([jax.random.normal(jax.random.fold_in(k, 0), SHAPE) for k in keys])
    times = [999, 666, 332]
    assert list(samplers.times_of(schedule, 3)) == times
    for time, after in zip(times, [666, 332, None], strict=True):
        noise = np.asarray(predict(jnp.asarray(x, jnp.float32), jnp.full(2, time), None))
        a, b = schedule.kept[time], 1.0 if after is None else schedule.kept[after]
        x = np.sqrt(b) * (x - np.sqrt(1 - a) * noise) / np.sqrt(a) + np.sqrt(1 - b) * noise
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch() -> None:
    def draw(indices: list[int]) -> jax.Array:
        keys = samplers.image_keys(jax.random.key(7), jnp.array(indices))
        predict = gaussian(Schedule(), 0.5, 0.0)
        return samplers.sample(
            predict, keys, shape=SHAPE, schedule=Schedule(), sampler=Sampler.ANCESTRAL, steps=5
        )

    together, alone = draw([4, 9, 2]), draw([9])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    assert float(jnp.abs(together[0] - together[1]).max()) > 0.1


def test_guidance_goes_beyond_the_condition() -> None:
    """The network says its condition; at weight w it says w times it, as nothing says 0."""
    schedule, keys = (
        Schedule(prediction=Prediction.V),
        samplers.image_keys(jax.random.key(0), jnp.arange(3)),
    )
    condition = jnp.array([0.0, 1.0, 2.0])

    def predict(x_t, times, condition):
        signal, deviation = schedule.factors(times, x_t.ndim)
        clean = jnp.broadcast_to(condition[:, None, None, None], x_t.shape)
        return (signal * x_t - clean) / deviation

    for weight in (1.0, 3.0):
        found = samplers.sample(
            samplers.guided(predict, condition, guidance=weight),
            keys,
            shape=SHAPE,
            schedule=schedule,
            steps=4,
        )
        expected = jnp.broadcast_to(weight * condition[:, None, None, None], found.shape)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_outside_of_training_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps {steps} must lie in \[1, 1000\]"):
        samplers.times_of(Schedule(), steps)
