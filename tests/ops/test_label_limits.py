"""Label maps of what they were not made for are refused, and those of phantoms are not."""

import numpy as np

from deepssim_jax.ops.label_limits import Segmented, implausible

SIZE = (32, 32, 32)


def test_a_head_and_a_vessel_tree_are_accepted() -> None:
    axis = np.arange(32) - 15.5
    away = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    head = np.where(away < 9, 1, np.where(away < 12, 3, 0)).astype(np.uint8)
    assert implausible(head, head, Segmented.CT_HEAD) is None
    image = np.where(away < 13, 1.0, 0.0)
    vessels = np.zeros(SIZE, np.uint8)
    vessels[5:27, 15:17, 15] = vessels[16, 6:26, 10] = 1
    assert implausible(vessels, image + 4 * vessels, Segmented.VESSELS) is None
    assert "bright" in str(implausible(vessels, image + 0.2 * vessels, Segmented.VESSELS))


def test_what_is_no_head_is_refused_with_a_reason() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[2:5, 2:5, 2:5] = 1  # a brain of 27 voxels beside much bone
    labels[20:30] = 3
    assert "no brain" in str(implausible(labels, labels, Segmented.CT_HEAD))
    labels[labels == 3] = 0
    assert "bone" in str(implausible(labels, labels, Segmented.CT_HEAD))
    brain = np.zeros(SIZE, np.uint8)
    brain[8:24, 8:24, 8:24] = 2
    brain[8:24, 8:24, 8:16] = 3
    assert "fluid" in str(implausible(brain, brain, Segmented.TISSUES))
    brain[8:12] = np.where(brain[8:12] > 0, 1, 0)
    assert implausible(brain, brain, Segmented.TISSUES) is None
    smooth = np.random.default_rng(0).random(SIZE) + 5
    solid = np.zeros(SIZE, np.uint8)
    solid[10:20, 10:20, 10:20] = 1
    assert "thin" in str(implausible(solid, smooth, Segmented.VESSELS))
