"""The contrastive embedding: its loss by definition, one result however it is run, and it learns."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage, special

from benchmarks.methods import contrastive
from benchmarks.methods.contrastive import Contrastive, Views, nt_xent, train_contrastive
from benchmarks.methods.resnet import ResNetSpec
from deepssim_jax import parallel
from tests.kept import within

SPEC = ResNetSpec(depths=(1, 1, 1), width=8, dim=16)
# A stage of every kind, with a stride and without: the third would be as the second one, and compile as long.
FEW = ResNetSpec(depths=(1, 1), width=8, dim=16)


class Pictures:
    """What is asked of an `ImageStore`: 24 patients with two pictures each."""

    subject_ids = tuple(f"p{row // 2}" for row in range(48))

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        raw = ndimage.gaussian_filter(rng.normal(size=(48, 32, 32)), (0, 3, 3))
        self.images = (20000 * raw / raw.std() + 32000).clip(0, 65535).astype(np.uint16)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]

    def patients(self) -> np.ndarray:
        return np.arange(48) // 2


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures()


def test_the_loss_is_its_definition() -> None:
    views = np.random.default_rng(1).normal(size=(5, 2, 7)).astype(np.float32)
    unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
    rows = np.concatenate([unit[:, 0], unit[:, 1]])
    similarity = rows @ rows.T / 0.3
    wanted = []
    for i in range(10):
        others = [similarity[i, j] for j in range(10) if j != i]
        wanted.append(special.logsumexp(others) - similarity[i, (i + 5) % 10])
    np.testing.assert_allclose(nt_xent(views, temperature=0.3), np.mean(wanted), rtol=1e-5)


def test_eight_devices_are_one(pictures) -> None:
    maker = Views.of(pictures, batch=16, seed=0)
    job = Contrastive(FEW, steps=3)
    first = jax.device_get(jax.jit(job.init, static_argnums=0)(0))
    losses = []
    for devices in (1, 8):
        mesh = parallel.data_mesh(devices)
        with parallel.using(mesh):
            state, found = jax.device_put(first, parallel.replicated(mesh)), []
            for step in range(3):
                batch = jax.device_put(maker(step), parallel.batch_sharding(mesh))
                state, metrics = job.compiled_step(state, batch)
                found.append(float(metrics["loss"]))
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
def test_it_learns_who_is_who_and_a_stopped_run_goes_on(
    pictures, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(contrastive, "_RATE", 3e-3)  # few steps
    options = {"spec": SPEC, "epochs": 24, "batch": 16}
    embedding = within(
        tmp_path / "whole", lambda work: train_contrastive(pictures, work, **options)
    )
    turned = ndimage.rotate(pictures.images[:, ::-1], 4, (1, 2), reshape=False, mode="nearest")
    a, b = embedding(pictures.images), embedding(turned)
    found = np.corrcoef(a, b)[: len(a), len(a) :]
    assert (found.argmax(1) == np.arange(len(a))).mean() > 0.5
    assert np.abs(a.mean(1)).max() < 1e-5

    def stop(done: int, total: int, what: str) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        within(
            tmp_path / "stopped",
            lambda work: train_contrastive(pictures, work, on_progress=stop, **options),
        )
    again = within(tmp_path / "stopped", lambda work: train_contrastive(pictures, work, **options))
    np.testing.assert_array_equal(again(pictures.images), a)
