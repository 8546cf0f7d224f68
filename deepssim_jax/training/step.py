"""One training step of the encoder, as a pure function.

Contract: the state is a frozen dataclass of arrays, born on the mesh; a step maps (state, batch)
to (state, metrics) and donates the old state. The batch is spread over the mesh's data axis, the
state is on every device, and the compiler adds the one sum over devices that gradients need.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.typing import Array


class Objective(enum.Enum):
    """What is learned from a batch: its pairs, as published, or every image of one side with every
    image of the other, which costs one small product and teaches n times as much.
    """

    PAIRS = "pairs"
    BATCH = "batch"


_TEMPERATURE = 0.05
_DIVERGENCE = 0.05


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine decay; gradients are clipped by their global norm."""

    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup: int = 100
    steps: int = 1000
    clip: float = 1.0

    def build(self) -> optax.GradientTransformation:
        """The optax chain."""
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, min(self.warmup, self.steps // 2), max(self.steps, 2)
        )
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(schedule, weight_decay=self.weight_decay),
        )


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("step", "params", "optimizer"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint keeps."""

    step: Array
    params: nnx.State
    optimizer: optax.OptState


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The static parts: network graph, optimizer and objective."""

    graph: nnx.GraphDef
    spec: EmbedderSpec
    optimizer: optax.GradientTransformation
    objective: Objective

    @classmethod
    def create(
        cls, spec: EmbedderSpec, config: OptimizerConfig, objective: Objective = Objective.PAIRS
    ) -> "Trainer":
        """A trainer for networks of this specification.

        Raises:
          ValueError: the head keeps batch statistics, or dropout is on; training either of them
            is not what this trainer is for.
        """
        model = nnx.eval_shape(lambda: Embedder(spec, rngs=nnx.Rngs(0)))
        if spec.dropout or jax.tree.leaves(nnx.state(model, nnx.BatchStat)):
            raise ValueError(
                f"dropout {spec.dropout} must be 0 and the head multiscale to train here"
            )
        return cls(nnx.split(model)[0], spec, config.build(), objective)

    def init(self, seed: int) -> TrainState:
        """A fresh state; jit it with out_shardings to make it where it belongs."""
        params = nnx.as_pure(nnx.split(Embedder(self.spec, rngs=nnx.Rngs(seed)))[1])
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    def embed(self, params: nnx.State, batch: PairBatch) -> tuple[Array, Array]:
        """Embeddings [n, d] of both sides."""
        model = nnx.merge(self.graph, params, copy=True)
        n = batch.a.shape[0]
        # One pass over both sides: twice the batch keeps the device busier than two passes.
        both = jnp.stack([batch.a, batch.b], 1).reshape(2 * n, *batch.a.shape[1:])
        embeddings = model(both).reshape(n, 2, -1)
        return embeddings[:, 0], embeddings[:, 1]

    def predict(self, params: nnx.State, batch: PairBatch) -> Array:
        """Cosines [n] of the pairs."""
        a, b = self.embed(params, batch)
        return (a * b).sum(-1)

    def loss(self, params: nnx.State, batch: PairBatch) -> Array:
        """Mean squared error of the cosines to their targets, and where asked for that of all pairs.

        With `Objective.BATCH` a divergence is added that makes the nearest in SSIM the nearest by
        cosine: KL(softmax(SSIM / t) || softmax(cosine / t)) over the other side of the batch.
        """
        a, b = self.embed(params, batch)
        pairs = (((a * b).sum(-1) - batch.target) ** 2).mean()
        if self.objective is Objective.PAIRS:
            return pairs
        if batch.all is None:
            raise ValueError("Objective.BATCH needs the SSIM of all pairs of a batch")
        cosines = jnp.einsum("nd,md->nm", a, parallel.everywhere(b))
        log_wanted = jax.nn.log_softmax(batch.all / _TEMPERATURE)
        log_found = jax.nn.log_softmax(cosines / _TEMPERATURE)
        divergence = (jnp.exp(log_wanted) * (log_wanted - log_found)).sum(-1).mean()
        every = ((cosines - batch.all) ** 2).mean()
        return pairs + every + _DIVERGENCE * divergence

    def step(self, state: TrainState, batch: PairBatch) -> tuple[TrainState, dict[str, Array]]:
        """The loss, and one step of AdamW."""
        value, gradients = jax.value_and_grad(self.loss)(state.params, batch)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, optimizer), metrics

    @functools.cached_property
    def compiled(self) -> tuple[Callable, Callable]:
        """The jitted step, which donates its state, and the jitted predict."""
        return jax.jit(self.step, donate_argnums=0), jax.jit(self.predict)
