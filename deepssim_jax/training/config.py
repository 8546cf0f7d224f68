"""What one training of an encoder is; `configs/*.py` fill it in.

Contract: plain values, so that `--config.NAME=VALUE` can change any of them.
"""

import dataclasses
from typing import Protocol, Self, TypeVar


class Experiment(Protocol):
    """A configuration with a variant that runs through every part in a minute."""

    def smoke(self) -> Self:
        """The variant."""
        ...


_Experiment = TypeVar("_Experiment", bound=Experiment)


def variant(config: _Experiment, arg: str, *, name: str) -> _Experiment:
    """The configuration of `--config=FILE:ARG`: as it is, or `smoke`.

    Raises:
      ValueError: `arg` is anything else.
    """
    if arg == "smoke":
        return config.smoke()
    if arg:
        raise ValueError(f"{name} has no variant {arg!r}; there is ':smoke', or none")
    return config


@dataclasses.dataclass
class EncoderConfig:
    """A training of an encoder. Every field can be changed by --config.NAME=VALUE.

    Data: `table` is a CSV file in the reference format whose images lie under `images`; `images`
    alone is a folder (or manifest, or BIDS root) from which pairs are made; with neither, phantoms
    are made. `size` is (height, width) in pixels. `augment` is "v1", "v2" or "stress", of volumes
    "volumes".

    Network: "nano", "tiny" (DeepSSIM++) or "base" (DeepSSIM), or "volume",
    which is trained on phantom volumes of the same size along each axis. `initial` are the weights to
    begin with: "default" or an encoder's .safetensors file, which also decides the network; or, for the
    backbone, a .pth or .safetensors file with torchvision's ConvNeXt; "" for random ones.

    `batch` pairs a step for `epochs` of a table, or for `steps`. `method` is "adamw" (as published) or
    "muon", `schedule` is "constant" or
    "cosine", `freeze` "nothing", "first_stage" or "published_v1", `objective` "pairs" (as
    published) or "batch"; `half` computes in bfloat16, on accelerators only with "auto";
    `average` is the decay of an exponential moving average of the weights, 0 for none.

    Examples:
      >>> import deepssim_jax as ds
      >>> config = ds.EncoderConfig(images="films/", initial="default", steps=2000)
      >>> config.size, config.network
      ((64, 64), 'nano')
    """

    table: str = ""
    images: str = ""
    subject_regex: str = ""
    size: tuple[int, int] = (64, 64)
    augment: str = "stress"
    network: str = "nano"
    initial: str = ""
    dropout: float = 0.0
    batch: int = 48
    epochs: int = 0
    steps: int = 4500
    objective: str = "batch"
    method: str = "adamw"
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    clip: float = 1.0
    stage_decay: float = 1.0
    freeze: str = "nothing"
    half: str = "auto"
    average: float = 0.0
    validate_every: int = 250
    checkpoint_every: int = 100
    seed: int = 0

    def smoke(self) -> "EncoderConfig":
        """The same in a minute on a laptop: phantoms, a few small steps, random weights."""
        return dataclasses.replace(
            self,
            table="",
            images="",
            initial="",
            size=(min(64, *self.size),) * 2,
            batch=16,
            epochs=0,
            steps=4,
            warmup=1,
            validate_every=2,
            checkpoint_every=2,
        )
