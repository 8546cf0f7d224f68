"""The published PyTorch encoders: their names and layouts, and ours.

Contract: a state dict is a mapping of names to NumPy arrays. PyTorch keeps linear weights as
[out, in], convolutions as [out, in, h, w] and torchvision's layer scale as [dim, 1, 1]; ours are
[in, out], a product over flattened patches [h * w * in, out] (or [h, w, dim] where each channel
has its own kernel), and [dim]. Every tensor of a file must have its place: nothing is dropped but
BatchNorm's step counter, which inference does not use.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import EmbedderSpec, Head

_COUNTER = "num_batches_tracked"
_BLOCK = {
    "depthwise": "block.0.weight",
    "depthwise_bias": "block.0.bias",
    "norm.scale": "block.2.weight",
    "norm.bias": "block.2.bias",
    "expand.kernel": "block.3.weight",
    "expand.bias": "block.3.bias",
    "project.kernel": "block.5.weight",
    "project.bias": "block.5.bias",
    "scale": "layer_scale",
}
_LEAF = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How one published network calls its parts."""

    spec: EmbedderSpec
    down: tuple[str, ...]  # stem and downsampling layers, by stage
    blocks: tuple[str, ...]
    head: Mapping[str, str]


_V1 = _Layout(
    EmbedderSpec.base(),
    down=tuple(f"feature_extractor.{i}" for i in (0, 2, 4, 6)),
    blocks=tuple(f"feature_extractor.{i}" for i in (1, 3, 5, 7)),
    head={"norm": "fc.2", "first": "fc.3", "second": "fc.6"},
)
_V2 = _Layout(
    EmbedderSpec.tiny(),
    down=tuple(f"stage_{s}.0" for s in "abcd"),
    blocks=tuple(f"stage_{s}.1" for s in "abcd"),
    head={"norm": "fc.0", "first": "fc.1", "second": "fc.4"},
)


def _their_name(ours: str, layout: _Layout) -> str:
    if match := re.fullmatch(r"backbone\.stages\.(\d)\.blocks\.(\d+)\.(.+)", ours):
        stage, block, leaf = match.groups()
        return f"{layout.blocks[int(stage)]}.{block}.{_BLOCK[leaf]}"
    if match := re.fullmatch(r"backbone\.stages\.(\d)\.(norm|patches\.linear)\.(\w+)", ours):
        stage, part, leaf = match.groups()
        # The stem has its norm behind its convolution, the other stages before it.
        position = int((part == "norm") == (stage == "0"))
        return f"{layout.down[int(stage)]}.{position}.{_LEAF[leaf]}"
    if match := re.fullmatch(r"pools\.(\d)\.p", ours):
        return f"gem_{'abcd'[int(match[1])]}.p"
    part, leaf = ours.split(".")
    return f"{layout.head[part]}.{_LEAF[leaf]}"


def _their_shape(ours: str, shape: tuple[int, ...], layout: _Layout) -> tuple[int, ...]:
    return _to_theirs(ours, np.broadcast_to(np.float32(0), shape), layout).shape


def _patch(ours: str) -> int:
    return 4 if ".stages.0." in ours else 2


def _to_theirs(ours: str, value: np.ndarray, layout: _Layout) -> np.ndarray:
    if ours.endswith("patches.linear.kernel"):
        p, out = _patch(ours), value.shape[1]
        return value.reshape(p, p, -1, out).transpose(3, 2, 0, 1)
    if ours.endswith(".kernel"):
        return value.T
    if ours.endswith(".depthwise"):
        return value.transpose(2, 0, 1)[:, None]
    if _their_name(ours, layout).endswith("layer_scale"):
        return value[:, None, None]
    return value


def _to_ours(ours: str, value: np.ndarray, layout: _Layout) -> np.ndarray:
    if ours.endswith("patches.linear.kernel"):
        return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    if ours.endswith(".kernel"):
        return value.T
    if ours.endswith(".depthwise"):
        return value[:, 0].transpose(1, 2, 0)
    if _their_name(ours, layout).endswith("layer_scale"):
        return value[:, 0, 0]
    return value


def from_reference(state_dict: Mapping[str, np.ndarray]) -> encoders.Encoder:
    """The published encoder with these weights.

    Args:
      state_dict: of DeepSSIM (ConvNeXt-Base, names `feature_extractor.*`, `fc.*`) or of
        DeepSSIM++ (ConvNeXt-Tiny, names `stage_a.*` to `stage_d.*`, `gem_*`, `fc.*`).

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    layout = _V2 if any(name.startswith("stage_a.") for name in state_dict) else _V1
    names = {ours: _their_name(ours, layout) for ours in encoders.tensor_shapes(layout.spec)}
    wanted = {
        names[ours]: _their_shape(ours, shape, layout)
        for ours, shape in encoders.tensor_shapes(layout.spec).items()
    }
    found = {n: v.shape for n, v in state_dict.items() if not n.endswith(_COUNTER)}
    if wrong := encoders.misfits(wanted, found):
        raise ValueError(f"these are not the weights of a published encoder: {'; '.join(wrong)}")
    return encoders.from_tensors(
        layout.spec,
        {ours: _to_ours(ours, state_dict[name], layout) for ours, name in names.items()},
    )


def to_reference(encoder: encoders.Encoder) -> dict[str, np.ndarray]:
    """The weights under the published names, as `from_reference` takes them.

    Raises:
      ValueError: the encoder is not built like one of the two published networks.
    """
    layout = _layout(encoder.spec)
    if encoder.spec.backbone != layout.spec.backbone:
        raise ValueError(
            f"an encoder with stages of {encoder.spec.backbone.widths} channels is not one of the "
            f"published networks, which have {layout.spec.backbone.widths}"
        )
    return renamed(encoder)


def renamed(encoder: encoders.Encoder) -> dict[str, np.ndarray]:
    """Weights or gradients of a network of any size under the published names and shapes."""
    layout = _layout(encoder.spec)
    return {
        _their_name(ours, layout): _to_theirs(ours, value, layout)
        for ours, value in encoders.to_tensors(encoder).items()
    }


def backbone_names(encoder: encoders.Encoder) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each weight of the backbone its name and shape in torchvision, whose parts are numbered
    as DeepSSIM's are.
    """
    return {
        ours: (
            _their_name(ours, _V1).replace("feature_extractor.", "features."),
            _their_shape(ours, shape, _V1),
        )
        for ours, shape in encoders.tensor_shapes(encoder.spec).items()
        if ours.startswith("backbone.")
    }


def to_ours(encoder: encoders.Encoder, name: str, value: np.ndarray) -> np.ndarray:
    """A weight in PyTorch's layout as ours of this name has it."""
    return _to_ours(name, value, _layout(encoder.spec))


def _layout(spec: EmbedderSpec) -> _Layout:
    return _V1 if spec.head is Head.POOLED else _V2
