"""Replicas among phantom volumes, as in the two published cases: how well does each measure do?

    python benchmarks/replicas.py --out=benchmarks/results

Two cases of 50 synthetic volumes of 64 x 64 x 64: head CT with a haemorrhage, 774 references, 45
replicas; angiography, 1,782 references, 5 replicas. A replica is a reference under a small motion,
blur, noise and a change in one place (`cases/planted_volumes.py`, by SciPy); the others are new
people. So the labels hold by construction. Balanced accuracy of every measure with the best
threshold for these volumes, and cross-validated, each volume judged by a threshold from the others;
in the last row the measure is chosen on the others, too. One record a case goes into
OUT/replicas.jsonl. Ten minutes on two cores.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from absl import app, flags

from benchmarks.cases.planted_volumes import make_replica
from benchmarks.cases.records import dated, keep
from benchmarks.kept import journal
from benchmarks.methods.volume_levels import best_by_level
from deepssim_jax.data import phantom_heads
from deepssim_jax.data.preprocess import quantize
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.ratings import BalancedAccuracy, rate_measures
from deepssim_jax.scoring.volume_match import (
    Reference,
    best_by_measure,
    match_volumes,
)
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.scoring.volume_search import VolumeSide
from deepssim_jax.scoring.volume_sides import Modality, occupancies

OUT = flags.DEFINE_string("out", None, "folder for replicas.jsonl; nothing is written without")
CASE = flags.DEFINE_multi_enum("case", ["ct", "angiography"], ["ct", "angiography"], "cases to run")
SEED = flags.DEFINE_integer("seed", 0, "of the people and of the replicas")
REFERENCES = flags.DEFINE_integer("references", None, "as published if not given", lower_bound=60)
SIZE = flags.DEFINE_integer("size", 64, "voxels along each axis", lower_bound=32)
ENCODER = flags.DEFINE_string("encoder", "default", "or a .safetensors file, also of volumes")
_PUBLISHED = {"ct": (774, 45), "angiography": (1782, 5)}
_SYNTHETIC, _BATCH = 50, 16


def people(modality: Modality, count: int, key: jax.Array) -> np.ndarray:
    """float32 [count, s, s, s] of as many people."""
    make = {
        Modality.CT: phantom_heads.ct_heads,
        Modality.ANGIOGRAPHY: phantom_heads.angiograms,
    }[modality]
    size = (SIZE.value,) * 3
    parts = [
        np.asarray(make(jax.random.fold_in(key, first), _BATCH, size=size).volumes)
        for first in range(0, count, _BATCH)
    ]
    return np.concatenate(parts)[:count]


def stored(volumes: np.ndarray, grid: VolumeSettings) -> np.ndarray:
    """As a store holds them."""
    if grid.window is None:
        return np.stack([quantize(v) for v in volumes])
    low, high = grid.window
    return np.round((np.clip(volumes, low, high) - low) * (65535 / (high - low))).astype(np.uint16)


def measure(modality: Modality, references: int, replicas: int) -> dict[str, object]:
    """The record of one case."""
    spent: dict[str, float] = {}
    begin = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal begin
        spent[what] = round(time.perf_counter() - begin, 1)
        begin = time.perf_counter()
        print(f"{modality.value}: {what} {spent[what]} s", flush=True)

    grid = VolumeSettings((SIZE.value,) * 3, None, modality.window)
    key = jax.random.fold_in(jax.random.key(SEED.value), references)
    everyone = people(modality, references + _SYNTHETIC, key)
    real, others = everyone[:references], everyone[references:]
    rng = np.random.default_rng([SEED.value, references])
    originals = rng.choice(references, replicas, replace=False)
    copies = [
        make_replica(real[row], others[i], rng, window=modality.window)
        for i, row in enumerate(originals)
    ]
    synthetic = np.concatenate([np.stack(copies).astype(np.float32), others[replicas:]])
    real, synthetic = stored(real, grid), stored(synthetic, grid)
    lap("making")
    encoder = load_encoder(ENCODER.value)

    def embed(volumes: np.ndarray) -> np.ndarray:
        return embed_volumes(encoder, modality.contrast(volumes, grid))

    def side(volumes: np.ndarray) -> VolumeSide:
        maps = modality.segment(volumes, grid)
        wanted = tuple(range(1, len(modality.label_names) + 1))
        return VolumeSide(
            take=lambda rows: volumes[rows],
            shape=grid.size,
            groups=np.arange(len(volumes)),
            geometry=Geometry.filled(len(volumes), SIZE.value),
            features=embed(volumes),
            labels=lambda rows: maps[rows],
            occupancy=occupancies(lambda rows: maps[rows], len(volumes), wanted),
        )

    sides = side(synthetic), side(real)
    lap("embedding and segmenting")
    labels = tuple(range(1, len(modality.label_names) + 1))
    with tempfile.TemporaryDirectory() as folder:
        settings = MatchSettings(labels=labels)
        with journal(Path(folder)) as kept:
            known = Reference.of(sides[1], alignment=settings.alignment, journal=kept)
            pairs = match_volumes(sides[0], known, settings=settings, journal=kept)
    lap("searching and measuring")
    best = best_by_level(pairs, _SYNTHETIC)
    truth = np.arange(_SYNTHETIC) < replicas
    scores = {(at.value, name): x for (at, name), x in best_by_measure(pairs, _SYNTHETIC).items()}
    rated = rate_measures(scores, truth, seed=SEED.value)
    return {
        "case": modality.value,
        "references": references,
        "synthetic": _SYNTHETIC,
        "replicas": replicas,
        "size": SIZE.value,
        "seed": SEED.value,
        "encoder": Path(ENCODER.value).name,
        "original_is_closest": {
            level.value: int((rows["reference"][:replicas] == originals).sum())
            for level, rows in best.items()
        },
        "measures": [
            {
                "level": r.level,
                "measure": r.measure,
                "auc": round(r.auc, 4),
                "in_sample": _figures(r.in_sample),
                "cross_validated": _figures(r.cross_validated),
            }
            for r in rated
        ],
        "pairs_measured": len(pairs),
        "seconds": spent,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _figures(x: BalancedAccuracy) -> list[float]:
    """Balanced accuracy and its bounds, then sensitivity and specificity."""
    return [round(v, 4) for v in (x.value, x.low, x.high, x.sensitivity.value, x.specificity.value)]


def table(record: dict) -> str:
    """Markdown: a row a measure."""
    lines = ["| level | measure | in sample | cross-validated | sensitivity, specificity | AUC |"]
    lines.append("|---" * 6 + "|")
    for r in record["measures"]:
        held = r["cross_validated"]
        lines.append(
            f"| {r['level']} | {r['measure'].replace('_', ' ')} | {r['in_sample'][0]:.3f} | {held[0]:.3f} "
            f"({held[1]:.2f} to {held[2]:.2f}) | {held[3]:.2f}, {held[4]:.2f} | {r['auc']:.3f} |"
        )
    return "\n".join(lines)


def main(_: list[str]) -> None:
    for case in CASE.value:
        references, replicas = _PUBLISHED[case]
        record = dated(measure(Modality(case), REFERENCES.value or references, replicas))
        print(
            f"\n{case}: original closest in {record['original_is_closest']}\n{table(record)}",
            flush=True,
        )
        keep(record, OUT.value, "replicas")


if __name__ == "__main__":
    app.run(main)
