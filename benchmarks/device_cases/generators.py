"""Training steps of the latent diffusion model and sampling, at the published sizes."""

import functools
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.networks import filled, mixed
from benchmarks.device_cases.operations import products
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import device, on_device, waited
from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.autoencoder_step import AutoencoderJob, AutoencoderLoss
from deepssim_jax.training.diffusion_step import DenoiserJob, LatentBatch, predictor

_SHAPE, _LATENTS = (136, 112), (36, 28, 3)


def _unet(tiny: bool) -> UNetSpec:
    if not tiny:
        return UNetSpec()
    return UNetSpec(channels=(8, 8), attention=(False, True), heads=(0, 8), blocks=1, groups=8)


def _monai(spec: UNetSpec | AutoencoderSpec):
    """MONAI's network of this specification on the card."""
    from benchmarks.cases.monai_twin import twin_of

    return twin_of(spec, flash=True).to(device())


def _peers(make: Callable[[], Callable[[], object]], count: int) -> dict[str, Peer]:
    """MONAI's network in PyTorch, where both are installed."""
    has = all(importlib.util.find_spec(name) for name in ("torch", "monai", "einops"))
    return {"monai_bfloat16": Peer(make, count)} if has else {}


def _backward(twin, loss_of: Callable[[], object]) -> Callable[[], object]:
    """A step of Adam on a loss computed with autocast."""
    import torch

    optimizer = torch.optim.Adam(twin.parameters(), 1e-5)
    forward = mixed(loss_of)

    def run() -> None:
        optimizer.zero_grad()
        forward().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()

    return waited(run)


def _steps(job: DenoiserJob | AutoencoderJob, batch: object) -> tuple[Callable[[], object], float]:
    """Training steps on one batch, one a call, and the operations of one."""
    state = [filled(functools.partial(job.init, 0))]

    def step() -> object:
        state[0], metrics = job.compiled_step(state[0], batch)
        return metrics

    return step, products(job.compiled_step, state[0], batch)


def denoiser_step(tiny: bool) -> Iterator[Work]:
    """One step of the U-Net in latents of 36 x 28 in bfloat16; the share of the ceiling is its MFU."""
    count, spec = (2, _unet(True)) if tiny else (64, _unet(False))
    shape = (8, 8, 3) if tiny else _LATENTS
    job = DenoiserJob.create(spec, half=not tiny)
    latents = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    batch = LatentBatch(jnp.asarray(latents), jnp.zeros_like(latents))
    ours, flops = _steps(job, batch)

    def theirs() -> Callable[[], object]:
        import torch

        twin = _monai(spec)
        x = on_device(latents.transpose(0, 3, 1, 2))
        kept = on_device(np.asarray(Schedule().kept, np.float32))

        def loss() -> torch.Tensor:
            times = torch.randint(0, len(kept), (count,), device=x.device)
            noise, a = torch.randn_like(x), kept[times][:, None, None, None]
            return ((twin(a.sqrt() * x + (1 - a).sqrt() * noise, times) - noise) ** 2).mean()

        return _backward(twin, loss)

    peers = _peers(theirs, count)
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
    ours, flops = _steps(job, jnp.asarray(images))

    def theirs() -> Callable[[], object]:
        twin = _monai(spec)
        x = on_device(images[:, None])

        def loss():
            made, mean, deviation = twin(x)
            each = 0.5 * (mean**2 + deviation**2 - 2 * deviation.log() - 1)
            return (made - x).abs().mean() + 1e-6 * each.sum((1, 2, 3)).mean()

        return _backward(twin, loss)

    peers = _peers(theirs, count)
    sizes = {"images": count, "shape": shape, "channels": spec.channels}
    yield Work("autoencoder_step", "images", count, ours, sizes, peers, products={Kind.BF16: flops})


def sampling(tiny: bool) -> Iterator[Work]:
    """50 steps of DDIM in latents of 36 x 28 in bfloat16, without decoding."""
    count, steps, spec = (2, 2, _unet(True)) if tiny else (64, 50, _unet(False))
    shape = (8, 8, 3) if tiny else _LATENTS
    params = filled(functools.partial(DenoiserJob.create(spec).init, 0)).params
    keys = samplers.image_keys(jax.random.key(0), jnp.arange(count))

    @jax.jit
    def run(params: nnx.State, keys: jax.Array) -> jax.Array:
        predict = predictor(spec, params, half=not tiny)
        return samplers.sample(predict, keys, shape=shape, schedule=Schedule(), steps=steps)

    def once(params: nnx.State, x: jax.Array) -> jax.Array:
        return predictor(spec, params, half=not tiny)(x, jnp.zeros(count, jnp.int32), None)

    def theirs() -> Callable[[], object]:
        import torch

        twin = _monai(spec)
        x = on_device(np.zeros((count, shape[2], *shape[:2]), np.float32))
        times = torch.zeros(count, device=x.device, dtype=torch.int64)

        def loop() -> None:
            with torch.no_grad():
                for _ in range(steps):
                    twin(x, times)

        return waited(mixed(loop))

    peers = _peers(theirs, count)
    flops = steps * products(once, params, jnp.zeros((count, *shape)))
    yield Work(
        "sampling",
        "images",
        count,
        functools.partial(run, params, keys),
        {"images": count, "latents": shape, "steps": steps, "channels": spec.channels},
        peers,
        products={Kind.BF16: flops},
    )
