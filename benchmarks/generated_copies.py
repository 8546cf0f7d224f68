"""Do detectors find what generators copy? Two that memorise few pictures, copies labelled by construction.

    python benchmarks/generated_copies.py --real=../shared/data/pictures/xray_knee \
        --subject_regex='^([^_]+)_' --work=/tmp/generated --out=benchmarks/results

A variational autoencoder with a critic, and a latent diffusion model in its latents, learn from one
image each of a few people, at 64 pixels. A decoded latent of a person, moved a little, is that person's
copy; so is an image of the diffusion model conditioned on that person. Images of people who were
not learned from, through the same autoencoder, are not copies. Methods look for all of them among the
real images at their own resolution, by thresholds that other people's real images choose. Trainings that
were stopped go on. One line goes into OUT/generated_copies.jsonl.
"""

import csv
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax import nnx

from benchmarks.cases.patients import copy_one_image_each
from benchmarks.cases.records import dated, keep
from deepssim_jax.audit import peer_searchers, searchers
from deepssim_jax.audit.edit_trials import threshold
from deepssim_jax.audit.generation import Generator, SamplingSettings
from deepssim_jax.audit.searchers import Best, Searcher
from deepssim_jax.data.kinds import Kind, read_kind
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.planted_pairs import tuning
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.encoder import embed, load_encoder
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.training.generator import AUTOENCODER, train_autoencoder, train_denoiser
from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig
from deepssim_jax.workspace.files import csv_bytes, write_bytes

_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a file's name")
_WORK = flags.DEFINE_string("work", None, "folder of the trainings", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_PEOPLE = flags.DEFINE_integer("people", 12, "learned from, an image each", lower_bound=2)
_EACH = flags.DEFINE_integer("each", 4, "copies of each person by each generator", lower_bound=1)
_STEPS = flags.DEFINE_list("steps", ["800", "1500"], "of the autoencoder and the diffusion model")
_METHODS = flags.DEFINE_list(
    "methods", ["audit", "detector", "encoder", "ncc", "phash", "sift"], "which"
)
_RATE = flags.DEFINE_float("false_alarms", 0.005, "rate by which thresholds are chosen")
_SIDE, _GENERATED = 256, 64  # pixels of real images at most, and of generated ones
_JITTER = 0.15  # of the latents' deviation: an autoencoder's samples are no mere reconstructions


def learned(work: Path) -> Path:
    """Images to learn from, and a list of whom each shows, the diffusion model's condition."""
    folder = work / "learned"
    regex = _SUBJECT_REGEX.value
    if not (folder / "images.csv").exists():
        copy_one_image_each(Path(_REAL.value), folder, people=_PEOPLE.value, subject_regex=regex)
        records = read_manifest(folder, role=Role.REAL, subject_regex=regex).records
        rows = [(r.image_id, r.image_id, r.subject_id, f"who {i}") for i, r in enumerate(records)]
        header = ("path", "image_id", "subject_id", "who")
        write_bytes(folder / "images.csv", csv_bytes([header, *rows]))
    return folder / "images.csv"


def configs(images: Path, work: Path) -> tuple[AutoencoderConfig, LdmConfig]:
    """Networks that two cores train in minutes, with nobody held out."""
    source = {"images": str(images), "size": (_GENERATED, _GENERATED), "held_out": 0.0}
    steps = [int(text) for text in _STEPS.value]
    autoencoder = AutoencoderConfig(
        **source,
        channels=(16, 32, 32),
        blocks=1,
        groups=8,
        perceptual=0.0,
        features="",
        adversarial=0.02,
        adversarial_from=steps[0] // 2,
        critic=(8, 2),
        batch=8,
        steps=steps[0],
        learning_rate=1e-3,
        schedule="cosine",
        validate_every=steps[0],
        checkpoint_every=max(1, steps[0] // 4),
    )
    denoiser = LdmConfig(
        **source,
        autoencoder=str(work / "autoencoder"),
        condition="variables",
        columns=("who",),
        table=str(images),
        drop=0.0,
        channels=(32, 48, 64),
        heads=(0, 48, 64),
        blocks=1,
        groups=16,
        prediction="v",
        min_snr=5.0,
        batch=8,
        steps=steps[1],
        learning_rate=1e-3,
        warmup=30,
        average=0.99,
        validate_every=steps[1],
        checkpoint_every=max(1, steps[1] // 4),
    )
    return autoencoder, denoiser


@dataclasses.dataclass(frozen=True)
class Coder:
    """The trained autoencoder, on squares float32 [n, s, s] in [0, 1]."""

    spec: AutoencoderSpec
    params: nnx.State

    @classmethod
    def load(cls, workdir: Path) -> "Coder":
        """From a finished training."""
        spec, params, _ = network_file.load(workdir / AUTOENCODER, AutoencoderSpec)
        return cls(spec, params)

    def through(self, images: np.ndarray, *, jitter: float, seed: int) -> np.ndarray:
        """Encoded, moved by `jitter` of all latents' deviation, and decoded."""
        graph = network_file.blueprint(self.spec)[0]

        @jax.jit
        def run(params: nnx.State, batch: jax.Array, key: jax.Array) -> jax.Array:
            model = nnx.merge(graph, params, copy=True)
            mean, _ = model.encode(batch)
            moved = mean + jitter * mean.std() * jax.random.normal(key, mean.shape)
            return jnp.clip(model.decode(moved, size=batch.shape[1:3]), 0, 1)

        return np.asarray(run(self.params, jnp.asarray(images), jax.random.key(seed)))


def methods() -> dict[str, Searcher]:
    """Those asked for, as `deepssim stress` has them."""
    size = 128
    encoder = load_encoder("default")
    by_embedding = functools.partial(searchers.by_embedding, size=size)
    known = {
        "audit": lambda: searchers.audit(encoder, size=size),
        "detector": lambda: searchers.detector(encoder, size=size),
        "encoder": lambda: by_embedding(functools.partial(embed, encoder)),
        "ncc": lambda: by_embedding(searchers.pixels),
        "phash": lambda: peer_searchers.by_hash("phash", size=size),
        "sift": peer_searchers.sift,
    }
    return {name: known[name]() for name in _METHODS.value}


def memorised(copies: np.ndarray, originals: np.ndarray) -> dict[str, float]:
    """How alike copies and the images that they are labelled with are, pixel for pixel."""
    found = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(copies, originals, strict=True)
    ]
    return {
        "median_correlation": round(float(np.median(found)), 4),
        "lowest_correlation": round(float(np.min(found)), 4),
    }


def judged(
    kind: Kind, samples: Mapping[str, np.ndarray], people: np.ndarray, unrelated: np.ndarray
) -> dict[str, dict]:
    """By method, what of each generator is found, and false alarms.

    Args:
      kind: the real images.
      samples: by generator, copies [n, s, s].
      people: int [n], the patient whom each shows.
      unrelated: rows of `kind` whose patients were not learned from; half of them choose thresholds.
    """
    first = tuning(kind.patients[unrelated], np.random.default_rng(0))
    choosing, reported = unrelated[first], unrelated[~first]
    passed = Coder.load(Path(_WORK.value) / "autoencoder").through(
        searchers.squares([kind.images[r] for r in reported], _GENERATED), jitter=_JITTER, seed=1
    )
    out = {}
    for name, build in methods().items():
        search = build(kind.images, kind.patients)
        null = search([kind.images[r] for r in choosing], kind.patients[choosing])
        # An audit's score is minus the logarithm of a probability already.
        limit = -np.log(_RATE.value) if null.calibrated else threshold(null.score, rate=_RATE.value)

        def share(hits: np.ndarray) -> list[float]:
            exact = clopper_pearson(int(hits.sum()), len(hits))
            return [exact.count, exact.total, round(exact.low, 4), round(exact.high, 4)]

        alarms = search(list(passed), kind.patients[reported]).score > limit
        out[name] = {"false_alarms": share(alarms)}
        for generator, images in samples.items():
            best: Best = search(list(images), None)
            right = (best.score > limit) & (kind.patients[best.reference] == people)
            out[name][generator] = share(right)
        print(name, json.dumps(out[name]), flush=True)
    return out


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # each checkpoint would say so in ten lines
    started, work = time.time(), Path(_WORK.value)
    images = learned(work)
    autoencoder, denoiser = configs(images, work)
    train_autoencoder(autoencoder, work / "autoencoder", on_notice=print)
    print(f"autoencoder trained, {time.time() - started:.0f} s", flush=True)
    train_denoiser(denoiser, work / "ldm", on_notice=print)
    trained = time.time() - started
    print(f"diffusion model trained, {trained:.0f} s", flush=True)

    kind = read_kind(_REAL.value, name="real", side=_SIDE, subject_regex=_SUBJECT_REGEX.value)
    with images.open(newline="", encoding="utf-8") as file:
        names = [row["image_id"] for row in csv.DictReader(file)]
    model = Generator.load(work / "ldm")
    if [record.image_id for record in model.records] != names:
        raise ValueError(f"{work} holds models of other images: take another --work")
    rows = np.repeat([kind.image_ids.index(name) for name in names], _EACH.value)
    originals = searchers.squares([kind.images[row] for row in rows], _GENERATED)
    drawn = np.repeat(np.arange(len(names)), _EACH.value)
    samples = {
        "autoencoder": Coder.load(work / "autoencoder").through(originals, jitter=_JITTER, seed=0),
        "diffusion": model.images(
            np.arange(len(drawn)), seed=0, settings=SamplingSettings(steps=25), records=drawn
        ),
    }
    known = np.isin(kind.patients, kind.patients[rows])
    record = dated(
        {
            "real": Path(_REAL.value).name,
            "real_images": len(kind),
            "people": len(names),
            "steps": [int(text) for text in _STEPS.value],
            "memorised": {name: memorised(x, originals) for name, x in samples.items()},
            "methods": judged(kind, samples, kind.patients[rows], np.flatnonzero(~known)),
            "train_s": round(trained),
            "whole_s": round(time.time() - started),
        }
    )
    print(json.dumps(record), flush=True)
    keep(record, _OUT.value, "generated_copies")


if __name__ == "__main__":
    app.run(main)
