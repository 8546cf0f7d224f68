"""Training the encoder on phantoms: steps, validation, checkpoints, records.

A batch depends only on (seed, step), so a run that was stopped and started again is the run that
was never stopped. Validation people are drawn from steps that training never reaches.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from scipy import stats

from deepssim_jax import parallel
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.training.checkpoints import Checkpoints, abstract
from deepssim_jax.training.pairs import PairBatch, PairMaker
from deepssim_jax.training.records import Records
from deepssim_jax.training.step import Trainer, TrainState

VALIDATION_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train, and how often to look and to save, in steps."""

    steps: int
    seed: int = 0
    validate_every: int = 250
    checkpoint_every: int = 100
    record_every: int = 20


class Diverged(RuntimeError):
    """The loss is no longer a number."""


def validation_figures(cosine: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """MAE, RMSE and Spearman's correlation of predicted and true SSIM."""
    error = cosine - target
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "spearman": float(stats.spearmanr(cosine, target).statistic),
    }


def train(
    trainer: Trainer,
    maker: PairMaker,
    config: LoopConfig,
    workdir: Path,
    *,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[TrainState, dict[str, float]]:
    """Trains, or goes on where an earlier run of the same directory stopped.

    Args:
      trainer: network and optimizer.
      maker: gives the batch of a step.
      config: see `LoopConfig`.
      workdir: for checkpoints and `metrics.jsonl`.
      on_progress: called with (steps done, steps in all, what).

    Returns:
      The last state, and the last validation figures.

    Raises:
      Diverged: with the step.
    """
    mesh = parallel.data_mesh()
    if maker.batch % mesh.size:
        raise ValueError(f"batch {maker.batch} must be a multiple of the {mesh.size} devices")
    with parallel.using(mesh), Checkpoints(workdir / "checkpoints") as checkpoints:
        init = jax.jit(trainer.init, static_argnums=0, out_shardings=parallel.replicated(mesh))
        state = init(config.seed)
        state = checkpoints.restore(abstract(state)) or state
        start = int(state.step)
        records = Records(workdir / "metrics.jsonl", step=start)
        step, predict = trainer.compiled
        try:
            for number in range(start, config.steps):
                batch = jax.device_put(maker(number), parallel.batch_sharding(mesh))
                state, metrics = step(state, batch)
                done = number + 1
                if done % config.record_every == 0 or done == config.steps:
                    values = {name: float(value) for name, value in metrics.items()}
                    if not math.isfinite(values["loss"]):
                        raise Diverged(
                            f"the loss became {values['loss']} within the {config.record_every} steps "
                            f"before step {done}; lower the learning rate"
                        )
                    records.write(done, values)
                    on_progress(done, config.steps, "training")
                if done % config.validate_every == 0 and done < config.steps:
                    records.write(done, _validate(predict, state, maker, mesh))
                if done % config.checkpoint_every == 0:
                    checkpoints.save(state)
        except KeyboardInterrupt:
            checkpoints.save(state)
            raise
        checkpoints.save(state)
        figures = _validate(predict, state, maker, mesh)
        if start < config.steps:
            records.write(config.steps, figures)
        return state, figures


def _validate(
    predict: Callable, state: TrainState, maker: PairMaker, mesh: jax.sharding.Mesh
) -> dict[str, float]:
    cosines, targets = [], []
    for number in range(VALIDATION_BATCHES):
        batch: PairBatch = jax.device_put(maker(-1 - number), parallel.batch_sharding(mesh))
        cosines.append(np.asarray(predict(state.params, batch)))
        targets.append(np.asarray(batch.target))
    return validation_figures(np.concatenate(cosines), np.concatenate(targets))


def export(
    trainer: Trainer, state: TrainState, path: Path, *, card: dict[str, str]
) -> encoders.Encoder:
    """Writes the state's network as an encoder for inference."""
    encoder = encoders.from_params(trainer.spec, jax.device_get(state.params))
    encoders.save_encoder(path, encoder, card=card)
    return encoder
