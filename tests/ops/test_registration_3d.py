"""Planted rigid motions of volumes, and affine ones of images, are recovered; SciPy plants them."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepssim_jax.data.volume import oriented
from deepssim_jax.ops import registration
from deepssim_jax.ops.search_rigid import RigidGrid
from deepssim_jax.ops.transform import MotionModel
from tests.ops.test_registration import SIZE, pictures

SHAPE = (40, 48, 36)  # of all, so that one program serves them


def volumes(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth random volumes with structure at several scales."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape))
    smooth = sum(s**1.5 * ndimage.gaussian_filter(noise, (0, s, s, s)) for s in (2, 4))
    return (smooth / smooth.std((1, 2, 3), keepdims=True)).astype(np.float32)


def move(
    volume: np.ndarray, matrix: np.ndarray, shift: np.ndarray, mirror: bool, order: int = 3
) -> np.ndarray:
    """moving(F (M x + t)) = fixed(x), by SciPy."""
    inverse = np.linalg.inv(matrix)
    centre = (np.array(volume.shape) - 1) / 2
    offset = centre - inverse @ (centre + shift)
    out = ndimage.affine_transform(volume, inverse, offset=offset, order=order, mode="nearest")
    return out[..., ::-1] if mirror else out


def turn(angles: np.ndarray) -> np.ndarray:
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def degrees_between(ours: np.ndarray, truth: np.ndarray) -> float:
    return np.rad2deg(Rotation.from_matrix(np.asarray(ours) @ truth.T).magnitude())


def test_recovers_planted_rigid_motions_of_volumes() -> None:
    rng = np.random.default_rng(1)
    fixed = volumes(4, SHAPE)
    truth = [(turn(rng.uniform(-12, 12, 3)), rng.uniform(-4, 4, 3), bool(i % 2)) for i in range(4)]
    moving = np.stack([move(v, *t) for v, t in zip(fixed, truth, strict=True)])
    moving = 3 * moving + 7 + 0.1 * rng.standard_normal(moving.shape)
    found = registration.register(moving, fixed)
    np.testing.assert_array_equal(found.transform.flip, [t[2] for t in truth])
    for i, (matrix, shift, _) in enumerate(truth):
        assert degrees_between(found.transform.matrix[i], matrix) < 0.5
        assert np.linalg.norm(np.asarray(found.transform.shift[i]) - shift) < 0.5
        assert float(found.transform.rotation_deg[i]) == pytest.approx(
            np.rad2deg(Rotation.from_matrix(matrix).magnitude()), abs=0.5
        )
    np.testing.assert_allclose(found.transform.scale, 1.0, atol=1e-4)
    assert np.asarray(found.correlation).min() > 0.95
    assert found.aligned.shape == found.inside.shape == fixed.shape


def test_a_brain_that_moved_is_brought_back(data_dir: Path) -> None:
    import nibabel

    path = sorted((data_dir / "brain3d" / "mni").rglob("*T1*.nii.gz"))[0]
    image = nibabel.load(path)
    volume, _ = oriented(np.asarray(image.dataobj, np.float32), image.affine)
    brain = ndimage.uniform_filter(volume, 4)[12:172:4, 20:212:4, 20:164:4]
    matrix, shift = turn(np.array([9.0, -6.0, 11.0])), np.array([1.6, -2.4, 1.1])
    moving = np.clip(move(brain, matrix, shift, mirror=True, order=1), 0, None) ** 0.8
    found = registration.register(moving[None], brain[None])
    assert int(found.transform.flip[0]) == 1
    assert degrees_between(found.transform.matrix[0], matrix) < 0.5
    assert np.linalg.norm(np.asarray(found.transform.shift[0]) - shift) < 0.5


def test_recovers_planted_affine_maps_of_images() -> None:
    fixed = pictures(8)
    rng = np.random.default_rng(5)
    matrices = np.eye(2) + rng.uniform(-0.06, 0.06, (8, 2, 2))
    shifts = rng.uniform(-3, 3, (8, 2))
    moving = np.stack(
        [move(f, m, s, mirror=False) for f, m, s in zip(fixed, matrices, shifts, strict=True)]
    )
    found = registration.register(moving, fixed, model=MotionModel.AFFINE)
    np.testing.assert_allclose(found.transform.matrix, matrices, atol=0.01)
    assert np.linalg.norm(np.asarray(found.transform.shift) - shifts, axis=1).max() < 0.3
    rigid = registration.register(moving, fixed, model=MotionModel.RIGID)
    np.testing.assert_allclose(rigid.transform.scale, 1, atol=1e-5)
    assert np.all(np.asarray(rigid.correlation) < np.asarray(found.correlation))


@pytest.mark.parametrize("model", list(MotionModel))
@pytest.mark.parametrize("dims", [2, 3])
def test_models_have_as_many_coefficients_as_they_should(model: MotionModel, dims: int) -> None:
    turns = dims * (dims - 1) // 2
    expected = {"rigid": turns, "similarity": turns + 1, "affine": dims * dims}[model.value]
    generators = model.generators(dims)
    assert generators.shape == (expected, dims, dims)
    assert np.linalg.matrix_rank(generators.reshape(expected, -1)) == expected


@pytest.mark.slow
def test_volumes_do_not_depend_on_the_batch() -> None:
    """Slow, for a program that nothing else needs: volumes come one by one unless someone asks otherwise,
    which the tests above cover; batches of images are compared in tests/ops/test_registration.py.
    """
    fixed = volumes(3, SHAPE)
    moving = np.stack([move(v, turn(np.array([4.0, 5.0, -6.0])), np.ones(3), False) for v in fixed])
    one, two = (registration.register(moving, fixed, batch_size=b) for b in (1, 2))
    np.testing.assert_allclose(one.aligned, two.aligned, atol=1e-4)


def test_wrong_input_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="must be square"):
        registration.register(np.zeros((1, 8, 16)), np.zeros((1, 8, 16)))
    with pytest.raises(ValueError, match="the search of 2D images"):
        registration.register(pictures(1), pictures(1), grid=RigidGrid())
    with pytest.raises(ValueError, match=r"\(64, 64\)"):
        registration.register(np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE)))
