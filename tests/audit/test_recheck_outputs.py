"""`verify` of every command's folder: right as it was written, wrong after one byte of anything changed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.main import main
from deepssim_jax.data.phantom_heads import angiograms
from deepssim_jax.testing import outputs
from deepssim_jax.workspace import MARKER, Workspace
from tests.kept import write_phantoms

SIZE = "--size=64"
# What files of these tests are called, which is nobody's to read on a screen.
NAMES = r"p[0-9]{4}_t1|p[0-9]\.nii|IXI[0-9]"


def _volumes(folder: Path) -> None:
    volumes = np.asarray(angiograms(jax.random.key(0), 12, size=(32,) * 3).volumes)
    for number, volume in enumerate(volumes):
        side = folder / ("real" if number < 9 else "synthetic")
        side.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(volume, np.diag([3.0, 3, 3, 1]))
        nibabel.save(image, side / f"p{number}.nii.gz")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_phantoms(root / "real", 12, size=(64, 64), seed=1)
    write_phantoms(root / "synthetic", 6, size=(64, 64), seed=2)
    write_phantoms(root / "test", 6, size=(64, 64), seed=3)
    return root


def _run(*line: object) -> None:
    assert main([*map(str, line), "--verbose"]) in (0, 4), line


def _embed(root: Path, out: Path) -> None:
    _run("embed", f"--images={root / 'real'}", f"--out={out}", SIZE)


def _score(root: Path, out: Path) -> None:
    for side in ("real", "synthetic"):
        store = out.parent / "stores" / side
        _run("embed", f"--images={root / side}", f"--out={store}", SIZE)
    stores = out.parent / "stores"
    _run(
        "score", f"--real={stores / 'real'}", f"--synthetic={stores / 'synthetic'}", f"--out={out}"
    )


def _duplicates(root: Path, out: Path) -> None:
    _run("duplicates", root / "real", f"--out={out}", SIZE, "--write_manifest=clean.csv")


def _index(root: Path, out: Path) -> None:
    _run("index", root / "real", f"--out={out}")


def _prepare(root: Path, out: Path) -> None:
    source = out.parent / "ixi"
    source.mkdir()
    volume = np.random.default_rng(0).uniform(1, 9, (24, 24, 24)).astype(np.float32)
    for number in range(2):
        image = nibabel.Nifti1Image(volume + number, np.diag([-1, -1, 1, 1]))
        nibabel.save(image, source / f"IXI{100 + number}-Guys-0{number}-T1.nii.gz")
    _run("prepare", "--dataset=ixi", f"--source={source}", "--size=32,32", f"--out={out}")


def _audit(root: Path, out: Path) -> None:
    pair = [f"--real={root / 'real'}", f"--synthetic={root / 'synthetic'}"]
    _run("audit", *pair, f"--out={out}", SIZE, "--plant=0")


def _utility(root: Path, out: Path) -> None:
    pair = [f"--real={root / 'real'}", f"--synthetic={root / 'synthetic'}"]
    short = ["--size=32", "--steps=4", "--seeds=1"]
    _run("utility", *pair, f"--test={root / 'test'}", f"--out={out}", *short)


def _replicas(root: Path, out: Path) -> None:
    folder = out.parent / "volumes"
    _volumes(folder)
    pair = [f"--real={folder / 'real'}", f"--synthetic={folder / 'synthetic'}"]
    _run("replicas", *pair, f"--out={out}", "--size=32", "--modality=angiography", "--candidates=1")


def _stress(root: Path, out: Path) -> None:
    flags = ["--setting=harsh", "--methods=ssim", SIZE]
    _run("stress", f"--real={root / 'real'}", f"--out={out}", *flags)


JOBS: dict[str, Callable[[Path, Path], None]] = {
    job.__name__.removeprefix("_"): job
    for job in (_embed, _score, _duplicates, _index, _prepare, _audit, _utility, _replicas, _stress)
}
SLOW = {"audit", "replicas", "stress", "utility"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in sorted(JOBS)]
)
def test_one_changed_byte_is_a_problem(inputs: Path, tmp_path: Path, name: str, capsys) -> None:
    out = tmp_path / "out"
    JOBS[name](inputs, out)
    said = "".join(capsys.readouterr())
    assert not re.search(NAMES, said), said
    files = [out / name for name in outputs(out)]
    assert files
    assert main(["verify", str(out)]) == 0, capsys.readouterr().err
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert main(["verify", str(out)]) != 0, path.name
        path.unlink()
        assert main(["verify", str(out)]) != 0, path.name
        path.write_bytes(content)
    capsys.readouterr()
    (out / "p0000 of a patient.png").write_bytes(b"laid in")
    assert main(["verify", str(out)]) == 1
    assert "patient" not in capsys.readouterr().err
    (out / "p0000 of a patient.png").unlink()
    assert main(["verify", str(out)]) == 0


def test_without_its_kept_work_nothing_is_vouched_for(inputs: Path, tmp_path: Path, capsys) -> None:
    _embed(inputs, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "work")
    assert main(["verify", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "which holds the hashes of the files, is gone" in said
    assert "finished is here" not in said


def test_what_was_killed_before_it_wrote_a_result_is_a_problem(tmp_path: Path, capsys) -> None:
    with Workspace.open(tmp_path / "out", command="replicas") as workspace:
        workspace.secret()
    assert main(["verify", str(tmp_path / "out")]) == ExitCode.FAILED
    assert "nothing that `deepssim replicas` finished is here" in capsys.readouterr().err


def test_a_folder_of_someone_else_is_said(inputs: Path, capsys) -> None:
    assert main(["verify", str(inputs)]) == 2
    assert "give the --out folder of a finished audit" in capsys.readouterr().err
    assert not (inputs / MARKER).exists()
