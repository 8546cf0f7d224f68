"""MONAI's AutoencoderKL and DiffusionModelUNet: their names and layouts, and ours.

Contract: a state dict is a mapping of names to NumPy arrays. PyTorch keeps linear weights as
[out, in] and convolutions as [out, in, h, w]; ours are [in, out] and [h, w, in, out]. MONAI wraps
each convolution once more, under the name `conv`; apart from that and the few names below the two
trees are the same. Every tensor must have its place.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx

from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.encoder import misfits
from deepssim_jax.nn.network_file import Spec
from deepssim_jax.nn.unet import UNetSpec

_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def is_monai(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of one of the two networks."""
    return is_autoencoder(state_dict) or _is_unet(state_dict)


def is_autoencoder(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of `AutoencoderKL`."""
    return "quant_conv_mu.conv.weight" in state_dict


def _is_unet(state_dict: Mapping[str, np.ndarray]) -> bool:
    return "time_embed.0.weight" in state_dict and "conv_in.conv.weight" in state_dict


def spec_of(
    state_dict: Mapping[str, np.ndarray], *, groups: int, heads: Sequence[int] = ()
) -> Spec:
    """The specification that fits a state dict best; `from_monai` says what does not fit.

    Args:
      state_dict: of either network.
      groups: MONAI's `norm_num_groups`, which no shape tells.
      heads: MONAI's `num_head_channels` of a U-Net: one number a level, or one for all.

    Raises:
      ValueError: it is neither network, or no network has these groups and heads.
    """
    if not is_monai(state_dict):
        raise ValueError(
            "these are weights of neither AutoencoderKL nor DiffusionModelUNet: there is no "
            "quant_conv_mu.conv.weight, nor time_embed.0.weight with conv_in.conv.weight"
        )
    shapes = {name: value.shape for name, value in state_dict.items()}
    autoencoder = is_autoencoder(state_dict)
    first = f"{'encoder.blocks.1' if autoencoder else 'down_blocks.0.resnets.0'}.conv1.conv.weight"
    if first not in shapes:
        raise ValueError(f"{first}: missing; the file holds only a part of the network")
    return _autoencoder_spec(shapes, groups) if autoencoder else _unet_spec(shapes, groups, heads)


def _autoencoder_spec(shapes: Mapping[str, tuple[int, ...]], groups: int) -> AutoencoderSpec:
    levels: list[list[int]] = [[]]
    number = 1
    while any(name.startswith(f"encoder.blocks.{number}.") for name in shapes):
        if f"encoder.blocks.{number}.conv1.conv.weight" in shapes:
            levels[-1].append(shapes[f"encoder.blocks.{number}.conv1.conv.weight"][0])
        elif f"encoder.blocks.{number}.conv.conv.weight" in shapes:  # on to half the resolution
            levels.append([])
        number += 1
    return AutoencoderSpec(
        tuple(level[-1] for level in levels if level),
        shapes["quant_conv_mu.conv.weight"][0],
        blocks=len(levels[0]),
        groups=groups,
    )


def _unet_spec(
    shapes: Mapping[str, tuple[int, ...]], groups: int, heads: Sequence[int]
) -> UNetSpec:
    channels: list[int] = []
    while (name := f"down_blocks.{len(channels)}.resnets.0.conv1.conv.weight") in shapes:
        channels.append(shapes[name][0])
    first = re.compile(r"down_blocks\.0\.resnets\.\d+\.conv1\.conv\.weight")
    tokens = [shapes[n][1] for n in shapes if n.endswith("attn2.to_k.weight")]
    return UNetSpec(
        latent=shapes["conv_in.conv.weight"][1],
        channels=tuple(channels),
        attention=tuple(
            any(name.startswith(f"down_blocks.{level}.attentions.") for name in shapes)
            for level in range(len(channels))
        ),
        heads=tuple(heads) * len(channels) if len(heads) == 1 else tuple(heads),
        blocks=sum(first.fullmatch(name) is not None for name in shapes),
        groups=groups,
        context=tokens[0] if tokens else None,
    )


def names(spec: Spec) -> dict[str, str]:
    """Their name of each of our weights."""
    shapes = network_file.shapes(spec)
    shortcut = "nin_shortcut" if isinstance(spec, AutoencoderSpec) else "skip_connection"
    out = {}
    for ours in shapes:
        parent, _, leaf = ours.rpartition(".")
        wrapped = len(shapes.get(f"{parent}.kernel", ())) == 4
        theirs = re.sub(r"^(time_embed|out)\.1$", r"\1.2", parent)
        theirs = re.sub(r"\bshortcut$", shortcut, theirs)
        out[ours] = f"{theirs}{'.conv' if wrapped else ''}.{_LEAF[leaf]}"
    return out


def from_monai(spec: Spec, state_dict: Mapping[str, np.ndarray]) -> nnx.State:
    """Our weights.

    Args:
      spec: of the network, for example by `spec_of`.
      state_dict: of `AutoencoderKL` without attention, or of `DiffusionModelUNet`.

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    wanted = {
        name: np.broadcast_to(np.float32(0), network_file.shapes(spec)[ours])
        for ours, name in names(spec).items()
    }
    wrong = misfits(
        {name: _theirs(value).shape for name, value in wanted.items()},
        {name: tuple(value.shape) for name, value in state_dict.items()},
    )
    if wrong:
        raise ValueError(f"these are not this network's weights: {'; '.join(wrong)}")
    tensors = {ours: _ours(state_dict[name]) for ours, name in names(spec).items()}
    return network_file.from_tensors(spec, tensors, what="the state dict")


def to_monai(spec: Spec, state: nnx.State) -> dict[str, np.ndarray]:
    """Our weights under MONAI's names, in PyTorch's layout."""
    tensors = network_file.to_tensors(state)
    return {name: _theirs(tensors[ours]) for ours, name in names(spec).items()}


def _theirs(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


def _ours(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value
