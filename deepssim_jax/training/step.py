"""One training step of the encoder, as a pure function.

Contract: the state is a frozen dataclass of arrays, born on the mesh; a step maps (state, batch)
to (state, metrics) and donates the old state. The batch is spread over the mesh's data axis, the
state is on every device, and the compiler adds the one sum over devices that gradients need.
"""

import dataclasses
import enum
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from scipy import stats

from deepssim_jax import parallel
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.precision import in_bfloat16
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Workspace


class Objective(enum.Enum):
    """What is learned from a batch: its pairs, as published, or every image of one side with every
    image of the other, which costs one small product and teaches n times as much.
    """

    PAIRS = "pairs"
    BATCH = "batch"


_STAGES = 4
_TEMPERATURE = 0.05
_DIVERGENCE = 0.05
_EVERY = (
    4.0  # with 1 unrelated images, whose SSIM differs little, hardly count beside the divergence
)


class Schedule(enum.Enum):
    """How the learning rate goes on: as it began, or up over the warm-up and down by a cosine."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Method(enum.Enum):
    """What turns gradients into steps: AdamW, as published, or Muon.

    Muon (Jordan, 2024; Liu et al., arXiv 2502.16982, eq. 4) makes the averaged gradient of a matrix
    orthogonal, at the root mean square 0.2 of AdamW's steps, so that one learning rate serves both;
    what is no matrix is left to AdamW. A step of the shipped network takes a third longer and teaches
    more than that.
    """

    ADAMW = "adamw"
    MUON = "muon"


class Freeze(enum.Enum):
    """Which parts of a pretrained backbone keep their weights.

    `FIRST_STAGE` is the stem and the first stage, as DeepSSIM++ has it. `PUBLISHED_V1` is what
    DeepSSIM's code does: its test for a "0" or a "1" in a name was meant for the first two parts
    and meets every downsampling layer, every depthwise convolution, the first stage and every
    block whose number has such a digit, 58.6 % of the backbone.
    """

    NOTHING = "nothing"
    FIRST_STAGE = "first_stage"
    PUBLISHED_V1 = "published_v1"

    def holds(self, path: tuple[object, ...]) -> bool:
        """Whether the parameter of this path is frozen."""
        if self is Freeze.NOTHING or path[0] != "backbone":
            return False
        _, _, stage, part, *rest = path
        if self is Freeze.FIRST_STAGE:
            return stage == 0
        digits = set(str(rest[0])) if part == "blocks" else {"0"}
        return stage == 0 or bool(digits & {"0", "1"}) or str(rest[-1]).startswith("depthwise")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are moved; gradients are clipped by their global norm.

    `stage_decay` multiplies the learning rate once more for every stage that lies further from
    the head: head 1, last stage `stage_decay`, the one before its square.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Schedule = Schedule.COSINE
    warmup: int = 100
    steps: int = 1000
    clip: float = 1.0
    stage_decay: float = 1.0
    freeze: Freeze = Freeze.NOTHING
    method: Method = Method.ADAMW

    def rate(self, path: tuple[object, ...]) -> float:
        """The share of the learning rate that the parameter of this path gets."""
        if self.freeze.holds(path):
            return 0.0
        if path[0] != "backbone":
            return 1.0
        return self.stage_decay ** (_STAGES - int(str(path[2])))

    def build(self, params: nnx.State) -> optax.GradientTransformation:
        """The optax chain for parameters like these."""
        schedule: optax.ScalarOrSchedule = self.learning_rate
        if self.schedule is Schedule.COSINE:
            schedule = optax.warmup_cosine_decay_schedule(
                0.0, self.learning_rate, min(self.warmup, self.steps // 2), max(self.steps, 2)
            )
        rates = nnx.from_flat_state([(p, self.rate(p)) for p, _ in nnx.to_flat_state(params)])
        # A frozen weight neither moves nor decays, and its gradient does not count for the norm.
        return optax.chain(
            optax.stateless(lambda updates, _: _scaled(updates, rates, keep=True)),
            optax.clip_by_global_norm(self.clip),
            self._method(schedule),
            optax.stateless(lambda updates, _: _scaled(updates, rates, keep=False)),
        )

    def _method(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        if self.method is Method.ADAMW:
            return optax.adamw(rate, weight_decay=self.weight_decay)
        return optax.contrib.muon(
            rate,
            ns_steps=4,
            preconditioning="schatten",
            consistent_rms=0.2,
            weight_decay=self.weight_decay,
            adam_weight_decay=self.weight_decay,
        )


def _scaled(updates: Any, rates: nnx.State, *, keep: bool) -> Any:
    """Updates times their rates; with `keep` only what is frozen becomes 0."""
    return jax.tree.map(
        lambda update, rate: update * (float(rate > 0) if keep else rate), updates, rates
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "stats", "optimizer", "average"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint keeps.

    `stats` are BatchNorm's running figures, empty for networks without; `average` is the
    exponential moving average of the parameters, or None.
    """

    step: Array
    params: nnx.State
    stats: nnx.State
    optimizer: optax.OptState
    average: nnx.State | None

    @property
    def best_params(self) -> nnx.State:
        """The parameters to use: averaged ones where there are."""
        return self.params if self.average is None else self.average


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The static parts: the network's graph in training and at rest, optimizer and objective."""

    graph: nnx.GraphDef
    still: nnx.GraphDef
    spec: EmbedderSpec
    optimizer: optax.GradientTransformation
    objective: Objective
    average_decay: float | None
    seed: int
    half: bool

    @classmethod
    def create(
        cls,
        spec: EmbedderSpec,
        config: OptimizerConfig,
        *,
        objective: Objective = Objective.PAIRS,
        average_decay: float | None = None,
        seed: int = 0,
        half: bool = False,
    ) -> "Trainer":
        """A trainer for networks of this specification.

        Args:
          spec: the network.
          config: of the optimizer.
          objective: what is learned from a batch.
          average_decay: of an exponential moving average of the parameters; None keeps none.
          seed: of dropout, which is also a function of the step.
          half: the backbone computes in bfloat16; weights, head and loss stay float32.
        """
        model = nnx.eval_shape(lambda: Embedder(spec, rngs=nnx.Rngs(0)))
        graph, params, _ = nnx.split(model, nnx.Param, nnx.BatchStat)
        still = nnx.split(encoders.at_rest(model), nnx.Param, nnx.BatchStat)[0]
        optimizer = config.build(nnx.as_pure(params))
        return cls(graph, still, spec, optimizer, objective, average_decay, seed, half)

    def init(self, seed: int) -> TrainState:
        """A fresh state; jit it with out_shardings to make it where it belongs."""
        return self.start(Embedder(self.spec, rngs=nnx.Rngs(seed)))

    def start(self, model: Embedder) -> TrainState:
        """The state of a run that begins with this network's weights."""
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        params, stats = nnx.as_pure(params), nnx.as_pure(stats)
        average = None if self.average_decay is None else jax.tree.map(jnp.copy, params)
        step = jnp.zeros((), jnp.int32)
        return TrainState(step, params, stats, self.optimizer.init(params), average)

    def predict(self, state: TrainState, batch: PairBatch) -> Array:
        """Cosines [n] of the pairs, by the network at rest as an encoder uses it."""
        model = nnx.merge(self.still, state.best_params, state.stats, copy=True)
        a, b = (model.embed(images) for images in (batch.a, batch.b))
        return (a * b).sum(-1)

    def loss(
        self, params: nnx.State, stats: nnx.State, batch: PairBatch, step: Array
    ) -> tuple[Array, nnx.State]:
        """Mean squared error of the cosines to their targets, and where asked for 4 x that of all pairs.

        With `Objective.BATCH` a divergence is added that makes the nearest in SSIM the nearest by
        cosine: KL(softmax(SSIM / t) || softmax(cosine / t)) over the other side of the batch.

        Returns:
          The loss, and BatchNorm's figures after the batch.
        """
        if self.half:
            params = nnx.State({**params, "backbone": in_bfloat16(params["backbone"])})
            batch = dataclasses.replace(batch, a=in_bfloat16(batch.a), b=in_bfloat16(batch.b))
        model = nnx.merge(self.graph, params, stats, copy=True)
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        a, b = _both(model, batch, rngs=nnx.Rngs(dropout=key) if self.spec.dropout else None)
        after = _as_torch_keeps(stats, nnx.as_pure(nnx.state(model, nnx.BatchStat)), 2 * len(a))
        loss = (((a * b).sum(-1) - batch.target) ** 2).mean()
        if self.objective is Objective.BATCH:
            if batch.all is None:
                raise ValueError("Objective.BATCH needs the SSIM of all pairs of a batch")
            cosines = jnp.einsum("nd,md->nm", a, parallel.everywhere(b))
            log_wanted = jax.nn.log_softmax(batch.all / _TEMPERATURE)
            log_found = jax.nn.log_softmax(cosines / _TEMPERATURE)
            divergence = (jnp.exp(log_wanted) * (log_wanted - log_found)).sum(-1).mean()
            squares = ((cosines - batch.all) ** 2).mean()
            loss = loss + _EVERY * squares + _DIVERGENCE * divergence
        return loss, after

    def step(self, state: TrainState, batch: PairBatch) -> tuple[TrainState, dict[str, Array]]:
        """The loss, and one step of the optimizer."""
        (value, stats), gradients = jax.value_and_grad(self.loss, has_aux=True)(
            state.params, state.stats, batch, state.step
        )
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average, keep = state.average, self.average_decay
        if keep is not None:
            average = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, average, params)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, stats, optimizer, average), metrics

    images_an_item = 2
    criterion = "rmse"

    @property
    def mark(self) -> str:
        """The architecture in words."""
        return f"an encoder with {self.spec}"

    @property
    def compiled_step(self) -> jax.stages.Wrapped:
        """The jitted step."""
        return self.compiled[0]

    def validate(self, state: TrainState, batches: Iterator[PairBatch]) -> dict[str, float]:
        """Figures of the cosines of validation pairs; see `validation_figures`."""
        cosines, targets = [], []
        for batch in batches:
            predict = parallel.compiled(self.compiled[1], state, batch)
            cosines.append(parallel.whole(predict(state, batch)))
            targets.append(parallel.whole(batch.target))
        return validation_figures(np.concatenate(cosines), np.concatenate(targets))

    @functools.cached_property
    def compiled(self) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped]:
        """The jitted step, which donates its state, and the jitted predict."""
        return jax.jit(self.step, donate_argnums=0), jax.jit(self.predict)


def _both(
    model: Embedder, batch: PairBatch, *, rngs: nnx.Rngs | None = None
) -> tuple[Array, Array]:
    """Embeddings [n, d] of both sides."""
    n = batch.a.shape[0]
    # One pass over both sides: twice the batch keeps the device busier than two passes.
    both = jnp.stack([batch.a, batch.b], 1).reshape(2 * n, *batch.a.shape[1:])
    embeddings = model(both, rngs=rngs).reshape(n, 2, -1)
    return embeddings[:, 0], embeddings[:, 1]


def _as_torch_keeps(before: nnx.State, after: nnx.State, count: int) -> nnx.State:
    """BatchNorm's running variances by the unbiased variance of the batch, as PyTorch has them.

    Flax adds the biased one, 0.1 v; what is missing is 0.1 v / (count - 1).
    """
    flat = dict(nnx.to_flat_state(before))
    return nnx.from_flat_state(
        [
            (path, new + (new - 0.9 * flat[path]) / (count - 1) if path[-1] == "var" else new)
            for path, new in nnx.to_flat_state(after)
        ]
    )


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


def export(
    trainer: Trainer, state: TrainState, workspace: Workspace, *, card: dict[str, str]
) -> Path:
    """Writes the state's network as an encoder for inference, `encoder.safetensors`."""
    states = jax.device_get((state.best_params, state.stats))
    encoder = encoders.from_params(trainer.spec, *states)
    return workspace.write("encoder.safetensors", encoders.encoder_bytes(encoder, card=card))
