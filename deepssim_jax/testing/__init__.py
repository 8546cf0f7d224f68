"""For tests and examples: images of nobody, copies whose originals are known, and checks of outputs.

    from deepssim_jax import testing
    made = testing.planted_copies("work", real=8, edits=["left to right", "gamma 0.6"])
    ds.audit(made.real, made.synthetic, out="audit")
    testing.assert_copies_found("audit", made.originals)

Nothing here needs data, a network or a test runner: a check that fails raises `AssertionError`.
"""

from deepssim_jax.testing.checks import (
    assert_copies_found,
    assert_same_outputs,
    assert_verified,
    outputs,
)
from deepssim_jax.testing.collections import PlantedCopies, planted_copies, write_images
from deepssim_jax.testing.phantoms import edited, phantom_images, phantom_volumes

__all__ = [
    "PlantedCopies",
    "assert_copies_found",
    "assert_same_outputs",
    "assert_verified",
    "edited",
    "outputs",
    "phantom_images",
    "phantom_volumes",
    "planted_copies",
    "write_images",
]
