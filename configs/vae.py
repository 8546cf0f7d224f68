"""The autoencoder of the published latent diffusion model: 64/128/128 channels, 3 latents, factor 4.

    deepssim train_vae --config=configs/vae.py --workdir=runs/vae \
        --config.images=training_images/ --config.subject_regex='^([0-9]+)_'
    deepssim train_vae --config=configs/vae.py:smoke --workdir=/tmp/smoke_vae

For one accelerator of 16 GB or more: batches of 16 slices of 136 x 112.
"""

from deepssim_jax.training.config import variant
from deepssim_jax.training.generator_config import AutoencoderConfig


def get_config(arg: str = "") -> AutoencoderConfig:
    """`smoke` runs through every part in a minute."""
    config = AutoencoderConfig(size=(136, 112))
    return variant(config, arg, name="vae")
