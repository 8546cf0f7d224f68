"""Are the phantoms like people? Phantoms and real brains under the same measurements.

    python benchmarks/phantom_realism.py --data=DIR --out=DIR

DIR holds `mni/`, `rescan/` and `tissue/` of the volumes named in README.md. It writes
`phantom_realism.png`, which shows patients and therefore stays outside of the repository, and
`phantom_realism.json`. About a minute on two cores.
"""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import jax
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import nibabel
import numpy as np
from absl import app, flags
from scipy import ndimage
from sklearn.mixture import GaussianMixture

from deepssim_jax.data import anatomy, phantom
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.ssim import ssim

DATA = flags.DEFINE_string("data", None, "folder with mni/, rescan/ and tissue/", required=True)
OUT = flags.DEFINE_string("out", None, "folder for the figure and the figures", required=True)

SIZE = 128
HEIGHTS = np.arange(-20, 25, 5)  # mm above the middle of the atlas, which is at 22 mm in MNI
CONTRASTS = (phantom.Contrast.T1, phantom.Contrast.T2, phantom.Contrast.FLAIR)


def volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Axes up, front to back, right to left, and the spacing along them in mm."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    data = np.asarray(image.dataobj, np.float32).transpose(2, 1, 0)[:, ::-1, ::-1]
    return data, np.array(image.header.get_zooms()[:3], float)[::-1]


def framed(plane: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """A slice in the phantoms' field of view and size."""
    pixels = np.round(phantom.FIELD_OF_VIEW / spacing).astype(int)
    pad = np.maximum(pixels - plane.shape, 0)
    plane = np.pad(plane, [(p // 2, p - p // 2) for p in pad])
    cut = (np.array(plane.shape) - pixels) // 2
    plane = plane[cut[0] : cut[0] + pixels[0], cut[1] : cut[1] + pixels[1]]
    plane = ndimage.zoom(plane, spacing / spacing.max(), order=1)  # square pixels
    return fit_to_size(plane, size=(SIZE, SIZE))


def real_slices(path: Path) -> np.ndarray:
    """Slices of a volume in MNI space at `HEIGHTS`; voxel 94 is the atlas's middle."""
    data, spacing = volume(path)
    return np.stack([framed(data[94 + h], spacing[1:]) for h in HEIGHTS])


def scans(seed: int, n: int, contrast: phantom.Contrast, height: np.ndarray, pose: float):
    """Scans at chosen heights."""
    drawn = phantom.sample_scans(jax.random.key(seed), n, contrast=contrast, pose=pose)
    return dataclasses.replace(drawn, height=jax.numpy.asarray(height, jax.numpy.float32))


def people(seed: int, n: int, contrast: phantom.Contrast) -> np.ndarray:
    """[n, heights, s, s]: every person at every height, straight and centred."""
    subjects = phantom.sample_subjects(jax.random.key(seed), n)
    return np.stack(
        [
            phantom.slices(
                jax.random.key(k),
                subjects,
                scans(seed + 1, n, contrast, np.full(n, h), pose=0.0),
                size=(SIZE, SIZE),
            )
            for k, h in enumerate(HEIGHTS)
        ],
        axis=1,
    )


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of z-scored images, the range from the first."""
    return np.asarray(ssim(zscore(a), zscore(b), data_range="first", reduction="none"))


def between_people(images: np.ndarray) -> np.ndarray:
    """SSIM, after alignment, of all pairs of people [n, heights, s, s] at the same height."""
    pairs = np.array(list(itertools.combinations(range(len(images)), 2)))
    fixed, moving = (np.concatenate(images[pairs[:, side]]) for side in (0, 1))
    return similarity(np.asarray(register(moving, fixed).aligned), fixed)


def real_rescans(folder: Path) -> np.ndarray:
    """SSIM, after alignment, of a patient's slices with the best slice of the other visit."""
    visits: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("*.nii.gz")):
        patient, _, contrast = re.split("_", path.name.split(".")[0])
        visits.setdefault((patient, contrast), []).append(path)
    best = []
    for paths in visits.values():
        if len(paths) != 2:
            continue
        sides = []
        for path in paths:
            data, spacing = volume(path)
            rows = np.arange(int(0.4 * len(data)), int(0.75 * len(data)))
            sides.append(np.stack([framed(data[r], spacing[1:]) for r in rows]))
        for one in sides[0][:: max(len(sides[0]) // 8, 1)]:
            fixed = np.repeat(one[None], len(sides[1]), axis=0)
            found = register(sides[1], fixed)
            best.append(similarity(np.asarray(found.aligned), fixed).max())
    return np.array(best)


def phantom_rescans(n: int) -> np.ndarray:
    """The same for phantoms: another pose and noise, FLAIR, slices 3 mm apart to choose from."""
    subjects = phantom.sample_subjects(jax.random.key(20), n)
    height = np.linspace(-15, 15, n)
    first = phantom.slices(
        jax.random.key(21),
        subjects,
        scans(22, n, phantom.Contrast.FLAIR, height, pose=0.5),
        size=(SIZE, SIZE),
    )
    best = np.full(n, -1.0)
    again = scans(24, n, phantom.Contrast.FLAIR, height, pose=0.5)
    for offset in (-6.0, -3.0, 0.0, 3.0, 6.0):
        moved = dataclasses.replace(again, height=again.height + offset)
        second = phantom.slices(jax.random.key(25), subjects, moved, size=(SIZE, SIZE))
        found = register(second, first)
        best = np.maximum(best, similarity(np.asarray(found.aligned), np.asarray(first)))
    return best


def separations(channels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[3, 2] mean and standard deviation in csf, grey, white (1 to 3) of one z-scored brain."""
    values = channels[labels > 0]
    z = (channels - values.mean()) / values.std()
    return np.array([(z[labels == k].mean(), z[labels == k].std()) for k in (1, 2, 3)])


def segmented(t1: np.ndarray, t2: np.ndarray, flair: np.ndarray) -> np.ndarray:
    """Tissue labels of a patient from the three contrasts by a mixture of Gaussians."""
    brain = (t1 > 0) & (t2 > 0) & (flair > 0)
    values = np.stack([c[brain] / c[brain].std() for c in (t1, t2, flair)], 1)
    mixture = GaussianMixture(4, n_init=3, random_state=0).fit(values)
    mean = mixture.means_
    fluid = int(np.argmax(mean[:, 1] - mean[:, 2]))  # bright in T2, dark in FLAIR
    rest = [k for k in np.argsort(mean[:, 0]) if k != fluid]  # by T1: rim, grey, white
    lookup = np.zeros(4, np.int8)
    lookup[[fluid, rest[1], rest[2]]] = (1, 2, 3)
    labels = np.zeros(t1.shape, np.int8)
    labels[brain] = lookup[mixture.predict(values)]
    return labels


def own_labels(seed: int, n: int, pose: float) -> np.ndarray:
    """[n, heights, s, s]: the tissues of phantoms, from images of one tissue each."""
    subjects = phantom.sample_subjects(jax.random.key(seed), n)
    out = []
    for tissue in range(3):
        planes = []
        for h in HEIGHTS:
            plain = scans(seed + 1, n, phantom.Contrast.T1, np.full(n, h), pose=pose)
            zero = jax.numpy.zeros(n)
            plain = dataclasses.replace(
                plain,
                means=jax.numpy.zeros((n, 5)).at[:, tissue].set(1.0),
                bias=jax.numpy.zeros((n, 3)),
                noise=zero,
                texture=zero,
            )
            planes.append(phantom.slices(jax.random.key(0), subjects, plain, size=(SIZE, SIZE)))
        out.append(np.stack(planes, 1))
    tissues = np.stack(out, -1)
    return np.where(tissues.sum(-1) > 0.5, tissues.argmax(-1) + 1, 0).astype(np.int8)


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[3] overlap of csf, grey and white (labels 1 to 3)."""
    return np.array(
        [
            2 * ((a == k) & (b == k)).sum() / max((a == k).sum() + (b == k).sum(), 1)
            for k in (1, 2, 3)
        ]
    )


def boxed(labels: np.ndarray) -> np.ndarray:
    """A head's labels scaled to fill the frame: what is left is shape, not size or place."""
    rows, cols = np.nonzero(labels)
    cut = labels[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    factor = (SIZE / cut.shape[0], SIZE / cut.shape[1])
    return ndimage.zoom(cut, factor, order=0)


def real_labels(folder: Path) -> list[np.ndarray]:
    """Per person, slices of tissue labels at 45 to 75 % of the brain's height."""
    out = []
    for path in sorted(folder.glob("*_tissue.nii.gz")):
        labels = volume(path)[0].round().astype(np.int8)
        filled = np.flatnonzero((labels > 0).any((1, 2)))
        low, high = filled[0], filled[-1]
        rows = np.linspace(low + 0.5 * (high - low), low + 0.75 * (high - low), 6).astype(int)
        out.append(np.stack([boxed(labels[r]) for r in rows]))
    return out


def overlaps(people_labels: list[np.ndarray]) -> np.ndarray:
    """[pairs, 3] Dice of every two people, all their slices together."""
    return np.array([dice(a, b) for a, b in itertools.combinations(people_labels, 2)])


def figure(path: Path, rows: list[tuple[str, np.ndarray]], curves: dict[str, np.ndarray]) -> None:
    """Slices side by side, and the SSIM of every kind of pair beneath."""
    columns = len(HEIGHTS[::2])
    chart = plt.figure(figsize=(2 * columns, 2 * len(rows) + 3.5), layout="constrained")
    grid = chart.add_gridspec(len(rows) + 2, columns)
    for r, (name, images) in enumerate(rows):
        for c, image in enumerate(images[::2]):
            axes = chart.add_subplot(grid[r, c])
            axes.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 99.7))
            axes.set_xticks([])
            axes.set_yticks([])
            if not c:
                axes.set_ylabel(name)
    axes = chart.add_subplot(grid[len(rows) :, :])
    for number, values in enumerate(curves.values()):
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
        axes.plot(values, number + jitter, ".", alpha=0.5)
        axes.plot([np.median(values)], [number], "k|", markersize=22)
    axes.set_yticks(range(len(curves)), list(curves))
    axes.set_xlabel("SSIM of z-scored slices (bar: median)")
    chart.savefig(path, dpi=100)
    plt.close(chart)


def main(_: list[str]) -> None:
    data, out = Path(DATA.value), Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, dict] = {"ssim": {}, "tissue_mean_sd": {}, "dice": {}}
    patients = {
        c: np.stack(
            [real_slices(data / "mni" / f"patient{p}_{c.name}.nii.gz") for p in ("07", "26")]
        )
        for c in CONTRASTS
    }
    real_tissue = [segmented(*(patients[c][i] for c in CONTRASTS)) for i in range(2)]
    made_tissue = own_labels(10, 6, pose=0.0)
    curves, rows = {}, []
    for contrast in CONTRASTS:
        name, real = contrast.name, patients[contrast]
        made = people(10, 6, contrast)
        rows += [(f"patient {name}", real[0]), (f"patient {name}", real[1])]
        rows += [(f"phantom {name}", made[0]), (f"phantom {name}", made[1])]
        curves[f"{name}: two patients"] = between_people(real)
        curves[f"{name}: two phantoms"] = between_people(made)
        for who, images, labels in (
            ("patients", real, real_tissue),
            ("phantoms", made, made_tissue),
        ):
            found = np.mean([separations(i, t) for i, t in zip(images, labels, strict=True)], 0)
            text = [f"{mean:.2f} +- {deviation:.2f}" for mean, deviation in found]
            result["tissue_mean_sd"][f"{name} {who}"] = dict(zip(anatomy.TISSUES, text))
    curves["rescans of patients"] = real_rescans(data / "rescan")
    curves["rescans of phantoms"] = phantom_rescans(24)
    for name, values in curves.items():
        low, middle, high = (round(float(v), 3) for v in np.percentile(values, [10, 50, 90]))
        result["ssim"][name] = {"p10": low, "median": middle, "p90": high, "n": len(values)}
    tilted = [np.stack([boxed(p) for p in person[3:]]) for person in own_labels(10, 6, pose=1.0)]
    for name, labels in (("patients", real_labels(data / "tissue")), ("phantoms", tilted)):
        found = overlaps(labels)
        result["dice"][name] = {
            tissue: f"{low:.2f} to {high:.2f}"
            for tissue, low, high in zip(anatomy.TISSUES, found.min(0), found.max(0))
        }
    figure(out / "phantom_realism.png", rows, curves)
    (out / "phantom_realism.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    app.run(main)
