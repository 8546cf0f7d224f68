"""One training step of the denoiser, as a pure function.

Contract: a batch is a `LatentBatch`; its noise, times and dropped conditions are a function of
(seed, step) alone, whatever the devices. With an axis "fsdp" on the mesh parameters, averages and
optimiser are spread over it; they are gathered where the network uses them.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.diffusion import objective
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn import network_file
from deepssim_jax.nn.unet import UNet, UNetSpec
from deepssim_jax.training.precision import in_bfloat16
from deepssim_jax.typing import Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("mean", "deviation", "condition"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class LatentBatch:
    """Latents' mean and deviation float32 [n, h, w, c], scaled to about unit variance, and the
    condition [n, tokens, d] or None; zeros are "nothing is known".
    """

    mean: Array
    deviation: Array
    condition: Array | None = None


@dataclasses.dataclass(frozen=True)
class DenoiserOptions:
    """How the denoiser is trained.

    `min_snr` bounds the weight of easy steps, None weighs all alike. `average` is the decay of the
    exponential moving average that is used in the end. With a condition, `drop` of the images are
    seen without theirs. `accumulate` parts of a batch are worked through one after the other;
    `remat` keeps no intermediate values of the blocks.
    """

    learning_rate: float = 2.5e-5
    weight_decay: float = 1e-2
    warmup: int = 0
    clip: float = 1.0
    min_snr: float | None = None
    average: float = 0.999
    drop: float = 0.1
    accumulate: int = 1
    remat: bool = False


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "optimizer", "average"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class DenoiserState:
    """Everything that a checkpoint keeps; `average` is the moving average of the parameters."""

    step: Array
    params: nnx.State
    optimizer: optax.OptState
    average: nnx.State


@dataclasses.dataclass(frozen=True)
class DenoiserJob:
    """The static parts of the training of a denoiser; see `training.loop.Job`."""

    spec: UNetSpec
    schedule: Schedule
    options: DenoiserOptions
    optimizer: optax.GradientTransformation
    seed: int
    half: bool

    images_an_item = 1
    criterion = None

    @classmethod
    def create(
        cls,
        spec: UNetSpec,
        *,
        schedule: Schedule = Schedule(),
        options: DenoiserOptions = DenoiserOptions(),
        seed: int = 0,
        half: bool = False,
    ) -> "DenoiserJob":
        """A job for denoisers of this specification.

        Args:
          spec: the network.
          schedule: of the noise, and what is predicted.
          options: see there.
          seed: of noise, times and dropped conditions.
          half: the network computes in bfloat16; weights and loss stay float32.
        """
        rate: optax.ScalarOrSchedule = options.learning_rate
        if options.warmup:
            rate = optax.linear_schedule(0.0, options.learning_rate, options.warmup)
        optimizer = optax.chain(
            optax.clip_by_global_norm(options.clip),
            optax.adamw(rate, weight_decay=options.weight_decay),
        )
        return cls(spec, schedule, options, optimizer, seed, half)

    @property
    def mark(self) -> str:
        """The architecture in words."""
        return f"a denoiser with {self.spec} and {self.schedule}"

    def init(self, seed: int) -> DenoiserState:
        """A fresh state; jit it with out_shardings to make it where it belongs."""
        return self.start(nnx.split(UNet(self.spec, rngs=network_file.drawing(seed)), nnx.Param)[1])

    def start(self, initial: nnx.State) -> DenoiserState:
        """The state of a run that begins with these weights."""
        params = nnx.as_pure(initial)
        average = jax.tree.map(jnp.copy, params)
        return DenoiserState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params), average)

    def _predict(self, params: nnx.State) -> objective.Predict:
        return predictor(
            self.spec, parallel.gathered(params), half=self.half, remat=self.options.remat
        )

    def loss(self, params: nnx.State, batch: LatentBatch, key: Array) -> Array:
        """The mean over the batch; `key` decides noise, times and dropped conditions."""
        keys = jax.random.split(key, 4)
        n = len(batch.mean)
        drawn = parallel.like_batch(jax.random.normal(keys[0], (2, *batch.mean.shape)), axis=1)
        times = jax.random.randint(keys[1], (n,), 0, self.schedule.steps)
        condition = batch.condition
        if condition is not None:
            kept = jax.random.bernoulli(keys[2], 1 - self.options.drop, (n, 1, 1))
            condition = condition * parallel.like_batch(kept.astype(condition.dtype))
        return objective.loss(
            self._predict(params),
            batch.mean + batch.deviation * drawn[0],
            noise=drawn[1],
            times=parallel.like_batch(times),
            condition=condition,
            schedule=self.schedule,
            min_snr=self.options.min_snr,
        ).mean()

    def gradients(self, state: DenoiserState, batch: LatentBatch) -> tuple[Array, nnx.State]:
        """Loss and gradients, of the parts of the batch one after the other."""
        key = jax.random.fold_in(jax.random.key(self.seed), state.step)
        parts = self.options.accumulate
        if parts == 1:
            return jax.value_and_grad(self.loss)(state.params, batch, key)
        # Interleaved parts: every device then has its share of each.
        split = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(len(x) // parts, parts, *x.shape[1:]), 1, 0), batch
        )

        def add(total: tuple[Array, nnx.State], part: tuple[Array, LatentBatch]):
            number, images = part
            found = jax.value_and_grad(self.loss)(
                state.params, images, jax.random.fold_in(key, number)
            )
            return jax.tree.map(lambda a, b: a + b / parts, total, found), None

        nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        # On a CPU gradients of kernels take eleven times as long inside of a loop.
        unroll = parts if jax.default_backend() == "cpu" else 1
        return jax.lax.scan(add, nothing, (jnp.arange(parts), split), unroll=unroll)[0]

    def step(
        self, state: DenoiserState, batch: LatentBatch
    ) -> tuple[DenoiserState, dict[str, Array]]:
        """One step of AdamW and of the moving average."""
        value, gradients = self.gradients(state, batch)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        # A short run would otherwise keep its random start: (1 + t) / (10 + t) comes first.
        keep = jnp.minimum(self.options.average, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, params)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
        return DenoiserState(state.step + 1, params, optimizer, average), metrics

    @functools.cached_property
    def compiled_step(self) -> jax.stages.Wrapped:
        """The jitted step, which donates its state."""
        return jax.jit(self.step, donate_argnums=0)

    @functools.cached_property
    def _judge(self) -> jax.stages.Wrapped:
        def run(average: nnx.State, batch: LatentBatch) -> Array:
            n = len(batch.mean)
            noise = jax.random.normal(jax.random.key(0), batch.mean.shape)
            return objective.loss(
                self._predict(average),
                batch.mean,
                noise=parallel.like_batch(noise),
                # Evenly over the schedule, so that figures of different states compare.
                times=parallel.like_batch((jnp.arange(n) * 2 + 1) * self.schedule.steps // (2 * n)),
                condition=batch.condition,
                schedule=self.schedule,
            )

        return jax.jit(run)

    def validate(self, state: DenoiserState, batches: Iterator[LatentBatch]) -> dict[str, float]:
        """The loss of the averaged weights, at fixed noise and evenly spread times."""
        found = []
        for batch in batches:
            judge = parallel.compiled(self._judge, state.average, batch)
            found.append(np.asarray(parallel.whole(judge(state.average, batch))))
        return {"validation_loss": float(np.concatenate(found).mean())}


def predictor(
    spec: UNetSpec, params: nnx.State, *, half: bool = False, remat: bool = False
) -> objective.Predict:
    """A network with weights as the samplers and the objective call it."""
    graph, _ = network_file.blueprint(spec)
    if half:
        params = in_bfloat16(params)

    def predict(x: Array, times: Array, condition: Array | None) -> Array:
        if half:
            x, condition = in_bfloat16((x, condition))
        return nnx.merge(graph, params, copy=True)(x, times, condition, remat=remat)

    return predict
