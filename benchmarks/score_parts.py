r"""What each part of the verified score is worth: planted copies judged with that part left out.

    python benchmarks/score_parts.py --real=../shared/data/cxr --subject_regex='^([0-9]+)_' --seed=3 \
        --work=/tmp/score_parts --out=benchmarks/results

The pairs are those of `deepssim stress` with the same seed; every variant chooses its thresholds anew,
on half of the patients, and is judged on the other half. The parts are described and sourced in
`deepssim_jax/ops/agreement.py`. Writes what `stress` writes into WORK, with a figure of the
whole score a setting, and one line into OUT/score_parts.jsonl. About twenty minutes on two cores.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

from benchmarks.cases.records import dated, keep
from benchmarks.cases.score_parts import methods
from benchmarks.kept import COMMAND, open_images
from deepssim_jax.audit import stress
from deepssim_jax.data.planted_pairs import Setting
from deepssim_jax.workspace import Workspace

_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a file's name")
_WORK = flags.DEFINE_string("work", None, "folder for pairs, scores and figures", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_SEED = flags.DEFINE_integer("seed", 0, "of pairs and halves")
_SETTINGS = flags.DEFINE_multi_enum(
    "setting", ["registered", "perturbed", "harsh"], ["registered", "perturbed", "harsh"], "which"
)


def main(_: list[str]) -> None:
    work = Path(_WORK.value)
    images = open_images(
        _REAL.value, work / "images", size=(256, 256), subject_regex=_SUBJECT_REGEX.value
    )
    found = stress.stress(
        images.take(np.arange(len(images))),
        images.patients(),
        methods=methods(),
        settings=stress.StressSettings(
            tuple(Setting(name) for name in dict.fromkeys(_SETTINGS.value)), seed=_SEED.value
        ),
        on_progress=lambda done, total, what: print(f"{what}: {done} of {total}", flush=True),
    )
    with Workspace.open(work / "found", command=COMMAND) as workspace:
        stress.write(found, workspace, image_ids=images.image_ids)
    print(stress.table(found.outcomes))
    record: dict[str, object] = {
        "real": Path(_REAL.value).name,
        "seed": _SEED.value,
        "outcomes": [dataclasses.asdict(outcome) for outcome in found.outcomes],
    }
    keep(dated(record), _OUT.value, "score_parts")


if __name__ == "__main__":
    app.run(main)
