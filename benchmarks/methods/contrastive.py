"""Contrastive learning of who is who: two views of one image attract each other, all others repel.

The embedding by which Dar et al. find copies (arXiv 2402.01054, Methods): a ResNet-50 with 128
outputs, NT-Xent with a temperature of 0.07, views turned by up to 5 degrees and mirrored, Adam from
1e-4 by a cosine to its half, batches of 64, 200 epochs. They begin with ImageNet's weights, this with
random ones.

Contract: a batch of views is float [n, 2, h, w], z-scored, a pure function of (seed, step).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.methods.resnet import ResNet, ResNetSpec
from deepssim_jax import parallel
from deepssim_jax.data import pipelines
from deepssim_jax.data.pipelines import Batches
from deepssim_jax.data.store import ImageStore
from deepssim_jax.ops import augment as augmenting
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.training.loop import LoopConfig, train
from deepssim_jax.typing import Array, Images
from deepssim_jax.workspace import Workspace

_TEMPERATURE = 0.07
_RATE = 1e-4
_BATCH = 64
_EPOCHS = 200
_VIEWS = AugmentConfig(p_flip=0.5, p_rotate=1.0, rotation_deg=5.0)


def nt_xent(views: Array, *, temperature: float = _TEMPERATURE) -> Array:
    """Cross-entropy of finding the other view among all (Chen et al., ICML 2020, eq. 1).

    Args:
      views: [n, 2, d] of any norm.
      temperature: of the softmax.

    Returns:
      Mean over all 2 n views.
    """
    n, _, d = views.shape
    owner = jnp.arange(n).repeat(2)
    return optax.losses.ntxent(views.reshape(2 * n, d), owner, temperature)


@dataclasses.dataclass(frozen=True)
class Views:
    """Makes two views of each image of a batch; negative steps are of held-out patients."""

    batch: int
    seed: int
    training: Batches[np.ndarray]
    validation: Batches[np.ndarray]

    @classmethod
    def of(cls, images: ImageStore, *, batch: int, seed: int) -> "Views":
        """Splits by patient; see `pipelines.split_by_patient` for the error."""
        return cls(batch, seed, *pipelines.batches_by_patient(images, batch=batch, seed=seed))

    def __call__(self, step: int) -> Array:
        """The views of one step."""
        images = self.training[step] if step >= 0 else self.validation[-1 - step]
        return _two_views(jax.random.fold_in(jax.random.key(self.seed), step + 2**31), images)

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the images of seed {self.seed}, step {step}"


@jax.jit
def _two_views(key: Array, images: Array) -> Array:
    images = zscore(images)

    def view(key: Array) -> Array:
        draw, noise = jax.random.split(key)
        params = augmenting.sample_params(draw, images.shape, _VIEWS)
        return zscore(augmenting.augment(images, params, noise))

    return jnp.stack([view(part) for part in jax.random.split(key)], axis=1)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "stats", "optimizer"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class ContrastiveState:
    """Everything that a checkpoint keeps."""

    step: Array
    params: nnx.State
    stats: nnx.State
    optimizer: optax.OptState


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """The job of `training.loop`; see the module."""

    spec: ResNetSpec
    steps: int

    images_an_item = 2
    criterion = None

    @property
    def mark(self) -> str:
        """The architecture in words."""
        return f"a contrastive network with {self.spec}"

    def init(self, seed: int) -> ContrastiveState:
        """A fresh state."""
        return self.start(ResNet(self.spec, rngs=nnx.Rngs(seed)))

    def start(self, model: ResNet) -> ContrastiveState:
        """The state of a run that begins with this network's weights."""
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        params = nnx.as_pure(params)
        optimizer = self._optimizer.init(params)
        return ContrastiveState(jnp.zeros((), jnp.int32), params, nnx.as_pure(stats), optimizer)

    @property
    def compiled_step(self) -> jax.stages.Wrapped:
        """The jitted step."""
        return self._compiled[0]

    def validate(self, state: ContrastiveState, batches: Iterator[Array]) -> dict[str, float]:
        """The loss on views of held-out patients."""
        losses = [parallel.compiled(self._compiled[1], state, b)(state, b) for b in batches]
        return {"validation_loss": float(np.mean(losses))}

    def embed(self, state: ContrastiveState, images: Images) -> np.ndarray:
        """Images [n, h, w] of any scale to float32 [n, dim] whose cosine is their correlation."""
        run = functools.partial(self._compiled[2], state.params, state.stats)
        return np.asarray(in_batches(run, images, size=_BATCH))

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(_RATE, self.steps, alpha=0.5))

    @functools.cached_property
    def _graphs(self) -> tuple[nnx.GraphDef, nnx.GraphDef]:
        """The network in training and at rest."""
        model = nnx.eval_shape(lambda: ResNet(self.spec, rngs=nnx.Rngs(0)))
        still = nnx.view(model, use_running_average=True)
        graphs = [nnx.split(m, nnx.Param, nnx.BatchStat)[0] for m in (model, still)]
        return graphs[0], graphs[1]

    @functools.cached_property
    def _compiled(self) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped]:
        learning, still = self._graphs

        def outputs(
            graph: nnx.GraphDef, params: Any, stats: Any, views: Array
        ) -> tuple[Array, Any]:
            model = nnx.merge(graph, params, stats, copy=True)
            n, two, *size = views.shape
            rows = model(views.reshape(two * n, *size)).reshape(n, two, -1)
            return rows, nnx.as_pure(nnx.state(model, nnx.BatchStat))

        def loss(params: Any, stats: Any, views: Array) -> tuple[Array, Any]:
            rows, after = outputs(learning, params, stats, views)
            return nt_xent(parallel.everywhere(rows)), after

        def step(state: ContrastiveState, views: Array) -> tuple[ContrastiveState, dict]:
            (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(
                state.params, state.stats, views
            )
            updates, optimizer = self._optimizer.update(gradients, state.optimizer, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            return ContrastiveState(state.step + 1, params, stats, optimizer), {"loss": value}

        def validation(state: ContrastiveState, views: Array) -> Array:
            return nt_xent(parallel.everywhere(outputs(still, state.params, state.stats, views)[0]))

        def embed(params: Any, stats: Any, images: Array) -> Array:
            rows = nnx.merge(still, params, stats, copy=True)(zscore(images))
            return rows - rows.mean(1, keepdims=True)

        return jax.jit(step, donate_argnums=0), jax.jit(validation), jax.jit(embed)


def train_contrastive(
    images: ImageStore,
    workspace: Workspace,
    *,
    spec: ResNetSpec = ResNetSpec(),
    epochs: int = _EPOCHS,
    batch: int = _BATCH,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Learns an embedding from images; a run of the same folder that was stopped goes on.

    Args:
      images: with their patients; validation is on other patients.
      workspace: for checkpoints and metrics; of these images and settings alone.
      spec: the network.
      epochs: passes through the training part.
      batch: images a step.
      seed: of weights, split and views.
      on_progress: called with (steps done, steps in all, what).

    Returns:
      Images [n, h, w] of any scale to [n, dim]; the cosine of two rows is their correlation.

    Raises:
      InputError: there are fewer than two patients.
    """
    part = len(pipelines.split_by_patient(images, seed=seed)[0])
    steps = max(1, epochs * part // batch)
    job = Contrastive(spec, steps)
    maker = Views.of(images, batch=batch, seed=seed)
    config = LoopConfig(steps, seed=seed, validate_every=steps, checkpoint_every=200)
    state, _ = train(job, maker, config, workspace, on_progress=on_progress)
    return functools.partial(job.embed, state)
