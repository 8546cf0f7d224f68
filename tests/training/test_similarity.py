"""What the encoder is taught, against registration and the SSIM of each pair alone."""

import jax
import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.ops import augment
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.training import similarity

N, SIZE = 12, 64
# In one program each, as training has them.
similarity_aligned, similarity_in_place = map(
    jax.jit, (similarity.similarity_aligned, similarity.similarity_in_place)
)
MOVES = AugmentConfig(
    p_flip=0.5,
    p_rotate=1.0,
    rotation_deg=12.0,
    p_shift=1.0,
    shift=0.08,
    p_zoom=1.0,
    zoom=(0.9, 1.1),
)


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.asarray(zscore(chests(jax.random.key(3), N, size=(SIZE, SIZE))))


def every(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    pairs = ds.ssim(
        np.repeat(a, len(b), 0), np.tile(b, (len(a), 1, 1)), data_range="first", reduction="none"
    )
    return np.asarray(pairs).reshape(len(a), len(b))


def test_in_place_it_is_the_ssim_of_every_pair(films: np.ndarray) -> None:
    expected = every(films, films[::-1])
    np.testing.assert_allclose(similarity_in_place(films, films[::-1]), expected, atol=1e-5)


def test_strangers_are_compared_as_registration_lays_them(films: np.ndarray) -> None:
    found = np.asarray(similarity_aligned(films, films))
    np.testing.assert_allclose(np.diagonal(found), 1.0, atol=1e-5)
    in_place = every(films, films)
    assert (found >= (in_place + in_place.T) / 2 - 1e-6).all()
    rows, columns = np.nonzero(~np.eye(N, dtype=bool))
    ways = []
    for fixed, moving in ((rows, columns), (columns, rows)):
        laid = np.asarray(zscore(register(films[moving], films[fixed]).aligned))
        ways.append(ds.ssim(films[fixed], laid, data_range="first", reduction="none"))
    expected = np.mean(ways, 0)
    off, before = (
        np.sqrt(np.mean((x[rows, columns] - np.asarray(expected)) ** 2)) for x in (found, in_place)
    )
    assert off < 0.06 and off < before / 2


def test_it_knows_no_direction(films: np.ndarray) -> None:
    others = np.roll(films, N // 2, axis=0)
    there, back = similarity_aligned(films, others), similarity_aligned(others, films)
    np.testing.assert_allclose(there, np.asarray(back).T, atol=1e-6)


def test_a_moved_copy_is_alike_again(films: np.ndarray) -> None:
    params = augment.sample_params(jax.random.key(8), films.shape, MOVES)
    moved = np.asarray(zscore(jax.jit(augment.geometry)(films, params)))
    found = np.asarray(similarity_aligned(films, moved))
    assert np.diagonal(every(films, moved)).max() < 0.5
    # What was zoomed or moved out of the frame is gone.
    assert np.median(np.diagonal(found)) > 0.75
    np.testing.assert_array_equal(found.argmax(1), np.arange(N))


def test_a_flat_image_is_like_nothing_but_itself(films: np.ndarray) -> None:
    some = films.copy()
    some[3] = 0.0
    found = np.asarray(similarity_aligned(some, some))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.diagonal(found), 1.0, atol=1e-5)
    apart = np.arange(N) != 3
    assert found[3, apart].max() < 0.1 and found[apart, 3].max() < 0.2
