"""The same answers on the device as on the CPU: every public kernel, and the labels of an audit.

    JAX_PLATFORMS=cpu python -m benchmarks.device_cases.agreement FOLDER [--tiny]

writes what the CPU gives, a file for each kernel as it comes; `compared`, in a process of the other
platform, waits for each. Where that is a CPU too, nothing is compared with another, and that is said.
"""

import csv
import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from scipy import ndimage

import deepssim_jax as ds
from benchmarks.device_cases.images import blobs
from benchmarks.device_cases.local_features import canvases as textures
from benchmarks.kept import write_png
from deepssim_jax.features import extract
from deepssim_jax.ops import fsim, volume_poses, volume_similarity
from deepssim_jax.scoring import embed, in_place
from deepssim_jax.scoring.points import LocalIndex, PointSet

REFERENCE = "DEVICE_REFERENCE"  # names the folder of the CPU's answers

# Largest difference; scores are float32 of sums of thousands of terms, in another order. A refined
# transformation may end a little elsewhere in a flat minimum: degrees and pixels are looser.
TOLERANCES = {
    "ssim": 1e-5,
    "ssim_gaussian": 1e-5,
    "fsim": 1e-5,
    "embedding": 1e-5,
    "explained": 1e-3,
    "local_points": 0.02,
    "local_reference": 0.0,
    "local_evidence": 0.02,
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


Results = dict[str, np.ndarray]


def kernels(*, tiny: bool) -> dict[str, Callable[[], Results]]:
    """What gives a platform's results for inputs that are the same everywhere, the quickest first.

    A dry run leaves out what takes long to compile.
    """
    moving, fixed = _images(*((4, 64) if tiny else (32, 128)))
    quick = {
        "nearest": functools.partial(_nearest, 900 if tiny else 9_000),
        "similarity": lambda: _similarity(moving, fixed),
    }
    long = {
        "local": _local,
        "embedding": lambda: _embedded(moving, fixed),
        "audit": lambda: _audited(moving, fixed),
        "pairs": lambda: _pairs(moving, fixed),
        "volumes": _volumes,
    }
    return quick if tiny else quick | long


def _nearest(count: int) -> Results:
    unit = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = ds.nearest(unit[:100], unit[100:], k=5)
    return {"nearest": near.scores, "nearest_index": near.indices}


def _similarity(moving: np.ndarray, fixed: np.ndarray) -> Results:
    gaussian = ds.ssim(fixed, moving, data_range="first", window="gaussian", reduction="none")
    return {
        "ssim": ds.ssim_matrix(fixed, moving),
        "ssim_gaussian": np.asarray(gaussian),
        "fsim": np.asarray(fsim.fsim(128 + 40 * moving, 128 + 40 * fixed)),
    }


def _local() -> Results:
    """Points of textures, and of which texture a part of it, turned round, is seen to be."""
    whole = textures(48)
    parts = np.stack([ndimage.rotate(x, 20, reshape=False, mode="nearest") for x in whole[:16]])
    content = np.full((len(whole), 2), extract.SIDE)
    found = extract.extract_all(whole, content)
    queries = PointSet.of(parts.astype(np.float32), content[:16])
    matches = LocalIndex.build(PointSet.packed(found), np.arange(len(whole))).search(queries)
    return {
        "local_points": np.asarray(found.positions),
        "local_reference": matches.reference[:, 0],
        "local_evidence": matches.evidence[:, 0],
    }


def _embedded(moving: np.ndarray, fixed: np.ndarray) -> Results:
    encoder = ds.load_encoder()
    rows, others = (embed.features(x, encoder) for x in (moving, fixed))
    return {
        "embedding": np.concatenate([rows[0], others[0]]),
        "unmoved": in_place.nearest_in_place(rows[1], others[1], k=2).scores,
        "explained": np.asarray(ds.explain_pair(moving[:8], fixed[:8], encoder=encoder).first),
    }


def _pairs(moving: np.ndarray, fixed: np.ndarray) -> Results:
    aligned = ds.nearest_aligned(moving, fixed, k=2)
    pairs = ds.verify_pairs(moving, fixed)
    copies = pairs.score > 0.8  # where images are others, no transformation is right
    return {
        "aligned": aligned.scores,
        "aligned_index": aligned.indices[:, 0],
        "verified": pairs.score,
        "rotation_deg": pairs.rotation_deg[copies],
        "shift": pairs.shift[copies],
        "correlation": np.asarray(ds.register(moving, fixed).correlation)[copies],
    }


def _volumes() -> Results:
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


def _audited(moving: np.ndarray, fixed: np.ndarray) -> Results:
    """Label of every synthetic image, and its original, as the audit's table has them."""
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
        # What stands nearest to an unrelated image is decided by rounding.
        "matched": np.array(
            ["" if row["label"] == "unrelated" else row["real_id"] for row in table]
        ),
    }


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest one; of names and numbers of rows, how many differ; infinite for other shapes."""
    if found.shape != wanted.shape:
        return float("inf")
    if found.dtype.kind in "iuUS":
        return float((found != wanted).sum())
    return float(np.abs(found.astype(float) - wanted).max(initial=0.0))


def unmatched(found: np.ndarray, wanted: np.ndarray) -> float:
    """The share of points [n, k, 2] that have none within 0.05 of them in the other's same row.

    Where two extrema are as strong but for rounding, either may be kept, and their order may differ.
    """
    if found.shape != wanted.shape:
        return float("inf")
    apart = [
        np.abs(a[:, None] - b[None]).max(-1).min(1) for a, b in zip(found, wanted, strict=True)
    ]
    return float((np.array(apart) > 0.05).mean())


_DIFFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"local_points": unmatched}


def _answer(folder: Path, kernel: str) -> Results:
    """The CPU's; the section's time limit ends the waiting."""
    made, failed = folder / f"{kernel}.npz", folder / f"{kernel}.txt"
    while not made.exists():
        if failed.exists():
            raise RuntimeError(f"the CPU's process failed: {failed.read_text()[-300:]}")
        time.sleep(0.1)
    with np.load(made) as arrays:
        return dict(arrays)


def compared(tiny: bool) -> Iterator[dict[str, object]]:
    """A record for every result: how far from the CPU's answer, and what is tolerated.

    Between two processes of a CPU there is no agreement to report: `agrees` is left out.
    """
    folder, ours = Path(os.environ[REFERENCE]), jax.default_backend()
    for kernel, run in kernels(tiny=tiny).items():
        try:
            found, wanted = run(), _answer(folder, kernel)
        except Exception as error:  # the others are worth knowing
            traceback.print_exc()
            yield {"failed": f"{kernel}: {type(error).__name__}: {str(error)[:400]}"}
            continue
        for name, values in found.items():
            worst = _DIFFERENCES.get(name, difference)(values, wanted[name])
            record: dict[str, object] = {
                "work": f"agreement_{name}",
                "backends": sorted({ours, "cpu"}),
                "worst": float(f"{worst:.3g}"),
                "tolerance": TOLERANCES[name],
                "values": int(values.size),
            }
            yield record if ours == "cpu" else record | {"agrees": worst <= TOLERANCES[name]}


def write(folder: Path, *, tiny: bool) -> None:
    """In a process of the CPU: a file of each kernel's results, or of why there are none."""
    if jax.default_backend() != "cpu":
        raise RuntimeError(f"JAX computes on {jax.default_backend()}, not on the CPU")
    for kernel, run in kernels(tiny=tiny).items():
        try:
            part = folder / f"{kernel}.part.npz"
            np.savez(part, **run())
            part.replace(folder / f"{kernel}.npz")
        except Exception:
            (folder / f"{kernel}.txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    write(Path(sys.argv[1]), tiny="--tiny" in sys.argv)
