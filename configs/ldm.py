"""The published latent diffusion model: U-Net of 256/512/768 channels, attention at two levels.

    deepssim train_ldm --config=configs/ldm.py --config.autoencoder=runs/vae --workdir=runs/ldm \
        --config.images=training_images/ --config.duplication=high
    deepssim train_ldm --config=configs/ldm.py:smoke --config.autoencoder=/tmp/smoke_vae \
        --workdir=/tmp/smoke_ldm

For accelerators: batches of 8 slices of 136 x 112 in the publication. `--config.batch` must be a
multiple of the devices; with `--config.fsdp=4` four of them share one copy of the weights.
"""

from deepssim_jax.training.config import variant
from deepssim_jax.training.generator_config import LdmConfig


def get_config(arg: str = "") -> LdmConfig:
    """`smoke` runs through every part in a minute."""
    config = LdmConfig(size=(136, 112))
    return variant(config, arg, name="ldm")
