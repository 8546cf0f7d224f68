"""Augmentation, embedding and the training step."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases.case import Case
from deepssim_jax.data.anatomy import load_anatomy
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import EmbedderSpec
from deepssim_jax.ops import augment
from deepssim_jax.training.pairs import PairMaker
from deepssim_jax.training.step import OptimizerConfig, Trainer


def augmentation(scale: float) -> Case:
    """The training augmentations of DeepSSIM++ at 136 x 112."""
    count = int(256 * scale)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(count, 136, 112)), jnp.float32)
    config = augment.AugmentConfig.v2()

    @jax.jit
    def batch(key: jax.Array, images: jax.Array) -> jax.Array:
        draw, noise = jax.random.split(key)
        params = augment.sample_params(draw, images.shape, config)
        return augment.augment(images, params, noise)

    def ours() -> object:
        return jax.block_until_ready(batch(jax.random.key(0), images))

    def check() -> None:
        out = np.asarray(batch(jax.random.key(0), images))
        assert np.isfinite(out).all() and np.abs(out - np.asarray(images)).max() > 0.1

    return Case("augmentation", "images", count, ours, check, {})


def embedding(scale: float) -> Case:
    """The shipped encoder on images of 128 x 128."""
    count = int(512 * scale)
    images = np.random.default_rng(0).normal(size=(count, 128, 128)).astype(np.float32)
    encoder = encoders.load_encoder("default")

    def ours() -> object:
        return encoders.embed(encoder, images)

    def check() -> None:
        few = encoders.embed(encoder, images[:3], batch_size=2)
        np.testing.assert_allclose(few, encoders.embed(encoder, images[:3]), atol=1e-5)

    return Case("embedding", "images", count, ours, check, {})


def train_step(scale: float) -> Case:
    """One step of the shipped configuration: 32 pairs of 64 x 64, phantoms made on the way."""
    del scale
    trainer = Trainer.create(EmbedderSpec.nano(), OptimizerConfig())
    maker = PairMaker(anatomy=load_anatomy(), seed=0, batch=32, size=64)
    state = [jax.jit(trainer.init, static_argnums=0)(0)]

    def ours() -> float:
        state[0], metrics = trainer.compiled[0](state[0], maker(0))
        return float(metrics["loss"])

    def check() -> None:
        assert np.isfinite(ours())

    return Case("train_step", "pairs", 32, ours, check, {})
