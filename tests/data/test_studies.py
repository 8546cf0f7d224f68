"""IXI and CoRR in the layouts of their downloads, with their traps, made of nothing."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from deepssim_jax.cli.main import main
from deepssim_jax.data import studies
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.studies import Person
from deepssim_jax.data.volume import oriented


def volume(seed: int) -> nibabel.Nifti1Image:
    """As IXI's T1: the file's axes are not those of the patient. The left side is bright."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 50, 30)), indexing="ij")
    head = (np.hypot(np.hypot(x, y), z) < 0.9) * (2.0 - x + 0.3 * y)
    head = head + 0.05 * np.random.default_rng(seed).random(head.shape)
    stored = np.transpose(head, (1, 2, 0))[::-1]  # y reversed, z, x
    affine = np.array([[0, 0, 1.5, 0], [-1.2, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    return nibabel.Nifti1Image(stored.astype(np.float32), affine)


IXI_NAMES = (
    "IXI002-Guys-0828-T1",
    "IXI012-HH-1211-T1",
    "IXI012-HH-1211-T2",
    "IXI219-Guys-0894-T1",
    "IXI012-HH-1211-PD",
)


@pytest.fixture(scope="module")
def ixi_tar(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ixi") / "IXI-T1.tar"
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate((*IXI_NAMES, "../../escape", "notes")):
            content = volume(number).to_bytes() if name.startswith("IXI") else b"x"
            suffix = ".nii" if name.startswith("IXI") else ""
            member = tarfile.TarInfo(f"./{name}{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "IXI.csv"
    lines = [
        ("IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "DOB", "AGE"),
        (2, 2, 164, "1970-03-03", 35.80),
        (2, 0, 0, "", 0),  # a zeroed copy of the row above
        (12, 1, 175, "1966-08-20", 38.78),
        (219, 1, 170, "1980-01-01", 30.0),
        (219, 1, 170, "1940-01-01", 70.0),  # contradicts
        (300, 0, 0, "", ""),
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_ixi_table_and_its_traps(people: Path, tmp_path: Path) -> None:
    assert studies.ixi_people(people) == {
        "002": Person(35.8, "f"),
        "012": Person(38.78, "m"),
        "219": Person(None, "m"),
        "300": Person(None, None),
    }
    broken = tmp_path / "t.csv"
    broken.write_text("IXI_ID,AGE\n1,2\n")
    with pytest.raises(InputError, match="no column SEX_ID"):
        studies.ixi_people(broken)


def test_ixi_from_tar_to_training_images(ixi_tar: Path, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["prepare", "--dataset=ixi", f"--source={ixi_tar}", f"--out={out}"]
    assert main([*command, f"--demographics={people}"]) == 0
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["image_id"] for r in rows] == sorted(f"{n}___training" for n in IXI_NAMES[:4])
    assert rows[0] == {
        "path": "IXI002-Guys-0828-T1/training.png",
        "image_id": "IXI002-Guys-0828-T1___training",
        "subject_id": "IXI002",
        "session_id": "0828",
        "site": "Guys",
        "sequence": "T1",
        "age": "35.8",
        "sex": "f",
    }
    assert "1970" not in (out / "manifest.csv").read_text()  # no date of birth leaves the table
    image = np.asarray(Image.open(out / rows[0]["path"]))
    assert image.shape == (136, 112) and image.dtype == np.uint16
    # Radiological display: the patient's left, which is bright, stands at the right.
    assert image[:, 60:].mean() > 1.2 * image[:, :52].mean()
    assert not (tmp_path / "escape").exists() and not list(out.glob("*escape*"))
    before = os.stat(out / rows[0]["path"]).st_mtime_ns
    assert main(command) == 0  # goes on: nothing is made twice
    assert os.stat(out / rows[0]["path"]).st_mtime_ns == before
    reference = read_manifest(out / "manifest.csv", role=Role.REAL)
    assert {r.subject_id for r in reference.records} == {"IXI002", "IXI012", "IXI219"}


def test_corr_by_site_and_what_cannot_be_read(tmp_path: Path, capsys) -> None:
    source = tmp_path / "RawDataBIDS"
    for site, subject, session in (("BNU_1", "0025864", "1"), ("BNU_1", "0025864", "2")):
        folder = source / site / f"sub-{subject}" / f"ses-{session}" / "anat"
        folder.mkdir(parents=True)
        volume(1).to_filename(folder / f"sub-{subject}_ses-{session}_run-1_T1w.nii.gz")
    broken = source / "NYU_1" / "sub-0000007" / "ses-1" / "anat"
    broken.mkdir(parents=True)
    (broken / "sub-0000007_ses-1_run-1_T1w.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["prepare", "--dataset=corr", f"--source={source}", f"--out={out}"]) == 0
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["subject_id"], r["session_id"], r["site"]) for r in rows] == [
        ("0025864", "1", "BNU_1"),
        ("0025864", "2", "BNU_1"),
    ]
    done = json.loads((out / "prepare.json").read_text())
    assert len(done["failed"]) == 1 and done["failed"][0][0].startswith("NYU_1_sub-0000007")


def scans(folder: Path, seeds: dict[str, int]) -> Path:
    for name, seed in seeds.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        volume(seed).to_filename(folder / name)
    return folder


def prepare_ixi(source: Path, out: Path) -> tuple[dict[str, bytes], dict]:
    """The images by path, and what prepare.json says; each image is in the manifest once."""
    assert main(["prepare", "--dataset=ixi", f"--source={source}", f"--out={out}"]) == 0
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.glob("*/training.png")}
    with (out / "manifest.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == sorted(found)
    return found, json.loads((out / "prepare.json").read_text())


def test_another_scan_under_a_name_is_prepared_anew_and_a_lost_one_goes(tmp_path: Path) -> None:
    a, b = "IXI002-Guys-0228-T1.nii.gz", "IXI003-Guys-0328-T1.nii.gz"
    source = scans(tmp_path / "in", {a: 1, b: 2})
    prepare_ixi(source, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("not of the program")
    scans(source, {a: 3})
    (source / b).unlink()
    changed, said = prepare_ixi(source, tmp_path / "out")
    fresh, _ = prepare_ixi(scans(tmp_path / "new", {a: 3}), tmp_path / "fresh")
    assert changed == fresh and list(fresh) == ["IXI002-Guys-0228-T1/training.png"]
    assert said["inputs"]["files_found"] == 1
    assert (tmp_path / "out" / "mine.txt").read_text() == "not of the program"
    before = (tmp_path / "out" / list(fresh)[0]).stat().st_mtime_ns
    prepare_ixi(source, tmp_path / "out")
    assert (tmp_path / "out" / list(fresh)[0]).stat().st_mtime_ns == before


@pytest.mark.parametrize("packed", [False, True])
def test_every_file_of_a_study_is_counted(tmp_path: Path, capsys, packed: bool) -> None:
    names = ["IXI002-Guys-0228-T1", "other/IXI002-Guys-0228-T1", "IXI011-Xyz-0228-T1"]
    names += ["ixi013-Guys-0228-T1", "IXI014-Guys-0228-PD"]
    source = scans(tmp_path / "in", {f"{name}.nii": i for i, name in enumerate(names)})
    (source / "readme.txt").write_text("hello")
    (source / "gone.nii").symlink_to("nowhere")
    if packed:
        with tarfile.open(tmp_path / "in.tar", "w") as tar:
            tar.add(source, arcname=".")
        source = tmp_path / "in.tar"
    found, said = prepare_ixi(source, tmp_path / "out")
    assert len(found) == 1
    counts = said["inputs"]
    assert (counts["files_found"], counts["images_read"], counts["not_read"]) == (7, 1, 4)
    assert counts["not_images"] == 2  # another sequence, and the text
    reasons = {Path(name).as_posix(): reason for name, reason in counts["files"]}
    assert "second file of this name" in reasons["other/IXI002-Guys-0228-T1.nii"]
    assert "not like IXI*-*-*-T1.nii.gz" in reasons["IXI011-Xyz-0228-T1.nii"]
    assert "sequence PD" in reasons["IXI014-Guys-0228-PD.nii"]
    assert {"ixi013-Guys-0228-T1.nii", "gone.nii"} < reasons.keys()
    assert "files found" in (screen := capsys.readouterr().out) and "ixi013" not in screen


def test_whole_volumes_keep_their_place_and_size(ixi_tar: Path, tmp_path: Path) -> None:
    command = ["prepare", "--dataset=ixi", f"--source={ixi_tar}", f"--out={tmp_path}", "--volumes"]
    assert main(command) == 0
    made = nibabel.load(tmp_path / "IXI002-Guys-0828-T1" / "training.nii.gz")
    given = volume(0)
    expected, spacing = oriented(np.asarray(given.dataobj), given.affine)
    np.testing.assert_array_equal(np.asarray(made.dataobj), expected)
    np.testing.assert_allclose(made.header.get_zooms(), spacing)
    again, _ = oriented(np.asarray(made.dataobj), made.affine)
    np.testing.assert_array_equal(again, expected)  # its affine says how it lies
    assert nibabel.aff2axcodes(made.affine) == ("S", "P", "L")


def test_tools_are_called_in_order_and_recorded(
    ixi_tar: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    """Stand-ins for the programs: one copies, one fails and names the file, in the private record alone."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "N4BiasFieldCorrection").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "N4 9.9" && exit\ngzip -c "$4" > "$6"\n'
    )
    (tools / "hd-bet").write_text('#!/bin/sh\necho "out of memory at $2" >&2\nexit 1\n')
    for path in tools.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    command = ["prepare", "--dataset=ixi", f"--source={ixi_tar}"]
    assert main([*command, f"--out={tmp_path / 'a'}", "--tools=n4"]) == 0
    done = json.loads((tmp_path / "a" / "prepare.json").read_text())
    assert done["tools"] == {"n4": "N4 9.9"} and done["failed"] == []
    assert main([*command, f"--out={tmp_path / 'b'}", "--tools=n4,skullstrip"]) == 1
    done = json.loads((tmp_path / "b" / "prepare.json").read_text())
    words = [reason.partition(" at ") for _, reason in done["failed"]]
    assert [said for said, _, _ in words] == ["hd-bet failed: out of memory"] * 4
    assert all(name.endswith("0.nii.gz") for _, _, name in words)
    assert (tmp_path / "b" / "prepare.json").stat().st_mode & 0o077 == 0
    printed = "".join(capfd.readouterr())
    assert "hd-bet failed" in printed and "memory" not in printed and "0.nii.gz" not in printed


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--tools=mni", "flirt, which does mni, is not installed"),
        ("--tools=magic", "--tools='magic' must be n4 or skullstrip or mni"),
        ("--size=136", "must be two numbers"),
        ("--source=nowhere", "there is no such folder or tar file"),
    ],
)
def test_wrong_input_is_said(ixi_tar: Path, tmp_path: Path, capsys, flag: str, words: str) -> None:
    command = ["prepare", "--dataset=ixi", f"--out={tmp_path}", flag]
    if not flag.startswith("--source"):
        command.append(f"--source={ixi_tar}")
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_a_folder_without_scans_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such as sub-\*_ses-\*_run-\*_T1w"):
        studies.corr(tmp_path)
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="no tar file"):
        studies.ixi(tmp_path / "x.tar")
