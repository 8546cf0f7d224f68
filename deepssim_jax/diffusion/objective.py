"""What a denoiser is trained for.

Contract: `predict(x_t, times, condition)` is a network: float [n, ...] and int32 [n] to float
[n, ...]; x_0 is float [n, ...] of about unit variance.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from deepssim_jax.diffusion.schedule import Prediction, Schedule, look_up
from deepssim_jax.typing import Array

Predict = Callable[[Array, Array, Array | None], Array]


def weights(schedule: Schedule, times: Array, *, min_snr: float | None) -> Array:
    """The weight [n] of each image's squared error.

    With `min_snr` (5 in the paper) the weight of the error of x_0 is at most that (Hang et al., ICCV
    2023, eq. 8 and section 3.4): min(snr, g) / snr of noise, min(snr, g) / (snr + 1) of v.
    """
    if min_snr is None:
        return jnp.ones(times.shape, jnp.float32)
    snr = schedule.kept / (1 - schedule.kept)
    below = snr if schedule.prediction is Prediction.EPSILON else snr + 1
    return look_up(np.minimum(snr, min_snr) / below, times)


def loss(
    predict: Predict,
    x: Array,
    *,
    noise: Array,
    times: Array,
    condition: Array | None,
    schedule: Schedule,
    min_snr: float | None = None,
) -> Array:
    """Weighted mean squared error of each image, [n] (Ho et al., NeurIPS 2020, eq. 14).

    Args:
      predict: the network.
      x: clean latents or images [n, ...].
      noise: standard normal, as x.
      times: int32 [n].
      condition: what the network is conditioned on, or None.
      schedule: of the noise; it says what is predicted.
      min_snr: see `weights`.
    """
    said = predict(schedule.noisy(x, noise, times), times, condition)
    squared = (said - schedule.target(x, noise, times)) ** 2
    return squared.mean(tuple(range(1, x.ndim))) * weights(schedule, times, min_snr=min_snr)
