"""The benchmark of planted copies: labels by construction, every method on the same pairs.

Patients of the tuning split choose each method's thresholds, those of the reporting split are reported.
Everything drawn follows from the seed, and pairs.csv names every pair, so that a run can be repeated.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from deepssim_jax.audit import tables
from deepssim_jax.audit.score_figure import draw_scores
from deepssim_jax.data import planted_pairs
from deepssim_jax.data.account import Account
from deepssim_jax.data.planted_pairs import Pair, Setting
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.ops.fsim import fsim
from deepssim_jax.scoring import evaluation
from deepssim_jax.scoring.evaluation import CLASSES, Evaluation
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.methods import Method
from deepssim_jax.workspace import Workspace

_CHUNK = 256
_FSIM_SIDE = 64  # hard negatives are picked at this size: all pairs are compared
REFERENCE = "cascade"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One method in one setting: figures on the reported patients, thresholds from the others.

    `mcnemar` is the p-value of its classes against the cascade's on the same pairs, None for the
    cascade itself; `same_patient_exact` the share of other images of the same patient that it
    calls exact copies, None where there are none.
    """

    method: str
    setting: Setting
    figures: Evaluation
    mcnemar: float | None
    same_patient_exact: float | None


@dataclasses.dataclass(frozen=True)
class StressResult:
    """Pairs, their scores {(setting, method): [pairs]}, and what they say."""

    pairs: tuple[Pair, ...]
    scores: Mapping[tuple[Setting, str], np.ndarray]
    outcomes: tuple[Outcome, ...]
    seed: int
    size: int


@dataclasses.dataclass(frozen=True)
class StressSettings:
    """How pairs are made.

    `settings` are how far pairs are moved apart, `size` the side in pixels at which methods see them,
    `rounds` the pairs of each class and image; everything drawn follows from `seed`.
    """

    settings: tuple[Setting, ...] = tuple(Setting)
    size: int = 128
    rounds: int = 2
    seed: int = 0


def stress(
    images: np.ndarray,
    patients: np.ndarray,
    *,
    methods: Mapping[str, Method],
    settings: StressSettings = StressSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> StressResult:
    """Plants copies of these images and lets every method score them.

    Args:
      images: [n, t, t] real images of unsigned integers or floats on [0, 1]; changes are made at
        this size, so that it should be about twice the next.
      patients: int [n], whose each is.
      methods: by name; with `cascade` among them the others are compared with it.
      settings: how pairs are made.
      on_progress: called with (pairs done, pairs in all, what).

    Raises:
      ValueError: fewer than four patients.
    """
    size, seed = settings.size, settings.seed
    scale = np.iinfo(images.dtype).max if images.dtype.kind == "u" else 1

    def take(row: int) -> np.ndarray:
        return np.asarray(images[row], np.float64) / scale

    small = np.stack([_small(take(row), size) for row in range(len(images))])
    pairs = planted_pairs.plan(
        patients,
        seed=seed,
        rounds=settings.rounds,
        contents=np.array([hashlib.sha256(x.tobytes()).hexdigest() for x in images]),
        nearest=lambda rows: _nearest_of_other_patients(small[rows], patients[rows]),
    )
    scores: dict[tuple[Setting, str], list[np.ndarray]] = {}
    for setting in settings.settings:
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs[start : start + _CHUNK]
            made = planted_pairs.partners(chunk, setting, take, seed=seed)
            synthetic = np.stack([_small(image, size) for image in made])
            real = small[[pair.real for pair in chunk]]
            for name, method in methods.items():
                scores.setdefault((setting, name), []).append(method(real, synthetic))
            on_progress(start + len(chunk), len(pairs), f"scoring {setting.value} pairs")
    joined = {key: np.concatenate(parts) for key, parts in scores.items()}
    outcomes = tuple(_outcome(pairs, joined, *key, seed=seed) for key in joined)
    return StressResult(pairs, joined, outcomes, seed, size)


def _small(image: np.ndarray, size: int) -> np.ndarray:
    return fit_to_size(np.asarray(image, np.float32), size=(size, size))


def _nearest_of_other_patients(images: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """For each image the position of the one of another patient with the highest FSIM."""
    low = jnp.asarray(np.stack([255 * _small(x, _FSIM_SIDE) for x in images]))
    out = []
    for row in range(len(low)):
        found = np.array(fsim(jnp.broadcast_to(low[row], low.shape), low))
        found[patients == patients[row]] = -1
        out.append(int(found.argmax()))
    return np.array(out)


def _outcome(
    pairs: tuple[Pair, ...],
    scores: Mapping[tuple[Setting, str], np.ndarray],
    setting: Setting,
    name: str,
    *,
    seed: int,
) -> Outcome:
    labels = np.array([pair.label for pair in pairs])
    owners = np.array([pair.patient for pair in pairs])
    tune = np.array([pair.tune for pair in pairs])
    repeats = np.array([pair.kind == planted_pairs.SAME_PATIENT for pair in pairs])

    def classes(method: str) -> tuple[np.ndarray, float, float]:
        found = scores[setting, method]
        grid = evaluation.fitted_grid(found[tune])
        near, exact = evaluation.choose_thresholds(found[tune], labels[tune], grid=grid)
        return evaluation.classify(found[~tune], near=near, exact=exact), near, exact

    called, near, exact = classes(name)
    figures = evaluation.evaluate(
        scores[setting, name][~tune],
        labels[~tune],
        owners[~tune],
        near=near,
        exact=exact,
        seed=seed,
    )
    p_value = None
    if name != REFERENCE and (setting, REFERENCE) in scores:
        truth = labels[~tune]
        p_value = evaluation.mcnemar(classes(REFERENCE)[0] == truth, called == truth)
    again = called[repeats[~tune]]
    return Outcome(
        name,
        setting,
        figures,
        p_value,
        float((again == planted_pairs.EXACT).mean()) if len(again) else None,
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a row a method and setting, percent with 95 % intervals of a bootstrap over patients."""
    head = ("setting", "method", "macro F1", "exact recall", "exact precision", "near recall")
    head += ("TPR at 1 % FPR", "same patient called exact", "McNemar p")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for outcome in outcomes:
        figures = outcome.figures
        exact = figures.classes[CLASSES[planted_pairs.EXACT]]
        shown = (
            figures.macro_f1,
            exact.recall,
            exact.precision,
            figures.classes[CLASSES[planted_pairs.NEAR]].recall,
            figures.true_rates[0.01],
        )
        again = outcome.same_patient_exact
        cells = [outcome.setting.value, outcome.method]
        cells += [f"{100 * e.value:.1f} ({100 * e.low:.1f} to {100 * e.high:.1f})" for e in shown]
        cells.append("" if again is None else f"{again:.1%}")
        cells.append("" if outcome.mcnemar is None else f"{outcome.mcnemar:.2g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(
    result: StressResult,
    out: Workspace,
    *,
    image_ids: Sequence[str],
    account: Account = Account(),
    folder: str = "",
) -> tuple[Path, ...]:
    """Writes pairs.csv, results.json, results.md and a figure of the cascade's scores a setting.

    They go into `folder` of the workspace, a name that ends with "/", or to its top; `account` is that of
    the files of the images.
    """
    content = {**_plain(result), "inputs": account.listed()}
    files = {
        "pairs.csv": _pairs_csv(result, image_ids),
        "results.json": (json.dumps(content, indent=2) + "\n").encode(),
        "results.md": (table(result.outcomes) + "\n").encode(),
    }
    tune = np.array([pair.tune for pair in result.pairs])
    labels = np.array([pair.label for pair in result.pairs])[~tune]
    for outcome in result.outcomes:
        if outcome.method == REFERENCE:
            files[f"{outcome.setting.value}.png"] = draw_scores(
                result.scores[outcome.setting, REFERENCE][~tune],
                labels,
                near=outcome.figures.near,
                exact=outcome.figures.exact,
            )
    return tuple(out.write(f"{folder}{name}", content) for name, content in files.items())


def _pairs_csv(result: StressResult, image_ids: Sequence[str]) -> bytes:
    keys = list(result.scores)
    names = ["number", "real_id", "source_id", "donor_id", "label", "kind", "part"]
    rows: list[list[object]] = [
        [*names, *(f"{setting.value}_{method}" for setting, method in keys)]
    ]
    for row, pair in enumerate(result.pairs):
        rows.append(
            [
                pair.number,
                image_ids[pair.real],
                image_ids[pair.source],
                None if pair.donor < 0 else image_ids[pair.donor],
                CLASSES[pair.label],
                pair.kind,
                "tuning" if pair.tune else "reported",
                *(float(result.scores[key][row]) for key in keys),
            ]
        )
    return tables.table(rows)


def _plain(result: StressResult) -> dict:
    return {
        "seed": result.seed,
        "size": result.size,
        "pairs": len(result.pairs),
        "reported": sum(not pair.tune for pair in result.pairs),
        "outcomes": [dataclasses.asdict(outcome) for outcome in result.outcomes],
    }
