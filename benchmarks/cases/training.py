"""What a training step of the shipped network waits for: its batch, and itself."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.cases.case import Case
from benchmarks.kept import open_images, write_png
from deepssim_jax.data import phantom_chests
from deepssim_jax.data.anatomy import load_anatomy
from deepssim_jax.nn.embedder import EmbedderSpec
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.training.own_pairs import ImagePairs
from deepssim_jax.training.pairs import PairBatch, PairMaker
from deepssim_jax.training.step import Objective, OptimizerConfig, Trainer

_BATCH, _SIZE, _STEPS = 48, 64, 8


def _phantoms() -> PairMaker:
    return PairMaker(anatomy=load_anatomy(), seed=0, batch=_BATCH, size=_SIZE)


def _case(name: str, make: Callable[[int], PairBatch]) -> Case:
    """`_STEPS` batches, each of another number."""
    number = itertools.count()

    def ours() -> None:
        for _ in range(_STEPS):
            jax.block_until_ready(make(next(number)))

    def check() -> None:
        first, again = make(3), make(3)
        np.testing.assert_array_equal(first.a, again.a)
        assert np.isfinite(np.asarray(first.b)).all()
        assert np.ptp(np.asarray(first.target)) > 0.2

    return Case(name, "pairs", _STEPS * _BATCH, ours, check)


def input_phantoms(scale: float) -> Case:
    """Batches of phantoms: rendering, pairs, SSIM of all of them, augmentation."""
    del scale
    return _case("input_phantoms", _phantoms())


def input_images(scale: float) -> Case:
    """Batches from a folder of 256 images: reading, alignment, pairs, SSIM, augmentation."""
    count = max(64, int(256 * scale))
    with tempfile.TemporaryDirectory() as folder:
        chests = np.asarray(phantom_chests.chests(jax.random.key(0), count, size=(_SIZE, _SIZE)))
        for row, image in enumerate(chests):
            write_png(Path(folder) / "images" / f"{row:03d}.png", image)
        store = Path(tempfile.mkdtemp())
        images = open_images(Path(folder) / "images", store, size=(_SIZE, _SIZE))
    pairs = ImagePairs.of(images, batch=_BATCH, seed=0, augment=AugmentConfig.stress())
    return _case("input_images", pairs)


def train_nano(scale: float) -> Case:
    """The step itself, on batches that are there already."""
    del scale
    maker = _phantoms()
    batches = [maker(step) for step in range(2)]
    trainer = Trainer.create(EmbedderSpec.nano(), OptimizerConfig(), objective=Objective.BATCH)
    state = [jax.jit(trainer.init, static_argnums=0)(0)]
    losses: list[float] = []

    def ours() -> None:
        for step in range(_STEPS):
            state[0], metrics = trainer.compiled[0](state[0], batches[step % 2])
        losses.append(float(metrics["loss"]))

    def check() -> None:
        ours()
        assert np.isfinite(losses).all() and losses[-1] < losses[0]

    return Case("train_nano", "pairs", _STEPS * _BATCH, ours, check)
