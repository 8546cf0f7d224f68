"""The array vocabulary of the package.

Every public function names its arrays with these words. They are aliases, not checks: shapes
are validated where a user can get them wrong, and the comment beside each alias is the contract.
"""

from typing import TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray

# [n, h, w] or [n, h, w, c]: channel-last images, any real dtype; intensities have no fixed scale.
Images: TypeAlias = Array
# [n, d, h, w]: volumes, one channel, axes from inferior to superior, front to back, side to side.
Volumes: TypeAlias = Array
# [n, h / f, w / f, c]: what an autoencoder of factor f makes of images.
Latents: TypeAlias = Array
# [n, d]: float32 rows of unit Euclidean norm.
Embeddings: TypeAlias = Array
# [n] or [n, k]: similarities in [-1, 1], 1 for an image with itself.
Scores: TypeAlias = Array
