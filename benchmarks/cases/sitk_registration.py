"""Registration by SimpleITK: a similarity from each of the four mirrorings, the best one kept."""

import numpy as np
import SimpleITK as sitk


def register_pair(moving: np.ndarray, fixed: np.ndarray) -> float:
    """Degrees that `fixed` was turned by to give `moving`."""
    target, best = sitk.GetImageFromArray(fixed.astype(np.float32)), (np.inf, 0.0)
    for mirrored in (moving, moving[:, ::-1], moving[::-1], moving[::-1, ::-1]):
        source = sitk.GetImageFromArray(np.ascontiguousarray(mirrored, np.float32))
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsCorrelation()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0, minStep=1e-3, numberOfIterations=100
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([2, 1, 0])
        start = sitk.CenteredTransformInitializer(
            target,
            source,
            sitk.Similarity2DTransform(),
            sitk.CenteredTransformInitializerFilter.GEOMETRY,
        )
        method.SetInitialTransform(start, inPlace=True)
        method.Execute(target, source)
        found = (method.GetMetricValue(), float(np.rad2deg(start.GetAngle())))
        best = min(best, found)
    return best[1]
