"""The latent diffusion model: a step of each training, and sampling, beside MONAI's in PyTorch.

As in the commands, every core of a machine without accelerators is a device.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases.case import Case, Peer
from deepssim_jax import parallel
from deepssim_jax.diffusion import samplers
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.interop import monai_networks
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.network_file import Spec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.autoencoder_step import AutoencoderJob, AutoencoderLoss
from deepssim_jax.training.diffusion_step import DenoiserJob, LatentBatch, predictor

# A quarter of the published widths: what two CPU cores do in seconds.
_AUTOENCODER = AutoencoderSpec(channels=(32, 64, 64), groups=32)
_UNET = UNetSpec(channels=(64, 128, 192), heads=(0, 128, 192))
_SIZE, _LATENTS, _BATCH = (136, 112), (36, 28), 8


def _spread() -> tuple[jax.sharding.Mesh, jax.NamedSharding, jax.NamedSharding]:
    """A mesh of all devices, and where a batch and weights belong on it."""
    parallel.use_cores(_BATCH)
    mesh = parallel.data_mesh()
    return mesh, parallel.batch_sharding(mesh), parallel.replicated(mesh)


def _flops(program: jax.stages.Wrapped, *given: object, mesh: jax.sharding.Mesh) -> float:
    """XLA's count of a program, of all devices; it compiles it once more."""
    with parallel.using(mesh):
        return program.lower(*given).compile().cost_analysis()["flops"] * mesh.size


def _count(scale: float) -> int:
    return max(1, int(_BATCH * scale) // jax.device_count()) * jax.device_count()


def _torch_networks() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "monai", "einops"))


def _twin(spec: Spec, state):
    """MONAI's network with the same weights."""
    import torch

    from benchmarks.cases.monai_twin import twin_of

    twin = twin_of(spec, flash=True)
    tensors = monai_networks.to_monai(spec, state)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()})
    return twin


def autoencoder_step(scale: float) -> Case:
    """L1 and KL, backward, and Adam; without critic and features, which MONAI leaves to the user."""
    mesh, spread, every = _spread()
    count = _count(scale)
    weights = AutoencoderLoss(adversarial=0.0, perceptual=0.0)
    job = AutoencoderJob.create(_AUTOENCODER, weights=weights)
    images = np.random.default_rng(0).uniform(size=(count, *_SIZE)).astype(np.float32)
    with parallel.using(mesh):
        state = [jax.jit(job.init, static_argnums=0, out_shardings=every)(0)]
        given = parallel.spread(images, spread)
    first = jax.device_get(state[0].params)

    def ours() -> dict[str, jax.Array]:
        with parallel.using(mesh):
            state[0], metrics = job.compiled_step(state[0], given)
            return jax.block_until_ready(metrics)

    peers = {}
    if _torch_networks():
        import torch

        twin = _twin(_AUTOENCODER, first)
        optimizer = torch.optim.Adam(twin.parameters(), 1e-4)
        x = torch.from_numpy(images[:, None])

        def theirs() -> float:
            made, mean, deviation = twin(x)
            each = 0.5 * (mean**2 + deviation**2 - 2 * deviation.log() - 1)
            loss = (made - x).abs().mean() + 1e-6 * each.sum((1, 2, 3)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            return float(each.detach().sum((1, 2, 3)).mean())

        peers["torch"] = Peer(theirs, count)

    def check() -> None:
        model = job.network(first)
        mean, _ = jax.jit(lambda x: model.encode(x))(images)
        assert np.isfinite(float(ours()["loss"]))
        if peers:
            with torch.no_grad():
                wanted = _twin(_AUTOENCODER, first).encode(x)[0].numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(mean, wanted, atol=1e-4 * np.abs(wanted).max())

    def flops() -> float:
        return _flops(job.compiled_step, state[0], given, mesh=mesh)

    return Case("autoencoder_step", "images", count, ours, check, peers, flops)


def denoiser_step(scale: float) -> Case:
    """The squared error of the noise, backward, AdamW, and the moving average of the weights."""
    mesh, spread, every = _spread()
    count = _count(scale)
    job = DenoiserJob.create(_UNET)
    latents = np.random.default_rng(0).standard_normal((count, *_LATENTS, 3)).astype(np.float32)
    with parallel.using(mesh):
        state = [jax.jit(job.init, static_argnums=0, out_shardings=every)(0)]
        batch = parallel.spread(LatentBatch(latents, np.zeros_like(latents)), spread)
    first = jax.device_get(state[0].params)

    def ours() -> dict[str, jax.Array]:
        with parallel.using(mesh):
            state[0], metrics = job.compiled_step(state[0], batch)
            return jax.block_until_ready(metrics)

    peers = {}
    if _torch_networks():
        import torch

        twin = _twin(_UNET, first)
        optimizer = torch.optim.AdamW(twin.parameters(), 2.5e-5, weight_decay=1e-2)
        average = [p.detach().clone() for p in twin.parameters()]
        kept = torch.from_numpy(Schedule().kept).float()
        x = torch.from_numpy(latents.transpose(0, 3, 1, 2).copy())

        def theirs() -> float:
            times = torch.randint(0, 1000, (count,))
            noise, a = torch.randn_like(x), kept[times][:, None, None, None]
            loss = ((twin(a.sqrt() * x + (1 - a).sqrt() * noise, times) - noise) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            torch._foreach_lerp_(average, [p.detach() for p in twin.parameters()], 1e-3)
            return float(loss.detach())

        peers["torch"] = Peer(theirs, count)

    def check() -> None:
        # The last layer starts at zero: what is said is 0, and the error that of the noise.
        with parallel.using(mesh):
            fresh = jax.jit(job.init, static_argnums=0, out_shardings=every)(0)
            loss = float(jax.jit(job.step)(fresh, batch)[1]["loss"])
        np.testing.assert_allclose(loss, 1.0, atol=0.2)

    def flops() -> float:
        return _flops(job.compiled_step, state[0], batch, mesh=mesh)

    return Case("denoiser_step", "images", count, ours, check, peers, flops)


def sampling(scale: float) -> Case:
    """Ten steps of DDIM in latents of 36 x 28."""
    mesh, spread, every = _spread()
    count, steps = _count(scale), 10
    job = DenoiserJob.create(_UNET)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.02 * jnp.asarray(rng.standard_normal(x.shape), jnp.float32),
        jax.jit(job.init, static_argnums=0)(0).params,
    )
    keys = samplers.image_keys(jax.random.key(0), jnp.arange(count))
    with parallel.using(mesh):
        given = parallel.spread(params, every), parallel.spread(keys, spread)
    shape = (*_LATENTS, 3)

    @jax.jit
    def run(params, keys: jax.Array) -> jax.Array:
        predict = predictor(_UNET, params)
        return samplers.sample(predict, keys, shape=shape, schedule=Schedule(), steps=steps)

    def ours() -> np.ndarray:
        with parallel.using(mesh):
            return np.asarray(run(*given))

    peers = {}
    if _torch_networks():
        import torch

        twin = _twin(_UNET, jax.device_get(params)).eval()
        plan = samplers.table(Schedule(), sampler=samplers.Sampler.DDIM, steps=steps)
        start = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 0), shape))(keys)
        start = torch.from_numpy(np.array(start).transpose(0, 3, 1, 2).copy())
        kept = Schedule().kept

        def theirs() -> np.ndarray:
            x = start
            with torch.no_grad():
                for time, after in zip(plan.times, [*plan.times[1:], None], strict=True):
                    noise = twin(x, torch.full((count,), int(time)))
                    a, b = kept[time], 1.0 if after is None else kept[after]
                    clean = (x - (1 - a) ** 0.5 * noise) / a**0.5
                    x = b**0.5 * clean + (1 - b) ** 0.5 * noise
            return x.numpy().transpose(0, 2, 3, 1)

        peers["torch"] = Peer(theirs, count)

    def check() -> None:
        found = ours()
        assert np.isfinite(found).all()
        if peers:
            wanted = theirs()
            np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())

    def flops() -> float:  # XLA counts a loop once
        return steps * _flops(run, *given, mesh=mesh)

    return Case("sampling", "images", count, ours, check, peers, flops)
