"""Detectors that have to be trained, on one half of the patients and judged on the other.

    python benchmarks/trained_methods.py --real=../shared/data/cxr --subject_regex='^([0-9]+)_' \
        --work=/tmp/trained --out=benchmarks/results

The pairs are those of `deepssim stress` with the same seed. Each method learns from images of the
patients that choose its thresholds, from random weights, at a size that fits two cores: DeepSSIM
(`v1`) and DeepSSIM++ (`v2`) by their configurations at 64 pixels, Dar et al. (`contrastive`) by a
ResNet-50 of a quarter of the channels at 96. `tuned` is the shipped encoder after `configs/finetune.py`. The
network of Dar et al. is judged as published, too: a copy correlates more than 95 % of its images for
training do with the nearest one for validation. Trainings that were stopped go on. One line goes into
OUT/trained_methods.jsonl.
"""

import dataclasses
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks.cases.patients import write_manifest
from benchmarks.cases.records import dated, keep
from benchmarks.kept import COMMAND, open_images
from benchmarks.methods.contrastive import train_contrastive
from benchmarks.methods.resnet import ResNetSpec
from deepssim_jax.audit import stress
from deepssim_jax.data import pipelines, planted_pairs
from deepssim_jax.data.planted_pairs import EXACT, NEAR, UNRELATED, Setting
from deepssim_jax.data.store import ImageStore
from deepssim_jax.nn.encoder import embed, load_encoder
from deepssim_jax.ops.resample import resize
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.methods import Method, cosine
from deepssim_jax.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a file's name")
_WORK = flags.DEFINE_string("work", None, "folder of trainings", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_METHODS = flags.DEFINE_list("methods", ["contrastive", "v1", "v2", "tuned"], "which")
_EPOCHS = flags.DEFINE_integer("epochs", 200, "of the contrastive network")
_STEPS = flags.DEFINE_integer("steps", 500, "of DeepSSIM and DeepSSIM++")
_SEED = flags.DEFINE_integer("seed", 0, "of pairs, halves and trainings")
_SIDE = 96


def learned_from(images: ImageStore, tune: np.ndarray, folder: Path) -> Path:
    """Copies of the images that may be learned from, and a list of them with their patients."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for row in np.flatnonzero(tune):
        source = Path(_REAL.value) / images.image_ids[row]
        shutil.copy(source, folder / f"{row}{source.suffix}")
        listed.append((f"{row}{source.suffix}", str(row), images.subject_ids[row]))
    return write_manifest(folder / "images.csv", listed)


def at_side(embedding: Callable[[np.ndarray], np.ndarray], side: int) -> Method:
    """The cosine of images brought to the side in pixels that the network learned at."""

    def embed_small(images: np.ndarray) -> np.ndarray:
        return embedding(np.asarray(resize(jnp.asarray(images, jnp.float32), (side, side))))

    return cosine(embed_small)


def contrastive(images: Path, work: Path) -> tuple[Method, float]:
    """The method of Dar et al., and its published threshold."""
    store = open_images(images, work / "images", size=(_SIDE, _SIDE))
    with Workspace.open(work / "training", command=COMMAND) as workspace:
        embedding = train_contrastive(
            store,
            workspace,
            spec=ResNetSpec(width=16),
            epochs=_EPOCHS.value,
            seed=_SEED.value,
            on_progress=lambda done, total, what: print(f"{what} {done} of {total}", flush=True),
        )

    sides = pipelines.split_by_patient(store, seed=_SEED.value)
    rows = [embedding(store.take(side)) for side in sides]
    training, validation = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows)
    nearest = (training @ validation.T).max(1)
    return at_side(embedding, _SIDE), float(np.quantile(nearest, 0.95))


def deepssim(name: str, images: Path, work: Path) -> Method:
    """What `train_encoder` makes of the images by one of its configurations."""
    command = [sys.executable, "-m", "deepssim_jax", "train_encoder", f"--workdir={work}"]
    command += [f"--config.images={images}", f"--config.seed={_SEED.value}"]
    if name == "tuned":
        command += [f"--config={ROOT}/configs/finetune.py"]
    else:
        # As published, but for what weights that begin as random ones forbid.
        command += [f"--config={ROOT}/configs/deepssim_{name}.py", "--config.size=(64, 64)"]
        command += ["--config.freeze=nothing", "--config.stage_decay=1.0", "--config.epochs=0"]
        command += [f"--config.steps={_STEPS.value}", "--config.validate_every=100"]
    subprocess.run(command, check=True)
    encoder = load_encoder(work / "encoder.safetensors")
    return at_side(functools.partial(embed, encoder), 64)


def published_rule(
    found: stress.StressResult, setting: Setting, threshold: float
) -> dict[str, object]:
    """Shares of exact, near and unrelated pairs that a threshold calls copies, by the other half."""
    scores = found.scores[setting, "contrastive"]
    shares: dict[str, object] = {"threshold": threshold}
    for name, label in (("exact", EXACT), ("near", NEAR), ("unrelated", UNRELATED)):
        rows = np.array([not p.tune and p.label == label for p in found.pairs])
        called = clopper_pearson(int((scores[rows] > threshold).sum()), int(rows.sum()))
        shares[name] = [called.value, called.low, called.high]
    return shares


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # each checkpoint would say so in ten lines
    work = Path(_WORK.value)
    images = open_images(
        _REAL.value, work / "films", size=(256, 256), subject_regex=_SUBJECT_REGEX.value
    )
    patients = images.patients()
    tune = planted_pairs.tuning(patients, np.random.default_rng(_SEED.value))
    learned = learned_from(images, tune, work / "learned_from")
    methods: dict[str, Method] = {}
    threshold = None
    for name in _METHODS.value:
        if name == "contrastive":
            methods[name], threshold = contrastive(learned, work / name)
        else:
            methods[name] = deepssim(name, learned, work / name)
    found = stress.stress(
        images.take(np.arange(len(images))),
        patients,
        methods=methods,
        settings=stress.StressSettings(seed=_SEED.value),
    )
    print(stress.table(found.outcomes))
    rules: dict[str, object] = {}
    if threshold is not None:
        rules = {s.value: published_rule(found, s, threshold) for s in Setting}
        print("contrastive, by its published rule:", rules)
    record: dict[str, object] = {
        "real": Path(_REAL.value).name,
        "seed": _SEED.value,
        "epochs": _EPOCHS.value,
        "steps": _STEPS.value,
        "learned_from": int(tune.sum()),
        "published_rule": rules,
        "outcomes": [dataclasses.asdict(outcome) for outcome in found.outcomes],
    }
    keep(dated(record), _OUT.value, "trained_methods")


if __name__ == "__main__":
    app.run(main)
