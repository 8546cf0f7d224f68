"""One training step: against the same network in PyTorch, and what each option promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepssim_jax.interop.reference_networks import renamed
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from deepssim_jax.ops.intensity import local_zscore
from deepssim_jax.training.pairs import PairBatch
from deepssim_jax.training.step import (
    Freeze,
    Method,
    Objective,
    OptimizerConfig,
    Schedule,
    Trainer,
    TrainState,
)

SMALL = ConvNeXtSpec(channels=3, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), layer_scale=0.1)
V1 = EmbedderSpec(SMALL, Head.POOLED, hidden=20, dim=16, dropout=0.0)
V2 = EmbedderSpec(SMALL, Head.MULTISCALE, hidden=20, dim=16, dropout=0.0)
NANO = dataclasses.replace(
    V2, backbone=dataclasses.replace(SMALL, channels=2), resolution=64, local_contrast=3.0
)
SIGNED = dataclasses.replace(NANO, signed=True)
CONSTANT = OptimizerConfig(schedule=Schedule.CONSTANT)
FALLING = dataclasses.replace(CONSTANT, stage_decay=0.3, freeze=Freeze.FIRST_STAGE)


def batch(n: int = 6, side: int = 64) -> PairBatch:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n, side, side)).astype(np.float32)
    b = 0.6 * a + 0.8 * b
    every = rng.uniform(size=(n, n)).astype(np.float32)
    return PairBatch(*map(jnp.asarray, (a, b, np.diagonal(every).copy(), every)))


def flat(state: nnx.State) -> dict[tuple, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in nnx.to_flat_state(state)}


def started(spec: EmbedderSpec, config: OptimizerConfig = CONSTANT, **options: object):
    trainer = Trainer.create(spec, config, **options)
    return trainer, trainer.init(0)


def deeper(spec: EmbedderSpec) -> EmbedderSpec:
    """With a second block in a stage, which costs a compiler time and learns as the first one does."""
    return dataclasses.replace(
        spec, backbone=dataclasses.replace(spec.backbone, depths=(1, 1, 2, 1))
    )


@pytest.mark.parametrize("spec", [*map(deeper, (V1, V2, NANO))], ids=["v1", "v2", "nano"])
def test_loss_and_gradients_equal_those_of_torch(spec: EmbedderSpec) -> None:
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    from benchmarks.cases.torch_embedder import TorchEmbedder

    trainer, state = started(spec)
    given = batch()
    (loss, stats), gradients = jax.jit(jax.value_and_grad(trainer.loss, has_aux=True))(
        state.params, state.stats, given, state.step
    )
    twin = TorchEmbedder(spec).train()
    weights = renamed(encoders.from_params(spec, state.params, state.stats))
    wrong = twin.load_state_dict(
        {name: torch.tensor(np.array(value)) for name, value in weights.items()}, strict=False
    )
    assert all("num_batches_tracked" in name for name in wrong.missing_keys)
    assert not wrong.unexpected_keys

    def channels(images: jax.Array) -> np.ndarray:
        if spec.local_contrast is None:
            return np.asarray(images)
        return np.stack([images, local_zscore(images, sigma=spec.local_contrast)], 1)

    both = np.stack([channels(given.a), channels(given.b)], 1).reshape(
        12, *channels(given.a).shape[1:]
    )
    rows = twin(torch.tensor(both)).reshape(6, 2, -1)
    theirs = (
        ((rows[:, 0] * rows[:, 1]).sum(-1) - torch.tensor(np.array(given.target))) ** 2
    ).mean()
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-4)
    ours = renamed(encoders.from_params(spec, gradients, stats))
    expected_all = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    largest = max(np.abs(g).max() for g in expected_all.values())
    for name, expected in expected_all.items():
        # BatchNorm takes off what the biases before it add: their gradients are rounding alone.
        scale = max(np.abs(expected).max(), 1e-3 * largest)
        np.testing.assert_allclose(ours[name] / scale, expected / scale, atol=1e-4, err_msg=name)
    for name, buffer in twin.named_buffers():  # BatchNorm's figures after the batch
        if "num_batches" not in name:
            np.testing.assert_allclose(
                ours[name], buffer.numpy(), rtol=1e-4, atol=1e-7, err_msg=name
            )


def test_the_published_freeze_holds_the_share_that_was_counted() -> None:
    shapes = encoders.tensor_shapes(EmbedderSpec.base())
    sizes = {
        tuple(int(p) if p.isdigit() else p for p in name.split(".")): np.prod(shape)
        for name, shape in shapes.items()
        if name.startswith("backbone.")
    }
    share = {
        f: sum(s for p, s in sizes.items() if f.holds(p)) / sum(sizes.values()) for f in Freeze
    }
    assert share[Freeze.PUBLISHED_V1] == pytest.approx(0.586, abs=5e-4)
    assert share[Freeze.FIRST_STAGE] == pytest.approx(0.0048, abs=1e-4)
    assert share[Freeze.NOTHING] == 0


def test_rates_fall_from_head_to_stem() -> None:
    config = OptimizerConfig(1e-3, stage_decay=0.3, freeze=Freeze.FIRST_STAGE)
    found = {
        str(path[2]) if path[0] == "backbone" else "head": 1e-3 * config.rate(path)
        for path in flat(started(V2)[1].params)
    }
    expected = {"head": 1e-3, "3": 3e-4, "2": 9e-5, "1": 2.7e-5, "0": 0.0}
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def stepped() -> tuple[TrainState, TrainState]:
    """Before and after a step whose rates fall from the head on and whose first stage is frozen."""
    trainer, state = started(V2, FALLING, average_decay=0.9)
    return state, jax.jit(trainer.step)(state, batch())[0]


def test_a_step_moves_each_part_by_its_rate_and_no_frozen_one(stepped) -> None:
    state, after = stepped
    before = flat(state.params)
    for path, value in flat(after.params).items():
        moved = np.abs(value - before[path]).max()
        rate = FALLING.rate(path)
        # Adam's first step is the learning rate in every weight; decay adds 1e-6 of its size.
        assert moved <= 1e-3 * rate * (1.01 + 1e-3 * np.abs(before[path]).max())
        assert (moved == 0) == (rate == 0), path


def test_muon_moves_matrices_the_same_way_everywhere() -> None:
    """A matrix's first step is near -0.2 sqrt(longer side) rate U V^T, by NumPy's decomposition."""
    config = dataclasses.replace(CONSTANT, method=Method.MUON, weight_decay=0.0)
    trainer, state = started(NANO, config)

    @jax.jit
    def both(state: TrainState, given: PairBatch) -> tuple[TrainState, nnx.State]:
        """As one program, in which the step's gradients and these are worked out once."""
        found = jax.grad(trainer.loss, has_aux=True)(state.params, state.stats, given, state.step)
        return trainer.step(state, given)[0], found[0]

    after, gradients = both(state, batch())
    moved, before = flat(after.params), flat(state.params)
    matrices = [path for path, value in before.items() if value.ndim == 2]
    assert len(matrices) > 10
    for path in matrices:
        rows, columns = before[path].shape
        step = (moved[path] - before[path]) / (-0.2 * np.sqrt(max(rows, columns)) * 1e-3)
        # Nearly orthogonal: every direction that the gradient has is followed about equally far.
        sizes = np.linalg.svd(step, compute_uv=False)
        u, found, vt = np.linalg.svd(flat(gradients)[path], full_matrices=False)
        clear = found > 0.05 * found[0]
        along = np.einsum("ik,ij,kj->k", u, step, vt)[clear]
        assert sizes[0] < 1.3 and along.min() > 0.6 and along.max() < 1.3, path
    vector = next(path for path, value in before.items() if value.ndim == 1)
    # Adam's first step with Nesterov's momentum (Dozat, 2016): 0.9 (0.1 g) / (1 - 0.9^2) + g.
    far = np.abs(moved[vector] - before[vector]).max()
    np.testing.assert_allclose(far, 1e-3 * (0.09 / 0.19 + 1), rtol=0.01)


def test_dropout_is_a_function_of_the_step() -> None:
    trainer, state = started(dataclasses.replace(V2, dropout=0.5))

    run, predict = jax.jit(trainer.loss), jax.jit(trainer.predict)

    def loss(step: int) -> float:
        return float(run(state.params, state.stats, batch(), np.int32(step))[0])

    assert loss(3) == loss(3) != loss(4)
    rest = predict(state, batch())
    np.testing.assert_array_equal(rest, predict(state, batch()))


def test_the_average_follows_the_parameters(stepped) -> None:
    state, after = stepped
    assert any(
        (value != flat(state.params)[path]).any() for path, value in flat(after.params).items()
    )
    for path, value in flat(after.average).items():
        expected = 0.9 * flat(state.params)[path] + 0.1 * flat(after.params)[path]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
    assert after.best_params is after.average and state.params is not state.average


@pytest.mark.parametrize(("spec", "near"), [(V1, 0.03), (V2, 0.03), (SIGNED, 0.05)])
def test_half_precision_is_near_the_whole(spec: EmbedderSpec, near: float) -> None:
    """And half from end to end: under jit, a part in float32 would meet kernels in bfloat16."""
    (trainer, state), (halving, _) = started(spec), started(spec, half=True)
    whole, half = (
        float(jax.jit(t.loss)(state.params, state.stats, batch(), state.step)[0])
        for t in (trainer, halving)
    )
    assert whole != half
    assert half == pytest.approx(whole, rel=near)


def test_all_pairs_of_a_batch_are_learned() -> None:
    trainer, state = started(V2, objective=Objective.BATCH)
    given = batch()
    value = float(jax.jit(trainer.loss)(state.params, state.stats, given, state.step)[0])
    model = nnx.merge(trainer.graph, state.params, state.stats)
    run = jax.jit(lambda images: model(images))
    a, b = (np.asarray(run(x), np.float64) for x in (given.a, given.b))
    cosines, wanted = a @ b.T, np.asarray(given.all, np.float64)
    p, q = (np.exp(x / 0.05) / np.exp(x / 0.05).sum(1, keepdims=True) for x in (wanted, cosines))
    divergence = (p * np.log(p / q)).sum(1).mean()
    pairs = ((np.diagonal(cosines) - np.asarray(given.target)) ** 2).mean()
    expected = pairs + 4.0 * ((cosines - wanted) ** 2).mean() + 0.05 * divergence
    assert value == pytest.approx(expected, rel=1e-4)
    alone = dataclasses.replace(given, all=None)
    with pytest.raises(ValueError, match="all pairs"):
        trainer.loss(state.params, state.stats, alone, state.step)


@pytest.mark.parametrize("spec", [V1, V2, NANO], ids=["v1", "v2", "nano"])
def test_the_step_gives_back_what_it_takes(spec: EmbedderSpec) -> None:
    """The same types, strong ones: otherwise the second step would be compiled anew."""
    trainer = Trainer.create(spec, CONSTANT, average_decay=0.9)
    state = jax.eval_shape(lambda: trainer.init(0))
    after = jax.eval_shape(trainer.step, state, batch())[0]
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(s)] for s in (state, after)]
    assert kinds[0] == kinds[1]
    assert not any(weak for *_, weak in kinds[0])


def test_a_run_can_begin_with_an_encoder() -> None:
    encoder = encoders.from_module(Embedder(V1, rngs=nnx.Rngs(7)))
    trainer = Trainer.create(V1, CONSTANT)
    state: TrainState = trainer.start(encoders.to_module(encoder))
    again = encoders.from_params(V1, state.params, state.stats)
    for name, value in encoders.to_tensors(encoder).items():
        np.testing.assert_array_equal(encoders.to_tensors(again)[name], value, err_msg=name)
