"""Trains the network that embeds images; the same command again resumes.

deepssim train_encoder --config=configs/deepssim_nano.py --workdir=runs/nano
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:ARG] with get_config(); --config.NAME=VALUE changes a field"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder for checkpoints, metrics and the encoder", required=True
)
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> int:
    """Trains to the end, then writes `encoder.safetensors`.

    Args:
        argv: The command's name.

    Returns:
        `ExitCode.DONE`.
    """
    del argv
    import json

    from deepssim_jax.data.anatomy import load_anatomy
    from deepssim_jax.nn.embedder import EmbedderSpec
    from deepssim_jax.training.loop import LoopConfig, export, train
    from deepssim_jax.training.pairs import PairMaker
    from deepssim_jax.training.step import Objective, OptimizerConfig, Trainer

    config, workdir = _CONFIG.value, Path(_WORKDIR.value)
    if config.batch % 16 or config.size % 32:
        raise ValueError(
            f"batch {config.batch} must be a multiple of 16 and size {config.size} one of 32"
        )
    anatomy = load_anatomy()
    optimizer = OptimizerConfig(
        config.learning_rate, config.weight_decay, config.warmup, config.steps
    )
    trainer = Trainer.create(EmbedderSpec.nano(), optimizer, Objective(config.objective))
    loop = LoopConfig(
        steps=config.steps,
        seed=config.seed,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
    )
    maker = PairMaker(anatomy=anatomy, seed=config.seed, batch=config.batch, size=config.size)
    with progress(unit="steps") as on_progress:
        state, figures = train(trainer, maker, loop, workdir, on_progress=on_progress)
    target = workdir / "encoder.safetensors"
    card = {"anatomy": anatomy.source, "steps": str(config.steps), "figures": json.dumps(figures)}
    export(trainer, state, target, card=card)
    rows = [("anatomy", anatomy.source), ("steps", config.steps)]
    console.finish([*rows, *((k, f"{v:.4f}") for k, v in figures.items())], written=[target])
    return ExitCode.DONE
