"""Windows, as far as Linux can show it: the program starts, claims its folder and finds duplicates."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path, PurePosixPath, PureWindowsPath

import jax
import numpy as np
import pytest
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax.cli import compile_cache, stopping
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.walk import named
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.workspace import Workspace, WorkspaceError, claims, files, names

ROOT = Path(__file__).resolve().parent.parent


def on_windows(code: str, *arguments: object, **environment: str) -> str:
    """What code prints in a process that looks like one on Windows."""
    start = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests import windows\n"
    whole = f"{start}windows.pretend()\n{textwrap.dedent(code)}"
    how = [sys.executable, "-W", "error::UserWarning", "-c", whole, *map(str, arguments)]
    done = subprocess.run(
        how, capture_output=True, text=True, timeout=300, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pretence_holds(tmp_path):
    """A mapped file cannot be deleted there, and the names are gone."""
    (tmp_path / "x.npy").write_bytes(files.array_bytes(np.zeros(4)))
    assert on_windows(
        """
        import os, sys
        import numpy as np
        held = np.load(sys.argv[1], mmap_mode="r")
        try:
            os.unlink(sys.argv[1])
        except PermissionError:
            print("in use")
        del held
        os.unlink(sys.argv[1])
        print(hasattr(os, "getuid"), sys.platform)
        """,
        tmp_path / "x.npy",
    ).split("\n") == ["in use", "False win32", ""]


def test_import_help_and_the_lock(tmp_path):
    printed = on_windows(
        """
        import sys
        import numpy as np
        import deepssim_jax as ds
        from deepssim_jax.cli import main
        from deepssim_jax.workspace import Made, Workspace, WorkspaceError
        assert all(callable(getattr(ds, name)) for name in ds.__all__)
        assert main.main(["--help"]) == main.main(["duplicates", "--help"]) == 0
        refused = sys.argv[1] + "_refused"
        assert main.main(["duplicates", "nowhere", f"--out={refused}"]) == 2
        print("---")
        with Workspace.open(sys.argv[1], command="work") as held:
            held.write("deep/a.csv", b"1\\n")
            held.append("log.txt", "one")
            try:
                with Workspace.open(sys.argv[1], command="work"):
                    pass
            except WorkspaceError as error:
                print(str(error).split(";")[0])
            for name in ("con.csv", "a:b.csv", "C:x", "/x", "deep/a."):
                try:
                    held.write(name, b"")
                except ValueError:
                    print("refused", name)
        with Workspace.open(sys.argv[1], command="work") as again:
            print(*again)
            images = again.cache("images", 0, code=main.main)
            made = lambda places: Made({"x": np.array(places)})
            held = images.compute(["a", "b"], made, block=1)
            print(again.forget({"a"}), held.field("x"), "a" in images)
        """,
        tmp_path / "out",
    ).partition("---\n")[2]
    lines = printed.splitlines()
    assert lines[0].startswith("--out='out' is in use by process ")
    refused = ("con.csv", "a:b.csv", "C:x", "/x", "deep/a.")
    # What is forgotten goes from the disk while its array is still in use.
    after = ["deep/a.csv log.txt", "1 [0 1] False"]
    assert lines[1:] == [*(f"refused {name}" for name in refused), *after]
    assert (tmp_path / "out" / "log.txt").read_bytes() == b"one\n"
    assert not (tmp_path / "out_refused").exists()


def test_duplicates_with_and_without_a_folder(tmp_path):
    """Also without one nothing stays: the arrays are let go before their files are deleted."""
    picture = ndimage.zoom(np.random.default_rng(0).random((8, 8)), 12)
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    for name in ("a/1.npy", "2.npy"):
        np.save(tmp_path / "in" / name, picture)
    printed = on_windows(
        """
        import os, sys, tempfile
        import deepssim_jax as ds
        tempfile.tempdir = sys.argv[3]
        settings = ds.DuplicateSettings(size=64)
        for out in (None, sys.argv[2]):
            result = ds.duplicates(sys.argv[1], out=out, settings=settings)
            print([image.image_id for image in result.groups], os.listdir(sys.argv[3]))
        """,
        *(tmp_path / name for name in ("in", "out", "temporary")),
        # The programs that this process has compiled.
        JAX_NUM_CPU_DEVICES=str(jax.device_count()),
    )
    assert printed == "['2.npy', 'a/1.npy'] []\n" * 2
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("paths", "written", "root"),
    [
        (PurePosixPath, "/data/real/a/1.png", "/data/real"),
        (PureWindowsPath, r"D:\data\real\a\1.png", r"D:\data\real"),
        (PureWindowsPath, r"\\server\share\real\a\1.png", r"\\server\share\real"),
        (PureWindowsPath, r"D:\a\1.png", "D:\\"),
    ],
)
def test_ids_are_the_same_on_every_system(paths, written, root):
    assert named(paths(written), paths(root)) == "a/1.png"


def test_paths_of_a_table_of_either_kind():
    assert names.slashed(r"sub\a.png", paths=PureWindowsPath) == "sub/a.png"
    assert names.slashed(r"sub\a.png", paths=PurePosixPath) == r"sub\a.png"
    assert names.slashed("sub//a.png", paths=PureWindowsPath) == "sub/a.png"


@pytest.mark.parametrize("paths", [PurePosixPath, PureWindowsPath])
def test_names_that_lead_out_of_a_folder(paths):
    assert names.parts_inside("deep/a.csv", paths=paths) == ("deep", "a.csv")
    for name in ("", ".", "/a", "../a", "a/../../b"):
        with pytest.raises(ValueError, match="no name inside"):
            names.parts_inside(name, paths=paths)


@pytest.mark.parametrize("name", [r"\a", "C:a", "C:/a", r"C:\a", r"\\server\share\a", r"a\..\b"])
def test_names_that_lead_out_on_windows_alone(name):
    with pytest.raises(ValueError, match="no name inside"):
        names.parts_inside(name, paths=PureWindowsPath)


@pytest.mark.parametrize(
    "name",
    ["a:b", "a*b", "a?", "a.", "a ", "CON", "nul.csv", "com1.tar.gz", "x/aux/y", "a|b", "a\x01"],
)
def test_what_windows_refuses(name):
    assert names.refused_by_windows(name)


@pytest.mark.parametrize(
    "name", ["a.csv", "deep/a-b_c (1).csv", "console.csv", ".hidden", "Müller.csv"]
)
def test_what_windows_stores(name):
    assert names.refused_by_windows(name) is None


def test_no_output_of_the_package_has_a_name_that_windows_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "on_windows", lambda: True)
    with Workspace.open(tmp_path / "out", command="work") as out:
        out.write("a.csv", b"")
        with pytest.raises(WorkspaceError, match="device on Windows; give another name"):
            out.write("deep/aux.csv", b"")


@pytest.mark.parametrize("name", ["con.csv", "a:b.csv"])
def test_a_table_that_would_fail_at_the_end_is_refused_at_the_start(name):
    with pytest.raises(ValueError, match="write_manifest .*Windows"):
        ds.DuplicateSettings(write_manifest=name)


def test_a_drive_that_is_not_there(tmp_path, monkeypatch):
    """No folder above it exists either; it is an error in words, and no endless search upwards."""

    def missing(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", missing)
        patch.setattr(claims.os, "mkdir", missing)
        with (
            pytest.raises(WorkspaceError, match="cannot be used: no such file or directory"),
            claims.claimed(Path("/nowhere/out"), command="work", flag="--out"),
        ):
            pass
        assert claims._chain(Path("/Z/Out")) == claims._chain(Path("/z/out"))


def test_images_on_two_drives_have_whole_paths_in_their_table(tmp_path, monkeypatch):
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).random((8, 8)))
    records = read_manifest(tmp_path, role=Role.REAL).records

    def apart(_):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", apart)

    class Result:
        clean = ("0.npy", "1.npy")

    root, table = duplicates_outputs.clean_csv(Result, records)
    assert root == ""
    assert table.decode().splitlines()[1].split(",")[0] == (tmp_path / "0.npy").resolve().as_posix()


def test_a_lost_signal_is_sent_again_and_ends_nothing(monkeypatch):
    """On Windows `os.kill` with SIGTERM ends a process there and then."""
    sent: list[int] = []
    monkeypatch.setattr(stopping.sys, "platform", "win32")
    monkeypatch.setattr(stopping.signal, "raise_signal", sent.append)
    monkeypatch.setattr(stopping.os, "kill", lambda *_: pytest.fail("would end the process"))
    stopping._repeat()
    assert sent == [signal.SIGTERM]


def test_compiled_programs_lie_in_the_users_profile(tmp_path, monkeypatch):
    """Windows has no modes: what others cannot enter is the profile."""
    (tmp_path / "home" / "cache").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.delattr(os, "getuid")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert compile_cache.private(tmp_path / "home" / "cache")
    assert not compile_cache.private(tmp_path / "elsewhere")
    assert "in your profile" in compile_cache.remedy(tmp_path)
