"""The network that a training begins with: random weights, an encoder's, or a backbone's from elsewhere.

Contract: a network's name and a file to a network that can be trained, in float32.
"""

import dataclasses
from pathlib import Path

from flax import nnx

from deepssim_jax.interop import torch_files, torchvision
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec

_SPECS = {
    "nano": EmbedderSpec.nano,
    "tiny": EmbedderSpec.tiny,
    "base": EmbedderSpec.base,
    "volume": EmbedderSpec.volume,
}


def network(name: str, initial: str, *, dropout: float, seed: int) -> Embedder:
    """The network with the weights to begin with.

    Args:
      name: "nano", "tiny", "base" or "volume".
      initial: "default" or an encoder's .safetensors file, which also decides the network; for the
        backbone a .pth or .safetensors file with torchvision's ConvNeXt; "" for random weights.
      dropout: of a network that no encoder's file decides.
      seed: of random weights.

    Raises:
      ValueError: there is no such network or file, or its weights do not fit.
    """
    if name not in _SPECS:
        raise ValueError(f"network {name!r} must be one of {', '.join(_SPECS)}")
    path = Path(initial)
    given = initial not in ("", "default")
    if given and not path.is_file():
        raise ValueError(f"--config.initial: there is no file {path.name!r}")
    if initial == "default" or path.suffix == ".safetensors" and encoders.is_encoder(path):
        encoder = encoders.load_encoder(initial)
        if encoder.spec.backbone.space != 2:
            raise ValueError(
                f"--config.initial: {path.name!r} embeds volumes, and these are images"
            )
        return encoders.to_module(encoder)
    model = Embedder(dataclasses.replace(_SPECS[name](), dropout=dropout), rngs=nnx.Rngs(seed))
    if given:
        torchvision.load_backbone(model, torch_files.read_state_dict(path))
    return model
