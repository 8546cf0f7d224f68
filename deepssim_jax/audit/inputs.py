"""The folders of an audit: which files they hold, and what became of each of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from deepssim_jax.data.manifest import Manifest, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links


class ReadingSettings(Protocol):
    """What of an audit's settings decides how folders are listed."""

    @property
    def subject_regex(self) -> str | None:
        """Finds the patient in a file's name."""
        ...

    @property
    def links(self) -> Links:
        """Which links are followed."""
        ...

    @property
    def arrays(self) -> ArrayLayout:
        """What the axes of NumPy arrays are."""
        ...


def list_sides(
    roots: Mapping[Role, str | Path], settings: ReadingSettings
) -> tuple[dict[Role, Manifest], bool]:
    """The images of every side, and whether the real and the synthetic side are one folder.

    The reference layout keeps both in one, under names that tell them apart: that is not the same.
    """
    manifests = {
        role: read_manifest(
            root,
            role=role,
            subject_regex=settings.subject_regex,
            links=settings.links,
            arrays=settings.arrays,
        )
        for role, root in roots.items()
    }
    mixed = all(manifest.kind == "reference" for manifest in manifests.values())
    same = Path(roots[Role.REAL]).resolve() == Path(roots[Role.SYNTHETIC]).resolve()
    return manifests, same and not mixed


def file_counts(manifests: Mapping[Role, Manifest]) -> dict[str, int]:
    """Files found and files that are no image, by role; the rest was used or refused."""
    found = {f"files_found_{role.value}": m.counts.found for role, m in manifests.items()}
    return found | {
        f"not_images_{role.value}": m.counts.not_images for role, m in manifests.items()
    }


def file_notes(manifests: Mapping[Role, Manifest]) -> tuple[str, ...]:
    """How files were taken that do not say it themselves, in full sentences."""
    return tuple(
        f"Of the {role.value} side: {note}." for role, m in manifests.items() for note in m.notes
    )
