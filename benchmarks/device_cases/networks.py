"""Embedding, a training step of the encoder, and the latent diffusion model at the published sizes."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.cases.network import _network_flops as network_flops
from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import device, has_torch, on_device, waited
from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.autoencoder_step import AutoencoderJob, AutoencoderLoss
from deepssim_jax.training.diffusion_step import DenoiserJob, LatentBatch, predictor
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.step import OptimizerConfig, Trainer

_SHAPE, _LATENTS = (136, 112), (36, 28, 3)


def _small(spec: EmbedderSpec) -> EmbedderSpec:
    """One block of few channels a stage, for a dry run."""
    backbone = dataclasses.replace(spec.backbone, depths=(1,) * 4, dims=(8,) * 4)
    return dataclasses.replace(spec, backbone=backbone, hidden=16)


def _mixed(run: Callable[[], object]) -> Callable[[], object]:
    """`run` with PyTorch's bfloat16 autocast."""
    import torch

    def inside() -> object:
        with torch.autocast(device(), torch.bfloat16):
            return run()

    return inside


def embedding(tiny: bool) -> Iterator[Work]:
    """Images a second in float32, which every reported cosine is made of."""
    for name, spec, shape, count in (
        ("embed_nano", EmbedderSpec.nano(), (128, 128), 2048),
        ("embed_tiny", EmbedderSpec.tiny(), _SHAPE, 512),
    ):
        spec = dataclasses.replace(_small(spec) if tiny else spec, dropout=0.0)
        shape, count = ((32, 32), 4) if tiny else (shape, count)
        images = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
        encoder = encoders.from_module(Embedder(spec, rngs=nnx.Rngs(0)))
        batches = [jnp.asarray(part) for part in np.split(images, max(1, count // 256))]
        peers = {}
        if has_torch() and not spec.mirrored:
            peers["torch_float32"] = Peer(_torch_embedding(spec, images), count)
        flops = count * network_flops(spec, shape)
        yield Work(
            name,
            "images",
            count,
            lambda encoder=encoder, batches=batches: [encoders.apply(encoder, x) for x in batches],
            {"images": count, "shape": shape},
            peers,
            products={Kind.F32: flops},
        )


def _torch_embedding(spec: EmbedderSpec, images: np.ndarray) -> Callable[[], object]:
    import torch

    from benchmarks.cases.torch_embedder import TorchEmbedder

    twin = TorchEmbedder(spec).eval().to(device())
    x = on_device(images)

    def run() -> list:
        with torch.no_grad():
            return [twin(part) for part in x.split(256)]

    return waited(run)


def encoder_step(tiny: bool) -> Iterator[Work]:
    """One AdamW step of DeepSSIM++ in bfloat16; the share of the ceiling is its MFU."""
    count, shape = (4, (32, 32)) if tiny else (256, _SHAPE)
    spec = EmbedderSpec.tiny()
    spec = dataclasses.replace(_small(spec) if tiny else spec, dropout=0.0)
    images = np.random.default_rng(0).normal(size=(2, count, *shape)).astype(np.float32)
    target = np.random.default_rng(1).uniform(size=count).astype(np.float32)
    batch = PairBatch(*(jnp.asarray(x) for x in (*images, target)))
    trainer = Trainer.create(spec, OptimizerConfig(), half=not tiny)
    state = [jax.jit(trainer.init, static_argnums=0)(0)]

    def ours() -> object:
        state[0], metrics = trainer.compiled[0](state[0], batch)
        return metrics

    peers = {}
    if has_torch():
        peers["torch_bfloat16"] = Peer(_torch_step(spec, images, target), count)
    flops = 3 * 2 * count * network_flops(spec, shape)
    sizes = {"pairs": count, "shape": shape}
    yield Work("encoder_step", "pairs", count, ours, sizes, peers, products={Kind.BF16: flops})


def _torch_step(spec: EmbedderSpec, images: np.ndarray, target: np.ndarray) -> Callable[[], object]:
    import torch

    from benchmarks.cases.torch_embedder import TorchEmbedder

    twin = TorchEmbedder(spec).train().to(device())
    optimizer = torch.optim.AdamW(twin.parameters(), 1e-3, weight_decay=1e-3)
    a, b, y = (on_device(x) for x in (*images, target))
    forward = _mixed(lambda: twin(torch.cat([a, b])))

    def run() -> None:
        both = forward().float()
        loss = (((both[: len(a)] * both[len(a) :]).sum(-1) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()

    return waited(run)


def _unet(tiny: bool) -> UNetSpec:
    if not tiny:
        return UNetSpec()
    return UNetSpec(channels=(8, 8), attention=(False, True), heads=(0, 8), blocks=1, groups=8)


def _monai(spec: UNetSpec | AutoencoderSpec):
    """MONAI's network of this specification on the card, or None where it is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "monai", "einops")):
        return None
    from benchmarks.cases.monai_twin import twin_of

    return twin_of(spec, flash=True).to(device())


def _backward(twin, loss_of: Callable[[], object]) -> Callable[[], object]:
    """A step of Adam on a loss computed with autocast."""
    import torch

    optimizer = torch.optim.Adam(twin.parameters(), 1e-5)
    mixed = _mixed(loss_of)

    def run() -> None:
        optimizer.zero_grad()
        mixed().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()

    return waited(run)


def denoiser_step(tiny: bool) -> Iterator[Work]:
    """One step of the U-Net in latents of 36 x 28 in bfloat16; the share of the ceiling is its MFU."""
    count, spec = (2, _unet(True)) if tiny else (64, _unet(False))
    shape = (8, 8, 3) if tiny else _LATENTS
    job = DenoiserJob.create(spec, half=not tiny)
    latents = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    batch = LatentBatch(jnp.asarray(latents), jnp.zeros_like(latents))
    state = [jax.jit(job.init, static_argnums=0)(0)]

    def ours() -> object:
        state[0], metrics = job.compiled_step(state[0], batch)
        return metrics

    peers = {}
    if twin := _monai(spec):
        import torch

        x = on_device(latents.transpose(0, 3, 1, 2))
        kept = on_device(np.asarray(Schedule().kept, np.float32))

        def loss() -> torch.Tensor:
            times = torch.randint(0, len(kept), (count,), device=x.device)
            noise, a = torch.randn_like(x), kept[times][:, None, None, None]
            return ((twin(a.sqrt() * x + (1 - a).sqrt() * noise, times) - noise) ** 2).mean()

        peers["monai_bfloat16"] = Peer(_backward(twin, loss), count)
    flops = job.compiled_step.lower(state[0], batch).cost_analysis()["flops"]
    sizes = {"images": count, "latents": shape, "channels": spec.channels}
    yield Work("denoiser_step", "images", count, ours, sizes, peers, products={Kind.BF16: flops})


def autoencoder_step(tiny: bool) -> Iterator[Work]:
    """L1 and KL, backward, and Adam, of 136 x 112 in bfloat16, without critic and features."""
    count = 2 if tiny else 32
    spec = AutoencoderSpec(channels=(8, 8), blocks=1, groups=8) if tiny else AutoencoderSpec()
    shape = (24, 16) if tiny else _SHAPE
    weights = AutoencoderLoss(adversarial=0.0, perceptual=0.0)
    job = AutoencoderJob.create(spec, weights=weights, half=not tiny)
    images = np.random.default_rng(0).uniform(size=(count, *shape)).astype(np.float32)
    given = jnp.asarray(images)
    state = [jax.jit(job.init, static_argnums=0)(0)]

    def ours() -> object:
        state[0], metrics = job.compiled_step(state[0], given)
        return metrics

    peers = {}
    if twin := _monai(spec):
        x = on_device(images[:, None])

        def loss():
            made, mean, deviation = twin(x)
            each = 0.5 * (mean**2 + deviation**2 - 2 * deviation.log() - 1)
            return (made - x).abs().mean() + 1e-6 * each.sum((1, 2, 3)).mean()

        peers["monai_bfloat16"] = Peer(_backward(twin, loss), count)
    flops = job.compiled_step.lower(state[0], given).cost_analysis()["flops"]
    sizes = {"images": count, "shape": shape, "channels": spec.channels}
    yield Work("autoencoder_step", "images", count, ours, sizes, peers, products={Kind.BF16: flops})


def sampling(tiny: bool) -> Iterator[Work]:
    """50 steps of DDIM in latents of 36 x 28 in bfloat16, without decoding."""
    count, steps, spec = (2, 2, _unet(True)) if tiny else (64, 50, _unet(False))
    shape = (8, 8, 3) if tiny else _LATENTS
    params = jax.jit(DenoiserJob.create(spec).init, static_argnums=0)(0).params
    keys = samplers.image_keys(0, jnp.arange(count))

    @jax.jit
    def run(params: nnx.State, keys: jax.Array) -> jax.Array:
        predict = predictor(spec, params, half=not tiny)
        return samplers.sample(predict, keys, shape=shape, schedule=Schedule(), steps=steps)

    @jax.jit
    def once(params: nnx.State, x: jax.Array) -> jax.Array:
        return predictor(spec, params, half=not tiny)(x, jnp.zeros(count, jnp.int32), None)

    peers = {}
    if twin := _monai(spec):
        import torch

        x = on_device(np.zeros((count, shape[2], *shape[:2]), np.float32))
        times = torch.zeros(count, device=x.device, dtype=torch.int64)

        def theirs() -> None:
            with torch.no_grad():
                for _ in range(steps):
                    twin(x, times)

        peers["monai_bfloat16"] = Peer(waited(_mixed(theirs)), count)
    flops = steps * once.lower(params, jnp.zeros((count, *shape))).cost_analysis()["flops"]
    yield Work(
        "sampling",
        "images",
        count,
        functools.partial(run, params, keys),
        {"images": count, "latents": shape, "steps": steps, "channels": spec.channels},
        peers,
        products={Kind.BF16: flops},
    )
