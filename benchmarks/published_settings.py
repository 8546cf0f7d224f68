"""Records the two published settings from what `deepssim stress` measured.

    deepssim stress --real=KIND --real=KIND --setting=mi_oni --setting=lcmem --methods=audit --out=TMP
    python -m benchmarks.published_settings --stress=TMP --same=ID --same=ID --out=benchmarks/results

`--same` names an unrelated image that shows the same field, or a slice of the same patient, as the one that
it was found to match, as somebody saw who looked at both. Areas under the ROC curve are recorded with these
images and without. One line a setting and edit, all kinds of image together, goes into
OUT/published_settings.jsonl.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags
from sklearn.metrics import roc_auc_score

from benchmarks.cases.records import dated, keep
from deepssim_jax.scoring.decide import area_interval

_STRESS = flags.DEFINE_string("stress", None, "what stress wrote", required=True)
_SAME = flags.DEFINE_multi_string("same", [], "unrelated images that are of the same patient")
_METHOD = flags.DEFINE_string("method", "audit", "of stress")
_OUT = flags.DEFINE_string("out", None, "folder for the records; none are written without")


def main(argv: list[str]) -> None:
    """Reads both tables and keeps a line for each edit."""
    del argv
    folder = Path(_STRESS.value)
    lines = [*_areas(_rows(folder / "mi_oni_queries.csv")), *_shares(_rows(folder / "lcmem.csv"))]
    for line in lines:
        print(line)
        keep(dated(line), _OUT.value, "published_settings")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _areas(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """A line an edit: the least area of any kind, and that of all, with the images named and without."""
    if unknown := set(_SAME.value) - {row["image_id"] for row in rows if row["copy"] == "0"}:
        raise SystemExit(f"--same: no unrelated image is named {', '.join(sorted(unknown))}")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))

    def area(edit: str, chosen: list[str], left_out: list[str]) -> list[float]:
        own = [row for row in rows if row["kind"] in chosen and row["image_id"] not in left_out]
        own = [row for row in own if row["copy"] == "0" or row["edit"] == edit]
        truth = np.array([row["copy"] == "1" for row in own])
        value = float(roc_auc_score(truth, [float(row[f"{_METHOD.value}_score"]) for row in own]))
        return [value, *area_interval(value, int(truth.sum()), int((~truth).sum()))]

    return [
        {
            "setting": "mi_oni",
            "edit": edit,
            "kinds": kinds,
            "copies": sum(row["copy"] == "1" and row["edit"] == edit for row in rows),
            "unrelated": sum(row["copy"] == "0" for row in rows),
            "same": _SAME.value,
            "all": area(edit, kinds, []),
            "all_without_same": area(edit, kinds, _SAME.value),
            "least": min(area(edit, [kind], [])[0] for kind in kinds),
            "least_without_same": min(area(edit, [kind], _SAME.value)[0] for kind in kinds),
        }
        for edit in dict.fromkeys(row["edit"] for row in rows if row["copy"] == "1")
    ]


def _shares(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """A line an edit: copies found of all kinds, and the accuracy among as many unrelated images."""
    return [
        {
            "setting": "lcmem",
            "edit": row["edit"],
            "kinds": [
                kind for kind in dict.fromkeys(r["kind"] for r in rows) if kind != "all kinds"
            ],
            "found": [float(row[name]) for name in ("found", "of", "low", "high")],
            "accuracy": [float(row[f"accuracy{end}"]) for end in ("", "_low", "_high")],
        }
        for row in rows
        if row["kind"] == "all kinds" and row["method"] == _METHOD.value and row["group"]
    ]


if __name__ == "__main__":
    app.run(main)
