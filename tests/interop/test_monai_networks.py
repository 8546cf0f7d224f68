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


needs_monai = pytest.mark.skipif(
    importlib.util.find_spec("monai") is None or importlib.util.find_spec("torch") is None,
    reason="MONAI and PyTorch are not installed (the bench extra)",
)


@needs_monai
@pytest.mark.filterwarnings("ignore")
def test_the_autoencoder_is_monais_layer_by_layer() -> None:
    import torch
    from monai.networks.nets import AutoencoderKL

    twin = AutoencoderKL(
        spatial_dims=2,
        channels=AUTOENCODER.channels,
        num_res_blocks=AUTOENCODER.blocks,
        attention_levels=(False,) * 3,
        latent_channels=3,
        norm_num_groups=AUTOENCODER.groups,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    ).eval()
    state = weights(AUTOENCODER)
    theirs = monai_networks.to_monai(AUTOENCODER, state)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in theirs.items()}, strict=True)
    model: Autoencoder = merged(AUTOENCODER, state)
    images = np.random.default_rng(1).uniform(size=(2, 24, 16)).astype(np.float32)
    x, y = images[..., None], torch.from_numpy(images[:, None])
    for ours, other in zip(model.encoder.blocks, twin.encoder.blocks, strict=True):
        x, y = ours(x), other(y)
        close(x, y)
    mean, deviation = model.encode(images)
    their_mean, their_deviation = twin.encode(torch.from_numpy(images[:, None]))
    close(mean, their_mean)
    close(deviation, their_deviation)
    x, y = model.post_quant_conv(mean), twin.post_quant_conv(their_mean)
    for ours, other in zip(model.decoder.blocks, twin.decoder.blocks, strict=True):
        x, y = ours(x), other(y)
        close(x, y)
    close(model.decode(mean, size=(24, 16)), twin.decode(their_mean)[:, 0])


@needs_monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [PLAIN, CONDITIONED], ids=["plain", "conditioned"])
def test_the_unet_is_monais_layer_by_layer(spec: UNetSpec) -> None:
    import torch
    from monai.networks.nets import DiffusionModelUNet

    twin = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=3,
        channels=spec.channels,
        attention_levels=spec.attention,
        num_head_channels=spec.heads,
        num_res_blocks=spec.blocks,
        norm_num_groups=spec.groups,
        with_conditioning=spec.context is not None,
        cross_attention_dim=spec.context,
    ).eval()
    state = weights(spec)
    theirs = monai_networks.to_monai(spec, state)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in theirs.items()}, strict=True)
    model: UNet = merged(spec, state)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 12, 8, 3)).astype(np.float32)
    times = np.array([3, 870])
    context = None if spec.context is None else rng.standard_normal((2, 4, spec.context))
    context = None if context is None else context.astype(np.float32)
    inside = [f"down_blocks.0.resnets.0.{part}" for part in ("norm1", "conv1")]
    inside += [f"middle_block.{part}" for part in ("resnet_1", "attention", "resnet_2")]
    seen: dict[str, object] = {}
    for name in inside:
        twin.get_submodule(name).register_forward_hook(
            lambda _, __, y, name=name: seen.update({name: y})
        )
    given = {} if context is None else {"context": torch.from_numpy(context)}
    whole = twin(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(times), **given)
    close(model(x, times, context), whole)
    close(model(x, times, context, remat=True), whole)
    first = model.down_blocks[0].resnets[0]
    h = first.norm1(model.conv_in(x))
    close(h, seen[inside[0]])
    close(first.conv1(jax.nn.silu(h)), seen[inside[1]])
    middle = model.middle_block
    features = time_features(times, spec.channels[0])
    embedding = model.time_embed[1](jax.nn.silu(model.time_embed[0](features)))
    h = np.asarray(seen[inside[0]].detach())[:, :, ::4, ::4].transpose(0, 2, 3, 1)
    h = np.tile(h, 3)  # any input does: each part is compared on what the one before it gave
    h = middle.resnet_1(h, embedding)
    theirs_h = twin.middle_block.resnet_1(
        torch.from_numpy(
            np.tile(np.asarray(seen[inside[0]].detach())[:, :, ::4, ::4], (1, 3, 1, 1))
        ),
        twin.time_embed(torch.from_numpy(np.asarray(features))),
    )
    close(h, theirs_h)
    more = {} if context is None else {"context": torch.from_numpy(context)}
    close(middle.attention(h, context), twin.middle_block.attention(theirs_h, **more))
