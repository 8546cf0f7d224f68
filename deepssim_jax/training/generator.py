"""The two trainings of a generator, from a configuration to a folder that generates.

Contract: a workdir of `train_autoencoder` ends with `autoencoder.safetensors`; one of
`train_denoiser` with that file beside `denoiser.safetensors` (averaged weights; latent scale,
schedule, image size and condition in its metadata), `records.csv` (who was trained on, how often,
who was held out) and, where there is one, `conditions.npy`: all that generating and auditing need.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.data import conditions
from deepssim_jax.data.account import Account
from deepssim_jax.data.conditions import Column, Conditioning
from deepssim_jax.data.store import ImageStore
from deepssim_jax.diffusion.schedule import Prediction, Schedule
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.discriminator import DiscriminatorSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.autoencoder_step import AutoencoderJob, AutoencoderLoss
from deepssim_jax.training.diffusion_step import DenoiserJob, DenoiserOptions
from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig
from deepssim_jax.training.identity import bind, check_settings, open_workdir
from deepssim_jax.training.images import ImageMaker, open_source
from deepssim_jax.training.latents import (
    Duplication,
    DuplicationRange,
    LatentMaker,
    cache_latents,
    copies,
)
from deepssim_jax.training.loop import LoopConfig, train
from deepssim_jax.training.precision import computes_in_half
from deepssim_jax.training.step import Schedule as Falling
from deepssim_jax.workspace import Workspace, check_written
from deepssim_jax.workspace.files import array_bytes, csv_bytes

AUTOENCODER, DENOISER = "autoencoder.safetensors", "denoiser.safetensors"
RECORDS, CONDITIONS = "records.csv", "conditions.npy"
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training gave: the file of weights, images learned from, figures of validation, and what
    became of the files that it was given.
    """

    path: Path
    images: int
    figures: dict[str, float]
    account: Account


def _loop(config: AutoencoderConfig | LdmConfig, *, fsdp: int = 1) -> LoopConfig:
    return LoopConfig(
        steps=config.steps,
        seed=config.seed,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        fsdp=fsdp,
        learning_rate=config.learning_rate,
    )


def train_autoencoder(
    config: AutoencoderConfig,
    workdir: str | Path,
    *,
    on_progress: Progress = lambda done, total, what: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Trains an autoencoder, or goes on where an earlier run stopped.

    Raises:
      ValueError: of `training.loop.train`, or the images cannot be used.
      Diverged: the loss is no longer a number.
    """
    inputs = {"--config.images": config.images} if config.images else {}
    with open_workdir(workdir, command="train_vae", inputs=inputs) as workspace:
        return _train_autoencoder(config, workspace, on_progress, on_notice)


def _train_autoencoder(
    config: AutoencoderConfig,
    workspace: Workspace,
    on_progress: Progress,
    on_notice: Callable[[str], None],
) -> Trained:
    check_settings(workspace, config)
    images, rows = open_source(config, workspace, on_progress=on_progress)
    bind(workspace, config, images)
    spec = AutoencoderSpec(
        tuple(config.channels), config.latent, blocks=config.blocks, groups=config.groups
    )
    job = AutoencoderJob.create(
        spec,
        critic=DiscriminatorSpec(*config.critic),
        weights=AutoencoderLoss(
            config.kl, config.perceptual, config.adversarial, config.adversarial_from
        ),
        features=encoders.load_encoder(config.features) if config.features else None,
        learning_rate=config.learning_rate,
        fall_over=config.steps if Falling(config.schedule) is Falling.COSINE else None,
        seed=config.seed,
        half=computes_in_half(config.half),
    )
    maker = ImageMaker.of(images, rows, batch=config.batch, seed=config.seed)
    state, figures = train(
        job, maker, _loop(config), workspace, on_progress=on_progress, on_notice=on_notice
    )
    card = {"size": json.dumps(list(config.size)), "figures": json.dumps(figures)}
    params = parallel.whole(state.params)
    target = workspace.write(AUTOENCODER, network_file.file_bytes(spec, params, card=card))
    workspace.prune()
    return Trained(target, len(rows.training), figures, images.account)


def train_denoiser(
    config: LdmConfig,
    workdir: str | Path,
    *,
    on_progress: Progress = lambda done, total, what: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Trains a denoiser, or goes on where an earlier run stopped.

    Raises:
      ValueError: there is no autoencoder, a column is missing, or what `training.loop.train` says.
      Diverged: the loss is no longer a number.
    """
    source = Path(config.autoencoder)
    if not config.autoencoder or not (source / AUTOENCODER).is_file():
        raise ValueError(
            f"--config.autoencoder={config.autoencoder!r} must be the workdir of a finished "
            f"train_vae, with {AUTOENCODER}"
        )
    check_written(source, [AUTOENCODER], command="train_vae")
    parts = config.accumulate * jax.device_count()
    if config.batch % parts:
        raise ValueError(
            f"batch {config.batch} must be a multiple of accumulate {config.accumulate} x "
            f"{jax.device_count()} devices"
        )
    inputs = {"--config.images": config.images} if config.images else {}
    reads = {"--config.autoencoder": source}
    with open_workdir(workdir, command="train_ldm", inputs=inputs, reads=reads) as workspace:
        return _train_denoiser(config, source, workspace, on_progress, on_notice)


def _train_denoiser(
    config: LdmConfig,
    source: Path,
    workspace: Workspace,
    on_progress: Progress,
    on_notice: Callable[[str], None],
) -> Trained:
    check_settings(workspace, config)
    images, rows = open_source(config, workspace, on_progress=on_progress)
    condition, columns = _condition(config, images, rows.training)
    known = {} if condition is None else {"conditions of the images": [condition, columns]}
    bind(workspace, config, images, autoencoder=source / AUTOENCODER, others=known)
    autoencoder, params, _ = network_file.load(source / AUTOENCODER, AutoencoderSpec)
    latents = cache_latents(
        images,
        autoencoder,
        params,
        workspace=workspace,
        rows=rows.training,
        on_progress=on_progress,
    )
    often = copies(
        len(rows.training),
        duplication=Duplication(config.duplication),
        whose=DuplicationRange(config.duplication_range),
        seed=config.seed,
    )
    context = None if condition is None else condition.shape[-1]
    job = _denoiser_job(config, latent=autoencoder.latent, context=context)
    maker = LatentMaker.of(
        latents, rows, condition=condition, copies=often, batch=config.batch, seed=config.seed
    )
    state, figures = train(
        job,
        maker,
        _loop(config, fsdp=config.fsdp),
        workspace,
        on_progress=on_progress,
        on_notice=on_notice,
    )
    card = {
        "latent_scale": repr(latents.scale),
        "schedule": json.dumps(dataclasses.asdict(job.schedule)),
        "size": json.dumps(list(config.size)),
        "conditioning": config.condition,
        "columns": conditions.columns_to_json(columns),
        "steps": str(config.steps),
        "figures": json.dumps(figures),
    }
    average = parallel.whole(state.average)
    workspace.write(AUTOENCODER, (source / AUTOENCODER).read_bytes())
    workspace.write(RECORDS, _records(images, rows.training, often))
    if condition is not None:
        workspace.write(CONDITIONS, array_bytes(condition))
    # The weights come last: with them the folder can generate.
    target = workspace.write(DENOISER, network_file.file_bytes(job.spec, average, card=card))
    workspace.prune()
    return Trained(target, len(rows.training), figures, images.account)


def _denoiser_job(config: LdmConfig, *, latent: int, context: int | None) -> DenoiserJob:
    """What is trained: `latent` channels, given vectors of `context` numbers or none."""
    spec = UNetSpec(
        latent=latent,
        channels=tuple(config.channels),
        attention=tuple(config.attention),
        heads=tuple(config.heads),
        blocks=config.blocks,
        groups=config.groups,
        context=context,
    )
    return DenoiserJob.create(
        spec,
        schedule=Schedule(prediction=Prediction(config.prediction)),
        options=DenoiserOptions(
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup=config.warmup,
            clip=config.clip,
            min_snr=config.min_snr or None,
            average=config.average,
            drop=config.drop,
            accumulate=config.accumulate,
            remat=config.remat,
        ),
        seed=config.seed,
        half=computes_in_half(config.half),
    )


def _condition(
    config: LdmConfig, images: ImageStore, training: np.ndarray
) -> tuple[np.ndarray | None, tuple[Column, ...]]:
    kind = Conditioning(config.condition)
    if kind is Conditioning.NONE:
        return None, ()
    table = Path(config.table or config.images)
    if not table.is_file():
        raise ValueError(
            f"condition {kind.value!r} needs --config.table, a .csv file with one row an image"
        )
    if kind is Conditioning.VARIABLES:
        rows = conditions.rows_of(table, images.image_ids, config.columns)
        columns = conditions.fit_columns([rows[i] for i in training], config.columns)
        return conditions.variables(rows, columns), columns
    names, _ = conditions.read_table(table)
    column = "embedding" if "embedding" in names else "prompt"
    rows = conditions.rows_of(table, images.image_ids, [column])
    return conditions.texts(rows, root=table.parent), ()


def _records(images: ImageStore, training: np.ndarray, often: np.ndarray) -> bytes:
    """One row an image: id, patient, how often it was trained on (0 for held-out ones), hash."""
    count = np.zeros(len(images), np.int64)
    count[training] = often
    rows = zip(images.image_ids, images.subject_ids, count.tolist(), images.sha256, strict=True)
    # The writer makes an empty cell of None: no patient is known.
    return csv_bytes([("image_id", "subject_id", "copies", "sha256"), *rows])
