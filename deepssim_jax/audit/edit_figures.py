"""What the trials of edits amount to, edit by kind, and the files that say it.

Contract: a row of figures is one method, kind and edit. Intervals are exact binomial ones
(Clopper-Pearson) of copies, or Newcombe's of areas under the ROC curve; a pooled row adds the counts
of all kinds, whose copies come from the same few images under every edit.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from deepssim_jax.audit import tables
from deepssim_jax.audit.edit_trials import EditSetting, Trial, threshold
from deepssim_jax.data.edits import Edit
from deepssim_jax.scoring.decide import Proportion, area_interval, clopper_pearson
from deepssim_jax.scoring.evaluation import Estimate
from deepssim_jax.workspace import Workspace

FALSE_ALARMS, ALL_KINDS, ALL_EDITS = "false alarms", "all kinds", "all edits"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One method on one kind under one edit (None: all of them, or unrelated images).

    Attributes:
      setting: of the trial.
      method: its name.
      kind: its name, or `ALL_KINDS`.
      name: of the edit, `ALL_EDITS` or `FALSE_ALARMS`.
      edit: the edit itself, None for the other two.
      share: of copies that were found, or of unrelated images that were called copies.
      accuracy: of copies and as many unrelated images under the same edit; LCMEM alone.
      area: under the ROC curve of copies against unrelated images; MI_ONI alone.
    """

    setting: EditSetting
    method: str
    kind: str
    name: str
    edit: Edit | None
    share: Proportion | None = None
    accuracy: Proportion | None = None
    area: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class _Counted:
    called: np.ndarray
    right: np.ndarray
    copy: np.ndarray
    tuning: np.ndarray
    names: np.ndarray
    score: np.ndarray

    @property
    def unrelated(self) -> np.ndarray:
        """Unedited images of patients who are reported."""
        return ~self.copy & ~self.tuning & (self.names == "identity")


def _counted(trial: Trial, method: str, rate: float) -> _Counted:
    queries, score = trial.plan.queries, trial.best[method].score
    copy, tuning = (np.array([getattr(q, n) for q in queries]) for n in ("copy", "tuning"))
    called = np.zeros(len(queries), bool)
    if trial.setting is not EditSetting.MI_ONI:
        known = trial.best[method].calibrated
        limit = -np.log(rate) if known else threshold(score[tuning & ~copy], rate=rate)
        called = score > limit
    names = np.array([query.edit.name for query in queries])
    return _Counted(called, called & trial.found(method), copy, tuning, names, score)


def figures(trials: Sequence[Trial], *, edits: Sequence[Edit], rate: float) -> tuple[Figure, ...]:
    """Every method, kind and edit of the trials of one setting, pooled over several kinds, too.

    Args:
      trials: one a kind.
      edits: in the order wanted.
      rate: of false alarms, by which thresholds are chosen on the tuning patients.
    """
    setting = trials[0].setting
    of = _areas if setting is EditSetting.MI_ONI else _shares
    out: list[Figure] = []
    for method in trials[0].best:
        counted = {trial.kind.name: _counted(trial, method, rate) for trial in trials}
        if len(trials) > 1:
            columns = zip(*(dataclasses.astuple(c) for c in counted.values()), strict=True)
            counted[ALL_KINDS] = _Counted(*(np.concatenate(c) for c in columns))
        for kind, found in counted.items():
            out += of(found, Figure(setting, method, kind, "", None), edits)
    return tuple(out)


def _binomial(hits: np.ndarray) -> Proportion:
    return clopper_pearson(int(hits.sum()), len(hits))


def _shares(found: _Counted, empty: Figure, edits: Sequence[Edit]) -> Iterable[Figure]:
    paired = empty.setting is EditSetting.LCMEM
    rows: list[tuple[str, Edit | None, np.ndarray]] = [
        (edit.name, edit, found.names == edit.name) for edit in edits
    ]
    rows.append((ALL_EDITS, None, np.isin(found.names, [edit.name for edit in edits])))
    for name, edit, chosen in rows:
        copies = found.right[chosen & found.copy]
        others = found.called[chosen & ~found.copy & ~found.tuning]
        accuracy = _binomial(np.concatenate([copies, ~others])) if paired else None
        yield dataclasses.replace(
            empty, name=name, edit=edit, share=_binomial(copies), accuracy=accuracy
        )
    alarms = _binomial(found.called[found.unrelated])
    yield dataclasses.replace(empty, name=FALSE_ALARMS, share=alarms)


def _areas(found: _Counted, empty: Figure, edits: Sequence[Edit]) -> Iterable[Figure]:
    """Scores of several kinds lie on one scale: pooled areas are of all queries together."""
    null = found.score[found.unrelated]
    rows: list[tuple[str, Edit | None, np.ndarray]] = [
        (edit.name, edit, found.names == edit.name) for edit in edits
    ]
    rows.append((ALL_EDITS, None, np.ones(len(found.names), bool)))
    for name, edit, chosen in rows:
        copies = found.score[chosen & found.copy]
        truth = np.repeat([1, 0], [len(copies), len(null)])
        area = float(roc_auc_score(truth, np.concatenate([copies, null])))
        interval = area_interval(area, len(copies), len(null))
        yield dataclasses.replace(empty, name=name, edit=edit, area=Estimate(area, *interval))


def _cell(figure: Figure) -> str:
    if figure.area is not None:
        area = figure.area
        return f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
    share = figure.share
    if share is None:
        return ""
    text = f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"
    if figure.name != FALSE_ALARMS:
        text = f"{share.count}/{share.total} = {text}"
    if figure.accuracy is not None:
        text += f", accuracy {100 * figure.accuracy.value:.1f}"
    return text


def table(found: Sequence[Figure]) -> str:
    """Markdown: a table a method, a row an edit, a column a kind, with 95 % intervals."""
    parts = []
    for method in dict.fromkeys(figure.method for figure in found):
        own = [figure for figure in found if figure.method == method]
        kinds = list(dict.fromkeys(figure.kind for figure in own))
        lines = [f"## {method}", "", "| edit | " + " | ".join(kinds) + " |"]
        lines.append("|---" * (len(kinds) + 1) + "|")
        for name in dict.fromkeys(figure.name for figure in own):
            cells = [_cell(figure) for figure in own if figure.name == name]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def summary(found: Sequence[Figure]) -> list[tuple[str, object]]:
    """What a command prints last: every method over all kinds and edits, and its false alarms."""
    rows: list[tuple[str, object]] = []
    pooled = any(figure.kind == ALL_KINDS for figure in found)
    for figure in found:
        if figure.name in (ALL_EDITS, FALSE_ALARMS) and (figure.kind == ALL_KINDS or not pooled):
            where = f"{figure.setting.value}, {figure.kind}, {figure.method}"
            rows.append((f"{where}, {figure.name}", _cell(figure)))
    return rows


_COLUMNS = (
    "method", "kind", "edit", "group", "strength", "label", "relation", "found", "of", "share",
    "low", "high", "accuracy", "accuracy_low", "accuracy_high", "area", "area_low", "area_high",
)  # fmt: skip


def _plain(figure: Figure) -> list[object]:
    edit, share = figure.edit, figure.share
    row: list[object] = [figure.method, figure.kind, figure.name]
    row += [edit.group, edit.strength, edit.label, edit.relation] if edit else [None] * 4
    row += [share.count, share.total, share.value, share.low, share.high] if share else [None] * 5
    for interval in (figure.accuracy, figure.area):
        row += [interval.value, interval.low, interval.high] if interval else [None] * 3
    return row


def _queries(trials: Sequence[Trial], rate: float) -> Iterable[list[object]]:
    """Every query, so that false alarms and misses can be looked at by their ids."""
    methods = list(trials[0].best)
    columns = [f"{m}_{what}" for m in methods for what in ("score", "found_id", "called")]
    yield ["kind", "edit", "image_id", "donor_id", "copy", "part", *columns]
    for trial in trials:
        ids = trial.kind.image_ids
        counted = {method: _counted(trial, method, rate) for method in methods}
        for number, query in enumerate(trial.plan.queries):
            row: list[object] = [trial.kind.name, query.edit.name, ids[query.row]]
            row += [ids[query.donor], int(query.copy), "tuning" if query.tuning else "reported"]
            for method in methods:
                best = trial.best[method]
                place = int(best.reference[number])
                where = ids[trial.plan.references[place]] if place >= 0 else None
                called = int(counted[method].called[number])
                row += [float(best.score[number]), where]
                row.append(called if trial.setting is not EditSetting.MI_ONI else None)
            yield row


def write(
    trials: Sequence[Trial], found: Sequence[Figure], out: Workspace, *, rate: float
) -> tuple[Path, ...]:
    """Writes SETTING.md (the table), SETTING.csv (its figures), SETTING_queries.csv (every query) and
    SETTING_inputs.json (what became of every file, by kind).
    """
    inputs = {trial.kind.name: trial.kind.account.listed() for trial in trials}
    name = trials[0].setting.value
    files = {
        f"{name}.md": (table(found) + "\n").encode(),
        f"{name}.csv": tables.table([list(_COLUMNS), *map(_plain, found)]),
        f"{name}_queries.csv": tables.table(_queries(trials, rate)),
        f"{name}_inputs.json": (json.dumps(inputs, indent=2) + "\n").encode(),
    }
    return tuple(out.write(file, content) for file, content in files.items())
