"""What is each way of proposing candidates worth beside local features?

    python -m benchmarks.proposers --real=blood_smear --real=ct_head --out=benchmarks/results

Copies under 81 edits and unrelated images, made and searched for as by `deepssim stress --setting=edits`, are
decided by the evidence of an audit at a false-match rate of 0.5 %. Only the candidates differ that are
verified beside those of local features: the two most similar ones where they lie, as by default, the two
nearest for the shipped encoder, both, or neither. `oracle` stands for an encoder without fault: the original
itself is always proposed, beside the two most similar ones. No encoder can find more than that. One line a
kind goes into OUT/proposers.jsonl.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

from benchmarks.cases.records import dated, keep
from deepssim_jax.audit import edit_trials
from deepssim_jax.audit.edit_trials import EditSetting, Query
from deepssim_jax.audit.searchers import ByEvidence
from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.kinds import Kind, read_kind
from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.embed import side_of_images
from deepssim_jax.scoring.evidence import MOST_FALSE
from deepssim_jax.scoring.retrieval import Proposals, Retrieval
from deepssim_jax.scoring.side import Side

_REAL = flags.DEFINE_multi_string("real", None, "folders, one kind of image each", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", "^([^_]+)_", "the patient in a file's name")
_SIZE = flags.DEFINE_integer("size", 128, "side in pixels that the search sees", lower_bound=32)
_COPIES = flags.DEFINE_integer("copies", 2, "under each edit", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "folder for the records; none are written without")
_SEED = flags.DEFINE_integer("seed", 2, "of everything drawn")

_NONE = Proposals(aligned=0, likely=0, in_place=0, encoder=0)
_WAYS = {
    "in_place": Retrieval.LOCAL.proposals,
    "with_encoder": dataclasses.replace(Retrieval.LOCAL.proposals, encoder=2),
    "encoder": dataclasses.replace(_NONE, encoder=2),
    "points_alone": _NONE,
    "oracle": dataclasses.replace(Retrieval.LOCAL.proposals, encoder=1),
}


def main(argv: list[str]) -> None:
    """Searches for the copies of every kind with each list of candidates."""
    del argv
    for folder in _REAL.value:
        kind = read_kind(
            folder, name=Path(folder).name, side=2 * _SIZE.value, subject_regex=_SUBJECT_REGEX.value
        )
        real, copies, others = _sides(kind)
        record: dict[str, object] = {"kind": kind.name, "real": len(real), "seed": _SEED.value}
        for name, proposals in _WAYS.items():
            sides = [real, copies[0], others]
            if name == "oracle":
                sides = _all_knowing(real, copies, others)
            known = ByEvidence.of(sides[0], proposals=proposals)
            found, alarms = known.search(sides[1]), known.search(sides[2])
            enough = -np.log(MOST_FALSE)
            owners = known.real.grouped()[1][np.maximum(found.reference, 0)]
            record[name] = {
                "found": _counted((found.score > enough) & (owners == copies[1])),
                "unrelated_called": _counted(alarms.score > enough),
            }
            print(kind.name, name, record[name], flush=True)
        keep(dated(record), _OUT.value, "proposers")


def _sides(kind: Kind) -> tuple[Side, tuple[Side, np.ndarray, np.ndarray], Side]:
    """Real images; copies, with their patients and originals among the real ones; unrelated images."""
    plan = edit_trials.plan(
        kind.patients, EditSetting.EDITS, edits=EDITS, copies=_COPIES.value, seed=_SEED.value
    )
    encoder = load_encoder()

    def side(images: list[np.ndarray], groups: np.ndarray | None) -> Side:
        made = side_of_images(images, encoder, size=_SIZE.value, points=True)
        return dataclasses.replace(made, groups=groups)

    def made(chosen: list[tuple[int, Query]]) -> tuple[list[np.ndarray], np.ndarray]:
        images = [edit_trials.made(kind, q, seed=[_SEED.value, 1, i]) for i, q in chosen]
        return images, np.array([q.row for _, q in chosen])

    queries = list(enumerate(plan.queries))
    images, rows = made([(i, q) for i, q in queries if q.copy])
    unrelated, own = made([(i, q) for i, q in queries if not q.copy and not q.tuning])
    originals = np.searchsorted(plan.references, rows)
    real = side([kind.images[i] for i in plan.references], kind.patients[plan.references])
    copies = side(images, None), kind.patients[rows], originals
    return real, copies, side(unrelated, kind.patients[own])


def _all_knowing(
    real: Side, copies: tuple[Side, np.ndarray, np.ndarray], others: Side
) -> list[Side]:
    """The sides with embeddings by which a copy's nearest is its original; others have any."""
    rng = np.random.default_rng(_SEED.value)

    def random(count: int) -> np.ndarray:
        rows = rng.standard_normal((count, 256)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    known = random(len(real))
    embeddings = known, known[copies[2]], random(len(others))
    return [
        dataclasses.replace(side, embeddings=rows)
        for side, rows in zip((real, copies[0], others), embeddings, strict=True)
    ]


def _counted(hits: np.ndarray) -> list[float]:
    share = clopper_pearson(int(hits.sum()), len(hits))
    return [share.count, share.total, share.low, share.high]


if __name__ == "__main__":
    app.run(main)
