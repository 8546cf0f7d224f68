"""Copies made by every edit, looked for among the real images by every method.

Some patients give nothing but donors and are not among the real images: half of another image is a
copy of that one, too. The others are split: the tuning split chooses each method's threshold, by real
images that are looked for without their own patient; copies are made of images of the reporting split,
which also give the false alarms. Everything drawn follows from the seed.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence

import numpy as np

from deepssim_jax.audit.searchers import Best, Searcher
from deepssim_jax.data.edits import EDITS, Edit
from deepssim_jax.data.edits.published import LCMEM, MI_ONI
from deepssim_jax.data.kinds import Kind
from deepssim_jax.data.planted_pairs import tuning
from deepssim_jax.scoring.match import Progress

_BLOCK = 64  # queries made and looked for at a time
_MOST_UNRELATED = 500  # of each split
_DONORS = 20  # one patient in so many, one at least
_IDENTITY = next(edit for edit in EDITS if edit.name == "identity")


class EditSetting(enum.StrEnum):
    """Which edits, and what is reported of them.

    `EDITS` reports recall at a false-alarm rate. `MI_ONI` (arXiv 2602.13066) has the real images of
    the tuning split and reports the area under the ROC curve of copies of them against the
    reporting split's images. `LCMEM` (arXiv 2512.14421) edits unrelated images, too, and reports accuracy.
    """

    EDITS = "edits"
    MI_ONI = "mi_oni"
    LCMEM = "lcmem"

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The list."""
        return {"edits": EDITS, "mi_oni": MI_ONI, "lcmem": LCMEM}[self.value]


@dataclasses.dataclass(frozen=True)
class Query:
    """One image to look for: `edit` of a row, with a donor's row.

    `copy` says whether its own patient's images are among those that are searched; `tuning` whether
    the threshold is chosen by it.
    """

    edit: Edit
    row: int
    donor: int
    copy: bool
    tuning: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of the real side, and what is looked for there."""

    references: np.ndarray
    queries: tuple[Query, ...]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting on one kind, and `best`: what every method found, in the order of the plan's queries."""

    setting: EditSetting
    kind: Kind
    plan: Plan
    best: Mapping[str, Best]

    def found(self, method: str) -> np.ndarray:
        """bool [q]: the best real image is one of the query's own patient."""
        rows = self.best[method].reference
        real = self.plan.references[np.maximum(rows, 0)]
        own = self.kind.patients[[query.row for query in self.plan.queries]]
        return (rows >= 0) & (self.kind.patients[real] == own)


def plan(
    patients: np.ndarray, setting: EditSetting, *, edits: Sequence[Edit], copies: int, seed: int
) -> Plan:
    """What to look for among which rows.

    Args:
      patients: int [n], whose image each row is.
      setting: how.
      edits: of the setting, those wanted.
      copies: of each edit.
      seed: of everything drawn.

    Raises:
      ValueError: fewer than five patients: one gives donors, and each split of the others needs two.
    """
    rng = np.random.default_rng([seed, 0])
    people = rng.permutation(np.unique(patients))
    if len(people) < 5:
        raise ValueError(
            f"{len(people)} patients are too few for edits: one gives donors and each split of the "
            "others needs two; give --subject_regex if every file seems to be of the same one"
        )
    given = np.isin(patients, people[: max(1, len(people) // _DONORS)])
    donors, real = np.flatnonzero(given), np.flatnonzero(~given)
    first = tuning(patients[real], np.random.default_rng(seed))
    splits = {True: real[first], False: real[~first]}

    def drawn(rows: np.ndarray, count: int) -> np.ndarray:
        """One of each row before a second of any."""
        return np.resize(rng.permutation(rows), count)

    def query(edit: Edit, row: int, *, copy: bool, tuning: bool) -> Query:
        return Query(edit, int(row), int(rng.choice(donors)), copy, tuning)

    copied = setting is EditSetting.MI_ONI  # the split whose images are copied
    queries = [
        query(_IDENTITY, row, copy=False, tuning=split)
        for split, rows in splits.items()
        for row in rng.permutation(rows)[:_MOST_UNRELATED]
        if setting is not EditSetting.MI_ONI or not split
    ]
    for edit in edits:
        queries += [query(edit, r, copy=True, tuning=copied) for r in drawn(splits[copied], copies)]
        if setting is EditSetting.LCMEM:
            queries += [
                query(edit, r, copy=False, tuning=False) for r in drawn(splits[False], copies)
            ]
    references = splits[True] if setting is EditSetting.MI_ONI else real
    return Plan(references, tuple(queries))


def run(
    kind: Kind,
    setting: EditSetting,
    *,
    methods: Mapping[str, Searcher],
    edits: Sequence[Edit],
    copies: int,
    seed: int,
    on_progress: Progress = lambda done, total, what: None,
) -> Trial:
    """Makes the queries of a plan and lets every method look for them.

    Args:
      kind: the images.
      setting: how.
      methods: by name.
      edits: of the setting, those wanted.
      copies: of each edit.
      seed: of everything drawn.
      on_progress: called with (queries done, queries in all, what).

    Raises:
      ValueError: too few patients.
    """
    todo = plan(kind.patients, setting, edits=edits, copies=copies, seed=seed)
    references = [kind.images[row] for row in todo.references]
    patients = kind.patients[todo.references]
    searches = {name: build(references, patients) for name, build in methods.items()}
    total = len(todo.queries)
    best = {name: Best(np.full(total, -1), np.zeros(total)) for name in methods}
    done = 0
    for copy in (False, True):
        numbers = [i for i, query in enumerate(todo.queries) if query.copy == copy]
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            images = [made(kind, todo.queries[i], seed=[seed, 1, i]) for i in block]
            own = None if copy else kind.patients[[todo.queries[i].row for i in block]]
            for name, search in searches.items():
                answer, whole = search(images, own), best[name]
                whole.reference[block], whole.score[block] = answer.reference, answer.score
                best[name] = dataclasses.replace(whole, calibrated=answer.calibrated)
            done += len(block)
            on_progress(done, total, f"looking for {setting.value} of {kind.name}")
    return Trial(setting, kind, todo, best)


def made(kind: Kind, query: Query, *, seed: list[int]) -> np.ndarray:
    """The image of a query, float64 [h, w] on [0, 1]."""
    image, donor = kind.images[query.row], kind.images[query.donor]
    return query.edit.make(image, donor=donor, rng=np.random.default_rng(seed)).image


def threshold(null: np.ndarray, *, rate: float) -> float:
    """The score that a share `rate` of queries without an original exceed.

    A Gumbel law through the 10 and 50 % quantiles of the best scores of real images. True doubles under
    other names fill the upper tail of such a null, which takes no part.

    Args:
      null: best scores of queries whose own patient was left out.
      rate: wanted, above 0 and below 0.5.
    """
    low, middle = np.quantile(null, (0.1, 0.5))
    reduced = [-np.log(-np.log(p)) for p in (0.1, 0.5, 1 - rate)]
    scale = (middle - low) / (reduced[1] - reduced[0])
    return float(middle + scale * (reduced[2] - reduced[1]))
