"""Embedding, and a training step of the encoder."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.cases.network import _network_flops as network_flops
from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import device, has_torch, on_device, waited
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.step import OptimizerConfig, Trainer

T = TypeVar("T")
_SHAPE, _LATENTS = (136, 112), (36, 28, 3)


def _small(spec: EmbedderSpec) -> EmbedderSpec:
    """One block of few channels a stage, for a dry run."""
    backbone = dataclasses.replace(spec.backbone, depths=(1,) * 4, dims=(8,) * 4)
    return dataclasses.replace(spec, backbone=backbone, hidden=16)


def filled(make: Callable[[], T]) -> T:
    """What `make` returns, of arbitrary small numbers: compiling the drawing of weights takes a minute."""
    random = np.random.default_rng(0)

    def leaf(like: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.asarray(random.uniform(0, 0.02, like.shape), like.dtype)

    return jax.tree.map(leaf, jax.eval_shape(make))


def mixed(run: Callable[[], object]) -> Callable[[], object]:
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
        encoder = filled(lambda spec=spec: encoders.from_module(Embedder(spec, rngs=nnx.Rngs(0))))
        batches = [jnp.asarray(part) for part in np.split(images, max(1, count // 256))]
        peers = {}
        if has_torch() and not spec.mirrored:
            peers["torch_float32"] = Peer(functools.partial(_torch_embedding, spec, images), count)
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
    state = [filled(functools.partial(trainer.init, 0))]

    def ours() -> object:
        state[0], metrics = trainer.compiled[0](state[0], batch)
        return metrics

    peers = {}
    if has_torch():
        peers["torch_bfloat16"] = Peer(functools.partial(_torch_step, spec, images, target), count)
    flops = 3 * 2 * count * network_flops(spec, shape)
    sizes = {"pairs": count, "shape": shape}
    yield Work("encoder_step", "pairs", count, ours, sizes, peers, products={Kind.BF16: flops})


def _torch_step(spec: EmbedderSpec, images: np.ndarray, target: np.ndarray) -> Callable[[], object]:
    import torch

    from benchmarks.cases.torch_embedder import TorchEmbedder

    twin = TorchEmbedder(spec).train().to(device())
    optimizer = torch.optim.AdamW(twin.parameters(), 1e-3, weight_decay=1e-3)
    a, b, y = (on_device(x) for x in (*images, target))
    forward = mixed(lambda: twin(torch.cat([a, b])))

    def run() -> None:
        both = forward().float()
        loss = (((both[: len(a)] * both[len(a) :]).sum(-1) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()

    return waited(run)
