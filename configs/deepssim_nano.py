"""The encoder that ships: nano, trained on phantoms alone.

    deepssim train_encoder --config=configs/deepssim_nano.py --workdir=runs/nano
    deepssim train_encoder --config=configs/deepssim_nano.py:smoke --workdir=/tmp/smoke

Hardware and time: see deepssim_jax/weights/README.md, which also has the figures to expect.
"""

from deepssim_jax.training.config import EncoderConfig, variant


def get_config(arg: str = "") -> EncoderConfig:
    """`smoke` runs through every part in a minute."""
    config = EncoderConfig()
    return variant(config, arg, name="deepssim_nano")
