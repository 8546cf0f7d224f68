"""Trains the denoiser of a generator in the latents of an autoencoder; the same command resumes.

deepssim train_ldm --config=configs/ldm.py --config.autoencoder=runs/vae --workdir=runs/ldm
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
    "workdir", None, "folder for checkpoints, metrics and the model", required=True
)
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains to the end, then writes all that `generate` needs into the same folder.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.training import fields
    from deepssim_jax.training.generator import train_denoiser
    from deepssim_jax.training.generator_config import LdmConfig

    config = usage.config_of(_CONFIG, LdmConfig, "configs/ldm.py")
    fields.check_denoiser(config)
    at_once = config.batch // config.accumulate
    return run(train_denoiser, config, _WORKDIR.value, at_once=at_once)
