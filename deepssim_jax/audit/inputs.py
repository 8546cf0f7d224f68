"""The folders of an audit: which files they hold, and what became of each of them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from deepssim_jax.audit import copies_that_stay
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.copies_that_stay import Image
from deepssim_jax.data import forgetting
from deepssim_jax.data.manifest import Manifest, Role, read_manifest, refuse_unmatched
from deepssim_jax.data.records import PASSED_OVER, passed_over
from deepssim_jax.data.table_rows import plain
from deepssim_jax.workspace import Workspace, sha256

_REVIEW = "review"  # begins the names of what `deepssim review` writes
REVIEW_SUMMARY = "review_summary.json"
REVIEW_RESULTS = (REVIEW_SUMMARY, "review_report.html", "review_disagreements.csv")


def folders(roots: Mapping[Role, str | Path]) -> dict[str, Path]:
    """The sides by flag, as a workspace keeps them apart from its output and from each other.

    The reference layout keeps both sides in one folder, under names that tell them apart: there they
    are one input.
    """
    found = {f"--{role.value}": Path(root).expanduser() for role, root in roots.items()}
    real, synthetic = (Path(roots[role]).expanduser() for role in (Role.REAL, Role.SYNTHETIC))
    one = real.is_dir() and synthetic.is_dir() and real.samefile(synthetic)
    if one and read_manifest(real, role=Role.REAL).kind == "reference":
        del found[f"--{Role.SYNTHETIC.value}"]
    return found


def networks(model: str | Path | None, encoder: str) -> dict[str, str | Path]:
    """What is read beside the sides, by flag."""
    found: dict[str, str | Path] = {} if model is None else {"--model": model}
    return found if encoder == "default" else found | {"--encoder": encoder}


def list_sides(
    roots: Mapping[Role, str | Path], out: Workspace, settings: AuditSettings
) -> dict[Role, Manifest]:
    """The images of every side, none of which lies where `out` is written.

    What is left out is remembered in `out`, and those of its copies that stay are listed there.

    Raises:
      InputError: as `read_manifest`, or an id of `settings.forget` matches nothing of any side.
    """
    forget = forgetting.Forget.of(settings.forget, out)
    manifests = {
        role: read_manifest(
            root,
            role=role,
            subject_regex=settings.subject_regex,
            links=settings.links,
            arrays=settings.arrays,
            forget=forget,
        )
        for role, root in roots.items()
    }
    refuse_unmatched(frozenset.intersection(*(m.unmatched for m in manifests.values())))
    for manifest in manifests.values():
        out.keep_apart(manifest.elsewhere)
    forget.remember(out)
    return copies_that_stay.note_copies(manifests, out, _copies_before(out))


def _copies_before(out: Workspace) -> Iterator[list[Image]]:
    """By the tables of an earlier run: doubles among the real images, and synthetic copies with real ones."""
    yield from copies_that_stay.grouped(out, "real_duplicates.csv", group="group", image="image_id")
    for row in copies_that_stay.rows_before(out, "pairs.csv"):
        yield [(role, plain(row[f"{role.value}_id"])) for role in (Role.REAL, Role.SYNTHETIC)]


def remove_reviews(out: Workspace) -> None:
    """Deletes pages for readers that an earlier run's pairs were put on, and what their ratings came to.

    They hold pictures and names of those who are to be forgotten. Pages that were made after these had gone
    from the tables stay.
    """
    if forgetting.still_there(out):
        for name in reviews(out):
            out.remove(name)
        forgetting.all_gone(out)


def remove_stale_reviews(out: Workspace, table: str) -> None:
    """Deletes what ratings came to with the pairs of an earlier run; `table` lists those of this one.

    Pages and keys stay: readers may have them, and what stands of their ratings is summed up again.
    """
    if not (REVIEW_SUMMARY in set(out) and out.intact(REVIEW_SUMMARY)):
        return
    of = json.loads(out.path(REVIEW_SUMMARY).read_bytes()).get("table")
    if of not in (None, sha256(out.path(table))):
        for name in REVIEW_RESULTS:
            if out.intact(name):  # what people changed is theirs
                out.remove(name)


def reviews(out: Workspace) -> list[str]:
    """What `deepssim review` has written into a job's folder."""
    return [name for name in out if name.startswith(_REVIEW)]


def file_counts(manifests: Mapping[Role, Manifest]) -> dict[str, int]:
    """Files found, those that are no image and those left out, by role; the rest was used or refused."""
    found = {f"files_found_{role.value}": m.counts.found for role, m in manifests.items()}
    found |= {f"not_images_{role.value}": m.counts.not_images for role, m in manifests.items()}
    return found | {f"left_out_{role.value}": m.counts.left_out for role, m in manifests.items()}


def file_notes(manifests: Mapping[Role, Manifest]) -> tuple[str, ...]:
    """How files were taken that do not say it themselves, and which were not, in full sentences."""
    return tuple(
        f"Of the {role.value} side: {note}." for role, m in manifests.items() for note in m.said
    )


def file_notes_to_share(manifests: Mapping[Role, Manifest]) -> tuple[str, ...]:
    """Likewise in words that hold whatever files there are: counts of files can be counts of patients."""
    return tuple(
        f"Some files of the {role.value} side were {PASSED_OVER}."
        for role, m in manifests.items()
        if passed_over(m.unused)
    )
