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

from benchmarks.cases.null_tail import audits, composite, exceeded
from benchmarks.cases.records import dated, keep
from benchmarks.kept import journal
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.scoring.evidence import GumbelLaw
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


if __name__ == "__main__":
    app.run(main)
