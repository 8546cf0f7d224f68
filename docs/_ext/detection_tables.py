"""Tables and sentences of which copies are found.

Contract: nothing is computed that a record does not hold, but sums of its counts and their intervals.
"""

import csv
from collections.abc import Sequence

from cells import RESULTS, records, share, table

from deepssim_jax.scoring.decide import clopper_pearson

KINDS = {
    "blood_smear": "blood smears",
    "ct_head": "head CT",
    "xray_knee": "knee radiographs",
    "xray_chest_children": "chest radiographs of children",
    "brain_mri": "brain MR",
    "ct_lung": "lung CT",
    "fundus": "fundi",
    "histology": "histology",
    "all kinds": "all",
}
_METHODS = {
    "audit": "an audit",
    "detector": "this package, before local features",
    "encoder": "shipped encoder, cosine",
    "ncc": "normalised cross-correlation",
    "phash": "pHash",
    "sift": "SIFT with RANSAC",
}
_SETS = {
    "films": "chest radiographs",
    "brain_slices": "axial brain slices",
    "t1_slices": "T1 slices of antspyx among brain slices",
}
_PROPOSERS = {
    "in_place": "local features and the two most similar in place (the default)",
    "with_encoder": "these and the encoder's two nearest",
    "encoder": "local features and the encoder's two nearest",
    "points_alone": "local features alone",
    "oracle": "the default and an encoder without fault, which always proposes the original",
}


def _held_out() -> list[dict[str, str]]:
    with open(RESULTS / "edits_held_out.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def counted(row: dict[str, str]) -> str:
    """What a row of `stress` found."""
    return share(*(float(row[name]) for name in ("found", "of", "low", "high")))


def cell(kind: str, edit: str) -> str:
    """What was found of one kind under one edit."""
    (row,) = (r for r in _held_out() if r["kind"] == kind and r["edit"] == edit)
    return counted(row)


def held_out() -> str:
    """Copies found, and other patients' images called copies, by kind of image."""
    return table(
        ("kind of image", "copies found, 81 edits", "images of other ids called copies"),
        [
            (words, cell(kind, "all edits"), cell(kind, "false alarms"))
            for kind, words in KINDS.items()
            if any(row["kind"] == kind for row in _held_out())
        ],
    )


def held_out_edits() -> str:
    """Copies of all kinds of image found, by edit."""
    rows = [r for r in _held_out() if r["kind"] == "all kinds" and r["group"]]
    return table(("edit", "copies found"), [(r["edit"], counted(r)) for r in rows])


def mi_oni() -> str:
    """Areas under the ROC curve of the newest run, by edit, with duplicates and without."""
    found = _of_setting("mi_oni")
    return table(
        (
            "edit",
            "copies",
            "area, all kinds",
            "without doubles",
            "lowest of a kind, without doubles",
        ),
        [
            (
                r["edit"],
                r["copies"],
                _estimate(r["all"]),
                _estimate(r["all_without_same"]),
                f"{r['least_without_same']:.3f}",
            )
            for r in found
        ],
    )


def lcmem() -> str:
    """Copies found and accuracy of the newest run, by edit."""
    return table(
        ("edit", "copies found", "accuracy, copies and as many others"),
        [(r["edit"], share(*r["found"]), _estimate(r["accuracy"])) for r in _of_setting("lcmem")],
    )


def _of_setting(setting: str) -> list[dict]:
    """The newest record of every edit of a published setting."""
    latest = {r["edit"]: r for r in records("published_settings") if r["setting"] == setting}
    return list(latest.values())


def _estimate(interval: Sequence[float]) -> str:
    value, low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def proposers() -> str:
    """Copies found and unrelated images called with each list of candidates, all kinds together."""
    latest = list({r["kind"]: r for r in records("proposers")}.values())
    rows = []
    for way, words in _PROPOSERS.items():
        cells = []
        for what in ("found", "unrelated_called"):
            count, total = (sum(int(r[way][what][i]) for r in latest) for i in (0, 1))
            whole = clopper_pearson(count, total)
            cells.append(share(count, total, whole.low, whole.high))
        rows.append((words, *cells))
    return table(("candidates", "copies found", "unrelated images called"), rows)


def generated_copies() -> str:
    """Images of two generators that memorised, found by each method."""
    names = ("autoencoder", "diffusion", "false_alarms")
    found = by_method()
    return table(
        ("method", "copies by the autoencoder", "copies by the diffusion model", "false alarms"),
        [
            (words, *(share(*found[method][name]) for name in names))
            for method, words in _METHODS.items()
            if method in found
        ],
    )


def by_method() -> dict[str, dict]:
    """The newest figures of each method on copies by generators; a later record may hold a few."""
    return {
        name: value for r in records("generated_copies") for name, value in r["methods"].items()
    }


def blurred_found() -> str:
    """What an audit and pHash find of the blurred copies of both generators."""
    audit, phash = _both_generators("audit"), _both_generators("phash")
    false, unrelated, *_ = by_method()["phash"]["false_alarms"]
    return (
        f"An audit found {_of(audit)}, pHash {_of(phash)} with {false} false alarms among {unrelated}. "
        "Look at such images yourself when a generator blurs."
    )


def blurred_limit() -> str:
    """The same as an item of a list of limits."""
    found = _of(_both_generators("audit"))
    return (
        f"- Copies that a generator blurs strongly: in one experiment {found} were found\n"
        "  ([generators](../results/generators.md))."
    )


def parts_limit() -> str:
    """Parts of an image as an item of a list of limits."""
    return f"- {_parts()}."


def _parts() -> str:
    quarter = _of(_parts_found(25, "in place", "moved"))
    return (
        f"Small parts: {_of(_parts_found(12, 'in place', 'moved'))} that show 12 % of an image were found, "
        f"{_of(_parts_found(12, 'moved'))} where the part was moved. Of parts of 25 % it was {quarter}"
    )


def _parts_found(percent: int, *places: str) -> tuple[int, int]:
    edits = {f"part {percent} %, {place}" for place in places}
    rows = [r for r in _held_out() if r["kind"] == "all kinds" and r["edit"] in edits]
    return sum(int(r["found"]) for r in rows), sum(int(r["of"]) for r in rows)


def _both_generators(method: str) -> tuple[int, int]:
    found = by_method()[method]
    sides = (found["autoencoder"], found["diffusion"])
    return sum(side[0] for side in sides), sum(side[1] for side in sides)


def _of(found: tuple[int, int]) -> str:
    return f"{found[0]} of {found[1]}"


def readme_called() -> str:
    """The README's words on images of other ids that are called copies."""
    called = {
        kind: int(row["found"])
        for kind in (*KINDS,)
        for row in _held_out()
        if row["kind"] == kind and row["edit"] == "false alarms"
    }
    look_alike = called["blood_smear"] + called["ct_head"]
    return (
        f"Of the {called['all kinds']} images called copies {look_alike} are blood smears and head CT. Most "
        "of those pairs show\noverlapping fields or neighbouring slices."
    )


def readme_parts() -> str:
    """The README's words on parts."""
    return f"- {_parts()}.".replace("found, ", "found,\n  ")


def retrieval() -> str:
    """How often the original is the first, among the first ten, and among those verified."""
    latest = {r["set"]: r for r in records("retrieval")}
    rows = []
    for name, r in latest.items():
        for edit, by in r["recall"].items():
            found = (by["encoder"]["at_1"], by["encoder"]["at_10"], by["both"]["proposed"])
            cells = [f"{100 * v:.1f} ({100 * a:.0f} to {100 * b:.0f})" for v, a, b in found]
            rows.append((_SETS[name], edit, *cells))
    head = ("images", "edit", "encoder, first, %", "encoder, first ten, %")
    return table((*head, "among the candidates verified, %"), rows)


def retrieval_row(images: str, edit: str) -> str:
    """How often the original is among the candidates that are verified."""
    record = [r for r in records("retrieval") if r["set"] == images][-1]
    value, low, high = record["recall"][edit]["both"]["proposed"]
    total = record["copies"]
    return share(value * total, total, low, high)
