"""Scores a matrix of similarities against labelled pairs, in the reference format.

    deepssim evaluate --matrix=deepssim.npz --real_indices=real.npz --synthetic_indices=synth.npz \
        --table=test_set.csv --out=evaluation/

Thresholds are chosen on the tuning split of the patients and all figures are those of the reporting split,
unless --near and --exact give them. Writes evaluation.json and scores.png.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode

_MATRIX = flags.DEFINE_string(
    "matrix", None, "real x synthetic scores, .npz or .npy", required=True
)
_REAL = flags.DEFINE_string("real_indices", None, "keys of its rows, .npz", required=True)
_SYNTHETIC = flags.DEFINE_string(
    "synthetic_indices", None, "keys of its columns, .npz", required=True
)
_TABLE = flags.DEFINE_string("table", None, "CSV of labelled pairs", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the figures", required=True)
_NEAR = flags.DEFINE_float("near", None, "threshold of near duplicates; with --exact")
_EXACT = flags.DEFINE_float("exact", None, "threshold of exact duplicates; with --near")
_LEVEL = flags.DEFINE_float("level", 0.95, "coverage of the intervals, between 0.5 and 1")
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "of the split of the patients and of the bootstrap",
    lower_bound=0,
    upper_bound=2**32 - 1,
)


def main() -> int:
    """Evaluates one matrix.

    Returns:
        `ExitCode.DONE`.
    """
    import numpy as np

    from deepssim_jax.audit.score_figure import draw_scores
    from deepssim_jax.data import reference_scores
    from deepssim_jax.ops import arguments
    from deepssim_jax.scoring import evaluation
    from deepssim_jax.workspace import Workspace

    usage.belong([_NEAR], "--exact", wanted=_EXACT.value is not None)
    usage.belong([_EXACT], "--near", wanted=_NEAR.value is not None)
    if _NEAR.value is not None and _EXACT.value is not None and _NEAR.value > _EXACT.value:
        raise usage.UsageError(f"--near={_NEAR.value} must not lie above --exact={_EXACT.value}")
    arguments.number(_LEVEL.value, "level", low=0.5, high=1, open_high=True, example=0.95)
    given = (_MATRIX, _REAL, _SYNTHETIC, _TABLE)
    for holder in given:
        usage.exists(holder, "file")
    reads = {f"--{flag.name}": flag.value for flag in given}
    # Looked at before anything is read; nothing is kept between runs.
    with Workspace.open(_OUT.value, command="evaluate", reads=reads):
        found = reference_scores.read_labelled(*(Path(flag.value) for flag in given))
    used, origin = np.ones(len(found.scores), bool), "given"
    near, exact = _NEAR.value, _EXACT.value
    if near is None or exact is None:
        people, owner = np.unique(found.patients, return_inverse=True)
        if len(people) < 2:
            raise ValueError("all pairs are of one patient; give --near and --exact")
        half = np.random.default_rng(_SEED.value).permutation(len(people)) < len(people) // 2
        used = ~half[owner]
        near, exact = evaluation.choose_thresholds(found.scores[~used], found.labels[~used])
        origin = "largest macro-F1 on the tuning split of the patients"
    result = evaluation.evaluate(
        found.scores[used],
        found.labels[used],
        found.patients[used],
        near=near,
        exact=exact,
        level=_LEVEL.value,
        seed=_SEED.value,
    )
    content = {"thresholds_from": origin, **dataclasses.asdict(result)}
    picture = draw_scores(found.scores[used], found.labels[used], near=near, exact=exact)
    with Workspace.open(_OUT.value, command="evaluate", reads=reads) as workspace:
        written = [
            workspace.write("evaluation.json", (json.dumps(content, indent=2) + "\n").encode()),
            workspace.write("scores.png", picture),
        ]
    rows = [("pairs", result.pairs), ("patients", result.patients)]
    rows += [("thresholds", f"near {near:.2f}, exact {exact:.2f} ({origin})")]
    for name, figures in result.classes.items():
        rows.append((name, f"precision {_text(figures.precision)}, recall {_text(figures.recall)}"))
    rows.append(("macro F1", _text(result.macro_f1)))
    rows.append(("TPR at 5 % FPR", _text(result.true_rates[0.05])))
    rows.append(("silhouette", f"{result.silhouette:.3f}"))
    console.finish(rows, written=written)
    return ExitCode.DONE


def _text(figure: object) -> str:
    value, low, high = (100 * getattr(figure, name) for name in ("value", "low", "high"))
    return f"{value:.2f} % ({low:.2f} to {high:.2f})"
