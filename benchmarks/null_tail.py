"""How often are unrelated images called copies, by all the evidence of an audit?

    python -m benchmarks.null_tail --real=../shared/data/cxr --others=../shared/data/pictures/fundus \
        --queries=20000 --work=TMP --out=benchmarks/results

An audit learns the laws of unrelated images from a few hundred of them and judges by their far tail. Here
that tail is looked at. Half of a kind's patients are the real side. A query is an image slightly turned,
zoomed, blurred and relit, and every second one has a random window of another such image in it, as in a crop
pasted into another picture. Half of the queries are of the kind's other patients, half of other kinds and
phantoms; none is a copy. Reported: how many fall below stated probabilities, and in how many simulated audits
without copies anything is called one, by the rule of false discoveries of an audit. Blocks that are done
are kept in --work. One line goes into OUT/null_tail.jsonl.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from absl import app, flags

from benchmarks.cases.null_tail import audits, composite, exceeded, varied
from benchmarks.cases.records import dated, keep
from benchmarks.kept import journal
from deepssim_jax.audit import searchers
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.nn.encoder import load_encoder

_REAL = flags.DEFINE_string("real", None, "folder of one kind of image", required=True)
_OTHERS = flags.DEFINE_multi_string("others", [], "folders of other kinds")
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", "^([^_]+)_", "the patient in a file's name")
_QUERIES = flags.DEFINE_integer("queries", 20_000, "unrelated images", lower_bound=1_000)
_REFERENCES = flags.DEFINE_integer("references", 120, "real images at most", lower_bound=20)
_SIZE = flags.DEFINE_integer("size", 128, "side in pixels that the search sees", lower_bound=32)
_WORK = flags.DEFINE_string("work", None, "folder of what is done", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_SEED = flags.DEFINE_integer("seed", 0, "of everything drawn")
_SIDE, _BLOCK, _EACH, _PHANTOMS = 256, 128, 120, 60


def main(argv: list[str]) -> None:
    """Looks for all queries and counts."""
    del argv
    rng = np.random.default_rng(_SEED.value)
    kind = read_kind(_REAL.value, name="real", side=_SIDE, subject_regex=_SUBJECT_REGEX.value)
    people = rng.permutation(np.unique(kind.patients))
    own = np.isin(kind.patients, people[: len(people) // 2])
    real = np.flatnonzero(own)[: _REFERENCES.value]
    known = [kind.images[i] for i in rng.permutation(np.flatnonzero(~own))[:_EACH]]
    same = len(known)
    for number, folder in enumerate(_OTHERS.value):
        images = read_kind(folder, name=str(number), side=_SIDE, subject_regex=None).images
        known += [images[i] for i in rng.permutation(len(images))[:_EACH]]
    for number, phantoms in enumerate((chests, textures)):
        key = jax.random.key(1_000 * _SEED.value + number)
        known += list(np.asarray(phantoms(key, _PHANTOMS, size=(_SIDE, _SIDE))))
    patients = np.unique(kind.patients[real], return_inverse=True)[1]
    search = searchers.audit(load_encoder(), size=_SIZE.value)(
        [kind.images[i] for i in real], patients
    )
    count = _QUERIES.value
    ranges = np.where(np.arange(count)[:, None] % 2 == 0, [0, same], [same, len(known)])
    pairs = rng.integers(ranges[:, :1], ranges[:, 1:], (count, 2))
    windows = rng.uniform([0.3, -1, -1], [1, 1, 1], (count, 3))

    def query(row: int) -> np.ndarray:
        draw = np.random.default_rng([_SEED.value, row])
        first, second = (varied(known[i], draw, side=_SIDE) for i in pairs[row])
        return composite(first, second, windows[row]) if row // 2 % 2 else first

    def looked(rows: np.ndarray) -> np.ndarray:
        return np.exp(-search([query(row) for row in rows.tolist()], None).score)

    def show(done: int, total: int, what: str) -> None:
        print(f"{what}: {done}/{total}", flush=True)

    content = [*(kind.images[i] for i in real), *known, pairs, windows]
    with journal(Path(_WORK.value)) as kept:
        p_values = kept.by_rows(
            "tail", content, looked, count=count, block=_BLOCK, on_progress=show,
            what="unrelated images",
        )  # fmt: skip
    record = dated({
        "real": Path(_REAL.value).name, "references": len(real), "people": len(np.unique(patients)),
        "queries": count, "seed": _SEED.value, "evidence": "all",
        "exceeded": exceeded(p_values), "audits": audits(p_values, rng),
    })  # fmt: skip
    print(record)
    keep(record, _OUT.value, "null_tail")


if __name__ == "__main__":
    app.run(main)
