"""Training: the same on any number of devices, the same after a stop, and it learns."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from deepssim_jax import parallel
from deepssim_jax.data import anatomy
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import EmbedderSpec, Head
from deepssim_jax.training import loop
from deepssim_jax.training.loop import Diverged, LoopConfig
from deepssim_jax.training.pairs import ECHO, PairBatch, PairMaker
from deepssim_jax.training.records import Records
from deepssim_jax.training.step import (
    Objective,
    OptimizerConfig,
    Trainer,
    TrainState,
    export,
    validation_figures,
)
from deepssim_jax.workspace import Workspace
from tests.kept import train, within

SPEC = EmbedderSpec(
    ConvNeXtSpec(channels=1, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), layer_scale=0.1),
    Head.MULTISCALE,
    hidden=32,
    dim=16,
    dropout=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def few_validation_batches():
    """Two, a quarter of what is usual: their phantoms take longer than the steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "VALIDATION_BATCHES", 2)
        yield


@pytest.fixture(scope="module")
def maker() -> PairMaker:
    return PairMaker(anatomy=anatomy.procedural(), seed=3, batch=16, size=32)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """One for all tests: compiling its step takes longer than every step here."""
    return Trainer.create(SPEC, OptimizerConfig(learning_rate=3e-3, warmup=2, steps=100))


@functools.cache
def begun(trainer: Trainer) -> TrainState:
    """Its first state, made once: on each mesh it is another program."""
    return jax.device_get(jax.jit(trainer.init, static_argnums=0)(0))


def steps(
    trainer: Trainer, batches: Iterable[PairBatch], *, devices: int
) -> tuple[TrainState, list]:
    """Takes a step a batch on a mesh of so many devices."""
    mesh = parallel.data_mesh(devices)
    figures, first = [], begun(trainer)
    with parallel.using(mesh):
        state = jax.device_put(first, parallel.replicated(mesh))
        for batch in batches:
            batch = jax.device_put(batch, parallel.batch_sharding(mesh))
            state, metrics = trainer.compiled[0](state, batch)
            figures.append([float(metrics[name]) for name in ("loss", "gradient_norm")])
    return state, figures


def leaves(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_a_batch_depends_on_its_step_alone(maker: PairMaker) -> None:
    first, other, apart = maker(5), maker(6), maker(5 + ECHO)
    again = dataclasses.replace(maker)(5)  # which remembers nothing
    np.testing.assert_array_equal(first.a, again.a)
    np.testing.assert_array_equal(first.target, again.target)
    for batch in (other, apart):
        assert np.abs(np.asarray(first.a) - np.asarray(batch.a)).max() > 0.1
    np.testing.assert_array_equal(first.target, other.target)  # the same pairs, moved otherwise
    assert np.abs(np.asarray(first.target) - np.asarray(apart.target)).max() > 0.1


def test_targets_reach_from_strangers_to_copies(maker: PairMaker) -> None:
    targets = np.concatenate([np.asarray(maker(step).target) for step in range(0, 6 * ECHO, ECHO)])
    assert targets.max() == pytest.approx(1.0, abs=1e-4)
    assert targets.min() < 0.4
    assert len(np.unique(np.floor(targets.clip(0, 0.99) * 5))) >= 4


def losses_are_the_same_on_eight(trainer: Trainer, maker: PairMaker) -> None:
    """Over 20 steps to 1e-5: only the order of the sums differs."""
    batches = [maker(number) for number in range(20)]
    one, eight = (np.array(steps(trainer, batches, devices=n)[1]) for n in (1, 8))
    assert one[-1, 0] < 0.9 * one[0, 0]
    np.testing.assert_allclose(eight[:, 0], one[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(eight[:, 1], one[:, 1], rtol=1e-4)  # the gradient's norm


def test_one_device_and_eight_take_the_same_steps(trainer: Trainer, maker: PairMaker) -> None:
    losses_are_the_same_on_eight(trainer, maker)


@pytest.mark.slow
@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("head", Head)
def test_so_they_do_with_dropout_and_batch_statistics(
    head: Head, objective: Objective, maker: PairMaker
) -> None:
    """The pooled head normalises by the whole batch, not by a device's part of it."""
    spec = dataclasses.replace(SPEC, head=head, dropout=0.3)
    config = OptimizerConfig(learning_rate=3e-3, warmup=2, steps=100)
    losses_are_the_same_on_eight(Trainer.create(spec, config, objective=objective), maker)


def test_a_stopped_run_goes_on_to_the_same_bits(
    trainer: Trainer, maker: PairMaker, tmp_path: Path
) -> None:
    whole, figures = train(trainer, maker, LoopConfig(steps=6, record_every=1), tmp_path / "a")

    def stop_after_three(done: int, total: int, what: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            trainer,
            maker,
            LoopConfig(steps=6, record_every=1),
            tmp_path / "b",
            on_progress=stop_after_three,
        )
    resumed, again = train(trainer, maker, LoopConfig(steps=6, record_every=1), tmp_path / "b")
    for one, other in zip(leaves(whole), leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert figures == again
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (
        tmp_path / "b" / "metrics.jsonl"
    ).read_text()


def test_a_finished_run_does_nothing_and_exports(
    trainer: Trainer, maker: PairMaker, tmp_path: Path
) -> None:
    state, _ = train(trainer, maker, LoopConfig(steps=2, record_every=1), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text()
    again, _ = train(trainer, maker, LoopConfig(steps=2, record_every=1), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [1, 2, 2]
    assert int(again.step) == 2
    path = within(tmp_path, lambda w: export(trainer, state, w, card={"note": "test"}))
    states = jax.device_get((state.best_params, state.stats))
    encoder = encoders.from_params(trainer.spec, *states)
    images = np.asarray(maker(0).a)
    loaded = encoders.load_encoder(path)
    found = encoders.embed(loaded, images, batch_size=5)
    np.testing.assert_allclose(found, encoders.embed(encoder, images), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    # What validation measures is what an encoder's users get.
    batch = maker(-1)
    cosines = (encoders.embed(encoder, batch.a) * encoders.embed(encoder, batch.b)).sum(1)
    np.testing.assert_allclose(trainer.predict(state, batch), cosines, atol=1e-5)


def test_a_run_killed_as_it_resumes_keeps_its_records(tmp_path: Path, monkeypatch) -> None:
    """Which state is best so far is known from them alone."""

    def written(workspace: Workspace) -> None:
        records = Records(workspace, step=0)
        for step in (1, 2, 3):
            records.write(step, {"rmse": 1 / step})
        records.close()

    within(tmp_path, written)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def killed(*names: object) -> None:
        raise SystemExit

    with Workspace.open(tmp_path, command="test") as workspace:
        with monkeypatch.context() as patch:
            patch.setattr("deepssim_jax.workspace.files.os.replace", killed)
            with pytest.raises(SystemExit):
                Records(workspace, step=2)
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        again = Records(workspace, step=2)
        again.close()
    assert again.lowest("rmse") == 0.5
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(before.splitlines(True)[:2])


def test_it_learns(trainer: Trainer, maker: PairMaker) -> None:
    """One batch, seen again and again, is fitted."""
    _, figures = steps(trainer, [maker(0)] * 60, devices=1)
    assert figures[-1][0] < 0.35 * figures[0][0]


@dataclasses.dataclass(frozen=True)
class BrokenMaker(PairMaker):
    """Gives targets that are no numbers from step 2 on."""

    def __call__(self, step: int) -> PairBatch:
        batch = super().__call__(step)
        return batch if step < 2 else dataclasses.replace(batch, target=batch.target * np.nan)


def test_a_diverged_run_stops_with_its_step(
    trainer: Trainer, maker: PairMaker, tmp_path: Path
) -> None:
    broken = BrokenMaker(anatomy=maker.anatomy, seed=3, batch=16, size=32)
    with pytest.raises(Diverged, match="step 3, with the phantoms of seed 3, step 2"):
        train(trainer, broken, LoopConfig(steps=8, record_every=2), tmp_path)


def test_validation_figures_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(size=50)
    cosine = target + 0.1 * rng.normal(size=50)
    found = validation_figures(cosine, target)
    assert found["mae"] == pytest.approx(np.abs(cosine - target).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(((cosine - target) ** 2).mean()))
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosine, target).statistic)
    third = (target >= 0.3) & (target < 0.4)
    assert found["mae_0.3"] == pytest.approx(np.abs(cosine - target)[third].mean())
    assert validation_figures(np.array([0.9, 0.2]), np.array([1.0, -0.3]))["mae_0.9"] == (
        pytest.approx(0.1)
    )


def test_a_batch_that_cannot_be_spread_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    uneven = PairMaker(anatomy=anatomy.procedural(), seed=0, batch=12, size=32)
    with pytest.raises(ValueError, match="batch 12 must be a multiple of the 8 devices"):
        train(trainer, uneven, LoopConfig(steps=1), tmp_path)
