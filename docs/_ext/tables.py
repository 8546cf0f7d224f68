"""Tables and sentences of the pages and of the README, made from the records of `benchmarks/results/`.

    python docs/_ext/tables.py     writes the README's table and sentences again

Contract: each function returns Markdown of the newest records; a share in a table has its n and its 95 %
interval. Nothing is computed that a record does not hold, but sums of its counts and their intervals.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import detection_tables as detection
import speed_tables as speed
from cells import ROOT, records, share, table

from deepssim_jax.scoring.decide import clopper_pearson

README = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
_REAL = {"phantoms": "phantoms", "cxr": "chest radiographs"}
_VOLUMES = {
    "heads": "whole heads",
    "crops": "small crops of heads",
    "hearts": "hearts in thick slices (phantoms)",
    "abdomens": "abdominal CT (phantoms)",
}


def memorisation() -> str:
    """What an audit finds of small generators, one training a row."""
    rows = []
    for r in records("memorization"):
        if "real" not in r:  # an earlier form of the record, with half of the images
            continue
        copies = r["classes"]["exact_duplicate"] + r["classes"]["near_duplicate"]
        rate = r["copy_rate"]
        rows.append(
            (
                _REAL[r["real"]],
                r["patients"],
                f"{r['steps']:,}",
                r["duplication"],
                share(copies, r["images"], *rate[1:]),
                r["classes"]["exact_duplicate"],
                f"{r['patients_exposed']} of {r['patients']}",
            )
        )
    head = ("training images", "patients", "steps", "repeated images", "copies among images drawn")
    return table((*head, "exact copies", "patients exposed"), rows)


def duplicates() -> str:
    """Planted copies found within a folder, by kind of image; pairs without a planted copy."""
    rows = [
        (
            detection.KINDS[r["images"]],
            r["count"],
            share(r["found"], r["planted"], r["low"], r["high"]),
            ", ".join(r["missed"]) or "none",
            r["equal_pairs"],
            r["other_pairs"],
        )
        for r in {r["images"]: r for r in records("duplicates")}.values()
    ]
    head = ("kind of image", "images", "planted copies found", "edits missed", "equal pairs")
    return table((*head, "other pairs called copies"), rows)


def _by_kind_of_volume() -> dict[str, dict]:
    """The newest records of volumes as they are, not made coarser."""
    return {r["kind"]: r for r in records("volume_edits") if r.get("spacing_mm") is None}


def volume_resolutions() -> str:
    """Copies of heads found at several spacings."""
    heads = [r for r in records("volume_edits") if r["kind"] == "heads"]
    latest = {r.get("spacing_mm"): r for r in heads}
    rows = []
    for spacing in sorted(latest, key=lambda mm: mm or 0.0):
        r = latest[spacing]
        shares = share(r["total"]["called"], r["total"]["n"], *r["intervals"]["called"][1:])
        wrong = share(r["false"], r["unrelated"], *r["intervals"]["false"][1:])
        again = f"{r['rescans_called']} of {r['rescans']}"
        rows.append((f"{spacing:g} mm" if spacing else "1 to 3 mm", shares, wrong, again))
    head = ("spacing", "copies found", "unrelated called copies", "second scans called copies")
    return table(head, rows)


def volume_edits() -> str:
    """Copies of volumes found, by kind of volume."""
    latest = _by_kind_of_volume()
    rows = []
    for kind, r in latest.items():
        bounds, total = r["intervals"], r["total"]
        cells = [
            share(total[name], total["n"], *bounds[name][1:]) for name in ("called", "peer_called")
        ]
        cells.append(share(r["false"], r["unrelated"], *bounds["false"][1:]))
        rows.append((_VOLUMES[kind], *cells))
    head = ("volumes", "copies found", "found by the comparison method", "unrelated called copies")
    return table(head, rows)


def release() -> str:
    """What screening keeps back of copies under each change, and releases of other patients' films."""
    r = records("safeguard")[-1]
    rows = []
    for name, left in r["copies_that_left"].items():
        kept = clopper_pearson(r["copies_of_each"] - left, r["copies_of_each"])
        rows.append((name, share(kept.count, kept.total, kept.low, kept.high)))
    out = clopper_pearson(*r["strangers_that_left"])
    films = share(out.count, out.total, out.low, out.high)
    return table(("copies of training images", "kept back"), rows) + (
        f"\n\nRadiographs of other patients released: {films}."
    )


def rescans() -> str:
    """Second scans of the same person that are called copies."""
    latest = _by_kind_of_volume()
    called = (
        f"{r['rescans_called']} of {r['rescans']} {kind}"
        for kind, r in latest.items()
        if r.get("rescans")
    )
    words = " and ".join(called)
    return f"Second scans of the same person are no copies. Called copies are {words} among them."


def score_parts() -> str:
    """Macro F1 with one part of the copy score left out."""
    words = {
        "cascade": "the whole copy score",
        "without likeness": "without the structure score",
        "without sameness": "without the change score",
        "sameness of plain intensities alone": "change score of plain intensities alone",
        "sameness against the neighbourhood alone": "change score of local contrast alone",
        "without what a copy's range cut off": "without the correction of clipped intensities",
        "a change counts to the rim": "changes at the image's edge count",
    }
    settings = ("registered", "perturbed", "harsh")
    found: dict[str, dict[str, str]] = {}
    (record,) = records("score_parts")
    for one in record["outcomes"]:
        f1 = one["figures"]["macro_f1"]
        cell = f"{f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f})"
        found.setdefault(one["method"], {})[one["setting"]] = cell
    rows = [(words.get(name, name), *(by[s] for s in settings)) for name, by in found.items()]
    return table(("score", "same position", "moved and relit", "harsh"), rows)


def finetuning() -> str:
    """The original is the first candidate: the shipped encoder and one tuned on the same data set."""
    record = records("finetune")[-1]
    sides = [record[name]["recall"] for name in ("shipped", "tuned")]
    rows = []
    for edit in sides[0]:
        values = (side[edit]["encoder"]["at_1"] for side in sides)
        rows.append(
            (edit, *(f"{100 * v:.1f} ({100 * a:.0f} to {100 * b:.0f})" for v, a, b in values))
        )
    return table(("edit", "shipped encoder, first, %", "fine-tuned, first, %"), rows)


def finetuning_time() -> str:
    """How long the trainings of the records took."""
    found = records("finetune")
    minutes = sorted(round(r["training_s"] / 60) for r in found)
    return (
        f"Its 1,400 steps took {minutes[0]} to {minutes[-1]} minutes on two CPU cores beside other work "
        f"({len(found)} trainings, the last on {found[-1]['day']}; `benchmarks/finetune.py`)."
    )


def headline() -> str:
    """The README's five rows."""
    generated = detection.by_method()["audit"]
    volumes = _by_kind_of_volume()
    heads = volumes["heads"]
    found = detection.retrieval_row("films", "two of them")
    return table(
        ("question", "result (95 % interval)"),
        [
            (
                "Copies found, 81 edits, four kinds of image",
                detection.cell("all kinds", "all edits"),
            ),
            (
                "Images of other ids called copies, same images",
                detection.cell("all kinds", "false alarms"),
            ),
            (
                f"Copies of whole head volumes found, {len(heads['edits'])} edits",
                share(
                    heads["total"]["called"], heads["total"]["n"], *heads["intervals"]["called"][1:]
                ),
            ),
            ("Original among the candidates, two edits at once, chest radiographs", found),
            (
                "Blurred copies by a small diffusion model found, head CT",
                share(*generated["diffusion"]),
            ),
        ],
    )


TABLES = {
    "blurred-found": detection.blurred_found,
    "blurred-limit": detection.blurred_limit,
    "parts-limit": detection.parts_limit,
    "rescans": rescans,
    "finetuning-time": finetuning_time,
    "held-out": detection.held_out,
    "held-out-edits": detection.held_out_edits,
    "mi-oni": detection.mi_oni,
    "lcmem": detection.lcmem,
    "proposers": detection.proposers,
    "generated-copies": detection.generated_copies,
    "duplicates": duplicates,
    "memorisation": memorisation,
    "release": release,
    "volume-edits": volume_edits,
    "volume-resolutions": volume_resolutions,
    "retrieval": detection.retrieval,
    "throughput": speed.throughput,
    "tpu": speed.tpu,
    "devices": speed.devices,
    "score-parts": score_parts,
    "finetuning": finetuning,
}
IN_README = {
    "results": headline,
    "called": detection.readme_called,
    "parts": detection.readme_parts,
}


def with_results(text: str) -> str:
    """The README with what is generated in it made again."""
    return README.sub(lambda found: f"{found[1]}{IN_README[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_results(page.read_text(encoding="utf-8")), encoding="utf-8")
