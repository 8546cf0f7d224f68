"""Phantoms: one subject is one anatomy, two subjects are two people."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.data import anatomy, phantom, phantom_chests, phantom_textures
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.ssim import ssim

N, MANY, SIZE = 6, 64, (64, 64)  # few numbers, so that tests have programs in common


@pytest.fixture(scope="module")
def atlas() -> anatomy.Anatomy:
    return anatomy.load_anatomy()


@pytest.fixture(scope="module")
def subjects() -> phantom.Subjects:
    return phantom.sample_subjects(jax.random.key(0), N)


def scans(seed: int, contrast=phantom.Contrast.T1, **kwargs) -> phantom.Scans:
    return phantom.sample_scans(jax.random.key(seed), N, contrast=contrast, **kwargs)


def similarity(a, b) -> np.ndarray:
    return np.asarray(ssim(zscore(a), zscore(b), data_range="first", reduction="none"))


def test_a_rescan_is_nearer_than_another_person(subjects, atlas) -> None:
    first, second = (
        phantom.slices(jax.random.key(s), subjects, scans(s, pose=0.1), size=SIZE, anatomy=atlas)
        for s in (1, 2)
    )
    again = similarity(first, second)
    others = np.concatenate([similarity(first, np.roll(first, k, axis=0)) for k in (1, 2, 3)])
    assert again.min() > np.median(others)
    assert again.mean() > others.mean() + 0.15


def test_anatomy_does_not_depend_on_the_contrast(subjects, atlas) -> None:
    """With tissues painted alike in both scans, only noise differs."""
    plain = scans(3, pose=0.5)
    # Half as bright as usual, so that nothing is cut off at 1.
    quiet = dataclasses.replace(plain, noise=jnp.zeros(N), means=0.5 * plain.means)
    a = phantom.slices(jax.random.key(4), subjects, quiet, size=SIZE, anatomy=atlas)
    b = phantom.slices(jax.random.key(5), subjects, quiet, size=SIZE, anatomy=atlas)
    np.testing.assert_array_equal(a, b)
    darker = dataclasses.replace(quiet, means=quiet.means * 0.5)
    c = phantom.slices(jax.random.key(4), subjects, darker, size=SIZE, anatomy=atlas)
    np.testing.assert_allclose(c, 0.5 * np.asarray(a), atol=1e-6)


def test_images_lie_in_the_unit_range_and_extraction_leaves_nothing_outside(
    subjects, atlas
) -> None:
    extracted = phantom.slices(jax.random.key(6), subjects, scans(6), size=SIZE, anatomy=atlas)
    whole = phantom.slices(
        jax.random.key(6), subjects, scans(6, scalp=1.0), size=SIZE, anatomy=atlas
    )
    for images in (extracted, whole):
        assert images.dtype == jnp.float32 and images.shape == (N, *SIZE)
        assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert np.all(np.asarray(extracted)[:, 0] == 0)
    assert np.all(np.asarray(whole)[:, 0].mean(1) > 0)
    assert np.all((np.asarray(extracted) > 0).mean((1, 2)) > 0.2)


def test_a_subject_alone_is_the_same_as_among_others(subjects, atlas) -> None:
    quiet = dataclasses.replace(scans(7), noise=jnp.zeros(N))
    together = phantom.slices(jax.random.key(0), subjects, quiet, size=SIZE, anatomy=atlas)
    one = [jax.tree.map(lambda leaf: leaf[2:3], part) for part in (subjects, quiet)]
    alone = phantom.slices(jax.random.key(0), *one, size=SIZE, anatomy=atlas)
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)


def test_a_volume_holds_the_slices(subjects, atlas) -> None:
    """The plane of a volume through height 0 is the slice at height 0."""
    zero = jnp.zeros(N)
    straight = dataclasses.replace(
        scans(8, pose=0.0), noise=zero, blur=jnp.full(N, 1e-3), height=zero
    )
    volume = phantom.volumes(
        jax.random.key(0), subjects, straight, size=(33, 32, 32), anatomy=atlas
    )
    plane = phantom.slices(jax.random.key(0), subjects, straight, size=(33, 33), anatomy=atlas)
    assert volume.shape == (N, 33, 32, 32)
    # 33 against 32 columns: the same planes up to half a pixel, so they agree, not equal.
    assert similarity(volume[:, 16], plane[:, :32, :32]).min() > 0.5


def test_displacement_tears_nothing(subjects) -> None:
    """The Jacobian's determinant stays positive: the map is invertible."""
    axis = np.arange(-60, 61, 4.0)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).astype(np.float32)
    batch = jnp.broadcast_to(jnp.asarray(points)[None], (N, *points.shape))
    moved = np.asarray(jax.jit(phantom.displaced)(subjects, batch))
    columns = [np.gradient(moved, 4.0, axis=2 + k) for k in range(3)]
    jacobian = np.stack(columns, -1).transpose(0, 2, 3, 4, 1, 5)
    determinant = np.linalg.det(jacobian)
    assert determinant.min() > 0.02
    assert np.std(determinant) > 0.05


def test_without_the_extra_the_procedural_head_serves(subjects, monkeypatch) -> None:
    monkeypatch.setattr(anatomy, "_atlas_folder", lambda: None)
    anatomy._atlas.cache_clear()
    try:
        loaded = anatomy.load_anatomy()
    finally:
        anatomy._atlas.cache_clear()
    assert loaded.source == "procedural"
    assert loaded.maps.shape[0] == len(anatomy.TISSUES)
    total = loaded.maps.sum(0)
    assert total.min() >= 0 and total.max() <= 1.01
    images = phantom.slices(jax.random.key(1), subjects, scans(1), size=SIZE, anatomy=loaded)
    assert np.asarray(images).std((1, 2)).min() > 0.05
    assert similarity(images, np.roll(images, 1, axis=0)).max() < 0.9


@pytest.mark.parametrize("make", [phantom_chests.chests, phantom_textures.textures])
def test_bodies_differ_and_repeat(make) -> None:
    images = np.asarray(make(jax.random.key(2), MANY, size=SIZE))
    np.testing.assert_array_equal(images, make(jax.random.key(2), MANY, size=SIZE))
    assert images.shape == (MANY, *SIZE) and np.isfinite(images).all()
    assert similarity(images[:N], np.roll(images[:N], 1, axis=0)).max() < 0.8


def test_chests_are_bright_in_the_middle_and_dark_over_the_lungs() -> None:
    films = np.asarray(phantom_chests.chests(jax.random.key(4), MANY, size=SIZE))
    middle = films[:, 24:36, 29:35].mean((1, 2))
    lungs = films[:, 24:36, [16, 17, 18, 45, 46, 47]].mean((1, 2))
    assert np.mean(middle > lungs + 0.05) >= 0.9
    assert films.min() >= 0 and films.max() <= 1
