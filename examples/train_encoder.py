"""Training: a small network learns a cosine that approximates the SSIM of two images.

It is trained on phantoms from random weights for a few minutes. Spearman's correlation of its
cosine and the true SSIM is computed on pairs of phantoms that it has not seen, before and after.
"""

import dataclasses
import tempfile

import jax
import numpy as np
from scipy import stats

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests


def main() -> float:
    """Trains, and prints how well the network predicts SSIM."""
    images = np.asarray(chests(jax.random.key(11), 120, size=(64, 64)))
    first, second = images[:60], images[60:]
    truth = np.asarray(ds.ssim(first, second, data_range=1.0, reduction="none"))
    short = ds.EncoderConfig(batch=32, warmup=20, validate_every=75, checkpoint_every=75)
    with tempfile.TemporaryDirectory() as work:
        for steps in (1, 150):
            config = dataclasses.replace(short, steps=steps)
            trained = ds.train_encoder(config, workdir=f"{work}/{steps}")
            encoder = ds.load_encoder(trained.path)
            a, b = (ds.embed(encoder, x) for x in (first, second))
            rank = float(stats.spearmanr((a * b).sum(1), truth).statistic)
            print(f"after {steps} steps: rank correlation with SSIM {rank:.1f}")
    return rank


if __name__ == "__main__":
    main()
