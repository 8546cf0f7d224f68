"""The ResNet is torchvision's: the same weights give the same outputs and gradients in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.methods.resnet import ResNet, ResNetSpec

SPEC = ResNetSpec(depths=(1, 2, 1), width=4, dim=6)


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> ResNet:
    """With statistics and scales that are no ones and zeros."""
    pytest.importorskip(
        "torch"
    )  # without which nothing is asked of it, and it takes seconds to make
    model = ResNet(SPEC, rngs=nnx.Rngs(0))
    state = nnx.state(model)
    flat = [
        (path, leaf + 0.1 * np.abs(numbers(leaf.shape, number)))
        for number, (path, leaf) in enumerate(nnx.to_flat_state(nnx.as_pure(state)))
    ]
    nnx.update(model, nnx.from_flat_state(flat))
    return model


def torch_outputs(model: ResNet, images: np.ndarray, *, train: bool):
    """The outputs by PyTorch's functions, and the kernel of the stem, which has a gradient."""
    torch = pytest.importorskip("torch")
    fun = torch.nn.functional

    def tensor(x: jax.Array):
        return torch.tensor(np.asarray(x))

    def conv(x, layer: nnx.Conv):
        kernel = tensor(layer.kernel[...]).permute(3, 2, 0, 1)
        return fun.conv2d(x, kernel, stride=layer.strides, padding=layer.kernel_size[0] // 2)

    def norm(x, layer: nnx.BatchNorm):
        values = [tensor(v[...]) for v in (layer.mean, layer.var, layer.scale, layer.bias)]
        return fun.batch_norm(x, *values, training=train, eps=1e-5)

    stem = tensor(model.stem.kernel[...]).permute(3, 2, 0, 1).requires_grad_()
    x = fun.conv2d(torch.tensor(images)[:, None], stem, stride=2, padding=3)
    x = fun.max_pool2d(fun.relu(norm(x, model.stem_norm)), 3, stride=2, padding=1)
    for block in model.blocks:
        y = x
        for number in range(3):
            y = norm(conv(y, block.convs[number]), block.norms[number])
            y = fun.relu(y) if number < 2 else y
        if block.shortcut is not None:
            x = norm(conv(x, block.shortcut), block.shortcut_norm)
        x = fun.relu(x + y)
    last = tensor(model.last.kernel[...]), tensor(model.last.bias[...])
    return x.mean((2, 3)) @ last[0] + last[1], stem


@pytest.mark.parametrize("train", [True, False])
def test_outputs_and_gradients_are_those_of_torch(model: ResNet, train: bool) -> None:
    images = numbers((3, 40, 36), 7)
    wanted, stem = torch_outputs(model, images, train=train)
    (wanted**2).sum().backward()
    graph, params, rest = nnx.split(nnx.view(model, use_running_average=not train), nnx.Param, ...)

    def square(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        found = nnx.merge(graph, params, rest, copy=True)(jnp.asarray(images))
        return (found**2).sum(), found

    gradient, found = jax.grad(square, has_aux=True)(params)
    np.testing.assert_allclose(found, wanted.detach(), rtol=1e-4, atol=1e-4)
    kernel = np.asarray(gradient["stem"]["kernel"][...]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(kernel, stem.grad, rtol=1e-3, atol=1e-3 * np.abs(kernel).max())


def test_fifty_layers() -> None:
    params = nnx.state(nnx.eval_shape(lambda: ResNet(ResNetSpec(), rngs=nnx.Rngs(0))), nnx.Param)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    # torchvision's resnet50 has 25,557,032: less its first kernel for colours, and its 1,000 classes.
    assert count == 25_557_032 - 2 * 49 * 64 - 2049 * 1000 + 2049 * 128
