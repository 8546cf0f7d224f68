"""How often do unrelated images reach the evidence of local features that calls a copy?

    python -m benchmarks.null_tail --real=../shared/data/cxr --others=../shared/data/pictures/fundus \
        --queries=100000 --work=TMP --out=benchmarks/results

An audit learns the law of unrelated images from a few hundred of them and judges by its far tail. Here that
tail is looked at. Half of a kind's patients are the real side. A query is made of the points of two images:
those inside a random window of one and those outside of it of the other, all at their places, as in a crop
pasted into another picture. Half of the queries are of the kind's other patients, half of other kinds and
phantoms; none is a copy. Reported: how many exceed the thresholds of stated probabilities, and in how many
simulated audits without copies anything is called one, by the rule of false discoveries of an audit.
Blocks that are done are kept in --work. One line goes into OUT/null_tail.jsonl.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from absl import app, flags

from benchmarks.cases.records import dated, keep
from benchmarks.kept import journal
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.evidence import GumbelLaw, false_discovery_cut
from deepssim_jax.scoring.points import SIDE, LocalIndex, PointSet

_REAL = flags.DEFINE_string("real", None, "folder of one kind of image", required=True)
_OTHERS = flags.DEFINE_multi_string("others", [], "folders of other kinds")
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", "^([^_]+)_", "the patient in a file's name")
_QUERIES = flags.DEFINE_integer("queries", 100_000, "unrelated images", lower_bound=1_000)
_REFERENCES = flags.DEFINE_integer("references", 120, "real images at most", lower_bound=20)
_WORK = flags.DEFINE_string("work", None, "folder of what is done", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_SEED = flags.DEFINE_integer("seed", 0, "of everything drawn")
_BLOCK, _EACH, _PHANTOMS = 512, 120, 60
_PROBABILITIES = (1e-2, 5e-3, 1e-3, 1e-4, 1e-5)
_AUDITS = {100: 1000, 1_000: 100, 10_000: 10, 100_000: 1}


def composite(sets: PointSet, rows: np.ndarray, window: np.ndarray) -> PointSet:
    """Of pairs of images [n, 2]: points of the first in a window, of the second outside of it.

    Windows [n, 3] are the share of the area and where, from -1 to 1 of what there is room for.
    """
    geometry, descriptors = sets.geometry[rows], sets.descriptors[rows]
    side = SIDE * np.sqrt(window[:, :1, None])
    middle = window[:, None, 1:] * (SIDE - side) / 2
    inside = (np.abs(geometry[..., :2] - middle[:, None]) <= side[..., None] / 2).all(-1)
    wanted = (geometry[..., 5] > 0) & (inside == np.array([True, False])[:, None])
    # The best points of both first, as an image's own points are.
    k = geometry.shape[2]
    rank = np.where(wanted, np.arange(k) + 0.5 * np.arange(2)[:, None], 2 * k).reshape(
        len(rows), -1
    )
    order = np.argsort(rank, axis=1, kind="stable")[:, :k]
    each = np.arange(len(rows))[:, None]
    chosen = geometry.reshape(len(rows), -1, 6)[each, order]
    chosen[..., 5] = np.take_along_axis(rank, order, 1) < 2 * k
    return PointSet(chosen, descriptors.reshape(len(rows), 2 * k, -1)[each, order])


def main(argv: list[str]) -> None:
    """Looks for all queries and counts."""
    del argv
    rng = np.random.default_rng(_SEED.value)
    kind = read_kind(_REAL.value, name="real", side=SIDE, subject_regex=_SUBJECT_REGEX.value)
    people = rng.permutation(np.unique(kind.patients))
    own = np.isin(kind.patients, people[: len(people) // 2])
    real = np.flatnonzero(own)[: _REFERENCES.value]
    same = [kind.images[i] for i in rng.permutation(np.flatnonzero(~own))[:_EACH]]
    other = []
    for number, folder in enumerate(_OTHERS.value):
        images = read_kind(folder, name=str(number), side=SIDE, subject_regex=None).images
        other += [images[i] for i in rng.permutation(len(images))[:_EACH]]
    for number, phantoms in enumerate((chests, textures)):
        key = jax.random.key(1_000 * _SEED.value + number)
        other += list(np.asarray(phantoms(key, _PHANTOMS, size=(SIDE, SIDE))))
    references = PointSet.of_images([kind.images[i] for i in real])
    known = PointSet.of_images(same + other)
    patients = np.unique(kind.patients[real], return_inverse=True)[1]
    index = LocalIndex.build(references, patients)
    unrelated = index.search(references, exclude=patients).evidence.max(1)
    law = GumbelLaw.of(unrelated, people=len(np.unique(patients)))
    count = _QUERIES.value
    ranges = np.where(np.arange(count)[:, None] % 2 == 0, [0, len(same)], [len(same), len(known)])
    pairs = rng.integers(ranges[:, :1], ranges[:, 1:], (count, 2))
    windows = rng.uniform([0.3, -1, -1], [1, 1, 1], (count, 3))

    def looked(rows: np.ndarray) -> np.ndarray:
        return index.search(composite(known, pairs[rows], windows[rows])).evidence.max(1)

    def show(done: int, total: int, what: str) -> None:
        print(f"{what}: {done}/{total}", flush=True)

    with journal(Path(_WORK.value)) as kept:
        evidence = kept.by_rows(
            "tail", [references.geometry, known.geometry, pairs, windows], looked, count=count,
            block=_BLOCK, on_progress=show, what="unrelated images",
        )  # fmt: skip
    record = dated({
        "real": Path(_REAL.value).name, "references": len(real), "people": len(np.unique(patients)),
        "queries": count, "seed": _SEED.value, "location": law.location, "scale": law.scale,
        "exceeded": exceeded(law, evidence), "audits": audits(law, evidence, rng),
    })  # fmt: skip
    print(record)
    keep(record, _OUT.value, "null_tail")


def exceeded(law: GumbelLaw, evidence: np.ndarray) -> list[dict[str, float]]:
    """How many of each half of the queries exceed the thresholds; even ones are of the same kind."""
    out = []
    for p in _PROBABILITIES:
        above = evidence > law.threshold(p)
        for name, part in (("same kind", above[::2]), ("other kinds", above[1::2])):
            share = clopper_pearson(int(part.sum()), len(part))
            out.append({
                "p": p, "queries": name, "count": int(part.sum()), "of": len(part),
                "low": share.low, "high": share.high,
            })  # fmt: skip
    return out


def audits(
    law: GumbelLaw, evidence: np.ndarray, rng: np.random.Generator
) -> list[dict[str, float]]:
    """In how many audits without copies anything is called one; each query takes part once a size."""
    p_values, out = law.p_values(evidence), []
    for size, most in _AUDITS.items():
        number = min(most, len(p_values) // size)
        drawn = rng.permutation(p_values)[: number * size].reshape(number, size)
        wrong = sum(bool((row <= false_discovery_cut(row)).any()) for row in drawn)
        if number:
            share = clopper_pearson(wrong, number)
            out.append({
                "images": size, "audits": number, "with_false": wrong,
                "low": share.low, "high": share.high,
            })  # fmt: skip
    return out


if __name__ == "__main__":
    app.run(main)
