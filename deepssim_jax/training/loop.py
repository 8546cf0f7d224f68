"""Training the encoder: steps, validation, checkpoints, records.

A batch depends only on (seed, step), so a run that was stopped and started again is the run that
was never stopped. The next batch is made in a thread while the devices work on the present one.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from scipy import stats

from deepssim_jax import parallel
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder
from deepssim_jax.training.checkpoints import Checkpoints, abstract
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.records import Records, Speed
from deepssim_jax.training.step import Trainer, TrainState

VALIDATION_BATCHES = 8


class Maker(Protocol):
    """Makes batches of `batch` pairs."""

    @property
    def batch(self) -> int:
        """Pairs of one batch."""
        ...

    def __call__(self, step: int) -> PairBatch:
        """The batch of a step; negative steps are for validation, of other people."""
        ...

    def names(self, step: int) -> str:
        """Which pairs these are, for whoever has to look for a broken one."""
        ...


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
    """MAE, RMSE and Spearman's correlation of predicted and true SSIM, and the MAE by SSIM bin.

    `mae_0.3` is that of targets in [0.3, 0.4); 1 belongs to the last bin; empty bins are left out.
    """
    error = np.abs(cosine - target)
    figures = {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "spearman": float(stats.spearmanr(cosine, target).statistic),
    }
    bins = np.clip(np.floor(10 * target), 0, 9).astype(int)
    return figures | {f"mae_{b / 10:.1f}": float(error[bins == b].mean()) for b in np.unique(bins)}


def train(
    trainer: Trainer,
    maker: Maker,
    config: LoopConfig,
    workdir: Path,
    *,
    initial: Embedder | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[TrainState, dict[str, float]]:
    """Trains, or goes on where an earlier run of the same directory stopped.

    Args:
      trainer: network and optimizer.
      maker: gives the batch of a step.
      config: see `LoopConfig`.
      workdir: for checkpoints and `metrics.jsonl`.
      initial: weights to begin with; random ones if None.
      on_progress: called with (steps done, steps in all, what).

    Returns:
      The state with the lowest mean squared error in validation, and its figures.

    Raises:
      Diverged: with the step and its pairs.
    """
    mesh = parallel.data_mesh()
    if maker.batch % mesh.size:
        raise ValueError(f"batch {maker.batch} must be a multiple of the {mesh.size} devices")
    with contextlib.ExitStack() as stack:
        batches = _Batches(maker, mesh, stack.enter_context(ThreadPoolExecutor(1)))
        stack.enter_context(parallel.using(mesh))
        latest = stack.enter_context(Checkpoints(workdir / "checkpoints", keep=2))
        best = stack.enter_context(Checkpoints(workdir / "best", keep=1))
        state = _first(trainer, config, initial, mesh)
        shapes = abstract(state)
        state = latest.restore(shapes) or state
        start = int(state.step)
        records = Records(workdir, step=start)
        stack.callback(records.close)
        step, predict = trainer.compiled
        speed = Speed(workdir, images=2 * maker.batch)
        losses: list[jax.Array] = []

        def validate(state: TrainState) -> None:
            lowest = records.lowest("rmse")
            figures = _validate(predict, state, batches)
            records.write(int(state.step), figures)
            if figures["rmse"] < lowest:
                best.save(state)

        try:
            for number, batch in batches.ahead(start, config.steps):
                if speed.peak is not None and speed.flops is None:
                    speed.flops = (step.lower(state, batch).cost_analysis() or {}).get("flops", 0)
                state, metrics = step(state, batch)
                losses.append(metrics["loss"])
                done = number + 1
                if done == start + 1:  # the clock starts when everything is compiled
                    jax.block_until_ready(metrics)
                    speed.tick(done)
                if done % config.record_every == 0 or done == config.steps:
                    values: dict[str, float] = {k: float(v) for k, v in metrics.items()}
                    _stop_if_diverged(losses, done, maker)
                    records.write(done, values)
                    speed.tick(done)
                    on_progress(done, config.steps, "training")
                if done % config.validate_every == 0 or done == config.steps:
                    validate(state)
                if done % config.checkpoint_every == 0:
                    latest.save(state)
        except KeyboardInterrupt:
            latest.save(state)
            raise
        latest.save(state)
        chosen = best.restore(shapes) or state
        return chosen, _validate(predict, chosen, batches)


def _first(
    trainer: Trainer, config: LoopConfig, initial: Embedder | None, mesh: jax.sharding.Mesh
) -> TrainState:
    everywhere = parallel.replicated(mesh)
    if initial is not None:
        return parallel.spread(trainer.start(initial), everywhere)
    return jax.jit(trainer.init, static_argnums=0, out_shardings=everywhere)(config.seed)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Batches on the devices; made in a thread, in which no mesh is set that would spread them."""

    maker: Maker
    mesh: jax.sharding.Mesh
    thread: ThreadPoolExecutor

    def submit(self, step: int) -> "Future[PairBatch]":
        return self.thread.submit(self._make, step)

    def _make(self, step: int) -> PairBatch:
        return parallel.spread(self.maker(step), parallel.batch_sharding(self.mesh))

    def ahead(self, start: int, stop: int) -> Iterator[tuple[int, PairBatch]]:
        """Numbered batches; while one is used the next is made."""
        coming = [self.submit(step) for step in range(start, min(start + 1, stop))]
        for step in range(start, stop):
            batch = coming.pop().result()
            if step + 1 < stop:
                coming.append(self.submit(step + 1))
            yield step, batch


def _stop_if_diverged(losses: list[jax.Array], done: int, maker: Maker) -> None:
    """Looks through the losses since the last look, which stay on the device until then."""
    first = done - len(losses)
    for step, loss in enumerate(losses, start=first):
        if not math.isfinite(float(loss)):
            raise Diverged(
                f"the loss became {float(loss)} in step {step + 1}, with {maker.names(step)}; look at "
                "these images, or lower the learning rate"
            )
    losses.clear()


def _validate(predict: Callable, state: TrainState, batches: _Batches) -> dict[str, float]:
    cosines, targets = [], []
    for number in range(VALIDATION_BATCHES):
        batch = batches.submit(-1 - number).result()
        cosines.append(parallel.whole(predict(state, batch)))
        targets.append(parallel.whole(batch.target))
    return validation_figures(np.concatenate(cosines), np.concatenate(targets))


def export(
    trainer: Trainer, state: TrainState, path: Path, *, card: dict[str, str]
) -> encoders.Encoder:
    """Writes the state's network as an encoder for inference; one process of many does it."""
    states = jax.device_get((state.best_params, state.stats))
    encoder = encoders.from_params(trainer.spec, *states)
    if jax.process_index() == 0:
        encoders.save_encoder(path, encoder, card=card)
    return encoder
