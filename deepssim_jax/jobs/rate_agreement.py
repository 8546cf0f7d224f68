"""What the ratings of one or more readers come to: their agreement, how good they are, the rate of copies.

Contract: the key of a review says of each pair what it is. Agreement and the rate are of the sampled pairs;
pairs of known truth measure the readers and nothing else. Where readers disagree the adjudicator's rating
holds, without one that of most readers; where they are divided evenly the pair is undecided.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepssim_jax.audit import recheck_summary
from deepssim_jax.audit.sentences import several
from deepssim_jax.data.manifest import InputError
from deepssim_jax.jobs import review_outputs
from deepssim_jax.jobs.ratings import Rating, ReaderRatings, read_all, table
from deepssim_jax.jobs.review import Reading
from deepssim_jax.jobs.review_controls import Known
from deepssim_jax.jobs.review_reading import job_of
from deepssim_jax.jobs.review_source import SAMPLE, Job
from deepssim_jax.jobs.review_standing import of_now
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.adjudication import AdjudicatedRate, Stratum, adjudicated_rate
from deepssim_jax.scoring.decide import Proportion, clopper_pearson
from deepssim_jax.scoring.rater_agreement import Coefficient, among_all, cohen_kappa
from deepssim_jax.workspace import Workspace, sha256


@dataclasses.dataclass(frozen=True)
class ReaderFigures:
    """Of one reader: how many sampled pairs were rated, and how many of known truth were rated right.

    `sensitivity` is of known copies, `specificity` of known unrelated pairs; None where none was rated.
    """

    reader: str
    rated: int
    copies: int
    sensitivity: Proportion | None
    specificity: Proportion | None


@dataclasses.dataclass(frozen=True)
class AgreementResult:
    """What was found.

    `cohen` holds each two readers' kappa under (first, second); `fleiss` and `ac1` are of all readers; each
    over the sampled pairs that all of them rated, of the three categories and, under `*_copies`, of copy
    (near ones too) against none. `rate` is the adjudicated rate of copies, None with a `reason`.
    `automatic` is the program's own, as in `summary.json`. `disagreements` are pairs without a common rating.

    Examples:
      >>> import json
      >>> import tempfile
      >>> from pathlib import Path
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(4)
      >>> with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as out:
      ...     _ = testing.write_images(images, [*phantoms, phantoms[2, :, ::-1]])
      ...     found = ds.duplicates(images, out=out, settings=ds.DuplicateSettings(size=64))
      ...     made = ds.review(out)
      ...     key = json.loads(made.key.read_text())
      ...     names = [row["pair"] for row in key["pairs"]]
      ...     files = [f"{out}/ratings_{reader}.csv" for reader in "ab"]
      ...     for reader, file in zip("ab", files):
      ...         rows = [f"{key['page']},{reader},{name},copy" for name in names]
      ...         lines = ["page,reader,pair,rating", *rows]
      ...         _ = Path(file).write_text("".join(f"{line}{chr(10)}" for line in lines))
      ...     result = ds.rate_agreement(out, files)
      >>> [reader.reader for reader in result.readers], result.disagreements
      (['a', 'b'], ())
    """

    readers: tuple[ReaderFigures, ...]
    cohen: Mapping[tuple[str, str], Coefficient]
    cohen_copies: Mapping[tuple[str, str], Coefficient]
    fleiss: Coefficient | None
    ac1: Coefficient | None
    fleiss_copies: Coefficient | None
    ac1_copies: Coefficient | None
    strata: tuple[Stratum, ...]
    rate: AdjudicatedRate | None
    reason: str
    automatic: Mapping[str, Any]
    disagreements: tuple[str, ...]
    job: Job
    written: tuple[Path, ...] = ()


def rate_agreement(
    folder: str | Path,
    ratings: Sequence[str | Path],
    *,
    adjudicator: str | Path | None = None,
    level: float = 0.95,
) -> AgreementResult:
    """Sums up what readers exported from a review page.

    Args:
      folder: the finished audit (or search for duplicates) for which `review` wrote the page.
      ratings: files of the readers, one each.
      adjudicator: file of who settles what the readers disagree on; takes no part in their agreement.
      level: coverage of intervals, between 0.5 and 1.

    Returns:
      The result; `review_summary.json`, `review_report.html` and `review_disagreements.csv` lie in the
      folder then, too.

    Raises:
      InputError: there is no review of which these ratings are.
      ValueError: a file is damaged, two are of one reader, or the adjudicator is one of the readers.

    Examples:
      >>> import json
      >>> import tempfile
      >>> from pathlib import Path
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(4)
      >>> with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as out:
      ...     _ = testing.write_images(images, [*phantoms, phantoms[2, :, ::-1]])
      ...     found = ds.duplicates(images, out=out, settings=ds.DuplicateSettings(size=64))
      ...     made = ds.review(out)
      ...     key = json.loads(made.key.read_text())
      ...     names = [row["pair"] for row in key["pairs"]]
      ...     files = [f"{out}/ratings_{reader}.csv" for reader in "ab"]
      ...     for reader, file in zip("ab", files):
      ...         rows = [f"{key['page']},{reader},{name},copy" for name in names]
      ...         lines = ["page,reader,pair,rating", *rows]
      ...         _ = Path(file).write_text("".join(f"{line}{chr(10)}" for line in lines))
      ...     result = ds.rate_agreement(out, files)
      >>> result.rate.value
      1.0
    """
    level = arguments.number(level, "level", low=0.5, high=1, open_high=True, example=0.95)
    root = arguments.path(folder, "folder", "the output of a finished job").expanduser()
    if not isinstance(ratings, (tuple, list)):
        raise ValueError("ratings must be a list of files, for example ratings=['ratings_a.csv']")
    files = [arguments.path(path, "ratings", "a file that a reader exported") for path in ratings]
    job = job_of(root)
    readers = read_all([path.expanduser() for path in files], flag="--ratings")
    if not readers:
        raise ValueError("ratings: none are given; give at least one file that a reader exported")
    last = None
    if adjudicator is not None:
        last = ReaderRatings.read(Path(adjudicator).expanduser(), flag="--adjudicator")
        if last.reader in [x.reader for x in readers]:
            raise ValueError(
                "--adjudicator: its file is of one of the readers, whose own rating would settle where "
                "they disagree; give that of another person, or none"
            )
    key = _key(root, [*readers, *([last] if last else [])])
    result = summed_up(key, readers, adjudicator=last, level=level, job=job)
    with Workspace.open(root, command=job.value, flag="AUDIT") as out:
        return dataclasses.replace(
            result, written=review_outputs.write_all(result, key, readers, out)
        )


def _key(root: Path, readers: Sequence[ReaderRatings]) -> dict[str, Any]:
    """The key of the page that was rated, with the pairs that still stand."""
    keys = [
        recheck_summary.read(root / kind.key) for kind in Reading if (root / kind.key).is_file()
    ]
    if not keys:
        raise InputError(f"AUDIT={root.name!r} has no review yet; run deepssim review first")
    for key in keys:
        if all(x.page == key["page"] for x in readers):
            names = {row["pair"] for row in key["pairs"]}
            for number, x in enumerate(readers, start=1):
                if other := set(x.ratings) - names:
                    raise InputError(
                        f"--ratings: file {number} has pairs that are not on the page, {len(other):,} of them"
                    )
            of = Job(key["job"])
            # Of duplicates, earlier versions noted the table of groups.
            same = key.get("table") in [sha256(root / name) for name in (of.pairs, of.table)]
            return key if same else of_now(root, key)
    raise InputError(
        f"--ratings: they are of another page than the reviews in {root.name!r}; give those of this folder, "
        "or run deepssim review with the --pairs, --controls and --seed that they were rated with"
    )


def summed_up(
    key: Mapping[str, Any],
    readers: Sequence[ReaderRatings],
    *,
    adjudicator: ReaderRatings | None,
    level: float,
    job: Job,
) -> AgreementResult:
    """The figures, of ratings and the key of their page."""
    sampled = [row for row in key["pairs"] if row["kind"] == SAMPLE]
    names = [row["pair"] for row in sampled]
    votes = table(readers, names)
    complete = votes[(votes >= 0).all(1)]
    copies = (complete != Rating.NO.number).astype(int)
    of_all: list[Coefficient | None] = [None] * 4
    cohen, cohen_copies = {}, {}
    if len(readers) > 1 and len(complete):
        of_all = [
            *among_all(complete, categories=len(Rating), level=level),
            *among_all(copies, categories=2, level=level),
        ]
        for a, b in itertools.combinations(range(len(readers)), 2):
            both = (readers[a].reader, readers[b].reader)
            cohen[both] = cohen_kappa(complete[:, a], complete[:, b], level=level)
            cohen_copies[both] = cohen_kappa(copies[:, a], copies[:, b], level=level)
    settled = [_settled(row, name, adjudicator) for row, name in zip(votes, names, strict=True)]
    strata = _strata(key["strata"], [row["stratum"] for row in sampled], settled)
    rate, reason = None, key.get("no_rate", "")
    if not reason:
        rate, reason = _rate(strata, settled, blind=key["reading"] == Reading.BLIND, level=level)
    disagree = [
        name for row, name in zip(votes, names, strict=True) if len(set(row[row >= 0].tolist())) > 1
    ]
    return AgreementResult(
        readers=tuple(_figures(x, key["pairs"], level) for x in readers),
        cohen=cohen,
        cohen_copies=cohen_copies,
        fleiss=of_all[0],
        ac1=of_all[1],
        fleiss_copies=of_all[2],
        ac1_copies=of_all[3],
        strata=strata,
        rate=rate,
        reason=reason,
        automatic=key["rate"],
        disagreements=tuple(disagree),
        job=job,
    )


def _settled(row: np.ndarray, name: str, adjudicator: ReaderRatings | None) -> float | None:
    """1 for a copy, 0 for none, 1/2 undecided, None where nobody rated."""
    known = row[row >= 0]
    if adjudicator is not None and name in adjudicator.ratings and len(set(known.tolist())) != 1:
        return float(adjudicator.ratings[name].is_copy)
    if not len(known):
        return None
    share = float((known != Rating.NO.number).mean())
    return 0.5 if share == 0.5 else float(share > 0.5)


def _strata(
    sizes: Mapping[str, int], labels: Sequence[str], settled: Sequence[float | None]
) -> tuple[Stratum, ...]:
    out = []
    for name, total in sizes.items():
        found = [x for x, label in zip(settled, labels, strict=True) if label == name]
        known = [x for x in found if x is not None]
        out.append(Stratum(name, total, len(known), known.count(1.0), known.count(0.5)))
    return tuple(out)


def _rate(
    strata: Sequence[Stratum], settled: Sequence[float | None], *, blind: bool, level: float
) -> tuple[AdjudicatedRate | None, str]:
    missing = sum(x is None for x in settled)
    if missing and not blind:
        have = "has" if missing == 1 else "have"
        return None, (
            f"{missing:,} of {several(len(settled), 'pair')} {have} no rating, and an open page shows the "
            "least certain first: those that were rated do not stand for the others. Rate all of them."
        )
    empty = [x.name.replace("_", " ") for x in strata if not x.rated]
    if empty:
        return None, f"No pair that the program calls {empty[0]} was rated. Rate more pairs."
    return adjudicated_rate(strata, level=level), ""


def _figures(x: ReaderRatings, rows: Sequence[Mapping[str, str]], level: float) -> ReaderFigures:
    def right(known: Known, *, copy: bool) -> Proportion | None:
        found = [
            x.ratings[row["pair"]].is_copy == copy
            for row in rows
            if row["kind"] == known and row["pair"] in x.ratings
        ]
        return clopper_pearson(sum(found), len(found), level=level) if found else None

    sampled = [x.ratings[r["pair"]] for r in rows if r["kind"] == SAMPLE and r["pair"] in x.ratings]
    return ReaderFigures(
        reader=x.reader,
        rated=len(sampled),
        copies=sum(rating.is_copy for rating in sampled),
        sensitivity=right(Known.COPY, copy=True),
        specificity=right(Known.UNRELATED, copy=False),
    )
