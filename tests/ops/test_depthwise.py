"""Both implementations, values and gradients, against SciPy and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops.depthwise import depthwise_conv


def inputs(size: int = 7) -> tuple[jnp.ndarray, jnp.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 11, 3)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.standard_normal((size, size, 3)), jnp.float32)


@pytest.mark.parametrize("implementation", ["taps", "xla", None])
@pytest.mark.parametrize("size", [3, 7])
def test_equals_scipy(implementation: str | None, size: int) -> None:
    x, kernel = inputs(size)
    found = depthwise_conv(x, kernel, implementation=implementation)
    for n in range(2):
        for c in range(3):
            expected = ndimage.correlate(
                np.asarray(x[n, ..., c]), np.asarray(kernel[..., c]), mode="constant"
            )
            np.testing.assert_allclose(found[n, ..., c], expected, atol=1e-4)


@pytest.mark.parametrize("implementation", ["taps", "xla"])
def test_volumes_equal_scipy(implementation: str) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 7, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 3)), jnp.float32)
    found = depthwise_conv(x, kernel, implementation=implementation)
    for n in range(2):
        for c in range(3):
            planes = (np.asarray(part) for part in (x[n, ..., c], kernel[..., c]))
            expected = ndimage.correlate(*planes, mode="constant")
            np.testing.assert_allclose(found[n, ..., c], expected, atol=1e-4)


@pytest.mark.parametrize("space", [(9, 11), (6, 7, 5)])
def test_gradients_agree(space: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *space, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3,) * len(space) + (3,)), jnp.float32)
    slopes = [
        jax.jit(jax.grad(lambda *given, run=run: jnp.sin(run(*given)).sum(), (0, 1)))(x, kernel)
        for run in (functools.partial(depthwise_conv, implementation=i) for i in ("taps", "xla"))
    ]
    for ours, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("space", [(9, 11), (8, 5), (1, 2), (6, 7, 5)])
def test_strides_equal_xla(space: tuple[int, ...], size: int) -> None:
    """Values and gradients; where windows lie is TensorFlow's, held against it through EfficientNet."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *space, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size,) * len(space) + (3,)), jnp.float32)

    def result(implementation: str) -> tuple[jnp.ndarray, tuple[jnp.ndarray, jnp.ndarray]]:
        def run(x: jnp.ndarray, k: jnp.ndarray) -> jnp.ndarray:
            return depthwise_conv(x, k, stride=2, implementation=implementation)

        slopes = jax.grad(lambda *given: jnp.sin(run(*given)).sum(), (0, 1))
        return jax.jit(lambda *given: (run(*given), slopes(*given)))(x, kernel)

    (ours, slopes), (theirs, expected) = result("taps"), result("xla")
    assert ours.shape == (2, *(-(-side // 2) for side in space), 3)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for slope, wanted in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(slope, wanted, atol=2e-4)


def test_refuses_other_channels() -> None:
    x, kernel = inputs()
    with pytest.raises(ValueError, match=r"\(7, 7, 2\)"):
        depthwise_conv(x, kernel[..., :2])
