"""Training the two halves of a generator: the same on any devices, after a stop, and it learns."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.nn import autoencoder as autoencoders
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.autoencoder import Autoencoder, AutoencoderSpec
from deepssim_jax.nn.discriminator import DiscriminatorSpec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training import checkpoints
from deepssim_jax.training.autoencoder_step import AutoencoderJob, AutoencoderLoss, perceptual
from deepssim_jax.training.diffusion_step import DenoiserJob, DenoiserOptions, LatentBatch
from deepssim_jax.training.loop import Diverged, LoopConfig
from deepssim_jax.workspace import NoSpace, Workspace
from tests.kept import train

# XLA takes its time for every weight, so there are few, and mostly a simpler optimiser than Adam.
UNET = UNetSpec(channels=(8,), attention=(False,), heads=(8,), blocks=1, groups=4)
DEEP = UNetSpec(
    channels=(8, 16), attention=(False, True), heads=(0, 8), blocks=1, groups=4, context=4
)

AUTOENCODER = AutoencoderSpec(channels=(4, 8), blocks=1, groups=4)
SIMPLE = optax.sgd(0.03, momentum=0.9)


@dataclasses.dataclass(frozen=True)
class Made:
    """Batches of a pure function of the step, like those of files."""

    batch: int = 8
    broken_from: int = 10**6
    condition: int | None = None

    def __call__(self, step: int) -> LatentBatch:
        rng = np.random.default_rng(step + 1000)
        shape = (self.batch, 6, 5, 3)
        mean = rng.standard_normal(shape).astype(np.float32)
        told = self.condition and rng.standard_normal((self.batch, 1, self.condition))
        return LatentBatch(
            jax.numpy.asarray(mean * (np.nan if step >= self.broken_from else 1.0)),
            jax.numpy.full(shape, 0.1),
            None if told is None else jax.numpy.asarray(told, jax.numpy.float32),
        )

    def names(self, step: int) -> str:
        return f"the latents of step {step}"


@dataclasses.dataclass(frozen=True)
class MadeImages(Made):
    """Smooth images of odd size."""

    def __call__(self, step: int) -> jax.Array:
        rng = np.random.default_rng(step + 1000)
        waves = np.sin(np.linspace(0, 6, 11) * rng.uniform(0.5, 2, (self.batch, 1)))
        images = 0.5 + 0.4 * waves[:, :, None] * waves[:, None, :9]
        return jax.numpy.asarray(images, jax.numpy.float32)


@functools.cache
def denoiser_of(spec: UNetSpec) -> DenoiserJob:
    return dataclasses.replace(DenoiserJob.create(spec), optimizer=SIMPLE)


@pytest.fixture(scope="module")
def denoiser() -> DenoiserJob:
    return denoiser_of(UNET)


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderJob:
    return AutoencoderJob.create(AUTOENCODER, critic=DiscriminatorSpec(4, 1), learning_rate=3e-3)


def losses(
    job: DenoiserJob,
    *,
    devices: int,
    fsdp: int,
    steps: int = 10,
    made: Callable[[int], LatentBatch] | None = None,
) -> np.ndarray:
    """Loss and gradient norm of each step on a mesh."""
    mesh, found = parallel.data_mesh(devices, fsdp=fsdp), []
    made = made or Made(condition=job.spec.context)
    with parallel.using(mesh):
        shapes = jax.eval_shape(lambda: job.init(0))
        wanted = parallel.state_shardings(shapes, mesh)
        state = jax.jit(job.init, static_argnums=0, out_shardings=wanted)(0)
        if fsdp > 1:
            spread = [x for x in jax.tree.leaves(state) if not x.sharding.is_fully_replicated]
            assert sum(x.size for x in spread) > 0.8 * sum(x.size for x in jax.tree.leaves(state))
        for number in range(steps):
            batch = parallel.spread(made(number), parallel.batch_sharding(mesh))
            state, metrics = job.compiled_step(state, batch)
            found.append([float(metrics[name]) for name in ("loss", "gradient_norm")])
    return np.array(found)


@pytest.mark.parametrize(
    ("spec", "fsdp"),
    [
        (UNET, 4),
        pytest.param(UNET, 1, marks=pytest.mark.slow),
        pytest.param(DEEP, 1, marks=pytest.mark.slow),
        pytest.param(DEEP, 4, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_are_one_and_spread_weights_are_whole_ones(spec: UNetSpec, fsdp: int) -> None:
    """With weights spread over four of them, the batch is spread over both axes."""
    job = denoiser_of(spec)
    one, other = (losses(job, devices=n, fsdp=f) for n, f in ((1, 1), (8, fsdp)))
    np.testing.assert_allclose(other[:, 0], one[:, 0], rtol=1e-5)
    np.testing.assert_allclose(other[:, 1], one[:, 1], rtol=1e-3)


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    """The same gradients as their mean, worked out one after the other."""
    job = dataclasses.replace(denoiser_of(UNET), options=DenoiserOptions(accumulate=2))
    state, batch = jax.jit(job.init, static_argnums=0)(0), Made()(0)
    found = jax.jit(job.gradients)(state, batch)
    key = jax.random.fold_in(jax.random.key(0), 0)
    run = jax.jit(jax.value_and_grad(job.loss))
    parts = [
        run(
            state.params,
            jax.tree.map(lambda x, p=part: np.asarray(x)[p::2], batch),
            jax.random.fold_in(key, part),
        )
        for part in range(2)
    ]
    for whole, a, b in zip(*map(jax.tree.leaves, (found, *parts)), strict=True):
        np.testing.assert_allclose(whole, (a + b) / 2, atol=1e-5)


def stop_after(count: int):
    def stop(done: int, total: int, what: str) -> None:
        if done == count:
            raise KeyboardInterrupt

    return stop


def leaves(state: object) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state)]


LOOP = LoopConfig(steps=6, record_every=1, checkpoint_every=2)


@pytest.mark.parametrize(("name", "maker"), [("denoiser", Made()), ("autoencoder", MadeImages())])
def test_killed_and_resumed_is_never_killed(name: str, maker: Made, tmp_path, request) -> None:
    job = request.getfixturevalue(name)
    whole, figures = train(job, maker, LOOP, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(job, maker, LOOP, tmp_path / "b", on_progress=stop_after(3))
    resumed, again = train(job, maker, LOOP, tmp_path / "b")
    for one, other in zip(leaves(whole), leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert figures == again


def damage(folder: Path) -> None:
    """Cuts every file of values in half, as a machine that lost its power may leave them."""
    for path in sorted(folder.rglob("d/*")):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def test_of_a_broken_checkpoint_the_one_before_is_taken_and_said(
    denoiser: DenoiserJob, tmp_path: Path
) -> None:
    whole, _ = train(denoiser, Made(), LOOP, tmp_path)
    damage(tmp_path / "checkpoints" / "6")
    said: list[str] = []
    again, _ = train(denoiser, Made(), LOOP, tmp_path, on_notice=said.append)
    assert len(said) == 1 and "the checkpoint of step 6 cannot be read" in said[0]
    for one, other in zip(leaves(whole), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (tmp_path / "unreadable" / "checkpoints-6").is_dir()
    assert not said[1:] and train(denoiser, Made(), LOOP, tmp_path)[0].step == 6
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path)
    with pytest.raises(ValueError, match="none of the 2 checkpoints"):
        train(denoiser, Made(), LOOP, tmp_path)


def test_a_directory_belongs_to_one_architecture(denoiser: DenoiserJob, tmp_path: Path) -> None:
    config = dataclasses.replace(LOOP, steps=1)
    train(denoiser, Made(), config, tmp_path)
    other = DenoiserJob.create(dataclasses.replace(UNET, channels=(12,), heads=(12,)))
    with pytest.raises(ValueError, match="of another architecture: network .*Take another folder"):
        train(other, Made(), config, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(denoiser: DenoiserJob, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 3, with the latents of step 2"):
        train(denoiser, Made(broken_from=2), dataclasses.replace(LOOP, record_every=2), tmp_path)


def test_weights_that_give_no_images_are_said_with_the_rate(tmp_path: Path) -> None:
    plain = AutoencoderLoss(adversarial=0.0, perceptual=0.0)
    job = AutoencoderJob.create(AUTOENCODER, weights=plain, learning_rate=1e30)
    shown = np.random.default_rng(0).random((8, 16, 16)).astype(np.float32)

    class Images:
        batch = 8

        def __call__(self, step: int) -> np.ndarray:
            return shown

        def names(self, step: int) -> str:
            return f"the images of step {step}"

    config = LoopConfig(1, validate_every=1, learning_rate=1e30)
    with pytest.raises(Diverged, match=r"lower the learning rate .*, now 1e\+30"):
        train(job, Images(), config, tmp_path)


def test_a_full_disk_is_said(denoiser: DenoiserJob, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: [errno 28: No space left on device]")

    with (
        Workspace.open(tmp_path / "w", command="test") as workspace,
        checkpoints.Checkpoints(workspace, "c", keep=1) as found,
    ):
        monkeypatch.setattr(found._checkpointer, "save", full)
        with pytest.raises(NoSpace, match="free some and run the same command again"):
            found.save(denoiser.init(0))


def test_the_denoiser_learns(denoiser: DenoiserJob) -> None:
    """One set of latents, seen again and again, is told from its noise."""
    batch = Made()(0)
    found = losses(denoiser, devices=1, fsdp=1, steps=150, made=lambda number: batch)[:, 0]
    assert np.mean(found[-20:]) < 0.75 * np.mean(found[:5])


def test_the_autoencoder_learns_with_its_critic(autoencoder: AutoencoderJob) -> None:
    state, batch = jax.jit(autoencoder.init, static_argnums=0)(0), MadeImages()(0)
    found = []
    for _ in range(150):
        state, metrics = autoencoder.compiled_step(state, batch)
        found.append({k: float(v) for k, v in metrics.items()})
    assert found[-1]["l1"] < 0.3 * found[0]["l1"]
    assert {"kl", "adversarial", "critic"} <= found[0].keys()


def test_the_divergence_is_that_of_normals() -> None:
    """Against numerical integration of one latent."""
    mean, deviation = 0.7, 1.6
    x = np.linspace(-20, 20, 200_001)
    p = np.exp(-0.5 * ((x - mean) / deviation) ** 2) / deviation / np.sqrt(2 * np.pi)
    log_ratio = 0.5 * x**2 - 0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)
    wanted = (p * log_ratio).sum() * (x[1] - x[0])
    shape = (1, 2, 3, 1)
    found = autoencoders.kl_divergence(np.full(shape, mean), np.full(shape, deviation))
    np.testing.assert_allclose(found, [6 * wanted], rtol=1e-5)


def test_images_of_any_size_come_back_in_their_size() -> None:
    images = np.random.default_rng(0).uniform(size=(2, 7, 9)).astype(np.float32)

    def there_and_back(images: np.ndarray) -> tuple[jax.Array, ...]:
        model = Autoencoder(AUTOENCODER, rngs=nnx.Rngs(0))
        mean, deviation = model.encode(images)
        return mean, deviation, model.decode(mean, size=(7, 9))

    # Sizes alone are asked for, which no program has to be run for.
    mean, deviation, back = jax.eval_shape(there_and_back, images)
    assert mean.shape == deviation.shape == (2, *AUTOENCODER.latent_size((7, 9)), 3)
    assert back.shape == images.shape


def test_images_look_like_themselves_and_less_like_others() -> None:
    features = encoders.load_encoder("default")
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 32, 32)).astype(np.float32)
    near = images + 0.02 * rng.standard_normal(images.shape).astype(np.float32)
    run = jax.jit(perceptual)
    same, close, far = (
        float(run(features, images, other)) for other in (images, near, images[::-1])
    )
    assert same == pytest.approx(0.0, abs=1e-6)
    assert same < close < far


def test_without_weights_there_is_neither_critic_nor_features() -> None:
    job = AutoencoderJob.create(
        AUTOENCODER, weights=AutoencoderLoss(adversarial=0.0, perceptual=0.0)
    )
    state = job.init(0)
    _, metrics = jax.eval_shape(job.step, state, MadeImages()(0), None)
    assert set(metrics) == {"loss", "l1", "kl", "gradient_norm"}
