"""Tables and sentences of the pages and of the README, made from the records of `benchmarks/results/`.

    python docs/_ext/tables.py     writes the README's table and sentences again

Contract: each function returns Markdown of the newest records; a share in a table has its n and its 95 %
interval. Nothing is computed that a record does not hold, but sums of its counts and their intervals.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepssim_jax.scoring.decide import clopper_pearson

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
_KINDS = {
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
_REAL = {"phantoms": "phantoms", "cxr": "chest radiographs"}
_VOLUMES = {
    "heads": "whole heads",
    "crops": "small crops of heads",
    "hearts": "hearts in thick slices (phantoms)",
    "abdomens": "abdominal CT (phantoms)",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(str(x).replace('|', chr(92) + '|') for x in line)} |" for line in lines
    )


def share(count: float, total: float, low: float, high: float) -> str:
    """A count with its total and interval, given as shares."""
    return f"{count:.0f} of {total:.0f} ({100 * low:.1f} to {100 * high:.1f} %)"


def records(name: str) -> list[dict]:
    """The records of one measurement, oldest first."""
    text = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _held_out() -> list[dict[str, str]]:
    with open(RESULTS / "edits_held_out.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _counted(row: dict[str, str]) -> str:
    return share(*(float(row[name]) for name in ("found", "of", "low", "high")))


def _cell(kind: str, edit: str) -> str:
    (row,) = (r for r in _held_out() if r["kind"] == kind and r["edit"] == edit)
    return _counted(row)


def held_out() -> str:
    """Copies found, and other patients' images called copies, by kind of image."""
    return table(
        ("kind of image", "copies found, 81 edits", "images of other ids called copies"),
        [
            (words, _cell(kind, "all edits"), _cell(kind, "false alarms"))
            for kind, words in _KINDS.items()
            if any(row["kind"] == kind for row in _held_out())
        ],
    )


def held_out_edits() -> str:
    """Copies of all kinds of image found, by edit."""
    rows = [r for r in _held_out() if r["kind"] == "all kinds" and r["group"]]
    return table(("edit", "copies found"), [(r["edit"], _counted(r)) for r in rows])


def generated_copies() -> str:
    """Images of two generators that memorised, found by each method."""
    names = ("autoencoder", "diffusion", "false_alarms")
    found = _by_method()
    return table(
        ("method", "copies by the autoencoder", "copies by the diffusion model", "false alarms"),
        [
            (words, *(share(*found[method][name]) for name in names))
            for method, words in _METHODS.items()
            if method in found
        ],
    )


def _by_method() -> dict[str, dict]:
    """The newest figures of each method on copies by generators; a later record may hold a few."""
    return {
        name: value for r in records("generated_copies") for name, value in r["methods"].items()
    }


def blurred_found() -> str:
    """What an audit and pHash find of the blurred copies of both generators."""
    audit, phash = _both_generators("audit"), _both_generators("phash")
    false, unrelated, *_ = _by_method()["phash"]["false_alarms"]
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
    found = _by_method()[method]
    sides = (found["autoencoder"], found["diffusion"])
    return sum(side[0] for side in sides), sum(side[1] for side in sides)


def _of(found: tuple[int, int]) -> str:
    return f"{found[0]} of {found[1]}"


def readme_called() -> str:
    """The README's words on images of other ids that are called copies."""
    called = {
        kind: int(row["found"])
        for kind in (*_KINDS,)
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
            _KINDS[r["images"]],
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


def throughput() -> str:
    """The newest rate of every kernel on a CPU, and beside other libraries."""
    latest = {r["case"]: r for r in records("throughput")}
    rows = []
    for name, r in sorted(latest.items()):
        rate = f"{r['items_per_s']:,.4g} {r['unit']}/s"
        rows.append((f"`{name}`", rate, _ratios(r["peers"]), r["day"]))
    return table(("work", "rate", "rate relative to", "date"), rows)


def tpu() -> str:
    """The newest compilation of every program for TPUs; none was run."""
    latest = {(r["program"], r["topology"]): r for r in records("tpu_compile")}
    rows = []
    for (program, topology), r in sorted(latest.items()):
        collectives = ", ".join(r["collectives"]) or "none"
        memory = f"{r['bytes_a_chip'] / 2**20:,.0f}"
        rows.append((f"`{program}`", topology, memory, collectives))
    return table(("program", "chips", "MiB a chip", "collectives"), rows)


def devices() -> str:
    """A table for every accelerator of which there is a record, the rehearsal on a CPU left out."""
    found = []
    for path in sorted(RESULTS.glob("device_*.jsonl")):
        if path.stem != "device_rehearsal":
            found.append(_device(records(path.stem)))
    return "\n\n".join(found) or "There is no record of an accelerator yet."


def _device(measured: Sequence[dict]) -> str:
    about = next(r for r in measured if "device" in r)
    rows, unfinished, checks = [], [], []
    keys = ("section", "work", "xla_flags")
    newest = {tuple(r.get(key) for key in keys): r for r in measured}
    for r in newest.values():
        if "failed" in r:
            why = r["failed"].replace("it hung", "compiling had not ended after")
            unfinished.append((f"`{r['section']}`", why.replace("after for", "after")))
        elif "agrees" in r:
            checks.append(r["agrees"])
        elif "items_per_s" in r:
            rows.append(_work(r))
    head = ("work", "rate", "share of the hardware's ceiling", "rate relative to")
    out = [f"## {about['device']}", "", f"Measured on {about['day']}, {_versions(about)}.", ""]
    out += [table(head, rows), ""]
    if checks:
        agreed = f"{sum(checks)} of {len(checks)}"
        out += [f"Results that agree with the CPU's within their tolerance: {agreed}.", ""]
    if unfinished:
        out += ["Not measured, or not completely:", "", table(("section", "reason"), unfinished)]
    return "\n".join(out).rstrip()


def _versions(record: dict) -> str:
    names = ("jax", "flax", "torch")
    known = (f"{name} {record['versions'][name]}" for name in names if name in record["versions"])
    return ", ".join((f"Python {record['python']}", *known))


def _work(record: dict) -> tuple[str, ...]:
    ceiling = ""
    if "bound" in record:
        ceiling = f"{100 * record['share_of_ceiling']:.2g} % of {record['bound']}"
    rate = f"{record['items_per_s']:.3g} {record['unit']}/s"
    flags = " with other XLA flags" if "xla_flags" in record else ""
    return f"`{record['work']}`{flags}", rate, ceiling, _ratios(record["peers"])


def _ratios(peers: dict[str, dict]) -> str:
    """How many times as fast as each other library, where that was measured."""
    measured = {name: peer for name, peer in peers.items() if "ours_is_times" in peer}
    return ", ".join(
        f"{peer['ours_is_times']:.3g} x {name.replace('_', ' ')}" for name, peer in measured.items()
    )


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
    generated = _by_method()["audit"]
    volumes = _by_kind_of_volume()
    heads = volumes["heads"]
    found = retrieval_row("films", "two of them")
    return table(
        ("question", "result (95 % interval)"),
        [
            ("Copies found, 81 edits, four kinds of image", _cell("all kinds", "all edits")),
            ("Images of other ids called copies, same images", _cell("all kinds", "false alarms")),
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


def retrieval_row(images: str, edit: str) -> str:
    """How often the original is among the candidates that are verified."""
    record = [r for r in records("retrieval") if r["set"] == images][-1]
    value, low, high = record["recall"][edit]["both"]["proposed"]
    total = record["copies"]
    return share(value * total, total, low, high)


TABLES = {
    "blurred-found": blurred_found,
    "blurred-limit": blurred_limit,
    "parts-limit": parts_limit,
    "rescans": rescans,
    "finetuning-time": finetuning_time,
    "held-out": held_out,
    "held-out-edits": held_out_edits,
    "generated-copies": generated_copies,
    "duplicates": duplicates,
    "memorisation": memorisation,
    "release": release,
    "volume-edits": volume_edits,
    "volume-resolutions": volume_resolutions,
    "retrieval": retrieval,
    "throughput": throughput,
    "tpu": tpu,
    "devices": devices,
    "score-parts": score_parts,
    "finetuning": finetuning,
}


IN_README = {"results": headline, "called": readme_called, "parts": readme_parts}


def with_results(text: str) -> str:
    """The README with what is generated in it made again."""
    return README.sub(lambda found: f"{found[1]}{IN_README[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_results(page.read_text(encoding="utf-8")), encoding="utf-8")
