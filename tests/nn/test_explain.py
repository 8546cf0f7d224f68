"""LayerCAM against its definition by finite differences, and where it looks."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import deepssim_jax as ds
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn import explain
from deepssim_jax.nn.embedder import Embedder
from tests.kept import SMALL_EMBEDDER, small_encoder

SPEC = SMALL_EMBEDDER


@pytest.fixture(scope="module")
def encoder() -> encoders.Encoder:
    return small_encoder()


@pytest.fixture(scope="module")
def mirrored() -> encoders.Encoder:
    return encoders.from_module(
        Embedder(dataclasses.replace(SPEC, mirrored=True), rngs=nnx.Rngs(1))
    )


def pictures(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("kind", ["encoder", "mirrored"])
def test_scores_are_the_cosines_and_pairs_do_not_meet(kind: str, request) -> None:
    encoder = request.getfixturevalue(kind)
    a, b = pictures(19, 0), pictures(19, 1)
    found = ds.explain_pair(a, b, encoder=encoder)
    assert found.first.shape == found.second.shape == (19, 4, 32, 32)
    cosines = (encoders.embed(encoder, a) * encoders.embed(encoder, b)).sum(1)
    np.testing.assert_allclose(found.scores, cosines, atol=1e-5)
    assert found.first.min() >= 0 and found.first.max() == pytest.approx(1.0)
    alone = ds.explain_pair(a[7:8], b[7:8], encoder=encoder)
    np.testing.assert_allclose(found.first[7:8], alone.first, atol=1e-4)
    swapped = ds.explain_pair(b, a, encoder=encoder)
    np.testing.assert_allclose(found.first, swapped.second, atol=1e-4)
    assert ds.explain_pair(a[:0], b[:0], encoder=encoder).first.shape == (0, 4, 32, 32)


@pytest.fixture(scope="module")
def network(encoder):
    """Two images, the maps of the first, and its stages and embedding with something added to them."""
    a, b = pictures(1, 2), pictures(1, 3)

    @jax.jit
    def run(images, added):
        model = nnx.merge(encoder.graph, encoder.state)
        stages = explain._stages(model, model.channels(encoders.prepared(SPEC, images)), added)
        return stages, model.head(stages)

    return a, b, jax.jit(explain._heat)(encoder, a, b)[1], run


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_maps_follow_the_definition(encoder, network, stage: int) -> None:
    """relu(sum_c relu(dS/dA_c) A_c), the slopes by finite differences of the network."""
    a, b, heats, run = network
    other = encoders.embed(encoder, b)[0].astype(np.float64)
    sides = [a.shape[-1] // 2 ** (k + 2) for k in range(4)]
    shapes = [(side, side, width) for side, width in zip(sides, SPEC.backbone.dims, strict=True)]
    rows = list(np.ndindex(*shapes[stage][:2]))[:: 1 if stage > 1 else 7]
    places = [(*row, c) for row in rows for c in range(shapes[stage][2])]

    def changed(by: float) -> tuple[list[np.ndarray], np.ndarray]:
        """With each of the places changed alone: one image of a batch each, 40 for one program."""
        added = [np.zeros((40, *shape), np.float32) for shape in shapes]
        for number, place in enumerate(places):
            added[stage][(number, *place)] = by
        return run(a.repeat(40, 0), added)

    def scores(by: float) -> np.ndarray:
        return np.asarray(changed(by)[1], np.float64)[: len(places)] @ other

    activation = np.asarray(changed(0.0)[0][stage], np.float64)[0]
    assert activation.shape == shapes[stage] and len(places) <= 40
    slopes = ((scores(0.02) - scores(-0.02)) / 0.04).clip(0).reshape(len(rows), -1)
    heat = (slopes * np.array([activation[row] for row in rows])).sum(1)
    found = np.asarray(heats[stage])[0]
    expected = heat.clip(0)
    np.testing.assert_allclose([found[row] for row in rows], expected, rtol=0.05, atol=2e-4)
    assert expected.max() > 1e-3


def test_shapes_that_differ_are_refused(encoder) -> None:
    with pytest.raises(ValueError, match=r"\(1, 32, 32\).*\(2, 32, 32\)"):
        ds.explain_pair(pictures(1, 0), pictures(2, 0), encoder=encoder)
