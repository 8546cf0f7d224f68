"""What the safeguard lets out of a folder of planted copies of films, and of strangers.

    python benchmarks/safeguard.py --data=../shared/data --out=benchmarks/results

A part of the patients' films are training images. The folder that is filtered holds 40 of them under
each change, exact ones and local ones, and all films of the other patients. Limits are the guard's own,
calibrated on the training films. One record goes into OUT/safeguard.jsonl. Five minutes on two cores.
"""

import collections
import csv
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags
from scipy import ndimage

from benchmarks.cases.films import image_of, patient_of
from benchmarks.cases.records import dated, keep
from benchmarks.kept import write_png
from deepssim_jax.audit.guard import Guard, GuardSettings
from deepssim_jax.audit.safeguard import filter_folder
from deepssim_jax.data import changes
from deepssim_jax.data.changes import Change
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.workspace import Workspace

DATA = flags.DEFINE_string("data", "../shared/data", "folder with cxr/")
OUT = flags.DEFINE_string("out", None, "folder for safeguard.jsonl; nothing is written without")
SEED = flags.DEFINE_integer("seed", 0, "of the patients and of the copies")
COPIES = flags.DEFINE_integer("copies", 40, "copies under each change", lower_bound=1)
_SHARE = 0.54  # of the patients whose films are trained on

EXACT: dict[str, Change] = {
    "as it is": lambda x, rng: x,
    "shifted by a pixel": lambda x, rng: np.roll(x, 1, axis=1),
    "mirrored": lambda x, rng: x[:, ::-1],
    "rotated by 10 degrees": lambda x, rng: ndimage.rotate(
        x, 10, reshape=False, order=1, mode="nearest"
    ),
    "gamma 0.7": lambda x, rng: x**0.7,
    "noise 5 %": lambda x, rng: x + 0.05 * rng.standard_normal(x.shape),
}


def measure(root: Path) -> dict[str, object]:
    """The record; `root` gets the films of both sides."""
    films = sorted((Path(DATA.value) / "cxr").glob("*.png"))
    patients = sorted({patient_of(path) for path in films})
    rng = np.random.default_rng(SEED.value)
    known = set(rng.permutation(patients)[: round(_SHARE * len(patients))])
    training, offered = root / "training", root / "offered"
    inside = [path for path in films if patient_of(path) in known]
    for path in inside:
        write_png(training / path.name, image_of(path))
    strangers = [path for path in films if path not in inside]
    for path in strangers:
        write_png(offered / f"stranger--{path.name}", image_of(path))
    for name, change in {**EXACT, **changes.NEAR}.items():
        for row in rng.choice(len(inside), COPIES.value, replace=False):
            copy = change(image_of(inside[row]), rng)
            write_png(offered / f"{name}--{inside[row].name}", copy)
    begin = time.perf_counter()
    settings = GuardSettings(subject_regex=r"^([0-9]+)_", seed=SEED.value)
    with Workspace.open(root / "share", command="filter", work=root / "work") as workspace:
        guard = Guard.build(training, workspace, settings=settings)
        built = time.perf_counter() - begin
        release = filter_folder(offered, guard, workspace)
    # Released images have numbers for names; the work folder knows which each is.
    with (root / "work" / "released.csv").open(newline="") as file:
        left = collections.Counter(row["source"].split("--")[0] for row in csv.DictReader(file))
    if left.total() != release.accepted:
        raise ValueError(f"released.csv has {left.total()} images and {release.accepted} left")
    limits = guard.limits
    return {
        "seed": SEED.value,
        "training": {"films": len(inside), "patients": len(known)},
        "limits": {"cosine": round(limits.max_cosine, 4), "ssim": round(limits.max_ssim, 4)},
        "origin": {"cosine": limits.cosine_origin, "ssim": limits.ssim_origin},
        "copies_that_left": {name: left[name] for name in (*EXACT, *changes.NEAR)},
        "copies_of_each": COPIES.value,
        "strangers_that_left": [left["stranger"], len(strangers)],
        "rejected": dict(release.rejected),
        "seconds": {"build": round(built, 1), "all": round(time.perf_counter() - begin, 1)},
    }


def summary(record: dict) -> str:
    """A line a change: how many copies left, with the interval of the share that stayed."""
    lines = []
    for name, count in record["copies_that_left"].items():
        stayed = clopper_pearson(
            record["copies_of_each"] - count, record["copies_of_each"], level=0.95
        )
        lines.append(
            f"{name}: {stayed.count} of {stayed.total} kept back ({stayed.low:.1%} to {stayed.high:.1%})"
        )
    out, of = record["strangers_that_left"]
    return "\n".join([*lines, f"strangers: {out} of {of} left"])


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        record = dated(measure(Path(folder)))
    print(summary(record), json.dumps(record), sep="\n", flush=True)
    keep(record, OUT.value, "safeguard")


if __name__ == "__main__":
    app.run(main)
