"""RED-CNN against the same layers in SciPy, written out."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import signal

from deepssim_jax.nn.restorer import Restorer, RestorerSpec


def test_equals_the_layers_in_scipy() -> None:
    model = Restorer(RestorerSpec(channels=3), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    for layer in (*model.convs, *model.deconvs):
        layer.bias.set_value(0.1 * rng.standard_normal(layer.bias.shape).astype(np.float32))
    image = rng.random((26, 23)).astype(np.float32)

    def convolved(x: np.ndarray, layer: nnx.Conv) -> np.ndarray:
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
        out = [
            sum(signal.correlate2d(x[i], kernel[:, :, i, o], "valid") for i in range(len(x)))
            for o in range(kernel.shape[3])
        ]
        return np.stack(out) + bias[:, None, None]

    def spread(x: np.ndarray, layer: nnx.ConvTranspose) -> np.ndarray:
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)  # [5, 5, out, in]
        out = [
            sum(signal.convolve2d(x[i], kernel[:, :, o, i], "full") for i in range(len(x)))
            for o in range(kernel.shape[2])
        ]
        return np.stack(out) + bias[:, None, None]

    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    c, d = model.convs, model.deconvs
    first = image[None]
    second = relu(convolved(relu(convolved(first, c[0])), c[1]))
    third = relu(convolved(relu(convolved(second, c[2])), c[3]))
    x = relu(spread(relu(convolved(third, c[4])), d[0]) + third)
    x = relu(spread(relu(spread(x, d[1])), d[2]) + second)
    x = relu(spread(relu(spread(x, d[3])), d[4]) + first)
    found = np.asarray(jax.jit(model)(image[None]))
    assert found.shape == (1, 26, 23)
    np.testing.assert_allclose(found[0], x[0], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 96])
def test_the_published_width_has_the_published_size(channels: int) -> None:
    model = Restorer(RestorerSpec(channels), rngs=nnx.Rngs(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    inner = 8 * (25 * channels**2 + channels)
    assert count == inner + 25 * channels + channels + 25 * channels + 1
