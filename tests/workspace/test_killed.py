"""Killed at any moment, on a full disk, elsewhere: nobody's files are touched, and the next run ends
with the same bytes.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from deepssim_jax.data.phantom_heads import angiograms
from tests.kept import share_secret, write_phantoms

COMMAND = """
    import sys, numpy as np
    from deepssim_jax.workspace import Made, Workspace
    def make(rows): return np.stack([np.full(5000, r, np.float32) for r in rows])
    with Workspace.open(sys.argv[1], command="work") as workspace:
        print("claimed", flush=True)
        rows = workspace.by_rows("rows", 1, make, count=200, block=2)
        ids = [str(i) for i in range(200)]
        cache = workspace.cache("x", 0, code=make)
        entries = cache.compute(ids, lambda p: Made({"x": make(p)}), block=2)
        for i in range(50):
            workspace.write(f"deep/{i}.npy", rows[i].tobytes())
        workspace.write("sum.csv", str(entries.field("x").sum() + rows.sum()).encode())
        workspace.prune()
"""


def python(out: Path, **how) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(COMMAND), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


def finished(out: Path) -> dict[str, bytes]:
    """Runs to the end; every file that is no lock."""
    process = python(out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """Outputs and steps; shards and the list of outputs depend on the moments of kills."""
    found = (p for p in sorted(out.rglob("*")) if p.is_file() and not p.name.endswith(".lock"))
    names = {p.relative_to(out).as_posix(): p for p in found}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith("work/") or name.startswith("work/steps/")
    }


def add_strangers(out: Path) -> dict[Path, bytes]:
    """Files of someone else in an owned folder."""
    places = [out / "notes.txt", out / "work" / "steps" / "mine.npy", out / "deep" / "mine.txt"]
    for path in places:
        path.write_bytes(b"mine")
    return dict.fromkeys(places, b"mine")


def unchanged(strangers: dict[Path, bytes]) -> bool:
    return all(path.read_bytes() == content for path, content in strangers.items())


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    return finished(tmp_path_factory.mktemp("clean") / "out")


def test_killed_at_five_moments_it_ends_with_the_same_bytes(tmp_path: Path, clean) -> None:
    out, rng = tmp_path / "out", random.Random(0)
    for _ in range(5):
        process = python(out)
        assert process.stdout.readline() == b"claimed\n"
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.communicate()
    assert finished(out) == clean


def test_strangers_files_outlive_kills(tmp_path: Path, clean) -> None:
    out = tmp_path / "out"
    finished(out)
    shutil.rmtree(out / "work" / "cache")
    strangers = add_strangers(out)
    for wait in (0.0, 0.2):
        process = python(out)
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
        process.communicate()
        assert unchanged(strangers)
    found = finished(out)
    assert unchanged(strangers)
    names = {path.relative_to(out).as_posix() for path in strangers}
    assert {name: content for name, content in found.items() if name not in names} == clean


@pytest.mark.filterwarnings("ignore:os.fork")  # the child only sets a limit before it is replaced
def test_a_file_that_may_not_grow_is_said_and_gone_on_from(tmp_path: Path, clean) -> None:
    """As a disk that fills up: the first big file cannot be written."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    out = tmp_path / "out"
    process = python(out, preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode == 1 and b"no space left to write" in errors
    assert not list(out.rglob("*.tmp"))
    assert finished(out) == clean


def test_a_full_disk_is_said_and_gone_on_from(tmp_path: Path, clean) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here: run as root to fill a disk of one megabyte")
    try:
        process = python(disk / "out")
        _, errors = process.communicate()
        assert process.returncode == 1 and b"no space left to write" in errors
        assert not list(disk.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert finished(disk / "out") == clean
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no other file system")
def test_the_folder_may_lie_on_another_file_system(tmp_path: Path, clean) -> None:
    folder = Path("/dev/shm") / f"deepssim-test-{os.getpid()}"
    try:
        assert os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev
        assert finished(folder / "out") == clean
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Small inputs of every quick command."""
    root = tmp_path_factory.mktemp("inputs")
    write_phantoms(root / "real", 24, size=(64, 64), seed=1)
    write_phantoms(root / "synthetic", 6, size=(64, 64), seed=2)
    write_phantoms(root / "test", 6, size=(64, 64), seed=3)
    rng = np.random.default_rng(0)
    for number in range(3):
        path = root / "ixi" / f"IXI{100 + number}-Guys-0{number}-T1.nii.gz"
        path.parent.mkdir(exist_ok=True)
        volume = rng.uniform(1, 9, (24, 24, 24)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1, -1, 1, 1])), path)
    vessels = np.asarray(angiograms(jax.random.key(0), 6, size=(32,) * 3).volumes)
    for number, volume in enumerate(vessels):
        path = root / "volumes" / ("real" if number < 4 else "synthetic") / f"p{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([3.0, 3, 3, 1])), path)
    for side in ("real", "synthetic"):
        store = [f"--images={root}/{side}", f"--out={root}/stores/{side}", "--size=64"]
        subprocess.run([sys.executable, "-m", "deepssim_jax", "embed", *store], check=True)
    return root


def commands(root: Path) -> dict[str, list[str]]:
    """Command lines without `--out`."""
    size = "--size=64"
    pair = [f"--real={root}/real", f"--synthetic={root}/synthetic"]
    return {
        "embed": ["embed", f"--images={root}/real", size],
        "audit": ["audit", *pair, size],
        "filter": ["filter", *pair, size, "--residual_pairs=24"],
        "utility": ["utility", *pair, f"--test={root}/test", "--size=32", "--steps=4", "--seeds=1"],
        "score": ["score", f"--real={root}/stores/real", f"--synthetic={root}/stores/synthetic"],
        "prepare": ["prepare", "--dataset=ixi", f"--source={root}/ixi", "--size=32,32"],
        "stress": ["stress", f"--real={root}/real", size, "--setting=harsh", "--methods=ssim,ncc"],
        "demo": ["demo"],
        "index": ["index", f"{root}/real", size],
        "duplicates": ["duplicates", f"{root}/real", size, "--write_manifest=clean.csv"],
        "replicas": [
            *("replicas", f"--real={root}/volumes/real", f"--synthetic={root}/volumes/synthetic"),
            *("--size=32", "--modality=other", "--candidates=1", "--align=none"),
        ],
    }


# Of a smaller cohort than a user's; the rest is the command.
DEMO = """
from deepssim_jax.cli import compile_cache
compile_cache.prepare()
from deepssim_jax.audit import demo
demo.demo.__kwdefaults__["size"] = demo.CohortSize(real=24, holdout=8, copies=4, unrelated=8)
from deepssim_jax.cli.main import run
run()
"""


KILLS = 10

# Commands whose pages have aliases, with the folders of these.
SHARED = {
    "audit": {"": "audit"},
    "replicas": {"": "replicas"},
    "demo": {"": "demo", "audit": "audit"},
}


def start(inputs: Path, name: str, out: Path) -> subprocess.Popen:
    if name in SHARED and not out.exists():
        for folder, command in SHARED[name].items():
            share_secret(out / folder, command=command)
    program = ["-c", DEMO] if name == "demo" else ["-m", "deepssim_jax"]
    line = [sys.executable, *program, *commands(inputs)[name], f"--out={out}"]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(inputs: Path, name: str, out: Path) -> dict[str, bytes]:
    process = start(inputs, name, out)
    _, errors = process.communicate()
    # A demo of so few patients may miss a copy.
    assert process.returncode in ((0, 1) if name == "demo" else (0, 4)), errors.decode()
    assert b" failed: " not in errors, errors.decode()
    found = (p for p in sorted(out.rglob("*")) if p.is_file() and p.suffix != ".lock")
    names = {p.relative_to(out).as_posix(): p for p in found}
    return {n: p.read_bytes() for n, p in names.items() if "work" not in Path(n).parts}


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(commands(Path())))
def test_every_quick_command_killed_at_ten_moments(inputs: Path, tmp_path: Path, name: str) -> None:
    # In one place, for the demo writes down where its own images are.
    before, out = contents_of(inputs), tmp_path / "out"
    whole = finish(inputs, name, out)
    shutil.rmtree(out)
    begin = time.monotonic()
    assert finish(inputs, name, out) == whole
    seconds, rng = time.monotonic() - begin, random.Random(name)
    shutil.rmtree(out)
    for _ in range(KILLS):
        process = start(inputs, name, out)
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        process.kill()
        process.communicate()
    assert finish(inputs, name, out) == whole
    assert contents_of(inputs) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(commands(Path())))
def test_every_quick_command_on_a_disk_that_is_read_only_full_and_of_its_own(
    inputs: Path, tmp_path: Path, name: str
) -> None:
    """Refused, stopped with the reason, and then ended with the bytes that any other disk has."""
    disk, out = tmp_path / "disk", tmp_path / "disk" / "new" / "out"
    disk.mkdir()
    size = 20 * len(SHARED.get(name, (name,)))  # as many folders as the test begins
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: run as root to fill a small disk")

    def again(option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)

    def ends(code: int, words: str) -> None:
        process = start(inputs, name, out)
        _, errors = process.communicate()
        assert process.returncode == code and words in errors.decode(), errors.decode()
        assert len(errors.decode().splitlines()[-1]) < 300
        assert not list(disk.rglob("*.tmp"))

    try:
        if name not in SHARED:  # for these the test begins the folder
            again("ro")
            ends(2, "cannot be used: read-only file system; give another folder")
            assert not list(disk.iterdir())
            again("rw")
        ends(1, "there is no space left to write")
        again("size=512m")
        found = finish(inputs, name, out)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert finish(inputs, name, out) == found  # at the same place, on the disk below
