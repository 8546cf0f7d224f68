"""Damaged files of every format: an image or a listed refusal, never another exception."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.readers import Limits, read_image
from deepssim_jax.data.volume import SliceSpec, Unreadable
from tests.data.made import files

MADE = files()
MIDDLE = SliceSpec.parse("axial:0.5")
# Small, so that a header that declares much is refused rather than slow.
LIMITS = Limits(pixels=1_000_000, voxels=1_000_000)

place = st.one_of(st.integers(0, 63), st.integers(0, 400), st.integers(0, 1 << 20))
damage = st.tuples(place, st.sampled_from(["set", "insert", "cut"]), st.binary(max_size=5))


def damaged(content: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    out = bytearray(content)
    for where, kind, data in changes:
        at = where % (len(out) + 1)
        if kind == "cut" and where % 3 == 0:
            del out[at:]
        else:
            out[at : at + (len(data) if kind == "set" else 0)] = data
    return bytes(out)


def outcome(folder: Path) -> None:
    """Lists a folder and reads what it lists; what else is raised fails the test."""
    try:
        found = read_manifest(folder, role=Role.REAL)
    except InputError:
        return
    counts = found.counts
    assert counts.used + counts.refused + counts.not_images == counts.found
    for record in found.records[:4]:
        try:
            image = read_image(record, spec=MIDDLE, limits=LIMITS)
            assert image.ndim == 2 and image.max() > image.min()
        except Unreadable as error:
            reason = str(error)
            assert str(folder) not in reason


@pytest.mark.parametrize("name", list(MADE))
def test_damaged_files(tmp_path: Path, name: str) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(damage, min_size=1, max_size=6))
    def check(changes: list[tuple[int, str, bytes]]) -> None:
        (tmp_path / name).write_bytes(damaged(MADE[name], changes))
        outcome(tmp_path)

    check()


@settings(max_examples=60, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.binary(max_size=400))
def test_tables_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.csv").write_bytes(b"path," + content)
    outcome(tmp_path / "m.csv")
