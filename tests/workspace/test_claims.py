"""Whose folder it is: refused before anything is read or written, and locked."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from deepssim_jax.workspace import (
    MARKER,
    OWN_FILES,
    Workspace,
    WorkspaceError,
    files,
)
from tests.workspace.folders import refused, tree


def test_a_folder_that_is_not_ours_is_refused_and_stays_as_it_is(images):
    before = tree(images)
    refused(images, "holds 2 files or folders that this program did not make.*new or an empty")
    assert tree(images) == before


def test_a_file_is_refused(images):
    refused(images / "p1.png", "is a file; give a folder")


def test_another_folder_of_kept_work_is_refused_at_once(tmp_path):
    with Workspace.open(tmp_path / "out", command="a", work=tmp_path / "one") as workspace:
        workspace.write("x.png", b"x")
    before = tree(tmp_path)
    refused(tmp_path / "out", "--out='out' was begun with another --work", work=tmp_path / "two")
    assert tree(tmp_path) == before
    with Workspace.open(tmp_path / "out", command="a", work=tmp_path / "one") as workspace:
        (tmp_path / "out" / "x.png").write_bytes(b"y")
    refused(tmp_path / "out", "files changed .*; one/changed.txt lists them", work=tmp_path / "one")


def test_another_commands_folder_is_refused(tmp_path):
    with Workspace.open(tmp_path / "out", command="replicas") as workspace:
        workspace.write("report.html", b"x")
    before = tree(tmp_path)
    refused(tmp_path / "out", "holds the work of `replicas`, and this is `a`")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"command": "a"}'])
def test_a_damaged_marker_is_refused(tmp_path, content):
    (tmp_path / MARKER).write_bytes(content)
    refused(tmp_path, "marker.*cannot be read")
    assert (tmp_path / MARKER).read_bytes() == content


def test_a_later_format_is_refused(tmp_path):
    (tmp_path / MARKER).write_text(json.dumps({"command": "a", "format": 99}))
    refused(tmp_path, "of format 99")


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with (
        pytest.raises(RuntimeError, match="early"),
        Workspace.open(tmp_path / "new" / "out", command="a"),
    ):
        raise RuntimeError("early")
    assert tree(tmp_path) == {}
    (tmp_path / "empty").mkdir()
    with Workspace.open(tmp_path / "empty", command="a", work=tmp_path / "kept"):
        pass
    assert tree(tmp_path) == {"empty": None}


@pytest.mark.parametrize("name", ["thesis.txt", "deep/p1.png"])
def test_a_marker_alone_proves_nothing(tmp_path, name):
    with Workspace.open(tmp_path / "out", command="a", work=tmp_path / "kept") as workspace:
        workspace.write("a.csv", b"1")
    for place, of in (("mine", "out"), ("work", "kept")):
        folder = tmp_path / place
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"mine")
        (folder / MARKER).write_bytes((tmp_path / of / MARKER).read_bytes())
    before = tree(tmp_path)
    words = "has our marker and no list.*none of its 1 files or folders is touched"
    refused(tmp_path / "mine", f"'mine' {words}")
    refused(tmp_path / "new", f"--work='work' {words}", work=tmp_path / "work")
    assert tree(tmp_path) == before


def test_an_empty_folder_is_nobodys(tmp_path):
    """As a run leaves that was killed before its list, and whose outputs a stranger took away."""
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.write("deep/b.csv", b"1")
    (tmp_path / "out" / "deep" / "b.csv").unlink()
    shutil.rmtree(tmp_path / "out" / "work")
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.write("deep/b.csv", b"2")
    assert (tmp_path / "out" / "deep" / "b.csv").read_bytes() == b"2"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("name", sorted(OWN_FILES - {MARKER}))
def test_a_file_of_someone_else_by_the_name_of_our_lock_stays(tmp_path, name, begun):
    out = tmp_path / "out"
    out.mkdir()
    if begun:
        with Workspace.open(out, command="a") as workspace:
            workspace.write("a.csv", b"1")
    for path in (out / name, tmp_path / "target"):
        path.write_bytes(b"mine")
        words = f"its {name} was not made" if begun else "holds 1 files or folders"
        refused(out, words)
        assert path.read_bytes() == b"mine"
        (out / name).unlink()
        (out / name).symlink_to(tmp_path / "target")
    refused(out, words)
    (out / name).unlink()
    with Workspace.open(out, command="a"):
        pass


def test_an_empty_lock_that_was_there_stays(tmp_path):
    lock = tmp_path / min(OWN_FILES - {MARKER}, key=lambda name: not name.endswith(".lock"))
    lock.write_bytes(b"")
    with Workspace.open(tmp_path, command="a"):
        pass
    assert tree(tmp_path) == {lock.name: b""}


def test_what_a_system_lays_into_folders_is_no_content(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    with Workspace.open(tmp_path, command="a") as workspace:
        workspace.write("a.csv", b"1")
    assert (tmp_path / ".DS_Store").read_bytes() == b"x"


HOLD = """
    import sys, time
    from deepssim_jax.workspace import Workspace
    with Workspace.open(sys.argv[1], command="a") as workspace:
        workspace.write("a.csv", b"first")
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_holder_is_not(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "held\n"
            since = r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
            refused(tmp_path / "out", rf"in use by process {child.pid} on \S+ {since}; wait")
            assert (tmp_path / "out" / "a.csv").read_bytes() == b"first"
        finally:
            child.kill()
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.write("a.csv", b"second")
    assert (tmp_path / "out" / "a.csv").read_bytes() == b"second"


def test_the_same_process_is_refused_too(tmp_path):
    with Workspace.open(tmp_path / "out", command="a"):
        refused(tmp_path / "out", f"in use by process {os.getpid()}")


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def denied(path, *rest, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.mkdir", denied)
    refused(tmp_path / "out", "--out='out' cannot be used: permission denied; give another")


@pytest.mark.parametrize("place", ["out", "out/work"])
def test_an_own_folder_that_became_read_only_is_said(tmp_path, monkeypatch, place):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.step("two", 2, lambda: 2)
    before, access = tree(tmp_path), os.access
    locked = tmp_path / place
    # The administrator, as whom tests may run, can write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and access(path, mode))
    refused(tmp_path / "out", f"--out='out': nothing can be written to '{locked.name}'; make it wr")
    assert tree(tmp_path) == before


def test_a_note_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def denied(path, *rest, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_bytes", denied)
    refused(tmp_path / "out", "--out='out' cannot be used: permission denied; give another")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /sys, which no user can write")
def test_a_read_only_folder_is_said():
    refused(
        "/sys/deepssim", "cannot be used: (permission denied|operation not permitted|read-only)"
    )


@pytest.mark.parametrize("place", ["work", "work/cache", "work/steps", "work/cache/old"])
def test_kept_work_behind_a_link_is_refused(images, tmp_path, place):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.step("two", 2, lambda: 2)
    link = tmp_path / "out" / place
    if link.exists():
        shutil.rmtree(link)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(images)
    before = tree(images)
    refused(tmp_path / "out", f"'out': '{link.name}' in it is a link")
    assert tree(images) == before
    kept = tmp_path / "kept"
    kept.symlink_to(tmp_path)  # what the user names as --work may be one
    with Workspace.open(tmp_path / "other", command="a", work=kept / "deep"):
        pass


def test_anothers_work_is_only_read(tmp_path):
    with Workspace.open(tmp_path / "out", command="embed") as workspace:
        workspace.write("a.csv", b"1")
        workspace.step("x", 1, lambda: [1])
    before = tree(tmp_path)
    found = Workspace.finished(tmp_path / "out", command="embed", flag="--real")
    assert found.step("x", 1, lambda: [1]) == [1]
    found.write("b.csv", b"2")
    found.prune()
    assert tree(tmp_path) == before
    (tmp_path / "images").mkdir()
    for name in ("images", "none"):
        with pytest.raises(
            WorkspaceError, match="must be the --out of a finished `deepssim embed`"
        ):
            Workspace.finished(tmp_path / name, command="embed", flag="--real")
    with pytest.raises(WorkspaceError, match="holds the work of `embed`"):
        Workspace.finished(tmp_path / "out", command="audit", flag="--real")
