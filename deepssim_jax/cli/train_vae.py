"""Trains the autoencoder of a generator; the same command again resumes.

deepssim train_vae --config=configs/vae.py --workdir=runs/vae
"""

from absl import flags
from ml_collections import config_flags

from deepssim_jax.cli import usage
from deepssim_jax.cli.generator_training import run

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:ARG] with get_config(); --config.NAME=VALUE changes a field"
)
SOURCES = {"--real": "--config.images", "--subject_regex": "--config.subject_regex"}
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder for checkpoints, metrics and the autoencoder", required=True
)
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains to the end, then writes `autoencoder.safetensors`.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.training import fields
    from deepssim_jax.training.generator import train_autoencoder
    from deepssim_jax.training.generator_config import AutoencoderConfig

    config = usage.config_of(_CONFIG, AutoencoderConfig, "configs/vae.py")
    fields.check_autoencoder(config)
    return run(train_autoencoder, config, _WORKDIR.value, at_once=config.batch)
