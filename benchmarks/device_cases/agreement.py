"""The same answers on the device as on the CPU: every public kernel, and the labels of an audit.

    JAX_PLATFORMS=cpu python -m benchmarks.device_cases.agreement FILE [--tiny]

writes what one platform gives; `compared`, in a process of the other, waits for the file.
"""

import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

import deepssim_jax as ds
from benchmarks.device_cases.images import blobs
from benchmarks.kept import write_png
from deepssim_jax.ops import fsim, volume_poses, volume_similarity
from deepssim_jax.scoring import embed, unmoved

REFERENCE = "DEVICE_REFERENCE"  # names the file of the CPU's answers

# Largest difference; scores are float32 of sums of thousands of terms, in another order. A refined
# transformation may end a little elsewhere in a flat minimum: degrees and pixels are looser.
TOLERANCES = {
    "ssim": 1e-5,
    "fsim": 1e-5,
    "embedding": 1e-5,
    "nearest": 1e-6,
    "nearest_index": 0.0,
    "aligned": 1e-5,
    "aligned_index": 0.0,
    "unmoved": 1e-5,
    "verified": 1e-3,
    "rotation_deg": 0.05,
    "shift": 0.05,
    "correlation": 1e-3,
    "volume_correlation": 1e-3,
    "body_ncc": 1e-5,
    "volume_ssim": 1e-5,
    "volume_coarse": 1e-5,
    "labels": 0.0,
    "matched": 0.0,
}


def _images(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies, some turned, mirrored or other images, and their originals; NumPy alone makes them."""
    fixed = blobs(count, size, 0)
    moving = np.stack([ndimage.rotate(x, 4, reshape=False, mode="nearest") for x in fixed])
    moving[::4] = moving[::4, ::-1]
    moving[1::4] = blobs(len(moving[1::4]), size, 5)
    return moving.astype(np.float32), fixed


def results(*, tiny: bool) -> dict[str, np.ndarray]:
    """What this process's platform gives for inputs that are the same everywhere.

    A dry run leaves out what takes long to compile.
    """
    moving, fixed = _images(*((4, 64) if tiny else (32, 128)))
    unit = np.random.default_rng(0).normal(size=(900 if tiny else 9_000, 64)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = ds.nearest(unit[:100], unit[100:], k=5)
    out = {
        "ssim": ds.ssim_matrix(fixed, moving),
        "fsim": np.asarray(fsim.fsim(128 + 40 * moving, 128 + 40 * fixed)),
        "nearest": near.scores,
        "nearest_index": near.indices,
    }
    return out if tiny else out | _pairs(moving, fixed) | _volumes() | _audited(moving, fixed)


def _pairs(moving: np.ndarray, fixed: np.ndarray) -> dict[str, np.ndarray]:
    encoder = ds.load_encoder()
    rows, others = (embed.features(x, encoder) for x in (moving, fixed))
    aligned = ds.nearest_aligned(moving, fixed, k=2)
    pairs = ds.verify_pairs(moving, fixed)
    copies = pairs.score > 0.8  # where images are others, no transformation is right
    return {
        "embedding": np.concatenate([rows[0], others[0]]),
        "aligned": aligned.scores,
        "aligned_index": aligned.indices[:, 0],
        "unmoved": unmoved.nearest_unmoved(rows[1], others[1], k=2).scores,
        "verified": pairs.score,
        "rotation_deg": pairs.rotation_deg[copies],
        "shift": pairs.shift[copies],
        "correlation": np.asarray(ds.register(moving, fixed).correlation)[copies],
    }


def _volumes() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(3).normal(size=(2, 40, 40, 40))
    fixed = ndimage.gaussian_filter(noise, (0, 2, 2, 2)).astype(np.float32)
    moving = np.stack([ndimage.rotate(x, 5, reshape=False, mode="nearest") for x in fixed])
    alike = volume_similarity.volume_similarity(moving, fixed)
    return {
        "volume_correlation": np.asarray(ds.register(moving, fixed).correlation),
        "body_ncc": np.asarray(alike.body_ncc),
        "volume_ssim": np.asarray(alike.ssim),
        "volume_coarse": np.asarray(
            volume_poses.coarse(moving, np.full((2, 3), 40.0), np.full((2, 3), 2.5))
        ),
    }


def _audited(moving: np.ndarray, fixed: np.ndarray) -> dict[str, np.ndarray]:
    """Label and real image of every synthetic one, as the audit's table has them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for side, images in (("real", fixed), ("synthetic", moving)):
            (root / side).mkdir()
            for row, image in enumerate(images):
                write_png(root / side / f"{row:03d}.png", (image - image.min()) / np.ptp(image))
        ds.audit(root / "real", root / "synthetic", out=root / "out")
        with (root / "out" / "nearest.csv").open(newline="") as file:
            table = sorted(csv.DictReader(file), key=lambda row: row["synthetic_id"])
    return {
        "labels": np.array([row["label"] for row in table]),
        "matched": np.array([row["real_id"] for row in table]),
    }


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest one; of names and numbers of rows, how many differ; infinite for other shapes."""
    if found.shape != wanted.shape:
        return float("inf")
    if found.dtype.kind in "iuUS":
        return float((found != wanted).sum())
    return float(np.abs(found.astype(float) - wanted).max(initial=0.0))


def compared(tiny: bool) -> Iterator[dict[str, object]]:
    """A record for every kernel: how far from the CPU's answer, and what is tolerated."""
    ours = results(tiny=tiny)
    file = Path(os.environ[REFERENCE])
    while not file.exists():  # the section's time limit ends this
        time.sleep(0.2)
    with np.load(file) as theirs:
        for name, values in ours.items():
            worst = difference(values, theirs[name])
            yield {
                "work": f"agreement_{name}",
                "worst": float(f"{worst:.3g}"),
                "tolerance": TOLERANCES[name],
                "values": int(values.size),
                "agrees": worst <= TOLERANCES[name],
            }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    np.savez(target.with_suffix(".part.npz"), **results(tiny="--tiny" in sys.argv))
    target.with_suffix(".part.npz").replace(target)
