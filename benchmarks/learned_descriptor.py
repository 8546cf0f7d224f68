"""Does a learned descriptor find more copies than RootSIFT, at as many bytes?

    python -m benchmarks.learned_descriptor --data=../shared/data --out=benchmarks/results

A network of patches (`methods/patch_descriptor.py`) learns from phantoms alone: chests and textures, each
with a copy that is turned, zoomed, squashed, relit, blurred and noisy; its pairs are keypoints that the
known map takes to each other. Then both descriptors, in 64 numbers, rank real pictures of kinds that no
part of the detection was designed on: copies under edits that are hard for keypoints, looked up among all
images of the kind by the first stage of an audit (`features.matching`). Counted are the copies whose
original is first. One record goes into OUT/learned_descriptor.jsonl.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from absl import app, flags

from benchmarks.cases.films import image_of
from benchmarks.cases.records import dated, keep
from benchmarks.kept import COMMAND
from benchmarks.methods.patch_descriptor import Described, PatchDescriptor, PatchPairs
from benchmarks.methods.patch_pairs import changed, pairs_of
from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.data.preprocess import fit_to_canvas
from deepssim_jax.features.basis import EVEN, ODD, learn, sample_points
from deepssim_jax.features.descriptors import LENGTH
from deepssim_jax.features.matching import PointIndex
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.training.loop import LoopConfig, train
from deepssim_jax.workspace import Workspace

DATA = flags.DEFINE_string("data", "../shared/data", "folder with pictures/")
OUT = flags.DEFINE_string(
    "out", None, "folder for learned_descriptor.jsonl; nothing is written without"
)
PHANTOMS = flags.DEFINE_integer("phantoms", 240, "phantoms that it learns from", lower_bound=8)
STEPS = flags.DEFINE_integer("steps", 3000, "of training", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 32, "channels of the first layer", lower_bound=2)
REAL = flags.DEFINE_integer("real", 100, "images of a kind", lower_bound=10)
COPIES = flags.DEFINE_integer("copies", 8, "of each edit and kind", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of everything that is drawn")
# Nothing of the detection was designed on these.
KINDS = ("xray_knee", "xray_chest_children", "ct_head", "blood_smear")
HARD = (
    "noise 0.2", "noise 0.3", "blur 4", "blur 6", "JPEG 5", "down to 32 pixels", "gamma 2.5",
    "posterised to 4 levels", "elastic, strong", "part 12 %, moved", "aspect 0.7", "three of any",
)  # fmt: skip
_SIDE, _BATCH, _RATE = 256, 256, 1e-3


def learned_from_phantoms(rng: np.random.Generator) -> np.ndarray:
    """Pairs of patches, those of one image one after the other."""
    half = PHANTOMS.value // 2
    keys = jax.random.split(jax.random.key(SEED.value), 2)
    made = [
        np.asarray(make(key, half, size=(_SIDE, _SIDE)))
        for make, key in zip((chests, textures), keys)
    ]
    images = np.stack(made, 1).reshape(-1, _SIDE, _SIDE).astype(np.float32).clip(0, 1)
    copies = [changed(image, rng) for image in images]
    content = np.full((len(images), 2), _SIDE)
    first = Described.of(images, content)
    second = Described.of(np.stack([c.image for c in copies]).astype(np.float32), content)
    return np.concatenate([pairs_of(first, second, i, c.matrix) for i, c in enumerate(copies)])


def read(kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Images [h, w] on [0, 1] of a kind, an even sample, and a number for each one's patient."""
    paths = sorted((Path(DATA.value) / "pictures" / kind).glob("*.png"))
    paths = [
        paths[i] for i in np.linspace(0, len(paths) - 1, min(REAL.value, len(paths))).astype(int)
    ]
    images = [image_of(path) for path in paths]
    subjects = np.unique([p.stem.rsplit("_", 1)[0] for p in paths], return_inverse=True)[1]
    return images, subjects.astype(np.int32)


def on_canvases(images: list[np.ndarray]) -> Described:
    """The points of images [h, w]."""
    fitted = [fit_to_canvas(image.astype(np.float32), side=_SIDE) for image in images]
    return Described.of(np.stack([c for c, _ in fitted]), np.array([inner for _, inner in fitted]))


def are_first(
    describe: Callable[[Described], np.ndarray], real: Described, subjects: np.ndarray,
    asked: Described, rows: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Bool [copies]: whose original's patient is first."""
    signs = np.where(np.arange(EVEN + ODD) < EVEN, 1, -1).astype(np.float32)
    best = PointIndex.build(describe(real), signs, subjects).rank(describe(asked), count=1)
    return subjects[best.images[:, 0]] == subjects[rows]


def measure(kind: str, network: Callable[[np.ndarray], np.ndarray]) -> dict[str, list[int]]:
    """By descriptor, of how many copies under each edit of `HARD` the original is first."""
    rng = np.random.default_rng([SEED.value, KINDS.index(kind)])
    images, subjects = read(kind)
    edits = {edit.name: edit for edit in EDITS}
    rows, copies = [], []
    for name in HARD:
        for row in map(int, rng.choice(len(images), COPIES.value, replace=False)):
            donors = np.flatnonzero(subjects != subjects[row])
            donor = images[int(rng.choice(donors))]
            rows.append(row)
            copies.append(edits[name].make(images[row], donor=donor, rng=rng).image)
    real, asked = on_canvases(images), on_canvases(copies)
    some = real.features
    sample = some.descriptors.reshape(-1, LENGTH)[sample_points(some.valid)]
    basis = learn(sample)
    ways: dict[str, Callable[[Described], np.ndarray]] = {
        "rootsift": lambda x: basis.project(x.features.descriptors, x.features.valid),
        "learned": lambda x: network(x.patches) * x.features.valid[..., None],
    }
    found = {
        name: are_first(way, real, subjects, asked, np.array(rows)) for name, way in ways.items()
    }
    return {name: hits.reshape(len(HARD), -1).sum(1).tolist() for name, hits in found.items()}


def main(_: list[str]) -> None:
    pairs = learned_from_phantoms(np.random.default_rng(SEED.value))
    job = PatchDescriptor(WIDTH.value, STEPS.value, _RATE)
    maker = PatchPairs(pairs, _BATCH, SEED.value)
    config = LoopConfig(STEPS.value, seed=SEED.value, validate_every=max(STEPS.value // 6, 1))
    begin = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        Workspace.open(Path(folder) / "work", command=COMMAND) as work,
    ):
        state, figures = train(job, maker, config, work)
    minutes = (time.perf_counter() - begin) / 60
    kinds = {kind: measure(kind, lambda x: job.describe(state, x)) for kind in KINDS}
    total = len(KINDS) * len(HARD) * COPIES.value
    record: dict[str, object] = {
        "pairs": len(pairs), "phantoms": PHANTOMS.value, "steps": STEPS.value,
        "width": WIDTH.value, "minutes": round(minutes, 1), "validation": figures, "edits": HARD,
        "kinds": kinds, "n": total, "seed": SEED.value,
    }  # fmt: skip
    for name in ("rootsift", "learned"):
        hits = sum(sum(by[name]) for by in kinds.values())
        found = clopper_pearson(hits, total)
        record[name] = [hits, round(found.low, 3), round(found.high, 3)]
    print(dated(record), flush=True)
    keep(dated(record), OUT.value, "learned_descriptor")


if __name__ == "__main__":
    app.run(main)
