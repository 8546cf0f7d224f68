"""The array vocabulary of the package.

Every public function names its arrays with these words. They are aliases, not checks: shapes
are validated where a user can get them wrong, and the comment beside each alias is the contract.
"""

from typing import TypeAlias

import jax
import numpy as np

# Where arithmetic happens: on the device.
Array: TypeAlias = jax.Array
# What a user may hand over.
_Given: TypeAlias = jax.Array | np.ndarray

# [n, h, w] or [n, h, w, c]: channel-last images, any real dtype; intensities have no fixed scale.
Images: TypeAlias = _Given
# [n, d, h, w]: volumes, one channel, axes from inferior to superior, front to back, side to side.
Volumes: TypeAlias = _Given
# [n, h / f, w / f, c]: what an autoencoder of factor f makes of images.
Latents: TypeAlias = _Given
# [n, d]: float32 rows of unit Euclidean norm.
Embeddings: TypeAlias = _Given
# [n] or [n, k]: similarities in [-1, 1], 1 for an image with itself.
Scores: TypeAlias = _Given
