"""Checking what `summary.json` says: against its noted hash, and against the tables that it sums up.

Officers read the verdict, the counts and the rate. They follow from the tables and the thresholds,
and are made again here from these; all else that the file says is held by its hash in the kept work.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepssim_jax.audit import outputs, sentences, tables
from deepssim_jax.audit.chances import calls_of, chances_of
from deepssim_jax.audit.result import Label, Relation
from deepssim_jax.data.manifest import InputError, Role
from deepssim_jax.detection.assessment import Performance, Searched, assess
from deepssim_jax.scoring.decide import Proportion, clopper_pearson
from deepssim_jax.workspace import Workspace

NAME = "summary.json"
FILE = "file "  # how a line of what is wrong with a whole file begins
Rows = list[dict[str, str]]


def read(path: Path) -> dict[str, Any]:
    """A JSON object of an audit.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path.name) from error
    if not isinstance(content, dict):
        raise damaged(path.name)
    return content


def images_left_out(inputs: Mapping[str, Any]) -> Any:
    """What `inputs.json` says of images left out as asked, as its job writes it; None if it says nothing.

    Earlier versions called them `left_out`, which counts files now.
    """
    return inputs.get("images_left_out", inputs.get("left_out"))


def damaged(name: str) -> InputError:
    """For a file that does not hold what this program writes."""
    return InputError(f"{name} is damaged; run the same audit again, which writes it anew")


def rows(path: Path) -> Rows:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def problems(directory: Path, summary: Mapping[str, Any]) -> list[str]:
    """What a summary says that does not follow from the files beside it, one line each.

    Args:
      directory: the `--out` of an audit, whose tables have the hashes that the summary says.
      summary: its content.

    Raises:
      WorkspaceError: the folder is not that of an audit.
    """
    found = []
    # The folder may be named in any way: what the user typed is not repeated by a flag.
    if not Workspace.finished(directory, command="audit", flag="DIR").intact(NAME):
        found.append(f"{NAME}: was changed, or the folder `work`, which holds its hash, is gone")
    inputs, nearest, pairs, doubles = (
        rows(directory / f"{name}.csv")
        for name in ("inputs", "nearest", "pairs", "real_duplicates")
    )
    said = dict(summary["counts"])
    for role in ("real", "synthetic", "holdout"):
        status = [row["status"] for row in inputs if row["role"] == role]
        found += _differs(f"{role} images", said[role], status.count("read"))
        if role != "holdout":
            unread = status.count("excluded")
            found += _differs(f"unreadable {role} images", said[f"unreadable_{role}"], unread)
    found += _differs("real images with duplicates", said["real_with_doubles"], len(doubles))
    found += _differs("synthetic images with a best match", said["synthetic"], len(nearest))
    judged = [r["label"] for r in nearest if r["relation"] != Relation.NOT_COMPARABLE]
    classes = {label.value: judged.count(label.value) for label in Label}
    found += _differs("images of each class", summary["classes"], classes)
    copied = {r["synthetic_id"] for r in nearest if r["label"] != Label.UNRELATED.value}
    if copied != {row["synthetic_id"] for row in pairs}:
        found.append("pairs.csv and nearest.csv do not name the same copies")
    if (
        not doubles
    ):  # images that are doubles count as one patient, and no table says which patients
        exposed = {row["subject_id"] or ("", row["real_id"]) for row in pairs}
        people = {
            row["subject_id"] or ("", row["image_id"])
            for row in inputs
            if (row["role"], row["status"]) == ("real", "read")
        }
        found += _differs("patients exposed", summary["subjects"]["exposed"], len(exposed))
        found += _differs("patients", summary["subjects"]["total"], len(people))
    found += _differs(
        "synthetic images that are not comparable",
        said["not_comparable_synthetic"],
        len(nearest) - len(judged),
    )
    return found + _verdict_problems(summary, said, nearest, doubles)


def _verdict_problems(
    summary: Mapping[str, Any], said: Mapping[str, int], nearest: Rows, doubles: Rows
) -> list[str]:
    """What of the rate, the verdict and the reasons does not follow from the tables."""
    judged = [r["label"] for r in nearest if r["relation"] != Relation.NOT_COMPARABLE]
    copies = len(judged) - judged.count(Label.UNRELATED.value)
    rate = clopper_pearson(copies, len(judged), level=summary["settings"]["level"])
    found = _differs("the rate of copies", summary["copy_rate"], tables.proportion(rate))
    performance = _performance(summary["thresholds"])
    assessment = assess(
        rate,
        sides={role: _searched(said, role) for role in (Role.REAL, Role.SYNTHETIC)},
        performance=performance,
        calls=calls_of(
            [(r["real_id"], r["confirmed"] == "1", r["label"]) for r in nearest],
            [(r["group"], r["image_id"]) for r in doubles],
        ),
        chance=chances_of(
            tables.false_calls_of(summary["thresholds"]["false_calls"]),
            tables.false_calls_of(summary["holdout_calls"]),
        ),
    )
    found += _differs("the verdict", summary["verdict"], assessment.verdict.value)
    # Summaries of earlier versions have sentences alone, in other words.
    if "causes" in summary:
        expected = tables.causes(assessment.reasons)
        if not all(cause in summary["causes"] for cause in expected) or not set(
            sentences.reasons(assessment.reasons)
        ) <= set(summary["reasons"]):
            found.append(f"{NAME}: the reasons do not follow from the numbers")
    return found


def unlisted(files: Mapping[str, str]) -> list[str]:
    """Files of an audit whose hashes a summary does not say."""
    return [
        f"{FILE}{name}: {NAME} says no hash of it" for name in outputs.NAMES if name not in files
    ]


def _differs(what: str, said: object, found: object) -> list[str]:
    if said == found:
        return []
    return [f"{NAME}: {what}: {_words(said)} said, {_words(found)} found"]


def _words(value: object) -> str:
    return json.dumps(value, sort_keys=True).replace('"', "") if value is not None else "nothing"


def _share(said: Mapping[str, Any] | None) -> Proportion | None:
    if said is None:
        return None
    return clopper_pearson(said["count"], said["total"], level=said["level"])


def _performance(said: Mapping[str, Any]) -> Performance:
    return Performance(
        calibrated=said["calibrated"],
        false_rate=_share(said["false_rate"]),
        recall=_share(said["planted_recall"]),
        local_recall=_share(said["planted_near_recall"]),
        unknown_doubles=(said["false_calls"] or {"both": 0})["both"],
    )


def _searched(counts: Mapping[str, int], role: Role) -> Searched:
    return Searched(
        read=counts[role.value],
        unreadable=counts[f"unreadable_{role.value}"],
        not_comparable=counts.get(f"not_comparable_{role.value}", 0),
        duplicated=counts.get(f"{role.value}_with_doubles", 0),
    )
