"""The files of summed up ratings, each written whole; `review_summary.json` last, with their hashes.

They name readers and pairs by the names of the page, and no patient.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepssim_jax.audit import tables
from deepssim_jax.audit.inputs import REVIEW_RESULTS
from deepssim_jax.audit.page import environment
from deepssim_jax.audit.sentences import several
from deepssim_jax.jobs.ratings import ReaderRatings
from deepssim_jax.jobs.review_source import Job
from deepssim_jax.scoring.rater_agreement import Coefficient
from deepssim_jax.workspace import Workspace, sha256

if TYPE_CHECKING:
    from deepssim_jax.jobs.rate_agreement import AgreementResult

SUMMARY, REPORT, DISAGREEMENTS = REVIEW_RESULTS


def write_all(
    result: AgreementResult,
    key: Mapping[str, Any],
    readers: Sequence[ReaderRatings],
    out: Workspace,
) -> tuple[Path, ...]:
    """Writes every file.

    Args:
      result: what was found.
      key: of the page.
      readers: what they said, for the list of what they disagree on.
      out: where to.
    """
    rows = [
        [key["page"], name, *(x.ratings.get(name, "") for x in readers)]
        for name in result.disagreements
    ]
    head = ["page", "pair", *(x.reader for x in readers)]
    paths = [
        out.write(REPORT, _page(result, key).encode()),
        out.write(DISAGREEMENTS, tables.table([head, *rows])),
    ]
    files = {path.name: sha256(path) for path in paths}
    summary = _summary(result, key, files) | {"table": sha256(out.path(result.job.pairs))}
    text = json.dumps(summary, indent=2, sort_keys=True, allow_nan=False)
    return (*paths, out.write(SUMMARY, (text + "\n").encode()))


def headline(result: AgreementResult) -> str:
    """The answer in two sentences."""
    what = "synthetic images" if result.job is Job.AUDIT else "pairs that were listed"
    own = f"The program calls {result.automatic['value']:.2%} of the {what} copies"
    rate = result.rate
    if rate is None:
        return f"{own}. There is no rate by the readers: {result.reason}"
    return (
        f"{own}; by the readers it is {rate.value:.2%} ({rate.level:.0%} interval {rate.low:.2%} to "
        f"{rate.high:.2%}, from {several(rate.rated, 'pair')})."
    )


def agreement_rows(result: AgreementResult) -> list[tuple[str, str, str, int]]:
    """(coefficient, of three categories, of copy against none, pairs) for people."""
    rows = []
    for both, found in result.cohen.items():
        words = f"Cohen’s kappa, {both[0]} and {both[1]}"
        rows.append((words, _words(found), _words(result.cohen_copies[both]), found.pairs))
    for words, found, copies in (
        ("Fleiss’ kappa, all readers", result.fleiss, result.fleiss_copies),
        ("Gwet’s AC1, all readers", result.ac1, result.ac1_copies),
    ):
        if found is not None and copies is not None:
            rows.append((words, _words(found), _words(copies), found.pairs))
    return rows


def _words(found: Coefficient) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.2f}, no interval: {found.reason}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _page(result: AgreementResult, key: Mapping[str, Any]) -> str:
    return (
        environment()
        .get_template("review_report.html.jinja")
        .render(
            result=result,
            headline=headline(result),
            agreement=agreement_rows(result),
            several=several,
            blind=key["reading"] == "blind",
            copies=key["copies"],
        )
    )


def _summary(
    result: AgreementResult, key: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, object]:
    def rounded(found: Coefficient | None) -> dict[str, object] | None:
        if found is None:
            return None
        numbers = {name: getattr(found, name) for name in ("value", "low", "high")}
        values = {name: None if x is None else round(x, 6) for name, x in numbers.items()}
        about = {"level": found.level, "pairs": found.pairs, "no_interval": found.reason}
        return {**values, **about}

    rate = None
    if result.rate is not None:
        fields = dataclasses.asdict(result.rate)
        rate = {name: round(x, 8) if isinstance(x, float) else x for name, x in fields.items()}
    return {
        "page": key["page"],
        "reading": key["reading"],
        "automatic_rate": dict(result.automatic),
        "adjudicated_rate": rate,
        "reason": result.reason,
        "strata": [dataclasses.asdict(x) for x in result.strata],
        "agreement": {
            "cohen": [
                {
                    "readers": list(both),
                    "categories": rounded(found),
                    "copies": rounded(result.cohen_copies[both]),
                }
                for both, found in result.cohen.items()
            ],
            "fleiss": {
                "categories": rounded(result.fleiss),
                "copies": rounded(result.fleiss_copies),
            },
            "gwet_ac1": {"categories": rounded(result.ac1), "copies": rounded(result.ac1_copies)},
        },
        "readers": [
            {
                "reader": x.reader,
                "rated": x.rated,
                "copies": x.copies,
                "sensitivity": tables.proportion(x.sensitivity),
                "specificity": tables.proportion(x.specificity),
            }
            for x in result.readers
        ],
        "disagreements": len(result.disagreements),
        "pairs_gone": key.get("gone", 0),
        "files": dict(files),
    }
