"""The files of a search for duplicates, each written whole; `summary.json` last, with their hashes.

All of them hold names of files and patients, and the report images: they are for the institution that
runs the job. Nothing is ever deleted from the folders looked at.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from deepssim_jax.audit import copies_that_stay, tables
from deepssim_jax.audit.answer import Answer
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.inputs import reviews
from deepssim_jax.audit.page import data_uri, environment, excluded_files, transformation
from deepssim_jax.audit.replica_pictures import FRAMES
from deepssim_jax.audit.sentences import several
from deepssim_jax.data.account import INPUTS, Account
from deepssim_jax.data.records import Manifest, Record, Rejected
from deepssim_jax.data.table_rows import guarded
from deepssim_jax.jobs.duplicate_pictures import PairPicture, Pictures, VolumePicture
from deepssim_jax.jobs.duplicates_result import (
    NOT_COMPARABLE,
    Compared,
    DuplicatePair,
    DuplicatesResult,
    VolumePair,
)
from deepssim_jax.jobs.how import How
from deepssim_jax.scoring.evidence import MIN_NULL
from deepssim_jax.workspace import Workspace, sha256

GROUPS = ("group", "file", "subject", "split", "kept", "weakest_link")
PAIRS = (
    "rank", "first_id", "second_id", "first_subject", "second_subject", "first_split", "second_split",
    "how", "verified_score", "flip", "rotation_deg", "shift_y", "shift_x", "scale", "negative",
    "matrix_yy", "matrix_yx", "matrix_xy", "matrix_xx", "local_points", "local_evidence", "p_value",
    "local_exact",
)  # fmt: skip
VOLUME_PAIRS = (
    *PAIRS[: PAIRS.index("shift_y")], "shift_mm", "covered", "local_points", "local_evidence", "p_value",
)  # fmt: skip
_MOST_LISTED = 200
_WORDS = {
    How.SAME_FILE: "the same file",
    How.SAME_PIXELS: "the same pixels",
    How.COPY: "copy",
    How.SIMILAR: "similar, no duplicate",
}


def write_all(
    result: DuplicatesResult,
    pictures: Pictures,
    out: Workspace,
    *,
    manifest_name: str | None,
    manifest: Manifest,
    folders: Sequence[Path],
) -> None:
    """Writes every file.

    Args:
      result: what was found.
      pictures: for the report.
      out: where to.
      manifest_name: of the table of what is kept, or None for none.
      manifest: all files that were listed.
      folders: what was searched, for who looks at the pairs again.
    """
    unread = tuple(
        Rejected(x.image_id, x.reason) for x in result.exclusions if x.reason != NOT_COMPARABLE
    )
    account = Account.of(manifest, images=result.counts["images"], not_read=unread)
    inputs = {
        **account.listed(),
        "not_comparable": [x.image_id for x in result.exclusions if x.reason == NOT_COMPARABLE],
        "sources": [str(path) for path in folders],
        "settings": dict(result.settings),
    }
    content = {
        INPUTS: (json.dumps(inputs, indent=2, sort_keys=True) + "\n").encode(),
        "groups.csv": groups_csv(result),
        "pairs.csv": pair_table(result).csv(),
        "report.html": _page(result, pictures).encode(),
    }
    root = ""
    if manifest_name is not None:
        root, content[manifest_name] = clean_csv(result, manifest.records)
    for name, data in content.items():
        out.write(name, data)
    files = {name: sha256(out.path(name)) for name in content}
    out.write("summary.json", _summary(result, files, root))
    # A manifest of an earlier run, under another name or of other images.
    out.remove_others([*content, "summary.json", copies_that_stay.NAME, *reviews(out)])


def groups_csv(result: DuplicatesResult) -> bytes:
    """A row for each image that has duplicates, by group; the first of each is kept."""
    rows = [
        (x.group, x.image_id, x.subject_id, x.split, "yes" if x.kept else "no", x.weakest_link)
        for x in result.groups
    ]
    return tables.table([GROUPS, *rows])


def clean_csv(result: DuplicatesResult, records: Sequence[Record]) -> tuple[str, bytes]:
    """A manifest of what is kept of each group and of all without duplicates, and the folder of its paths."""
    kept = set(result.clean)
    chosen = [record for record in records if record.image_id in kept]
    try:
        root = os.path.commonpath([record.path.resolve().parent for record in chosen])
    except ValueError:  # two drives of Windows have nothing in common: paths are whole
        root = ""
    rows = []
    for record in chosen:
        whole = record.path.resolve()
        path = (whole.relative_to(root) if root else whole).as_posix()
        number = "".join(f"#{k + 1}" for k in record.items[:1])
        number = number if record.image_id.endswith(number) else ""  # an image alone in its file
        here = "./" if guarded(path) != path else ""  # a guarded name would be that of another file
        rows.append((f"{here}{path}{number}", record.image_id, record.subject_id, record.split))
    return root, tables.table([("path", "image_id", "subject_id", "split"), *rows])


def pair_table(result: DuplicatesResult) -> tables.Table:
    """A row for each pair, in their order, similar ones last."""
    head = VOLUME_PAIRS if result.compared is Compared.VOLUMES else PAIRS
    pairs = enumerate((*result.pairs, *result.similar), start=1)
    return tables.Table(head, tuple(_pair_row(rank, x) for rank, x in pairs))


def _pair_row(rank: int, x: DuplicatePair) -> tuple[object, ...]:
    row = (
        rank, x.first_id, x.second_id, x.first_subject, x.second_subject, x.first_split,
        x.second_split, x.how.value, x.verified_score, x.flip, x.rotation_deg,
    )  # fmt: skip
    if isinstance(x, VolumePair):
        return (*row, x.shift_mm, x.covered, x.points, x.evidence, x.p_value)
    placed = (x.shift_y, x.shift_x, x.scale, int(x.negative), *x.matrix)
    return (*row, *placed, x.points, x.evidence, x.p_value, x.exact)


def headline(result: DuplicatesResult) -> str:
    """The answer, and what was not looked at, in two to four sentences."""
    counts, rate = result.counts, result.duplicate_rate
    found = f"No duplicates were found among {several(counts['images'], 'image')}."
    if counts["groups"]:
        found = (
            f"{counts['in_groups']:,} of {counts['images']:,} images have duplicates, in "
            f"{several(counts['groups'], 'group')}. Without {counts['surplus']:,} of them "
            f"({rate.value:.2%}) none is found to be a copy of another."
        )
    if few := counts["not_comparable"]:
        found += (
            f" {few:,} {'holds' if few == 1 else 'hold'} too little structure: of "
            f"{'it' if few == 1 else 'these'} only equal files and pixels are found."
        )
    if unread := counts["unreadable"]:
        found += f" {unread:,} could not be read."
    return found


def answer(result: DuplicatesResult) -> Answer:
    """Whether there are duplicates, what splits and patients share, and the numbers of the first line."""
    n = result.counts
    sentences = [headline(result)]
    for x in result.crossings:
        people = f" and {several(len(x.subjects), 'patient')}" if x.subjects else ""
        groups = several(x.groups, "group")
        sentences.append(f"{x.first} and {x.second} share {groups} of duplicates{people}.")
    if result.suspicions:
        number = len(result.suspicions)
        sentences.append(
            f"{several(number, 'pair')} of patient ids {'shares' if number == 1 else 'share'} an image: one "
            "person under two ids, or a file under a wrong one."
        )
    return Answer(
        tone=result.verdict.value,
        title="Duplicates found" if n["groups"] else "No duplicates found",
        sentences=tuple(sentences),
        facts=(
            (f"{n['images']:,}", "images compared, each with each"),
            (f"{n['same_file'] + n['same_pixels']:,}", "repeat another file or its pixels"),
            (f"{n['copies']:,}", "pairs of changed copies"),
            (f"{n['similar']:,}", "pairs that are similar, and no duplicates"),
            (f"{n['not_comparable']:,}", "images with too little structure, not comparable"),
        ),
    )


def _page(result: DuplicatesResult, pictures: Pictures) -> str:
    return (
        environment()
        .get_template("duplicates.html.jinja")
        .render(
            result=result,
            volumes=result.compared is Compared.VOLUMES,
            frames=FRAMES,
            fewest=MIN_NULL,
            answer=answer(result),
            groups=result.groups[:_MOST_LISTED],
            more_groups=max(0, len(result.groups) - _MOST_LISTED),
            copies=[_picture(item) for item in pictures.copies],
            more_copies=result.counts["copies"] - len(pictures.copies),
            similar=[_picture(item) for item in pictures.similar],
            more_similar=len(result.similar) - len(pictures.similar),
            crossings=result.crossings,
            suspicions=result.suspicions[:_MOST_LISTED],
            excluded=excluded_files(result.exclusions, Edition.INTERNAL),
        )
    )


def _picture(item: PairPicture | VolumePicture) -> dict[str, object]:
    pair = item.pair
    shown: dict[str, object] = {"pair": pair, "how": _WORDS[pair.how]}
    if isinstance(item, VolumePicture):
        frames = [data_uri(frame, lossy=True) for frame in item.frames]
        return shown | {"words": _motion(item.pair), "inverted": item.inverted, "frames": frames}
    return shown | {
        "words": transformation(pair) + (", negative" if pair.negative else ""),
        "first": data_uri(item.first),
        "second": data_uri(item.second),
        "difference": data_uri(item.difference),
    }


def _motion(pair: VolumePair) -> str:
    """How the second volume was moved to give the first, in words."""
    moved = "by an unknown length: no spacing"
    if pair.shift_mm is not None:
        moved = f"{pair.shift_mm:.1f} mm"
    mirrored = "mirrored, " if pair.flip != "none" else ""
    part = f", {pair.covered:.0%} of it" if pair.covered < 0.95 else ""
    return f"{mirrored}turned {pair.rotation_deg:.1f}°, moved {moved}{part}"


def _summary(result: DuplicatesResult, files: dict[str, str], root: str) -> bytes:
    content = {
        "counts": dict(result.counts),
        "duplicate_rate": tables.proportion(result.duplicate_rate),
        "thresholds": {name: round(value, 8) for name, value in result.thresholds.items()},
        "splits": list(result.splits),
        "crossings": [
            {
                "first": x.first,
                "second": x.second,
                "groups": x.groups,
                "images": len(x.image_ids),
                "subjects": len(x.subjects),
            }
            for x in result.crossings
        ],
        "suspicions": [dataclasses.asdict(x) for x in result.suspicions],
        "clean_root": root,
        "settings": dict(result.settings),
        "versions": dict(result.versions),
        "files": files,
    }
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()
