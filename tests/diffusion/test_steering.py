"""No drawn latent is more like a training latent than two people's are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.samplers import Sampler
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.diffusion.steering import Steering, steer

SHAPE = (4, 3, 2)


def latents(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1.0, (n, *SHAPE)).astype(np.float32)


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By NumPy's own routine: [len(a), len(b)]."""
    return np.corrcoef(a.reshape(len(a), -1), b.reshape(len(b), -1))[: len(a), len(a) :]


def test_the_limit_is_what_strangers_have_in_common() -> None:
    """Three people, the first with two scans that are nearly one image."""
    people = latents(0, 4)
    people[1] = people[0] + 0.01 * latents(1, 1)[0]
    found = Steering.of(people, np.array([7, 7, 3, 5]))
    between = correlations(people, people)
    others = ([2, 3], [2, 3], [0, 1, 3], [0, 1, 2])
    apart = [between[row, places].max() for row, places in enumerate(others)]
    assert found.limit == pytest.approx(np.quantile(apart, 0.99), abs=1e-5)
    assert found.limit < 0.9 < between[0, 1]


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 1, 2]], ids=["one person", "a blank image"])
def test_steering_that_cannot_know_its_limit_says_so(groups: list[int]) -> None:
    people = latents(0, 3)
    people[2] = 0.5 if groups[2] else people[2]
    with pytest.raises(ValueError, match="without --away"):
        Steering.of(people, np.array(groups))


def test_what_is_too_close_moves_straight_away_to_the_limit() -> None:
    training = latents(0, 5)
    known = Steering.of(training, np.arange(5))
    close = training[:3] + 0.2 * latents(1, 3)
    far = latents(2, 4)
    far = far[correlations(far, training).max(1) < known.limit]
    assert len(far)
    moved = np.asarray(steer(jnp.asarray(close), known.directions, np.float32(known.limit)))
    np.testing.assert_allclose(np.diag(correlations(moved, training)), known.limit, atol=1e-5)
    axes = (1, 2, 3)
    np.testing.assert_allclose(moved.mean(axes), close.mean(axes), atol=1e-5)
    np.testing.assert_allclose(moved.std(axes), close.std(axes), atol=1e-5)
    # In the plane of the image and its nearest training image: no third direction is brought in.
    for now, before, nearest in zip(moved, close, training):
        basis = np.stack([np.ones(now.size), before.ravel(), nearest.ravel()], 1)
        assert np.linalg.lstsq(basis, now.ravel())[1] == pytest.approx(0.0, abs=1e-6)
    kept = steer(jnp.asarray(far), known.directions, np.float32(known.limit))
    np.testing.assert_array_equal(kept, far)


@pytest.mark.parametrize("sampler", list(Sampler))
def test_a_model_that_knows_one_image_draws_another_one(sampler: Sampler) -> None:
    """The network answers as if every image were training image 2, with a little noise in it."""
    schedule, training = Schedule(), latents(0, 5)
    known = Steering.of(training, np.arange(5))
    answer = jnp.asarray(training[2] + 0.05 * latents(1, 1)[0])

    def predict(x_t, times, condition):
        del condition
        signal, deviation = schedule.factors(times, x_t.ndim)
        return schedule.target(answer[None], (x_t - signal * answer[None]) / deviation, times)

    def draw(**options) -> np.ndarray:
        keys = samplers.image_keys(jax.random.key(0), jnp.arange(3))
        return np.asarray(
            samplers.sample(
                predict, keys, shape=SHAPE, schedule=schedule, sampler=sampler, steps=8, **options
            )
        )

    limit = np.float32(known.limit)
    open_ones = draw()
    steered = draw(correct=lambda clean: steer(clean, known.directions, limit))
    assert correlations(open_ones, training)[:, 2].min() > 0.99
    assert correlations(steered, training).max() <= known.limit + 1e-4
    assert steered.std() == pytest.approx(open_ones.std(), rel=1e-3)
