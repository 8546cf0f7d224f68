"""Whose folder it is: refused before anything is read or written, and locked."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from deepssim_jax.workspace import (
    MARKER,
    OWN_FILES,
    Access,
    NoSpace,
    Overlap,
    Workspace,
    WorkspaceError,
    examine,
    files,
)
from deepssim_jax.workspace import workspace as workspaces
from deepssim_jax.workspace.files import temporary_of


def tree(folder):
    """Every path below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def refused(out, words, **arguments):
    with pytest.raises(WorkspaceError, match=words), Workspace.open(out, command="a", **arguments):
        pytest.fail("it was opened")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    (folder / "p1.png").write_bytes(b"patient")
    return folder


def test_a_folder_that_is_not_ours_is_refused_and_stays_as_it_is(images):
    before = tree(images)
    refused(images, "holds 2 files or folders that this program did not make.*new or an empty")
    assert tree(images) == before


def test_a_file_is_refused(images):
    refused(images / "p1.png", "is a file; give a folder")


@pytest.mark.parametrize(
    "place", ["images", "images/new", "images/inner", "images/inner/../inner/x"]
)
def test_an_output_inside_of_an_input_is_refused(images, place):
    before = tree(images)
    refused(images.parent / place, "--out is --real or lies inside", inputs={"--real": images})
    refused(images.parent / place, "--out is --model or lies inside", reads={"--model": images})
    assert tree(images) == before


@pytest.mark.parametrize(
    ("out", "work", "words"),
    [
        ("new", "new/work", "--work is --out or lies inside of it"),
        ("new", "NEW/deep/../deep/work", "--work is --out or lies inside of it"),
        ("work/new", "work", "--out is --work or lies inside of it"),
        ("new", "./new", "--out is --work or lies inside of it"),
        ("new", "images/new", "--work is --real or lies inside of it"),
    ],
)
def test_outputs_that_do_not_exist_yet_are_kept_apart(images, out, work, words):
    before, root = tree(images.parent), images.parent
    refused(root / out, words, work=f"{root}/{work}", inputs={"--real": images})
    assert tree(root) == before


def test_another_folder_of_kept_work_is_refused_at_once(tmp_path):
    with Workspace.open(tmp_path / "out", command="a", work=tmp_path / "one") as workspace:
        workspace.write("x.png", b"x")
    before = tree(tmp_path)
    refused(tmp_path / "out", "--out='out' was begun with another --work", work=tmp_path / "two")
    assert tree(tmp_path) == before
    with Workspace.open(tmp_path / "out", command="a", work=tmp_path / "one") as workspace:
        (tmp_path / "out" / "x.png").write_bytes(b"y")
    refused(tmp_path / "out", "files changed .*; one/changed.txt lists them", work=tmp_path / "one")


def test_an_output_inside_of_an_input_is_seen_through_links(images):
    link = images.parent / "link"
    link.symlink_to(images)
    refused(link / "new", "lies inside", inputs={"--real": images})
    refused(images / "new", "lies inside", inputs={"--real": link})


def test_an_input_inside_of_the_output_is_refused(images):
    with Workspace.open(images.parent / "out", command="a") as workspace:
        workspace.write("report.html", b"x")
    inside = images.rename(images.parent / "out" / "images")
    refused(images.parent / "out", "--real lies inside of --out", inputs={"--real": inside})


def test_inputs_inside_of_each_other_are_refused(images):
    out = images.parent / "out"
    both = {"--real": images, "--synthetic": images / "inner"}
    refused(out, "--synthetic lies inside of --real", inputs=both)
    refused(
        out, "--real lies inside of --synthetic", inputs=dict(zip(both, reversed(both.values())))
    )
    assert not out.exists()


def test_a_listing_may_lie_beside_the_images_of_the_other_side(images):
    listing = images / "list.csv"
    listing.write_text("path\n")
    inputs = {"--real": images, "--synthetic": listing}
    with Workspace.open(images.parent / "out", command="a", inputs=inputs):
        pass


@pytest.mark.parametrize(
    ("out", "work"),
    [("images/out", None), ("images/new/out", None), ("elsewhere", None), ("new", "images/out")],
)
def test_files_that_are_read_elsewhere_are_kept_apart_too(images, out, work):
    """As a manifest names them, or a link leads to them."""
    root, folders = images.parent, {images}
    with Workspace.open(root / "elsewhere", command="a") as workspace:
        workspace.write("sub/p1.png", b"an earlier release")
    if out == "elsewhere":
        folders = {root / "elsewhere" / "sub"}
    before = tree(root)
    place = None if work is None else root / work
    with (
        pytest.raises(WorkspaceError, match="a link leads to") as error,
        Workspace.open(root / out, command="a", work=place) as workspace,
    ):
        workspace.keep_apart(folders)
    assert ("--work" in str(error.value)) == (work is not None)
    assert tree(root) == before
    with Workspace.open(root / "apart", command="a") as workspace:
        workspace.keep_apart(folders)


@pytest.mark.parametrize("spelling", ["images", "images/.", "images/inner/..", "link"])
def test_equal_inputs_are_seen_in_any_spelling(images, spelling):
    (images.parent / "link").symlink_to(images)
    other = images.parent / spelling
    inputs, out = {"--real": images, "--synthetic": other}, images.parent / "out"
    words = "--real and --synthetic are the same files"
    refused(out, f"{words}.*--allow_same", inputs=inputs, overlap=Overlap.REFUSED)
    refused(out, f"{words}.*another folder.$", inputs=inputs)  # a command without that flag
    with Workspace.open(out, command="a", inputs=inputs, overlap=Overlap.ALLOWED):
        pass


def test_equal_listings_are_seen_through_a_hard_link(images):
    first, second = images.parent / "a.csv", images.parent / "b.csv"
    first.write_text("path\n")
    os.link(first, second)
    refused(
        images.parent / "out", "the same files", inputs={"--real": first, "--synthetic": second}
    )


def test_folders_of_hard_links_are_equal_inputs(images):
    """Before anything is hashed; hidden files do not count, and one more file makes another folder."""
    (images / "inner" / "p2.png").write_bytes(b"other")
    other, out = images.parent / "other", images.parent / "out"
    shutil.copytree(images, other, copy_function=os.link)
    (other / ".notes").write_bytes(b"")
    inputs = {"--real": images, "--synthetic": other}
    refused(out, "same files.*--allow_same", inputs=inputs, overlap=Overlap.REFUSED)
    refused(out, "same files.*another folder.$", inputs=inputs)
    with Workspace.open(out, command="a", inputs=inputs, overlap=Overlap.ALLOWED):
        pass
    (other / "p3.png").write_bytes(b"new")
    with Workspace.open(out, command="a", inputs=inputs):
        pass


def test_folders_count_by_identity_and_not_by_name(images, monkeypatch):
    """As on a file system that does not tell `Images` from `images`."""
    stat = type(images).stat
    monkeypatch.setattr(
        type(images),
        "stat",
        lambda self, **how: stat(type(self)(str(self).replace("IMAGES", "images")), **how),
    )
    upper = images.parent / "IMAGES"
    refused(images.parent / "o", "the same", inputs={"--real": images, "--synthetic": upper})
    refused(upper / "new", "lies inside", inputs={"--real": images})


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
