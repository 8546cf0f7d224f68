"""Our autoencoder and U-Net are MONAI's: the same weights give the same values, layer by layer."""

import importlib.util

import jax
import numpy as np
import pytest
from flax import nnx

from deepssim_jax.interop import monai_networks
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import Autoencoder, AutoencoderSpec
from deepssim_jax.nn.network_file import Spec
from deepssim_jax.nn.unet import UNet, UNetSpec, time_features

AUTOENCODER = AutoencoderSpec(channels=(16, 32, 32), groups=8)
PLAIN = UNetSpec(channels=(16, 32, 48), heads=(0, 32, 24), groups=8)
CONDITIONED = UNetSpec(channels=(16, 32, 48), heads=(0, 16, 48), groups=8, context=6)


def weights(spec: Spec) -> nnx.State:
    """Random everywhere, so that no layer is silent as freshly made ones are."""
    rng = np.random.default_rng(0)

    def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        return (values + name.endswith("scale")).astype(np.float32)

    shapes = network_file.shapes(spec)
    tensors = {name: drawn(name, shape) for name, shape in shapes.items()}
    return network_file.from_tensors(spec, tensors, what="drawn")


@pytest.mark.parametrize("spec", [AUTOENCODER, PLAIN, CONDITIONED])
def test_there_and_back_is_the_same(spec: Spec) -> None:
    state = weights(spec)
    back = monai_networks.from_monai(spec, monai_networks.to_monai(spec, state))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_is_said() -> None:
    theirs = monai_networks.to_monai(PLAIN, weights(PLAIN))
    theirs["surplus"] = theirs.pop("conv_in.conv.bias")
    with pytest.raises(ValueError, match="conv_in.conv.bias: missing.*surplus: unknown"):
        monai_networks.from_monai(PLAIN, theirs)


def merged(spec: Spec, state: nnx.State):
    return nnx.merge(network_file.blueprint(spec)[0], state, copy=True)


def close(ours, theirs) -> None:
    """To 1e-4 of the largest value."""
    theirs = theirs.detach().numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-4 * np.abs(theirs).max())


def twin_of(spec: Spec):
    """MONAI's network of a specification, at rest."""
    from benchmarks.cases.monai_twin import twin_of as made

    return made(spec).eval()


needs_monai = pytest.mark.skipif(
    importlib.util.find_spec("monai") is None or importlib.util.find_spec("torch") is None,
    reason="MONAI and PyTorch are not installed (the bench extra)",
)


@needs_monai
@pytest.mark.filterwarnings("ignore")
def test_the_autoencoder_is_monais_layer_by_layer() -> None:
    import torch

    twin = twin_of(AUTOENCODER)
    state = weights(AUTOENCODER)
    theirs = monai_networks.to_monai(AUTOENCODER, state)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in theirs.items()}, strict=True)
    model: Autoencoder = merged(AUTOENCODER, state)
    images = np.random.default_rng(1).uniform(size=(2, 24, 16)).astype(np.float32)

    @jax.jit
    def layers(images: jax.Array) -> list[jax.Array]:
        x, out = images[..., None], []
        for block in model.encoder.blocks:
            out.append(x := block(x))
        mean, deviation = model.encode(images)
        out += [mean, deviation, x := model.post_quant_conv(mean)]
        for block in model.decoder.blocks:
            out.append(x := block(x))
        return [*out, model.decode(mean, size=(24, 16))]

    y = torch.from_numpy(images[:, None])
    theirs = []
    for block in twin.encoder.blocks:
        theirs.append(y := block(y))
    mean, deviation = twin.encode(torch.from_numpy(images[:, None]))
    theirs += [mean, deviation, y := twin.post_quant_conv(mean)]
    for block in twin.decoder.blocks:
        theirs.append(y := block(y))
    for ours, other in zip(layers(images), [*theirs, twin.decode(mean)[:, 0]], strict=True):
        close(ours, other)


@needs_monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [PLAIN, CONDITIONED], ids=["plain", "conditioned"])
def test_the_unet_is_monais_layer_by_layer(spec: UNetSpec) -> None:
    import torch

    twin = twin_of(spec)
    state = weights(spec)
    theirs = monai_networks.to_monai(spec, state)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in theirs.items()}, strict=True)
    model: UNet = merged(spec, state)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 12, 8, 3)).astype(np.float32)
    times = np.array([3, 870])
    context = None if spec.context is None else rng.standard_normal((2, 4, spec.context))
    context = None if context is None else context.astype(np.float32)
    inside = ["conv_in", "down_blocks.0.resnets.0.norm1", "down_blocks.0.resnets.0"]
    inside += ["down_blocks.1.attentions.0", "middle_block.resnet_2", "up_blocks.0.resnets.0"]
    seen: dict[str, object] = {}
    for name in inside:
        twin.get_submodule(name).register_forward_hook(
            lambda _, __, y, name=name: seen.update({name: y})
        )
    given = {} if context is None else {"context": torch.from_numpy(context)}
    whole = twin(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(times), **given)

    @jax.jit
    def run(x: jax.Array, times: jax.Array, context: jax.Array | None) -> list[jax.Array]:
        """The answer, the same with values made again, and what the layers in `inside` give."""
        features = time_features(times, spec.channels[0])
        embedding = model.time_embed[1](jax.nn.silu(model.time_embed[0](features)))
        down, up = model.down_blocks, model.up_blocks[0]
        h = model.conv_in(x)
        out, skips = [h, down[0].resnets[0].norm1(h), down[0].resnets[0](h, embedding)], []
        for level in down:
            for number, resnet in enumerate(level.resnets):
                h = resnet(h, embedding)
                if level.attentions is not None:
                    h = level.attentions[number](h, context)
                if level is down[1] and not number:
                    out.append(h)
                skips.append(h)
            h = h if level.downsampler is None else level.downsampler(h)
        middle = model.middle_block
        h = middle.resnet_2(middle.attention(middle.resnet_1(h, embedding), context), embedding)
        out += [h, up.resnets[0](jax.numpy.concatenate([h, skips[-1]], -1), embedding)]
        return [model(x, times, context), model(x, times, context, remat=True), *out]

    answer, again, *layers = run(x, times, context)
    close(answer, whole)
    close(again, whole)
    for ours, name in zip(layers, inside, strict=True):
        close(ours, seen[name])
