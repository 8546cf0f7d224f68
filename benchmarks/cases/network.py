"""Augmentation, embedding and the training step."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.cases.case import Case, Peer
from deepssim_jax.interop import reference_networks
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.ops import augment
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.step import OptimizerConfig, Trainer

_SHAPE = (136, 112)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def augmentation(scale: float) -> Case:
    """The training augmentations of DeepSSIM++ at 136 x 112, MONAI's on one process beside."""
    count = int(256 * scale)
    images = np.random.default_rng(0).uniform(size=(count, *_SHAPE)).astype(np.float32)
    config = augment.AugmentConfig.v2()

    @jax.jit
    def batch(key: jax.Array, images: jax.Array) -> jax.Array:
        draw, noise = jax.random.split(key)
        return augment.augment(images, augment.sample_params(draw, images.shape, config), noise)

    def ours() -> jax.Array:
        return jax.block_until_ready(batch(jax.random.key(0), images))

    def check() -> None:  # each step is compared with SciPy in tests/ops/test_augment.py
        out = np.asarray(ours())
        assert np.isfinite(out).all()
        assert np.abs(out - images).max() > 0.1
        assert not np.allclose(out[0] - images[0], out[1] - images[1])

    peers = {}
    if _has("monai"):
        import torch
        from monai import transforms

        angle, pixels = np.deg2rad(config.rotation_deg), config.shift * _SHAPE[0]
        chain = transforms.Compose(
            [
                transforms.RandFlip(config.p_flip, 0),
                transforms.RandFlip(config.p_flip, 1),
                transforms.RandRotate(angle, prob=config.p_rotate),
                transforms.RandAffine(config.p_shift, translate_range=(pixels, pixels)),
                transforms.RandZoom(config.p_zoom, *config.zoom),
                transforms.RandBiasField(coeff_range=(0.0, config.bias), prob=config.p_bias),
                transforms.RandAdjustContrast(config.p_gamma, config.gamma),
                transforms.RandGaussianSmooth(config.blur, config.blur, prob=config.p_blur),
            ]
        )

        def monai(few: int = 32) -> list:
            torch.set_num_threads(1)
            out = [chain(image[None]) for image in images[:few]]
            torch.set_num_threads(jax.local_device_count() * 2)
            return out

        peers["monai_process"] = Peer(monai, 32)
    return Case("augmentation", "images", count, ours, check, peers)


def _embedding(name: str, spec: EmbedderSpec, shape: tuple[int, int], count: int) -> Case:
    spec = dataclasses.replace(spec, dropout=0.0)
    images = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    encoder = encoders.from_module(Embedder(spec, rngs=nnx.Rngs(0)))

    def ours() -> np.ndarray:
        return encoders.embed(encoder, images)

    peers = {}
    if spec == dataclasses.replace(EmbedderSpec.tiny(), dropout=0.0) and _has("torch"):
        import torch

        twin = _twin(encoder)

        def theirs() -> np.ndarray:
            x = torch.from_numpy(images)
            x = (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), correction=0, keepdim=True)
            with torch.no_grad():
                return torch.cat([twin(part) for part in x.split(16)]).numpy()

        peers["torch"] = Peer(theirs, count)

    def check() -> None:
        if peers:
            np.testing.assert_allclose(ours(), peers["torch"].run(), atol=1e-5)
        else:
            few = encoders.embed(encoder, images[:3], batch_size=2)
            np.testing.assert_allclose(few, ours()[:3], atol=1e-5)

    flops = count * _network_flops(spec, shape)
    return Case(name, "images", count, ours, check, peers, flops)


def _twin(encoder: encoders.Encoder):
    import torch

    from benchmarks.cases.torch_embedder import TorchEmbedder

    twin = TorchEmbedder(encoder.spec).eval()
    tensors = reference_networks.to_reference(encoder)
    twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in tensors.items()})
    return twin


def _network_flops(spec: EmbedderSpec, shape: tuple[int, int]) -> float:
    """Of one image, forward: patches, 49 taps and two linear maps a block, in each of its views."""
    height, width = (shape[0], shape[1]) if spec.resolution is None else (spec.resolution,) * 2
    into, total = spec.backbone.channels, 0.0
    for stage, (depth, dim) in enumerate(
        zip(spec.backbone.depths, spec.backbone.dims, strict=True)
    ):
        patch = 2 if stage else 4
        height, width = height // patch, width // patch
        pixels = height * width
        total += 2.0 * pixels * (patch**2 * into * dim + depth * (49 * dim + 8 * dim**2))
        into = dim
    return total * (4 if spec.mirrored else 1)


def embedding_nano(scale: float) -> Case:
    """The shipped encoder's network on images of 128 x 128."""
    return _embedding("embedding_nano", EmbedderSpec.nano(), (128, 128), int(512 * scale))


def embedding_tiny(scale: float) -> Case:
    """DeepSSIM++ at 136 x 112, the same network in eager PyTorch beside it."""
    return _embedding("embedding_tiny", EmbedderSpec.tiny(), _SHAPE, int(64 * scale))


def embedding_base(scale: float) -> Case:
    """DeepSSIM at 136 x 112."""
    return _embedding("embedding_base", EmbedderSpec.base(), _SHAPE, int(64 * scale))


def train_step(scale: float) -> Case:
    """One AdamW step of DeepSSIM++ on 16 pairs of 136 x 112, beside eager PyTorch."""
    pairs = max(2, int(16 * scale))
    spec = dataclasses.replace(EmbedderSpec.tiny(), dropout=0.0)
    images = np.random.default_rng(0).normal(size=(2, pairs, *_SHAPE)).astype(np.float32)
    target = np.random.default_rng(1).uniform(size=pairs).astype(np.float32)
    batch = PairBatch(jnp.asarray(images[0]), jnp.asarray(images[1]), jnp.asarray(target))
    trainer = Trainer.create(spec, OptimizerConfig())
    state = [jax.jit(trainer.init, static_argnums=0)(0)]
    start = encoders.from_params(spec, jax.tree.map(jnp.copy, state[0].params), state[0].stats)

    def ours() -> float:
        state[0], metrics = trainer.compiled[0](state[0], batch)
        return float(metrics["loss"])

    peers = {}
    if _has("torch"):
        import torch

        twin = _twin(start).train()
        optimizer = torch.optim.AdamW(twin.parameters(), 1e-3, weight_decay=1e-3)
        a, b, y = (torch.from_numpy(x) for x in (*images, target))

        def theirs() -> float:
            both = twin(torch.cat([a, b]))
            loss = (((both[:pairs] * both[pairs:]).sum(-1) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            return float(loss.detach())

        peers["torch"] = Peer(theirs, pairs)

    def check() -> None:
        first = ours()  # the loss before any update: the rate is 0 at the first step
        assert np.isfinite(first)
        if peers:
            np.testing.assert_allclose(first, peers["torch"].run(), rtol=1e-4)

    flops = 3 * 2 * pairs * _network_flops(spec, _SHAPE)
    return Case("train_step", "pairs", pairs, ours, check, peers, flops)
