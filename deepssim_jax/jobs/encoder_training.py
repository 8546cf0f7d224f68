"""The training of an encoder, from a configuration to a file of weights.

Contract: a workdir ends with `encoder.safetensors`, which `nn.encoder.load_encoder` reads; called again
with the same configuration, images and workdir, a training goes on where it stopped.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from deepssim_jax.data import pipelines
from deepssim_jax.data.account import Account
from deepssim_jax.data.anatomy import load_anatomy
from deepssim_jax.data.manifest import Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.interop import start
from deepssim_jax.nn.embedder import Embedder
from deepssim_jax.ops import arguments
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.training import fields
from deepssim_jax.training.config import EncoderConfig
from deepssim_jax.training.identity import bind, check_settings, open_workdir
from deepssim_jax.training.loop import LoopConfig, Maker, train
from deepssim_jax.training.own_pairs import ImagePairs, TablePairs
from deepssim_jax.training.pairs import PairMaker
from deepssim_jax.training.precision import computes_in_half
from deepssim_jax.training.step import (
    Freeze,
    Method,
    Objective,
    OptimizerConfig,
    Schedule,
    Trainer,
    export,
)
from deepssim_jax.workspace import Workspace

_Progress = Callable[[int, int, str], None]
_AUGMENT = {
    "v1": AugmentConfig.v1,
    "v2": AugmentConfig.v2,
    "stress": AugmentConfig.stress,
    "volumes": AugmentConfig.volumes,
}


@dataclasses.dataclass(frozen=True)
class TrainedEncoder:
    """What a training gave: the file of weights, what it learned from in words, the number of steps,
    figures of validation, and what became of the files that it was given (None for phantoms).

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> with tempfile.TemporaryDirectory() as work:
      ...     trained = ds.train_encoder(ds.EncoderConfig().smoke(), workdir=work)
      ...     trained.path.name, trained.steps, trained.account
      ('encoder.safetensors', 4, None)
    """

    path: Path
    data: str
    steps: int
    figures: dict[str, float]
    account: Account | None


def train_encoder(
    config: EncoderConfig,
    *,
    workdir: str | Path,
    on_progress: _Progress = lambda done, total, what: None,
) -> TrainedEncoder:
    """Trains a network whose cosine of two images approximates their SSIM.

    Scardace et al., arXiv 2509.16582 (DeepSSIM), and arXiv 2609.03615 (DeepSSIM++): the augmentations "v1"
    and "v2" and the objective "pairs" are theirs.

    Args:
      config: what is trained, on which images.
      workdir: a folder of its own for checkpoints, metrics and `encoder.safetensors`; one of a training that
        stopped goes on.
      on_progress: called with (steps done, steps in all, what), and with images while they are read.

    Returns:
      The file of weights and the figures of validation.

    Raises:
      ValueError: a field of the configuration cannot work, or images cannot be used.
      WorkspaceError: the folder holds something else, or a training of other images or settings.
      Diverged: the loss is no longer a number.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> config = ds.EncoderConfig().smoke()  # four steps; leave `.smoke()` out for 4,500
      >>> with tempfile.TemporaryDirectory() as work:
      ...     trained = ds.train_encoder(config, workdir=work)
      ...     encoder = ds.load_encoder(trained.path)
      >>> trained.data.startswith("phantoms")
      True
    """
    arguments.instance(config, "config", EncoderConfig, remedy="a training")
    arguments.path(workdir, "workdir", "a folder for checkpoints and the trained encoder")
    arguments.progress(on_progress)
    fields.check_encoder(config)
    inputs = {"--config.images": config.images} if config.images else {}
    reads = {f"--config.{name}": getattr(config, name) for name in ("table", "initial")}
    opened = open_workdir(
        workdir,
        command="train_encoder",
        inputs=inputs,
        reads={flag: value for flag, value in reads.items() if value and value != "default"},
    )
    with opened as workspace:
        check_settings(workspace, config)
        made = _Source.open(config, workspace, on_progress)
        bind(workspace, config, made.images)
        steps = config.epochs * made.epoch if config.epochs and made.epoch else config.steps
        initial = start.network(
            config.network, config.initial, dropout=config.dropout, seed=config.seed
        )
        trainer, loop = _trainer(config, initial, steps), _loop(config, steps)
        state, figures = train(
            trainer, made.maker, loop, workspace, initial=initial, on_progress=on_progress
        )
        card = {"data": made.data, "steps": str(steps), "figures": json.dumps(figures)}
        target = export(trainer, state, workspace, card=card)
        workspace.prune()
    account = None if made.images is None else made.images.account
    return TrainedEncoder(target, made.data, steps, figures, account)


@dataclasses.dataclass(frozen=True)
class _Source:
    """What gives the batches, what they are made of in words, the steps of one epoch, the images."""

    maker: Maker
    data: str
    epoch: int | None = None
    images: ImageStore | None = None

    @classmethod
    def open(cls, config: EncoderConfig, workspace: Workspace, on_progress: _Progress) -> "_Source":
        """Reads the images that a configuration names; makes phantoms where it names none."""
        size, volumes = tuple(config.size), config.network == "volume"
        augment = _AUGMENT[config.augment]()
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
            return cls(phantoms, f"{kind} ({anatomy.source})")
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
            data = f"{len(table.table)} pairs of a table"
            return cls(table, data, table.batches_an_epoch, images)
        return cls(ImagePairs.of(images, **common), f"{len(images)} images", None, images)


def _trainer(config: EncoderConfig, initial: Embedder, steps: int) -> Trainer:
    return Trainer.create(
        initial.spec,
        _optimizer(config, steps),
        objective=Objective(config.objective),
        average_decay=config.average or None,
        seed=config.seed,
        half=computes_in_half(config.half),
    )


def _loop(config: EncoderConfig, steps: int) -> LoopConfig:
    return LoopConfig(
        steps=steps,
        seed=config.seed,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        learning_rate=config.learning_rate,
    )


def _optimizer(config: EncoderConfig, steps: int) -> OptimizerConfig:
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
