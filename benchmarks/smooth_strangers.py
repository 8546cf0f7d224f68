"""Are unrelated images called copies where they are smoother than the real ones, as generators draw them?

    python -m benchmarks.smooth_strangers --real=../shared/data/cxr --out=benchmarks/results

Half of a kind's patients are the real side, one image each. Images of the others, blurred more and more, are
searched for by the evidence of an audit at a false-match rate of 0.5 %, and so are the real images, blurred
alike. A blur is in pixels of a side of 256. One line a blur goes into OUT/smooth_strangers.jsonl.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags
from scipy import ndimage

from benchmarks.cases.records import dated, keep
from deepssim_jax.audit import searchers
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.evidence import MOST_FALSE

_REAL = flags.DEFINE_multi_string("real", None, "folders, one kind of image each", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", "^([^_]+)_", "the patient in a file's name")
_BLURS = flags.DEFINE_multi_float("blur", [0, 4, 6, 8], "sigmas at a side of 256", lower_bound=0)
_EACH = flags.DEFINE_integer("each", 60, "real images, and unrelated ones, at most", lower_bound=20)
_SIZE = flags.DEFINE_integer("size", 128, "side in pixels that the search sees", lower_bound=32)
_OUT = flags.DEFINE_string("out", None, "folder for the records; none are written without")
_SEED = flags.DEFINE_integer("seed", 0, "of the draw of patients")


def main(argv: list[str]) -> None:
    """Looks for blurred images of every kind, and counts."""
    del argv
    for folder in _REAL.value:
        kind = read_kind(folder, name="real", side=256, subject_regex=_SUBJECT_REGEX.value)
        rows = np.unique(kind.patients, return_index=True)[1]  # one of each patient
        rows = np.random.default_rng(_SEED.value).permutation(rows)[: 2 * _EACH.value]
        images = [kind.images[i] for i in rows]
        half = len(images) // 2
        real, others, patients = images[:half], images[half:], np.arange(half)
        search = searchers.audit(load_encoder(), size=_SIZE.value)(real, patients)
        for blur in _BLURS.value:
            called = []
            for some, own in ((others, None), (real, patients)):
                found = search([blurred(image, blur) for image in some], None)
                hits = found.score > -np.log(MOST_FALSE)
                called.append(hits if own is None else hits & (found.reference == own))
            strangers, copies = (clopper_pearson(int(x.sum()), len(x)) for x in called)
            record = dated({
                "kind": Path(folder).name, "real": half, "seed": _SEED.value, "blur": blur,
                "strangers_called": [strangers.count, strangers.total, strangers.low, strangers.high],
                "copies_called": [copies.count, copies.total, copies.low, copies.high],
            })  # fmt: skip
            print(record, flush=True)
            keep(record, _OUT.value, "smooth_strangers")


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian that is `sigma` pixels wide where the longer side has 256."""
    return ndimage.gaussian_filter(image, sigma * max(image.shape) / 256) if sigma else image


if __name__ == "__main__":
    app.run(main)
