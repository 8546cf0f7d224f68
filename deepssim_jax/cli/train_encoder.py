"""Trains the network that embeds images; the same command again resumes.

deepssim train_encoder --config=configs/deepssim_nano.py --workdir=runs/nano
"""

from absl import flags
from ml_collections import config_flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:ARG] with get_config(); --config.NAME=VALUE changes a field"
)
SOURCES = {"--real": "--config.images", "--subject_regex": "--config.subject_regex"}
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder for checkpoints, metrics and the encoder", required=True
)
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains to the end, then writes `encoder.safetensors`.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.jobs.encoder_training import train_encoder
    from deepssim_jax.training.config import EncoderConfig

    config = usage.config_of(_CONFIG, EncoderConfig, "configs/deepssim_nano.py")
    with progress(unit="steps") as on_progress:
        trained = train_encoder(config, workdir=_WORKDIR.value, on_progress=on_progress)
    shown = [(k, f"{v:.4f}") for k, v in trained.figures.items() if not k.startswith("mae_")]
    files = [] if trained.account is None else trained.account.rows()
    rows = [*files, ("data", trained.data), ("steps", trained.steps), *shown]
    console.finish(rows, written=[trained.path])
    return ExitCode.DONE
