"""Checking a certificate from the files: nothing that it says is taken on trust but its own seeds.

The training images are read, embedded and searched again; limits that were calibrated are calibrated
again, every image is judged again, and those that were tested without a search are so again.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import certificate
from deepssim_jax.audit.certificate import Candidate
from deepssim_jax.audit.guard import Guard, GuardSettings
from deepssim_jax.audit.judging import Offer, candidates, judge
from deepssim_jax.audit.leaving import Leaving
from deepssim_jax.audit.recheck import TOLERANCE, Recheck
from deepssim_jax.audit.sentences import several
from deepssim_jax.data.manifest import InputError, Record
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.nn.encoder import encoder_hash
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import OWN_FILES, Workspace, sha256

_BATCH = 64
_LIMITS = ("max_cosine", "max_ssim")
_REGEX = "patients were found by a --subject_regex, which the certificate does not hold: give the same one"
_NO_REGEX = "no --subject_regex was given when these images were released: leave it out"


def has_certificate(folder: Path) -> bool:
    """Whether a folder holds guarded images, and not an audit."""
    return (folder / certificate.NAME).is_file()


def recheck_certificate(
    folder: Path,
    training: str | Path | None,
    *,
    encoder: str = "default",
    subject_regex: str | None = None,
    work: Workspace | None = None,
    on_progress: Progress = lambda done, total, what: None,
) -> Recheck:
    """Re-checks a folder of guarded images.

    Args:
      folder: the `--out` of `generate --safeguard` or of `filter`.
      training: the images that the certificate speaks of.
      encoder: that the images were judged by.
      subject_regex: that of the command that released the images; the certificate does not hold it.
      work: keeps what a second check of the same training images need not do again; a folder that
        is removed at the end if None.
      on_progress: called with (done, total, what).

    Raises:
      InputError: there are no training images, or the certificate lacks a part.
    """
    if training is None:
        raise InputError("a certificate speaks of training images: give them as --real")
    if work is None:
        with Workspace.temporary(command="verify") as own:
            return recheck_certificate(
                folder,
                training,
                encoder=encoder,
                subject_regex=subject_regex,
                work=own,
                on_progress=on_progress,
            )
    content = certificate.read(folder)
    try:
        if content["settings"]["subject_regex"] != (subject_regex is not None):
            raise InputError(_REGEX if subject_regex is None else _NO_REGEX)
        return _recheck(content, folder, training, (encoder, subject_regex), work, on_progress)
    except (KeyError, TypeError) as error:
        raise InputError(f"{certificate.NAME} lacks what it should say: {error}") from error


def _recheck(
    content: Mapping,
    folder: Path,
    training: str | Path,
    given_settings: tuple[str, str | None],
    work: Workspace,
    on_progress: Progress,
) -> Recheck:
    encoder, subject_regex = given_settings
    problems = []
    if certificate.digest(content) != content["digest"]:
        problems.append(f"{certificate.NAME} was changed after it was written")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    there -= OWN_FILES
    problems += _files(content, folder, there)
    # A name that is not in the folder may lead out of it.
    said = [row for row in content["images"] if row["name"] in there]
    if encoder_hash(encoder) != content["versions"]["encoder"]:
        raise InputError("the images were judged by another encoder; give it as --encoder")
    settings, limits = content["settings"], content["limits"]
    given = {name: None if name in limits["calibrated"] else limits[name] for name in _LIMITS}
    guard = Guard.build(
        training,
        work,
        settings=GuardSettings(
            **given,
            size=settings["size"],
            slice_spec=settings["slice"],
            subject_regex=subject_regex,
            encoder=encoder,
            level=settings["level"],
            seed=settings["seed"],
        ),
        on_progress=on_progress,
    )
    problems += _statements(content, guard)
    # The limits that are said are what every image has to keep, and so have those found now.
    strict = {name: min(limits[name], getattr(guard.limits, name)) for name in _LIMITS}
    guard = dataclasses.replace(guard, limits=dataclasses.replace(guard.limits, **strict))
    problems += _judge_again(guard, said, folder, on_progress)
    if content["candidates"]["accepted"] != len(content["images"]):
        problems.append(
            f"{content['candidates']['accepted']} images are said to stand, and "
            f"{len(content['images'])} are listed"
        )
    return Recheck(len(content["files"]) + 1, len(said), len(said), tuple(problems))


def _statements(content: Mapping, guard: Guard) -> list[str]:
    """What a certificate says of its training images that these do not bear out."""
    problems, limits = [], content["limits"]
    if certificate.training_mark(guard) != content["training"]:
        problems.append("--real is not the training set that the certificate speaks of")
    for name in _LIMITS:
        found = getattr(guard.limits, name)
        if abs(found - limits[name]) > TOLERANCE:
            problems.append(
                f"{name}: {limits[name]:.4f} is said, the training images give {found:.4f}"
            )
    recalls = certificate.recalls(guard.limits.thresholds)
    if {name: limits[name] for name in recalls} != recalls:
        problems.append("how many planted copies are found is not what the certificate says")
    if content["missed"] != certificate.missed(guard.limits.thresholds):
        problems.append("what the search misses is not what the certificate says")
    if guard.doubt and content["images"]:
        problems.append(f"nothing should have been released: {guard.doubt}")
    return problems


_NUMBERED, _MOST_NAMED = re.compile(r"(image|gen)-[0-9]+\.[a-z.]+"), 10


def _files(content: Mapping, folder: Path, there: set[str]) -> list[str]:
    """What is missing, changed, or not listed."""
    listed = {row["name"]: row["sha256"] for row in content["images"]} | content["files"]
    words = {row["name"]: _image(row) for row in content["images"]}
    problems = [
        f"{words.get(name, name)}: {'was changed' if name in there else 'missing'}"
        for name, known in sorted(listed.items())
        if name not in there or sha256(folder / name) != known
    ]
    if unlisted := sorted(there - listed.keys() - {certificate.NAME}):
        files = several(len(unlisted), "file")
        # Any other name could be a patient's.
        ours = [name for name in unlisted if _NUMBERED.fullmatch(name)][:_MOST_NAMED]
        which = (
            f" ({', '.join(ours)}{' and others' if len(ours) < len(unlisted) else ''})"
            if ours
            else ""
        )
        problems.append(f"{files} of the folder not listed{which}: no one has judged what is there")
    return problems


def _image(row: Mapping) -> str:
    """An image by its number: names of files may hold more than they should."""
    return f"image number {row['number']}"


def _judge_again(
    guard: Guard, said: Sequence[Mapping], folder: Path, on_progress: Progress
) -> list[str]:
    problems = []
    for start in range(0, len(said), _BATCH):
        offers, rows = [], []
        for place, row in enumerate(said[start : start + _BATCH]):
            try:
                record = Record(row["name"], folder / row["name"])
                offers.append(Offer(place, "", Leaving.of(record, guard.settings.form)))
                rows.append(row)
            except (Unreadable, OSError):
                problems.append(f"{_image(row)}: cannot be read")
        found = candidates(judge(offers, guard, most=None)) if rows else []
        for row, offer, now in zip(rows, offers, found, strict=True):
            problems += _differs(guard, row, offer, now)
        on_progress(min(start + _BATCH, len(said)), len(said), "judging again")
    return problems


def _differs(guard: Guard, row: Mapping, offer: Offer, now: Candidate) -> list[str]:
    """What a certificate says of an image that its file does not bear out."""
    squares = [view.square for view in offer.leaving.views] if offer.leaving else []
    missed = row["tested"] and guard.exhaustive(squares) >= guard.limits.max_ssim
    if now.reason is not None or missed or now.cosine is None or now.verified is None:
        return [f"{_image(row)}: is too close to a training image"]
    if not np.allclose(
        (now.cosine, now.verified), (row["cosine"], row["verified"]), atol=TOLERANCE
    ):
        return [
            f"{_image(row)}: cosine {row['cosine']:.4f} and copy score {row['verified']:.4f} are "
            f"said, now {now.cosine:.4f} and {now.verified:.4f}"
        ]
    return []
