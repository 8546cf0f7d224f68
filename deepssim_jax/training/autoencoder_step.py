"""One training step of the autoencoder and of the discriminator that judges it.

Contract: a batch is float32 [n, h, w] in [0, 1]. Both networks see the same batch in one step: the
autoencoder first, against the discriminator as it was, then the discriminator, on the same
reconstructions (Rombach et al., CVPR 2022, appendix G). The latents' noise is a function of (seed,
step).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.nn import autoencoder as autoencoders
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import Autoencoder, AutoencoderSpec
from deepssim_jax.nn.discriminator import Discriminator, DiscriminatorSpec
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.ops import ssim
from deepssim_jax.training.precision import in_bfloat16
from deepssim_jax.typing import Array

_LOST = 1e15  # no image has such values, and SSIM squares them


@dataclasses.dataclass(frozen=True)
class AutoencoderLoss:
    """Weights beside the mean absolute error; the adversarial one begins at `adversarial_from`."""

    kl: float = 1e-6
    perceptual: float = 0.1
    adversarial: float = 0.125
    adversarial_from: int = 0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "optimizer", "critic", "critic_optimizer"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class AutoencoderState:
    """Everything that a checkpoint keeps; `critic` is the discriminator's parameters."""

    step: Array
    params: nnx.State
    optimizer: optax.OptState
    critic: nnx.State
    critic_optimizer: optax.OptState


@dataclasses.dataclass(frozen=True)
class _With:
    """A compiled step with the frozen perceptual network as its last argument."""

    function: jax.stages.Wrapped
    features: Encoder | None

    def __call__(self, state: AutoencoderState, batch: Array) -> Any:
        return self.function(state, batch, self.features)

    def lower(self, state: AutoencoderState, batch: Array) -> Any:
        return self.function.lower(state, batch, self.features)


@dataclasses.dataclass(frozen=True)
class AutoencoderJob:
    """The static parts of the training of an autoencoder; see `training.loop.Job`."""

    spec: AutoencoderSpec
    critic_spec: DiscriminatorSpec
    weights: AutoencoderLoss
    features: Encoder | None
    optimizer: optax.GradientTransformation
    seed: int
    half: bool

    images_an_item = 1
    criterion = None

    @classmethod
    def create(
        cls,
        spec: AutoencoderSpec,
        *,
        critic: DiscriminatorSpec = DiscriminatorSpec(),
        weights: AutoencoderLoss = AutoencoderLoss(),
        features: Encoder | None = None,
        learning_rate: float = 1e-4,
        fall_over: int | None = None,
        seed: int = 0,
        half: bool = False,
    ) -> "AutoencoderJob":
        """A job for autoencoders of this specification.

        Args:
          spec: the network.
          critic: the discriminator.
          weights: of the parts of the loss.
          features: the network in whose features images should look alike; None for none.
          learning_rate: of both Adams.
          fall_over: steps over which it falls to 0 by a cosine; None keeps it, as published.
          seed: of the latents' noise, which is also a function of the step.
          half: the networks compute in bfloat16; weights and losses stay float32.
        """
        # A schedule either way, so that a run can go on with the other.
        rate = optax.constant_schedule(learning_rate)
        if fall_over is not None:
            rate = optax.cosine_decay_schedule(learning_rate, fall_over)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        return cls(spec, critic, weights, features, optimizer, seed, half)

    @property
    def mark(self) -> str:
        """The architecture in words."""
        return f"an autoencoder with {self.spec} and {self.critic_spec}"

    def init(self, seed: int) -> AutoencoderState:
        """A fresh state; jit it with out_shardings to make it where it belongs."""
        return self.start(
            nnx.split(Autoencoder(self.spec, rngs=network_file.drawing(seed)), nnx.Param)[1]
        )

    def start(self, initial: nnx.State) -> AutoencoderState:
        """The state of a run that begins with these weights."""
        params = nnx.as_pure(initial)
        critic = nnx.as_pure(nnx.split(self._new_critic(), nnx.Param)[1])
        return AutoencoderState(
            jnp.zeros((), jnp.int32),
            params,
            self.optimizer.init(params),
            critic,
            self.optimizer.init(critic),
        )

    def _new_critic(self) -> Discriminator:
        return Discriminator(self.critic_spec, rngs=network_file.drawing(self.seed + 1))

    @functools.cached_property
    def _critic_graph(self) -> nnx.GraphDef:
        return nnx.split(nnx.eval_shape(self._new_critic), nnx.Param)[0]

    def network(self, params: nnx.State) -> Autoencoder:
        """The autoencoder with these weights."""
        return nnx.merge(network_file.blueprint(self.spec)[0], params, copy=True)

    def _judged(self, critic: nnx.State, images: Array) -> Array:
        if self.half:
            critic, images = in_bfloat16((critic, images))
        return nnx.merge(self._critic_graph, critic, copy=True)(images)

    def loss(
        self,
        params: nnx.State,
        critic: nnx.State,
        images: Array,
        step: Array,
        features: Encoder | None,
    ) -> tuple[Array, tuple[Array, dict[str, Array]]]:
        """The autoencoder's loss, its reconstructions and the parts of the loss."""
        weights = self.weights
        model = self.network(in_bfloat16(params) if self.half else params)
        mean, deviation = model.encode(in_bfloat16(images) if self.half else images)
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        latents = autoencoders.sampled(mean, deviation, key)
        latents = in_bfloat16(latents) if self.half else latents
        made = model.decode(latents, size=(images.shape[1], images.shape[2]))
        parts = {
            "l1": jnp.abs(made - images).mean(),
            "kl": autoencoders.kl_divergence(mean, deviation).mean(),
        }
        total = parts["l1"] + weights.kl * parts["kl"]
        if features is not None and weights.perceptual:
            parts["perceptual"] = perceptual(features, made, images)
            total = total + weights.perceptual * parts["perceptual"]
        if weights.adversarial:
            parts["adversarial"] = ((self._judged(critic, made) - 1) ** 2).mean()
            begun = (step >= weights.adversarial_from).astype(jnp.float32)
            total = total + begun * weights.adversarial * parts["adversarial"]
        return total, (made, parts)

    def critic_loss(self, critic: nnx.State, images: Array, made: Array) -> Array:
        """Least squares: 1 for images, 0 for reconstructions."""
        real, fake = self._judged(critic, images), self._judged(critic, made)
        return 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())

    def step(
        self, state: AutoencoderState, images: Array, features: Encoder | None
    ) -> tuple[AutoencoderState, dict[str, Array]]:
        """One step of both optimisers."""
        (value, (made, parts)), gradients = jax.value_and_grad(self.loss, has_aux=True)(
            state.params, state.critic, images, state.step, features
        )
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        critic, critic_optimizer = state.critic, state.critic_optimizer
        metrics = {"loss": value, **parts, "gradient_norm": optax.tree.norm(gradients)}
        if self.weights.adversarial:
            made = jax.lax.stop_gradient(made)
            judged, gradients = jax.value_and_grad(self.critic_loss)(critic, images, made)
            updates, critic_optimizer = self.optimizer.update(gradients, critic_optimizer, critic)
            critic: Any = optax.apply_updates(critic, updates)
            metrics["critic"] = judged
        after = AutoencoderState(state.step + 1, params, optimizer, critic, critic_optimizer)
        return after, metrics

    @functools.cached_property
    def compiled_step(self) -> _With:
        """The jitted step, which donates its state."""
        return _With(jax.jit(self.step, donate_argnums=0), self.features)

    @functools.cached_property
    def reconstruct(self) -> jax.stages.Wrapped:
        """(params, images [n, h, w]) to the same images by way of their mean latents."""

        def run(params: nnx.State, images: Array) -> Array:
            model = self.network(params)
            return model.decode(model.encode(images)[0], size=(images.shape[1], images.shape[2]))

        return jax.jit(run)

    def validate(self, state: AutoencoderState, batches: Iterator[Array]) -> dict[str, float]:
        """Mean absolute error and SSIM of reconstructions of other people's images; NaN if they are none."""
        errors, alike = [], []
        for images in batches:
            reconstruct = parallel.compiled(self.reconstruct, state.params, images)
            made = np.asarray(parallel.whole(reconstruct(state.params, images)))
            given = np.asarray(parallel.whole(images))
            if not np.isfinite(made).all() or np.abs(made).max() > _LOST:
                return {"validation_l1": math.nan, "validation_ssim": math.nan}
            errors.append(np.abs(made - given).mean())
            alike.append(ssim.ssim(given, made, data_range=1.0, reduction="none"))
        return {
            "validation_l1": float(np.mean(errors)),
            "validation_ssim": float(np.mean(np.concatenate(alike))),
        }


def perceptual(features: Encoder, a: Array, b: Array) -> Array:
    """How differently a frozen encoder sees two stacks of images [n, h, w], one number.

    Every stage's features are brought to unit length at each place; squared differences are
    averaged over places and added over stages (Zhang et al., CVPR 2018, eq. 1, weights of 1).
    """
    model = nnx.merge(features.graph, features.state, copy=True)

    def stages(images: Array) -> list[Array]:
        return model.backbone(model.channels(encoders.prepared(features.spec, images)))

    total = jnp.zeros(())
    for x, y in zip(stages(a), stages(b), strict=True):
        total = total + ((_unit(x) - _unit(y)) ** 2).sum(-1).mean()
    return total


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-10)
