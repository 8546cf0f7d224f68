"""From a study's scans to training images in the reference layout.

Contract: each scan becomes `<out>/<uid>/training.png` (a slice, 16 bits) or `<uid>/training.nii.gz`
(the volume), oriented and brought to one size; `manifest.csv` lists them with what is known, and
`prepare.json` says what was done. Bias correction, skull stripping and registration to an atlas are
other programs' work: those that are installed and asked for are called, and recorded.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from deepssim_jax.data.account import Account
from deepssim_jax.data.manifest import InputError, Record
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.data.readers import read_image, read_volume
from deepssim_jax.data.records import FileCounts, Rejected
from deepssim_jax.data.studies import Person, Study
from deepssim_jax.data.volume import SliceSpec, Unreadable, reason_of
from deepssim_jax.workspace import Workspace, scratch_folder, sha256
from deepssim_jax.workspace.files import csv_bytes, holds

_COLUMNS = ("path", "image_id", "subject_id", "session_id", "site", "sequence", "age", "sex")
# Programs by step: each takes an input and an output file.
TOOLS: Mapping[str, tuple[str, ...]] = {
    "n4": ("N4BiasFieldCorrection", "-d", "3", "-i", "{source}", "-o", "{target}"),
    "skullstrip": ("hd-bet", "-i", "{source}", "-o", "{target}"),
    "mni": ("flirt", "-in", "{source}", "-ref", "{atlas}", "-out", "{target}", "-dof", "12"),
}


class ToolFailed(Unreadable):
    """A program failed on a scan; `words` are its own, which may name the scan's file."""

    def __init__(self, program: str, words: str):
        """The message is what may stand on the screen."""
        super().__init__(f"{program} failed")
        self.words = words


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Of how many people images were written, and what became of every file of the study."""

    people: int
    account: Account


def prepare(
    study: Study,
    out: Workspace,
    *,
    size: tuple[int, int] | None = (136, 112),
    slice_spec: str = "axial:0.5",
    tools: Sequence[str] = (),
    atlas: Path | None = None,
    people: Mapping[str, Person] | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Prepared:
    """Writes the images; those that are there already, of the same scans, are not made again.

    What earlier runs wrote of scans that are gone is deleted.

    Args:
      study: of `data.studies`.
      out: where to.
      size: (height, width) of slices; None writes whole volumes, oriented, at their own size.
      slice_spec: which slice.
      tools: steps of `TOOLS`, in their order, done to the volume first.
      atlas: the reference volume of "mni".
      people: age and sex by the number in `subject`.
      on_progress: called with (scans done, scans in all, what).

    Raises:
      InputError: a tool is unknown or not installed, or "mni" has no atlas.
    """
    _check_tools(tools, atlas)
    out.keep_apart(study.elsewhere)
    facts = {"size": size, "slice": slice_spec, "tools": list(tools)}
    facts["atlas"] = None if atlas is None else sha256(atlas)
    out.bind("preparation", facts)
    versions = {tool: _version(tool) for tool in tools}
    steps = out.section("preparation", facts, versions)
    suffix = ".png" if size else ".nii.gz"
    rows, failed, words = [], list(study.rejected), dict[str, str]()
    for number, scan in enumerate(study.scans, start=1):
        name = f"{scan.uid}/training{suffix}"
        try:
            with scan.open_path() as source:
                digest = _digest(source)
                known, written = steps.look("image", digest, prepare)
                if not known or not holds(out.path(name), written):
                    with scratch_folder() as folder:
                        cleaned = _clean(source, folder, tools, atlas)
                        content = _content(cleaned, size, slice_spec)
                    out.write(name, content)
                    steps.step("image", digest, functools.partial(_hash, content))
        except Unreadable as error:
            failed.append(Rejected(scan.uid, str(error)))
            words |= {scan.uid: f": {error.words}"} if isinstance(error, ToolFailed) else {}
        else:
            person = (people or {}).get(scan.subject.removeprefix("IXI"), Person(None, None))
            identity = (f"{scan.uid}___training", scan.subject, scan.session, scan.site)
            age = "" if person.age is None else person.age
            rows.append([name, *identity, scan.sequence, age, person.sex or ""])
        on_progress(number, len(study.scans), "preparing")
    counts = FileCounts(
        study.found, len(study.scans), len(study.rejected), sum(x.files for x in study.unused)
    )
    account = Account(counts, len(rows), tuple(failed), study.unused)
    out.write("manifest.csv", csv_bytes([_COLUMNS, *rows]))
    done = {
        "size": size,
        "slice": slice_spec if size else None,
        "intensity": "linear from the 0th and 99.9th percentile" if size else "unchanged",
        "tools": versions,
        "failed": [[x.image_id, x.reason + words.get(x.image_id, "")] for x in failed],
        "inputs": account.listed(),
    }
    out.write("prepare.json", (json.dumps(done, indent=2) + "\n").encode())
    out.remove_others([*(str(row[0]) for row in rows), "manifest.csv", "prepare.json"])
    out.prune()
    return Prepared(len({row[2] for row in rows}), account)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise Unreadable(reason_of(error)) from error


def _content(path: Path, size: tuple[int, int] | None, slice_spec: str) -> bytes:
    record = Record("scan", path)
    if size is None:
        volume, spacing = read_volume(record)
        # The axes of `data.volume` in RAS millimetres: up, back, left.
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1, -1, -1, 1
        affine[:3, :3] *= spacing
        # Without a time in its header, the same scan gives the same bytes.
        return gzip.compress(nibabel.Nifti1Image(volume, affine).to_bytes(), 1, mtime=0)
    image = fit_to_size(read_image(record, spec=SliceSpec.parse(slice_spec)), size=size)
    low, high = np.percentile(image, (0, 99.9))
    if high <= low:
        raise Unreadable("is constant in this slice")
    levels = np.round(np.clip((image - low) / (high - low), 0, 1) * 65535).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def _check_tools(tools: Sequence[str], atlas: Path | None) -> None:
    for tool in tools:
        if tool not in TOOLS:
            raise InputError(f"{tool!r} is no tool; known are {', '.join(TOOLS)}")
        if shutil.which(TOOLS[tool][0]) is None:
            raise InputError(
                f"{TOOLS[tool][0]}, which does {tool}, is not installed; install it or leave it out"
            )
    if "mni" in tools and (atlas is None or not atlas.is_file()):
        raise InputError("mni needs --atlas, the volume to register to")


def _clean(source: Path, folder: Path, tools: Sequence[str], atlas: Path | None) -> Path:
    for number, tool in enumerate(tools):
        target = folder / f"{number}.nii.gz"
        command = [part.format(source=source, target=target, atlas=atlas) for part in TOOLS[tool]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not target.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ToolFailed(TOOLS[tool][0], " ".join(last)[:200])
        source = target
    return source


def _version(tool: str) -> str:
    done = subprocess.run(
        [TOOLS[tool][0], "--version"], capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else "?"
