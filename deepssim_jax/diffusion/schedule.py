"""How much of an image and how much noise there is at each step of diffusion.

Contract: x is float [n, ...]; times are int32 [n] in [0, steps). At time t an image is
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise with a_t = prod(1 - beta) (Ho et al., NeurIPS 2020, eq. 4).
Tables are made in float64 on the host.
"""

import dataclasses
import enum
import functools

import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array


class Prediction(enum.StrEnum):
    """What the network says: the noise, or v = sqrt(a) noise - sqrt(1 - a) x_0 (Salimans and Ho,
    ICLR 2022, section 4).
    """

    EPSILON = "epsilon"
    V = "v"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Scaled-linear: the root of beta grows linearly from that of `first` to that of `last`."""

    steps: int = 1000
    first: float = 0.0015
    last: float = 0.0205
    prediction: Prediction = Prediction.EPSILON

    @functools.cached_property
    def kept(self) -> np.ndarray:
        """a_t, float64 [steps]: the share of the image's variance that is left."""
        beta = np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2
        return np.cumprod(1 - beta)

    def factors(self, times: Array, ndim: int) -> tuple[Array, Array]:
        """sqrt(a_t) and sqrt(1 - a_t), float32 [n, 1, ...] for arrays of `ndim` axes."""
        shape = (-1, *(1,) * (ndim - 1))
        signal = look_up(np.sqrt(self.kept), times)
        noise = look_up(np.sqrt(1 - self.kept), times)
        return signal.reshape(shape), noise.reshape(shape)

    def noisy(self, x: Array, noise: Array, times: Array) -> Array:
        """x_t of x_0."""
        signal, deviation = self.factors(times, x.ndim)
        return signal * x + deviation * noise

    def target(self, x: Array, noise: Array, times: Array) -> Array:
        """What the network is to say of x_t."""
        if self.prediction is Prediction.EPSILON:
            return noise
        signal, deviation = self.factors(times, x.ndim)
        return signal * noise - deviation * x

    def split(self, x_t: Array, said: Array, times: Array) -> tuple[Array, Array]:
        """x_0 and the noise, by what the network said of x_t."""
        signal, deviation = self.factors(times, x_t.ndim)
        if self.prediction is Prediction.EPSILON:
            return (x_t - deviation * said) / signal, said
        return signal * x_t - deviation * said, deviation * x_t + signal * said


def look_up(table: np.ndarray, times: Array) -> Array:
    """float32 [n] of a table [steps]: a masked sum, which unlike an index takes times that are
    spread over devices.
    """
    places = times[:, None] == jnp.arange(len(table))[None]
    return jnp.where(places, jnp.asarray(table, jnp.float32)[None], 0.0).sum(-1)
