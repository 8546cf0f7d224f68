"""The learned descriptor: a mirror image keeps one part and negates the other; and what it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from benchmarks.methods.patch_descriptor import Described, PatchNet, hardest_triplets
from benchmarks.methods.patch_pairs import changed, pairs_of
from deepssim_jax.features.basis import EVEN


def test_a_mirror_keeps_one_part_and_negates_the_other() -> None:
    patches = np.random.default_rng(0).standard_normal((5, 2, 16, 16)).astype(np.float32)
    mirrored = patches[..., ::-1] * np.array([1, -1], np.float32)[None, :, None, None]
    net = PatchNet(4, rngs=nnx.Rngs(0))
    run = jax.jit(lambda given: net(given))
    rows, others = np.asarray(run(patches)), np.asarray(run(mirrored.astype(np.float32)))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(others[:, :EVEN], rows[:, :EVEN], atol=1e-5)
    np.testing.assert_allclose(others[:, EVEN:], -rows[:, EVEN:], atol=1e-5)


def test_the_loss_is_the_margin_by_which_the_hardest_other_is_too_near() -> None:
    first = np.eye(3, 4)
    assert float(hardest_triplets(jnp.asarray(np.stack([first, first], 1)))) == 0.0
    second = first[[1, 0, 2]]  # two pairs are exchanged: sqrt(2) away, and the wrong one is there
    away = np.sqrt(2)
    found = float(hardest_triplets(jnp.asarray(np.stack([first, second], 1))))
    # What is nearer than 0.008 is taken for the same keypoint, so the next one is the hardest.
    assert found == pytest.approx((2 * 1.0 + 0.0) / 3, abs=2e-3)
    assert found < 1 + away


def test_pairs_are_keypoints_that_the_map_takes_to_each_other() -> None:
    rng = np.random.default_rng(3)
    image = ndimage.gaussian_filter(rng.standard_normal((128, 128)), 2.0)
    image = (image - image.min()) / np.ptp(image)
    copy = changed(image, np.random.default_rng(1))
    both = [
        Described.of(x[None].astype(np.float32), np.array([[128, 128]]))
        for x in (image, copy.image)
    ]

    def alike(pairs: np.ndarray) -> float:
        flat = pairs.astype(np.float32).reshape(len(pairs), 2, -1)
        flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
        return float((flat[:, 0] * flat[:, 1]).sum(-1).mean())

    right = pairs_of(*both, 0, copy.matrix)
    turned = np.array([[0.0, -1.0], [1.0, 0.0]]) @ copy.matrix
    wrong = pairs_of(*both, 0, turned)
    assert len(right) >= 10
    assert alike(right) > 0.6
    assert len(wrong) < len(right) / 2
