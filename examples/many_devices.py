"""Several devices: the nearest neighbours are the same on one and on eight.

A CPU is divided into eight devices, as a TPU VM or a machine with eight GPUs has them. The embeddings of
two sides are spread over them, and every device searches its own share.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # before JAX starts

import jax
import numpy as np

import deepssim_jax as ds


def main() -> ds.Neighbours:
    """Searches twice, and prints whether the answers are equal."""
    rng = np.random.default_rng(0)
    real, synthetic = (rng.standard_normal((n, 256)).astype(np.float32) for n in (4000, 1000))
    real, synthetic = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, synthetic))
    alone = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    one = ds.nearest(synthetic, real, k=5, mesh=alone)
    eight = ds.nearest(synthetic, real, k=5, mesh=jax.make_mesh((8,), ("data",)))

    print(f"devices: {jax.device_count()}")
    print(f"same neighbours: {bool((one.indices == eight.indices).all())}")
    print(f"largest difference of a cosine: {np.abs(one.scores - eight.scores).max():.0e}")
    return eight


if __name__ == "__main__":
    main()
