"""What is written into a folder: for its owner, whole, and nothing of anyone else."""

import os
import re
import shutil

import pytest

from deepssim_jax.workspace import (
    MARKER,
    Access,
    NoSpace,
    Workspace,
    WorkspaceError,
    examine,
)
from deepssim_jax.workspace import workspace as workspaces
from deepssim_jax.workspace.files import temporary_of
from tests.workspace.folders import refused, tree


def test_files_are_for_their_owner_and_the_umask_is_respected(tmp_path):
    before = os.umask(0o027)
    try:
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            workspace.write("pairs.csv", b"1")
            workspace.write("share.html", b"1", access=Access.SHARED)
            workspace.write("sub/pairs.csv", b"1")
            workspace.step("x", 1, lambda: [1])
    finally:
        os.umask(before)
    modes = {
        p.relative_to(tmp_path).as_posix(): oct(p.stat().st_mode & 0o777)
        for p in tmp_path.rglob("*")
        if "lock" not in p.name
    }
    steps = [m for name, m in modes.items() if name.startswith("out/work/steps/")]
    assert steps == ["0o600"]
    assert modes["out/pairs.csv"] == "0o600" and modes["out/share.html"] == "0o640"
    assert modes["out"] == "0o750" and modes["out/work"] == modes["out/sub"] == "0o700"


def test_outputs_are_replaced_and_files_of_others_are_not(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        workspace.write("a.csv", b"1")
        workspace.write("a.csv", b"2")
        (out / "notes.txt").write_text("mine")
        with pytest.raises(
            WorkspaceError, match="'notes.txt' in 'out' was not made by this program"
        ):
            workspace.write("notes.txt", b"3")
        with pytest.raises(WorkspaceError, match="not made by this program"):
            workspace.remove("notes.txt")
        with pytest.raises(WorkspaceError, match="not made by this program"):
            workspace.lend("notes.txt")
        workspace.write("notes.txt", b"mine")  # the same bytes: as after a loss of power
    assert (out / "a.csv").read_bytes() == b"2"
    assert (out / "notes.txt").read_text() == "mine"


def test_an_output_that_was_changed_stops_the_next_run(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        workspace.write("p1.png", b"image")
        workspace.write("b.csv", b"2")
        assert workspace.intact("p1.png") and not workspace.intact("c.csv")
    (out / "p1.png").write_bytes(b"changed")
    refused(
        out,
        re.escape("--out='out': 1 of its files changed after being written; out/work/changed.txt"),
    )
    assert (out / "work" / "changed.txt").read_text() == "p1.png\n"
    assert (out / "p1.png").read_bytes() == b"changed"
    (out / "p1.png").unlink()
    with Workspace.open(out, command="a") as workspace:
        assert not workspace.intact("p1.png") and workspace.intact("b.csv")
        workspace.remove("b.csv")
    assert not (out / "b.csv").exists()


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "work/x", MARKER])
def test_no_output_leads_out_of_the_folder(tmp_path, name):
    with (
        Workspace.open(tmp_path / "out", command="a") as workspace,
        pytest.raises(ValueError, match="no name inside|kept for the work"),
    ):
        workspace.write(name, b"x")


def test_no_output_leads_out_over_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(WorkspaceError, match="leads out of 'out' over a link"):
            workspace.write("sub/x", b"x")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_grows_is_not_followed_and_torn_lines_stand_alone(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        workspace.append("m.jsonl", "1")
        with (out / "m.jsonl").open("a") as file:
            file.write("torn")
        workspace.append("m.jsonl", "2")
    with Workspace.open(out, command="a") as workspace:
        workspace.append("m.jsonl", "3")
        assert (out / "m.jsonl").read_text() == "1\ntorn\n2\n3\n"
        workspace.write("m.jsonl", b"1\n")
        workspace.append("m.jsonl", "4")
    assert (out / "m.jsonl").read_text() == "1\n4\n"


def test_a_snapshot_of_hard_links_stays_as_it_is(tmp_path):
    """As `cp -al` makes one; a run that was killed while it broke a link is cleaned up."""

    def run(number):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            workspace.write("one.txt", b"%d" % number)
            workspace.append("grows.txt", str(number))
            workspace.step("two", number, lambda: number)

    run(1)
    shutil.copytree(tmp_path / "out", tmp_path / "snapshot", copy_function=os.link)
    before = tree(tmp_path / "snapshot")
    for name in ("outputs.jsonl", "kept-0.jsonl"):
        temporary_of(tmp_path / "out" / "work" / name).write_bytes(b"killed")
    run(2)
    assert tree(tmp_path / "snapshot") == before
    assert (tmp_path / "out" / "grows.txt").read_text() == "1\n2\n"
    assert len((tmp_path / "out" / "work" / "outputs.jsonl").read_text().splitlines()) > len(
        before["work/outputs.jsonl"].splitlines()
    )
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_lent_folder_is_kept_and_set_aside_without_loss(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        for content in ("1", "2"):
            folder = workspace.lend("checkpoints") / "5"
            folder.mkdir()
            (folder / "x").write_text(content)
            workspace.set_aside(folder)
        with pytest.raises(WorkspaceError, match="not lent"):
            workspace.set_aside(out / "work" / "steps")
    assert (out / "unreadable" / "checkpoints-5" / "x").read_text() == "1"
    assert (out / "unreadable" / "checkpoints-5.1" / "x").read_text() == "2"


def test_what_a_killed_run_was_writing_is_swept_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    with Workspace.open(out, command="a") as workspace:
        workspace.write("sub/x", b"1")
        workspace.step("s", 1, lambda: [1])
    (step,) = (out / "work" / "steps").iterdir()
    written = {temporary_of(path) for path in (out / MARKER, out / "sub" / "x", step)}
    foreign = {out / place / ".deepssim-0123456789abcdef.tmp" for place in ("", "sub", "work")}
    for path in written | foreign:
        path.write_bytes(b"")
    with Workspace.open(out, command="a"):
        pass
    assert set(out.rglob("*.tmp")) == foreign


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path, monkeypatch):
    import errno

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.write("a.csv", b"1")
        with monkeypatch.context() as patch:
            patch.setattr("deepssim_jax.workspace.files.os.fsync", full)
            with pytest.raises(NoSpace, match="no space left to write '.*'; free some and run"):
                workspace.write("a.csv", b"2")
        assert (tmp_path / "out" / "a.csv").read_bytes() == b"1"
        assert not list((tmp_path / "out").glob("*.tmp"))
        workspace.write("a.csv", b"2")


def test_a_temporary_workspace_is_gone(tmp_path):
    with Workspace.temporary(command="a") as workspace:
        folder = workspace.root
        workspace.write("a.csv", b"1")
        assert workspaces.claims.MARKER in {p.name for p in folder.iterdir()}
    assert not folder.exists()


def test_what_is_written_once_for_all_is_held_against_its_hash(tmp_path):
    def run():
        with Workspace.open(tmp_path, command="a") as workspace:
            workspace.bind("cohort", {"seed": 1})
            workspace.write("a.csv", b"1")
            return workspace.secret()

    secret, work = run(), tmp_path / "work"
    assert run() == secret
    whole = examine(tmp_path, work=work)
    assert (whole.changed, whole.strange, whole.damaged) == ((), 0, 0)
    for path in (work / "secret", work / "cohort.json", tmp_path / MARKER):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        found = examine(tmp_path, work=work)
        assert (found.changed, found.damaged) == (
            ((MARKER,), 0) if path.name == MARKER else ((), 1)
        )
        path.write_bytes(content)
    for name in ("kept-0.jsonl", "outputs.jsonl"):
        lines = (work / name).read_text().splitlines()
        for line in lines:
            (work / name).write_text("".join(f"{x}\n" for x in lines if x != line))
            # What it named is a file that nobody wrote.
            assert MARKER in line or examine(tmp_path, work=work).strange == 1, line
        (work / name).write_text("".join(f"{x}\n" for x in lines))
    (work / "secret").write_bytes(bytes(32))
    with pytest.raises(
        WorkspaceError, match="key of aliases, 'secret' in the kept work, was changed"
    ):
        run()
    (work / "secret").unlink()
    assert run() != secret
    assert examine(tmp_path, work=work) == whole
    (work / "steps").mkdir()
    (work / "steps" / "mine.txt").write_bytes(b"laid in")
    assert examine(tmp_path, work=work).strange == 1
