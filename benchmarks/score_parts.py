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

from absl import app, flags

from benchmarks.cases.planted_stress import scored
from benchmarks.cases.records import dated, keep
from benchmarks.cases.score_parts import methods

_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a file's name")
_WORK = flags.DEFINE_string("work", None, "folder for pairs, scores and figures", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_SEED = flags.DEFINE_integer("seed", 0, "of pairs and halves")
_SETTINGS = flags.DEFINE_multi_enum(
    "setting", ["registered", "perturbed", "harsh"], ["registered", "perturbed", "harsh"], "which"
)


def main(_: list[str]) -> None:
    found = scored(
        _REAL.value,
        Path(_WORK.value),
        methods=methods(),
        settings=_SETTINGS.value,
        subject_regex=_SUBJECT_REGEX.value,
        seed=_SEED.value,
    )
    record: dict[str, object] = {
        "real": Path(_REAL.value).name,
        "seed": _SEED.value,
        "outcomes": [dataclasses.asdict(outcome) for outcome in found.outcomes],
    }
    keep(dated(record), _OUT.value, "score_parts")


if __name__ == "__main__":
    app.run(main)
