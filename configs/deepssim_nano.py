"""The encoder that ships: nano, trained on phantoms alone.

    deepssim train_encoder --config=configs/deepssim_nano.py --workdir=runs/nano
    deepssim train_encoder --config=configs/deepssim_nano.py:smoke --workdir=/tmp/smoke

Hardware and time: see deepssim_jax/weights/README.md, which also has the figures to expect.
"""

import dataclasses


@dataclasses.dataclass
class Config:
    """What may be changed by --config.NAME=VALUE."""

    # Side of the images in pixels, and pairs a step (a multiple of 16).
    size: int = 64
    batch: int = 48
    # "batch": every image of one side against every one of the other; "pairs": as published.
    objective: str = "batch"
    # Peak learning rate of AdamW, reached after `warmup` steps.
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-3
    warmup: int = 100
    steps: int = 4500
    validate_every: int = 250
    checkpoint_every: int = 100
    seed: int = 0


def get_config(arg: str = "") -> Config:
    """`smoke` runs through every part in a minute."""
    if arg == "smoke":
        return Config(batch=16, steps=4, warmup=1, validate_every=2, checkpoint_every=2)
    if arg:
        raise ValueError(f"deepssim_nano knows ':smoke', not {arg!r}")
    return Config()
