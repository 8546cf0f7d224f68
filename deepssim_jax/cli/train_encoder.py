"""Trains the network that embeds images; the same command again resumes.

deepssim train_encoder --config=configs/deepssim_nano.py --workdir=runs/nano
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

if TYPE_CHECKING:  # at run time they would load JAX before --help is answered
    from deepssim_jax.data.store import ImageStore
    from deepssim_jax.scoring.match import Progress
    from deepssim_jax.training.config import EncoderConfig
    from deepssim_jax.training.loop import Maker
    from deepssim_jax.training.step import OptimizerConfig
    from deepssim_jax.workspace import Workspace

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:ARG] with get_config(); --config.NAME=VALUE changes a field"
)
SOURCES = {"--real": "--config.images", "--subject_regex": "--config.subject_regex"}
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

    from deepssim_jax.interop import start
    from deepssim_jax.training import fields
    from deepssim_jax.training.config import EncoderConfig
    from deepssim_jax.training.identity import bind, check_settings, open_workdir
    from deepssim_jax.training.loop import LoopConfig, train
    from deepssim_jax.training.step import Trainer, export

    config = usage.config_of(_CONFIG, EncoderConfig, "configs/deepssim_nano.py")
    fields.check_encoder(config)
    inputs = {"--config.images": config.images} if config.images else {}
    reads = {f"--config.{name}": getattr(config, name) for name in ("table", "initial")}
    opened = open_workdir(
        _WORKDIR.value,
        command="train_encoder",
        inputs=inputs,
        reads={flag: value for flag, value in reads.items() if value and value != "default"},
    )
    with opened as workspace:
        check_settings(workspace, config)
        with progress(unit="images") as on_progress:
            maker, data, epoch, images = _maker(config, workspace, on_progress)
        bind(workspace, config, images)
        steps = config.epochs * epoch if config.epochs and epoch else config.steps
        initial = start.network(
            config.network, config.initial, dropout=config.dropout, seed=config.seed
        )
        trainer = Trainer.create(initial.spec, _optimizer(config, steps), **_options(config))
        loop = LoopConfig(
            steps=steps,
            seed=config.seed,
            validate_every=config.validate_every,
            checkpoint_every=config.checkpoint_every,
        )
        with progress(unit="steps") as on_progress:
            state, figures = train(
                trainer, maker, loop, workspace, initial=initial, on_progress=on_progress
            )
        card = {"data": data, "steps": str(steps), "figures": json.dumps(figures)}
        target = export(trainer, state, workspace, card=card)
        workspace.prune()
    shown = [(k, f"{v:.4f}") for k, v in figures.items() if not k.startswith("mae_")]
    files = [] if images is None else images.account.rows()
    console.finish([*files, ("data", data), ("steps", steps), *shown], written=[target])
    return ExitCode.DONE


def _maker(
    config: "EncoderConfig", workspace: "Workspace", on_progress: "Progress"
) -> "tuple[Maker, str, int | None, ImageStore | None]":
    """What gives the batches, what they are made of in words, the steps of one epoch, the images."""
    from deepssim_jax.data import pipelines
    from deepssim_jax.data.anatomy import load_anatomy
    from deepssim_jax.data.manifest import Role
    from deepssim_jax.ops.augment import AugmentConfig
    from deepssim_jax.training.own_pairs import ImagePairs, TablePairs
    from deepssim_jax.training.pairs import PairMaker

    size, volumes = tuple(config.size), config.network == "volume"
    augment = {
        "v1": AugmentConfig.v1,
        "v2": AugmentConfig.v2,
        "stress": AugmentConfig.stress,
        "volumes": AugmentConfig.volumes,
    }[config.augment]()
    if not config.images:
        anatomy = load_anatomy()
        phantoms = PairMaker(
            anatomy=anatomy,
            seed=config.seed,
            batch=config.batch,
            size=size[0],
            augment=augment,
            space=3 if volumes else 2,
        )
        kind = "phantom volumes" if volumes else "phantoms"
        return phantoms, f"{kind} ({anatomy.source})", None, None
    images = pipelines.open_images(
        config.images,
        workspace,
        size=size,
        roles=(Role.REAL, Role.SYNTHETIC) if config.table else (Role.REAL,),
        subject_regex=config.subject_regex or None,
        on_progress=on_progress,
    )
    common = {"batch": config.batch, "seed": config.seed, "augment": augment}
    if config.table:
        table = TablePairs.of(Path(config.table), images, **common)
        return table, f"{len(table.table)} pairs of a table", table.batches_an_epoch, images
    return ImagePairs.of(images, **common), f"{len(images)} images", None, images


def _optimizer(config: "EncoderConfig", steps: int) -> "OptimizerConfig":
    from deepssim_jax.training.step import Freeze, Method, OptimizerConfig, Schedule

    return OptimizerConfig(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        schedule=Schedule(config.schedule),
        warmup=config.warmup,
        steps=steps,
        clip=config.clip,
        stage_decay=config.stage_decay,
        freeze=Freeze(config.freeze),
        method=Method(config.method),
    )


def _options(config: "EncoderConfig") -> dict:
    from deepssim_jax.training.precision import computes_in_half
    from deepssim_jax.training.step import Objective

    return {
        "objective": Objective(config.objective),
        "average_decay": config.average or None,
        "seed": config.seed,
        "half": computes_in_half(config.half),
    }
