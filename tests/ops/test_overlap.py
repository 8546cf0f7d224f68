"""Overlap of label maps equals MONAI's where it is installed, and what can be counted by hand."""

import importlib.util

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops.overlap import hausdorff95, overlap

SPACING = (1.5, 0.8, 1.0)


def maps(seed: int) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((20, 24, 22)), 3)
    return np.digitize(field, np.quantile(field, (0.5, 0.8))).astype(np.uint8)


def test_two_cubes_by_hand() -> None:
    a, b = np.zeros((2, 12, 12, 12), np.uint8)
    a[2:6, 2:6, 2:6] = 1
    b[2:6, 2:6, 4:8] = 1
    b[9, 9, 9] = 3
    found = overlap(a, b, labels=(1, 2, 3), spacing=(2.0, 1.0, 0.5))
    np.testing.assert_allclose(found.dice, [0.5, np.nan, 0.0])
    np.testing.assert_allclose(found.volume_difference, [0.0, np.nan, 2.0])
    diagonal = np.linalg.norm([24.0, 12.0, 6.0])
    np.testing.assert_allclose(found.centre_distance, [1.0, np.nan, diagonal], rtol=1e-6)
    np.testing.assert_allclose(found.hausdorff95, [1.0, np.nan, diagonal], rtol=1e-6)


def test_equals_monai() -> None:
    if importlib.util.find_spec("monai") is None:
        pytest.skip("MONAI is not installed")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance

        for seed in range(3):
            a, b = maps(seed), maps(seed + 100)
            found = overlap(a, b, labels=(1, 2), spacing=SPACING)
            x, y = (
                torch.tensor(np.stack([m == k for k in (0, 1, 2)])[None]).float() for m in (a, b)
            )
            theirs = compute_hausdorff_distance(x, y, percentile=95, spacing=SPACING)[0]
            np.testing.assert_allclose(found.hausdorff95, theirs, atol=1e-4)
            dice = compute_dice(x, y, include_background=False)[0]
            np.testing.assert_allclose(found.dice, dice, atol=1e-4)


def test_volumes_and_centres_equal_simpleitk() -> None:
    if importlib.util.find_spec("SimpleITK") is None:
        pytest.skip("SimpleITK is not installed")
    import SimpleITK as sitk

    a, b = maps(5), maps(6)
    found = overlap(a, b, labels=(1, 2), spacing=SPACING)
    shapes = []
    for labels in (a, b):
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing(SPACING[::-1])
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        shapes.append(shape)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(a), sitk.GetImageFromArray(b))
    for i, label in enumerate((1, 2)):
        assert found.dice[i] == pytest.approx(measures.GetDiceCoefficient(label), abs=1e-4)
        sizes = [s.GetNumberOfPixels(label) for s in shapes]
        assert found.volume_difference[i] == pytest.approx(
            2 * abs(sizes[0] - sizes[1]) / sum(sizes), abs=1e-4
        )
        centres = [np.array(s.GetCentroid(label)) for s in shapes]
        assert found.centre_distance[i] == pytest.approx(
            np.linalg.norm(centres[0] - centres[1]), abs=1e-4
        )


def test_the_far_end_of_a_volume_is_no_surface_of_its_own() -> None:
    """A mask that touches the border ends there, as one inside does."""
    a, b = np.zeros((2, 10, 10, 10), bool)
    a[:4], b[:6] = True, True
    assert hausdorff95(a, b, spacing=(1, 1, 1)) == 2.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="must be alike"):
        overlap(np.zeros((3, 3, 3), int), np.zeros((3, 3, 4), int), labels=(1,))
