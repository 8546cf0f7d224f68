"""Which rated pairs still stand after their job was run again.

Contract: a pair stands if the job still decides the same two images, each with the files that were shown.
Only where it decides no other pairs, with the same labels, is the page a sample of them that gives a rate.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepssim_jax.audit.sentences import several
from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.records import files_of
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.jobs.review_source import SAMPLE, ReviewSource
from deepssim_jax.workspace import sha256


def noted(source: ReviewSource, rows: list[dict[str, str]]) -> dict[str, Any]:
    """What a key notes, so that `of_now` can tell: a hash of all pairs, and of each shown one its content.

    Args:
      source: of the page.
      rows: of its pairs.
    """
    shown = [row for row in rows if row["kind"] == SAMPLE]
    return {
        "design": _design(source),
        "content": {row["pair"]: _content(source, row) for row in shown},
    }


def of_now(folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """The key of a page with the pairs that still stand, and the labels and the rate of the job's last run.

    `gone` counts the others; `no_rate` says why the page gives no rate, "" where it gives one.

    Raises:
      InputError: an earlier version made the page, and did not note what it showed; or as `read_source`.
    """
    if "design" not in key:
        raise InputError(
            f"AUDIT={folder.name!r} was run again after an earlier version made its page for readers, and "
            "has other pairs now; run deepssim review again and have those rated"
        )
    source = read_source(folder)
    now = {(pair.moving, pair.fixed): pair for pair in source.pairs}
    pairs = []
    for row in key["pairs"]:
        pair = now.get((row["moving"], row["fixed"]))
        if row["kind"] != SAMPLE:
            pairs.append(row)
        elif pair is not None and _content(source, row) == key["content"][row["pair"]]:
            pairs.append({**row, "stratum": pair.stratum})
    gone, reason = len(key["pairs"]) - len(pairs), ""
    if gone or _design(source) != key["design"]:
        reason = (
            "the job was run again after the page was made, and the page is no sample of the pairs that it "
            f"decides now ({several(gone, 'pair')} of the page {'is' if gone == 1 else 'are'} gone, and left "
            "out). For a rate, run deepssim review again and have its pairs rated."
        )
    current = {
        "strata": source.strata,
        "copies": sorted(source.copies),
        "rate": dict(source.rate),
    }
    return {**key, **current, "pairs": pairs, "gone": gone, "no_rate": reason}


def _design(source: ReviewSource) -> str:
    pairs = sorted((pair.moving, pair.fixed, pair.stratum) for pair in source.pairs)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _content(source: ReviewSource, row: Mapping[str, str]) -> str | None:
    """Of the files of both images; None where one is gone."""
    try:
        records = source.moving[row["moving"]], source.fixed[row["fixed"]]
        found = [sha256(path) for record in records for path in files_of(record)]
    except (KeyError, OSError):
        return None
    return hashlib.sha256("\n".join(found).encode()).hexdigest()
