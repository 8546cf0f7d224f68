"""Training: steps, validation, checkpoints, records, the same for every job.

A batch depends only on (seed, step), so a run that was stopped and started again is the run that
was never stopped. The next batch is made in a thread while the devices work on the present one.
"""

import contextlib
import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import jax

from deepssim_jax import parallel
from deepssim_jax.training.checkpoints import Checkpoints, State, abstract
from deepssim_jax.training.records import Records, Speed
from deepssim_jax.workspace import Workspace

VALIDATION_BATCHES = 8


Batch = TypeVar("Batch")
Made = TypeVar("Made", covariant=True)
_Given = TypeVar("_Given", contravariant=True)


class Maker(Protocol[Made]):
    """Makes batches of `batch` items, images or pairs of them."""

    @property
    def batch(self) -> int:
        """Items of one batch."""
        ...

    def __call__(self, step: int) -> Made:
        """The batch of a step; negative steps are for validation, of other people."""
        ...

    def names(self, step: int) -> str:
        """Which items these are, for whoever has to look for a broken one."""
        ...


class Step(Protocol):
    """A compiled step; it donates its state."""

    def __call__(self, state: Any, batch: Any, /) -> tuple[Any, dict[str, jax.Array]]:
        """The state after the batch, and what to write down, `loss` among it."""
        ...

    def lower(self, state: Any, batch: Any, /) -> Any:
        """As of a jitted function."""
        ...


class Job(Protocol[State, _Given]):
    """What is trained: how its state begins, one step of it, and how it is judged."""

    @property
    def mark(self) -> str:
        """The architecture in words; a directory belongs to one."""
        ...

    @property
    def images_an_item(self) -> int:
        """Images of one item of a batch, for the speed."""
        ...

    @property
    def criterion(self) -> str | None:
        """The figure of `validate` whose lowest value is the best state; None takes the last."""
        ...

    @property
    def compiled_step(self) -> Step:
        """The step."""
        ...

    def init(self, seed: int, /) -> State:
        """A fresh state."""
        ...

    def start(self, initial: Any, /) -> State:
        """The state of a run that begins with given weights."""
        ...

    def validate(self, state: State, batches: Iterator[_Given], /) -> dict[str, float]:
        """Figures of the state on validation batches."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train, and how often to look and to save, in steps.

    `fsdp` devices share one copy of the state; `learning_rate` is the job's, for messages.
    """

    steps: int
    seed: int = 0
    validate_every: int = 250
    checkpoint_every: int = 100
    record_every: int = 20
    fsdp: int = 1
    learning_rate: float | None = None


class Diverged(RuntimeError):
    """The loss is no longer a number."""


def train(
    job: Job[State, Batch],
    maker: Maker[Batch],
    config: LoopConfig,
    workspace: Workspace,
    *,
    initial: object | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> tuple[State, dict[str, float]]:
    """Trains, or goes on where an earlier run of the same workspace stopped.

    Args:
      job: what is trained.
      maker: gives the batch of a step.
      config: see `LoopConfig`.
      workspace: for checkpoints and `metrics.jsonl`; of this job and these batches alone.
      initial: weights to begin with; random ones if None.
      on_progress: called with (steps done, steps in all, what).
      on_notice: called with what a user should know, such as an unreadable checkpoint.

    Returns:
      The state that is best by the job's criterion, the last one without, and its figures.

    Raises:
      Diverged: with the step and its items.
      ValueError: the batch cannot be spread, the workspace belongs to another architecture, or it has
        been trained for more steps.
      NoSpace: the disk is full.
    """
    mesh = parallel.data_mesh(fsdp=config.fsdp)
    if maker.batch % mesh.size:
        raise ValueError(f"batch {maker.batch} must be a multiple of the {mesh.size} devices")
    workspace.bind("architecture", {"network": job.mark}, flag="--workdir")
    with contextlib.ExitStack() as stack:
        batches = _Batches(maker, mesh, stack.enter_context(ThreadPoolExecutor(1)))
        stack.enter_context(parallel.using(mesh))
        latest = stack.enter_context(Checkpoints(workspace, "checkpoints", keep=2))
        best = stack.enter_context(Checkpoints(workspace, "best", keep=1))
        state = _first(job, config, initial, mesh)
        shapes = abstract(state)
        state = latest.restore(shapes, on_notice=on_notice) or state
        start = int(state.step)
        if start > config.steps:
            raise ValueError(
                f"steps {config.steps} is fewer than the {start} that this workdir has been trained for; "
                "give as many or more, or another --workdir"
            )
        records = Records(workspace, step=start)
        stack.callback(records.close)
        speed = Speed(workspace, images=job.images_an_item * maker.batch)
        run = _Run(job, config, batches, latest, best, records, speed, on_progress, state)
        run.go(start)
        chosen = best.restore(shapes, on_notice=on_notice) or run.state
        return chosen, _judged(job, chosen, batches, config)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM come through when the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _first(
    job: Job[State, Any], config: LoopConfig, initial: object | None, mesh: jax.sharding.Mesh
) -> State:
    if initial is not None:
        state = job.start(initial)
        return parallel.spread(state, parallel.state_shardings(state, mesh))
    shapes = jax.eval_shape(lambda: job.init(config.seed))
    wanted = parallel.state_shardings(shapes, mesh)
    return jax.jit(job.init, static_argnums=0, out_shardings=wanted)(config.seed)


@dataclasses.dataclass(frozen=True)
class _Batches(Generic[Batch]):
    """Batches on the devices; made in a thread, in which no mesh is set that would spread them."""

    maker: Maker[Batch]
    mesh: jax.sharding.Mesh
    thread: ThreadPoolExecutor

    def submit(self, step: int) -> "Future[Batch]":
        return self.thread.submit(self._make, step)

    def _make(self, step: int) -> Batch:
        return parallel.spread(self.maker(step), parallel.batch_sharding(self.mesh))

    def ahead(self, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """Numbered batches; while one is used the next is made."""
        coming = [self.submit(step) for step in range(start, min(start + 1, stop))]
        for step in range(start, stop):
            batch = coming.pop().result()
            if step + 1 < stop:
                coming.append(self.submit(step + 1))
            yield step, batch

    def validation(self) -> Iterator[Batch]:
        """Batches of other people, always the same ones."""
        for number in range(VALIDATION_BATCHES):
            yield self.submit(-1 - number).result()


@dataclasses.dataclass
class _Run(Generic[State, Batch]):
    """A run under way: `state` is that after the last step, `losses` are those not looked at yet."""

    job: Job[State, Batch]
    config: LoopConfig
    batches: _Batches[Batch]
    latest: Checkpoints
    best: Checkpoints
    records: Records
    speed: Speed
    on_progress: Callable[[int, int, str], None]
    state: State
    losses: list[jax.Array] = dataclasses.field(default_factory=list)

    def go(self, start: int) -> None:
        """Does all steps from `start` on, and saves the last state, also of a run that is interrupted."""
        config, step = self.config, self.job.compiled_step
        # Said before the first step, which compiles and takes long.
        self.on_progress(start, config.steps, "training")
        try:
            for number, batch in self.batches.ahead(start, config.steps):
                if number == start:
                    self._compile(step, batch)
                # The step donates the old state: nothing may come between it and the new one.
                with _uninterrupted():
                    self.state, metrics = step(self.state, batch)
                self.losses.append(metrics["loss"])
                done = number + 1
                if number == start:  # the clock starts when everything is compiled
                    jax.block_until_ready(metrics)
                    self.speed.tick(done)
                if done % config.record_every == 0 or done == config.steps:
                    self._record(done, metrics)
                if done % config.validate_every == 0 or done == config.steps:
                    self._validate()
                if done % config.checkpoint_every == 0:
                    self.latest.save(self.state)
        except KeyboardInterrupt:
            # Others may stand at another step, and cannot be waited for.
            if jax.process_count() == 1:
                self.latest.save(self.state)
            raise
        self.latest.save(self.state)

    def _compile(self, step: Step, batch: Batch) -> None:
        if self.speed.peak is not None and self.speed.flops is None:
            self.speed.flops = (step.lower(self.state, batch).cost_analysis() or {}).get("flops", 0)
        parallel.compiled(step, self.state, batch)

    def _record(self, done: int, metrics: dict[str, jax.Array]) -> None:
        values: dict[str, float] = {k: float(v) for k, v in metrics.items()}
        _stop_if_diverged(self.losses, done, self.batches.maker, self.config)
        self.records.write(done, values)
        self.speed.tick(done)
        self.on_progress(done, self.config.steps, "training")

    def _validate(self) -> None:
        """Writes figures of the state down, and keeps it where it is the best so far."""
        criterion = self.job.criterion
        lowest = self.records.lowest(criterion or "")
        figures = _judged(self.job, self.state, self.batches, self.config)
        self.records.write(int(self.state.step), figures)
        if criterion is not None and figures[criterion] < lowest:
            self.best.save(self.state)


def _judged(
    job: Job[Any, Batch], state: Any, batches: _Batches[Batch], config: LoopConfig
) -> dict[str, float]:
    """Figures of validation.

    Raises:
      Diverged: none of them is a number: the last step may have broken the weights after its loss.
    """
    figures = job.validate(state, batches.validation())
    if not any(map(math.isfinite, figures.values())):
        raise Diverged(
            f"after step {int(state.step)} the network gives no numbers on validation images; begin again in "
            f"another --workdir and lower the learning rate{_rate(config)}"
        )
    return figures


def _stop_if_diverged(losses: list[jax.Array], done: int, maker: Maker, config: LoopConfig) -> None:
    """Looks through the losses since the last look, which stay on the device until then."""
    first = done - len(losses)
    for step, loss in enumerate(losses, start=first):
        if not math.isfinite(float(loss)):
            raise Diverged(
                f"the loss became {float(loss)} in step {step + 1}, with {maker.names(step)}; look at "
                f"these images, or lower the learning rate{_rate(config)}"
            )
    losses.clear()


def _rate(config: LoopConfig) -> str:
    rate = config.learning_rate
    return "" if rate is None else f" (--config.learning_rate, now {rate:g})"
