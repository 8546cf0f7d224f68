"""How much of a pair's SSIM can be read from two images that have gone their own ways?

    python benchmarks/validation_limits.py --out=benchmarks/results

Pairs of phantoms of known SSIM, as an encoder is validated on, under four kinds of augmentation: none; the
stress list's changes of appearance alone, so that nothing has moved; DeepSSIM++'s; the whole stress
list. Of each the error of the encoder's cosine, of what a boosted regression makes of the pixels
(SSIM and correlation at several blurs, and how noisy and smooth either image is; where
something has moved, after `register`, from either side), and of a regression of both. Regressions are
fitted on one half of the batches and everything is reported on the other, with 95 % intervals of a
bootstrap over batches, no person being in two of them. It is no bound of what can be known, but one
of what pixels tell to those who align and compare them. Nine minutes on two cores that did
other work.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.cases.bootstrap import bootstrapped, draws
from benchmarks.cases.records import dated, keep
from deepssim_jax.data.anatomy import load_anatomy
from deepssim_jax.nn.encoder import Encoder, embed, load_encoder
from deepssim_jax.ops import resample
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.training.pairs import PairBatch, PairMaker, moved_apart, step_key

OUT = flags.DEFINE_string("out", None, "folder for validation_limits.jsonl; nothing without")
ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
BATCHES = flags.DEFINE_integer("batches", 16, "batches of 48 pairs", lower_bound=4)
SEED = flags.DEFINE_integer("seed", 1000, "of the phantoms and of how they are augmented")
_BATCH, _SIZE = 48, 64
_BLURS = (0.0, 0.5, 1.0, 1.7, 3.0)  # pixels

_STRESS = AugmentConfig.stress()
_CONDITIONS = {
    "as they are": AugmentConfig(),
    "appearance": dataclasses.replace(
        _STRESS, p_flip=0.0, p_rotate=0.0, p_shift=0.0, p_zoom=0.0, p_fill=0.0
    ),
    "DeepSSIM++": AugmentConfig.v2(),
    "stress list": _STRESS,
}


def pixels(a: np.ndarray, b: np.ndarray, *, moved: bool) -> np.ndarray:
    """What the pixels of pairs [n, h, w] tell, [n, features]."""
    found = [_texture(image) for image in (a, b)]
    for fixed, moving in ((a, b), (b, a)) if moved else ((a, b),):
        laid = zscore(register(moving, fixed).aligned) if moved else moving
        found.append(_alike(fixed, laid))
    return np.concatenate(found, 1)


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    columns = []
    for width in _BLURS:
        x, y = (zscore(resample.gaussian_blur(z, width, radius=8)) if width else z for z in (a, b))
        columns += [ssim(x, y, data_range="first", reduction="none"), (x * y).mean((1, 2))]
    return np.stack([np.asarray(column) for column in columns], 1)


def _texture(image: np.ndarray) -> np.ndarray:
    fine = np.asarray(image - resample.gaussian_blur(image, 0.7, radius=4))
    return np.log(np.stack([fine.std((1, 2)), np.median(np.abs(fine), (1, 2))], 1) + 1e-6)


def learned(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Predictions of the second half by a regression of the first."""
    half = len(target) // 2
    model = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=15, random_state=0
    )
    return model.fit(features[:half], target[:half]).predict(features[half:])


def figures(error: np.ndarray) -> dict[str, list[float]]:
    """MAE and RMSE of errors [batches, n] with their intervals."""
    drawn = draws(np.random.default_rng(SEED.value), len(error))
    return {
        "mae": bootstrapped(lambda rows: np.abs(error[rows]).mean(), drawn),
        "rmse": bootstrapped(lambda rows: np.sqrt((error[rows] ** 2).mean()), drawn),
    }


def measure(
    condition: str, made: list[PairBatch], encoder: Encoder
) -> dict[str, dict[str, list[float]]]:
    """The figures of every way to tell the SSIM."""
    config, cosines, seen = _CONDITIONS[condition], [], []
    for number, pairs in enumerate(made, 1):
        key = step_key(SEED.value, -number)
        batch = moved_apart(key, pairs, config=config)
        a, b = (np.asarray(embed(encoder, images)) for images in (batch.a, batch.b))
        cosines.append((a * b).sum(1))
        images = np.asarray(batch.a), np.asarray(batch.b)
        seen.append(pixels(*images, moved=config.p_rotate > 0))
    target = np.concatenate([np.asarray(pairs.target) for pairs in made])
    cosine, features = np.concatenate(cosines), np.concatenate(seen)
    half = len(target) // 2
    both = np.concatenate([cosine[:, None], features], 1)
    told = {
        "encoder": cosine[half:],
        "pixels": learned(features, target),
        "both": learned(both, target),
    }
    return {way: figures((x - target[half:]).reshape(-1, _BATCH)) for way, x in told.items()}


def main(_: list[str]) -> None:
    encoder = load_encoder(ENCODER.value)
    maker = PairMaker(anatomy=load_anatomy(), seed=SEED.value, batch=_BATCH, size=_SIZE)
    # Not augmented, so that each condition begins with the same pairs.
    still = dataclasses.replace(maker, augment=AugmentConfig())
    made = [still(-number) for number in range(1, 2 * (BATCHES.value // 2) + 1)]
    print("| | encoder, MAE | RMSE | pixels, MAE | RMSE | both, MAE | RMSE |\n" + "|---" * 7 + "|")
    for condition in _CONDITIONS:
        found = measure(condition, made, encoder)
        cells = [
            "{:.3f} ({:.3f} to {:.3f})".format(*v) for way in found.values() for v in way.values()
        ]
        print(f"| {condition} | " + " | ".join(cells) + " |", flush=True)
        record = {
            "condition": condition,
            "encoder": ENCODER.value,
            "seed": SEED.value,
            "pairs": len(made) * _BATCH // 2,
            **found,
        }
        keep(dated(record), OUT.value, "validation_limits")


if __name__ == "__main__":
    app.run(main)
