"""An audit that is given the model: what its weights give away, in words, files and after a stop."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.audit import console, membership, sentences
from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.generation import Generator
from deepssim_jax.audit.membership import attack_model, fingerprint
from deepssim_jax.audit.result import AuditResult, Coverage, Membership
from deepssim_jax.cli.main import main
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn import network_file
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.scoring.membership import Attack, MembershipFigures, figures
from deepssim_jax.testing import assert_same_outputs, outputs
from deepssim_jax.training import generator as generators
from deepssim_jax.workspace.files import sha256
from tests.audit.test_generation import AUTOENCODER, weights, write_latents
from tests.kept import journal, share_secret, write_png

UNET = UNetSpec(channels=(8,), attention=(False,), heads=(8,), blocks=1, groups=4)
QUICK = AuditSettings(size=64, plant=0)
MEMBERS, HELD_OUT = 36, 9


def scene(number: int) -> np.ndarray:
    """Blobs [32, 32] in [0, 1], of nobody."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:32, :32]
    out = np.zeros((32, 32))
    for _ in range(6):
        a, b, width = rng.uniform([4, 4, 2], [28, 28, 6])
        out += np.exp(-((y - a) ** 2 + (x - b) ** 2) / width**2)
    return out / out.max()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`real` and `synthetic`, and `ldm`, the workdir of a model that learned nothing of `real`."""
    root = tmp_path_factory.mktemp("membership")
    for number in range(MEMBERS):
        write_png(root / "real" / f"patient{number:02d}.png", scene(number))
    for number in range(4):
        write_png(root / "synthetic" / f"gen-{number}.png", scene(100 + number))
    workdir = root / "ldm"
    network_file.save(workdir / generators.AUTOENCODER, AUTOENCODER, weights(AUTOENCODER), card={})
    card = {
        "latent_scale": "0.5",
        "schedule": json.dumps({"steps": Schedule().steps, "prediction": "v"}),
        "size": "[8, 8]",
    }
    network_file.save(workdir / generators.DENOISER, UNET, weights(UNET), card=card)
    rows = [["image_id", "subject_id", "copies", "sha256"]]
    for path in sorted((root / "real").iterdir()):
        rows.append([path.name, path.stem, "2", sha256(path)])
    rows += [[f"held{n}.png", f"held{n}", "0", f"{n:064d}"] for n in range(HELD_OUT)]
    write_records(workdir, rows)
    shape = (MEMBERS + HELD_OUT, 4, 4, 2 * AUTOENCODER.latent)
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    write_latents(workdir, latents, 0.5)
    return root


def write_records(workdir: Path, rows: list[list[str]]) -> None:
    with (workdir / generators.RECORDS).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def stop_at(what: str, done_at_least: int):
    def report(done: int, total: int, now: str) -> None:
        if now == what and done >= done_at_least:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def whole(folders: Path) -> dict[Attack, MembershipFigures]:
    """What attacks on the model come to, in two batches as an audit has them."""
    return attack_model(Generator.load(folders / "ldm"))


def test_stopped_attacks_go_on_to_the_same_figures(folders: Path, whole, tmp_path: Path) -> None:
    model = Generator.load(folders / "ldm")
    with journal(tmp_path) as kept, pytest.raises(KeyboardInterrupt):
        attack_model(model, journal=kept, on_progress=stop_at("membership inference", 20))
    steps = {p: p.stat().st_mtime_ns for p in (tmp_path / "work" / "steps").iterdir()}
    assert len(steps) == 1 and all(np.load(path).shape == (3, 32) for path in steps)
    with journal(tmp_path) as kept:
        assert attack_model(model, journal=kept) == whole
    assert all(path.stat().st_mtime_ns == before for path, before in steps.items())
    found = whole[Attack.PIA]
    assert (found.members, found.held_out) == (MEMBERS, HELD_OUT)
    assert found.area_low < found.area < found.area_high


@pytest.fixture(scope="module")
def audited(folders: Path) -> AuditResult:
    """Its files lie in `out`."""
    share_secret(folders / "out", command="audit")
    return audit(
        folders / "real",
        folders / "synthetic",
        model=folders / "ldm",
        out=folders / "out",
        settings=QUICK,
    )


def test_every_output_has_the_table_and_what_it_means(
    folders: Path, audited: AuditResult, capsys
) -> None:
    assert audited.membership is not None and audited.membership.coverage is Coverage.ALL
    summary = json.loads((folders / "out" / "summary.json").read_text())
    found = summary["membership"]
    assert (found["members"], found["held_out"]) == (MEMBERS, HELD_OUT)
    assert found["weights"] == summary["settings"]["model"]
    assert found["members_audited"] == "all"
    assert set(found["attacks"]) == {"loss", "secmi", "pia"}
    for attack in found["attacks"].values():
        assert 0 <= attack["area_low"] < attack["area"] < attack["area_high"] <= 1
        # Nine held-out images cannot show one false positive in a hundred.
        assert [row["share"] for row in attack["detected"]] == [None, None]
        assert [row["held_out_needed"] for row in attack["detected"]] == [100, 1000]
    for name in ("report.html", "report_share.html"):
        page = (folders / "out" / name).read_text()
        assert "What the model’s weights disclose" in page and "<td>SecMI</td>" in page
        assert page.count("<td>not measurable</td>") == 6
        assert "it takes 1,000 of them at least" in page
        assert "membership inference, and attributes" not in page
        assert str(folders) not in page
    assert "patient0" not in (folders / "out" / "report_share.html").read_text()
    console.print_result(audited, folders / "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert "membership, loss" in shown and "0.1% false positives not measurable" in shown


def test_a_killed_audit_comes_to_the_same_bytes(
    folders: Path, audited: AuditResult, tmp_path: Path
) -> None:
    """Killed in the attacks: what was found of the images before is there."""
    arguments, out = (folders / "real", folders / "synthetic"), tmp_path / "out"
    shutil.copytree(folders / "out", out)
    lost = [out / name for name in outputs(out)]
    for path in [*lost, *(out / "work" / "steps").glob("membership.*")]:
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        audit(
            *arguments,
            model=folders / "ldm",
            out=out,
            settings=QUICK,
            on_progress=stop_at("membership inference", 1),
        )
    assert not (out / "summary.json").exists()
    kept = list((out / "work" / "steps").glob("membership.scores-*"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    audit(*arguments, model=folders / "ldm", out=out, settings=QUICK)
    assert kept[0].stat().st_mtime_ns == before
    assert_same_outputs(folders / "out", out)


def test_nobody_held_out_is_said_and_is_no_failure(
    folders: Path, audited: AuditResult, tmp_path: Path
) -> None:
    shutil.copytree(folders / "out", tmp_path / "out")  # the images are the same
    workdir = tmp_path / "ldm"
    shutil.copytree(folders / "ldm", workdir)
    with (workdir / generators.RECORDS).open(newline="") as file:
        rows = list(csv.reader(file))
    write_records(workdir, [rows[0], *([a, b, "1", d] for a, b, _, d in rows[1:])])
    arguments = [
        f"--real={folders}/real",
        f"--synthetic={folders}/synthetic",
        "--size=64",
        "--plant=0",
    ]
    arguments.append(f"--out={tmp_path}/out")
    assert main(["audit", *arguments, f"--model={workdir}"]) in (0, 4)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["membership"]["attacks"] == {} and summary["membership"]["held_out"] == 0
    assert summary["membership"]["members_audited"] == "some"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "nothing can be inferred about membership" in page
    assert "area under ROC" not in page
    assert "structure, membership inference, and attributes" in page


def test_a_workdir_that_is_not_finished_is_refused_at_once(
    folders: Path, tmp_path: Path, capsys
) -> None:
    workdir = tmp_path / "ldm"
    shutil.copytree(folders / "ldm", workdir)
    with (workdir / generators.RECORDS).open("a") as file:
        file.write("more.png,more,1,x\n")
    with pytest.raises(ValueError, match="holds 45 latents and 46 records"):
        fingerprint(Generator.load(workdir))
    (workdir / generators.DENOISER).unlink()
    arguments = [f"--real={folders}/real", f"--synthetic={folders}/synthetic"]
    assert main(["audit", *arguments, f"--out={tmp_path}/out", f"--model={workdir}"]) == 2
    assert "finish train_ldm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def inferred(shift: float, members: int, held_out: int) -> Membership:
    rng = np.random.default_rng(3)
    found = figures(rng.standard_normal(members) + shift, rng.standard_normal(held_out))
    return Membership({Attack.PIA: found}, members, held_out, 0.95, Coverage.ALL, "hash")


def test_the_sentences_say_what_was_shown_and_no_more() -> None:
    (leaks,) = sentences.membership(inferred(1.0, 2000, 1000))
    assert "Better than chance at telling 2,000 training images from 1,000 held-out ones" in leaks
    (silent,) = sentences.membership(inferred(0.0, 2000, 1000))
    assert "was shown" in silent and "no proof" in silent
    few = sentences.membership(inferred(0.0, 200, 100))
    assert len(few) == 2 and "0.1% cannot be measured with 100 held-out images" in few[1]
    shared = sentences.membership(inferred(0.0, 40, 3), edition=Edition.SHARED)
    assert "fewer than 5 held-out" in shared[0] and not any(" 3 " in line for line in shared)


def test_the_model_of_other_images_is_noticed(
    folders: Path, whole, tmp_path: Path, monkeypatch
) -> None:
    # The attacks do not know whose images are audited, and are not run again for that.
    monkeypatch.setattr(membership, "attack_model", lambda *model, **how: whole)
    with journal(tmp_path) as kept:
        found = membership.infer_membership(
            Generator.load(folders / "ldm"),
            audited={"of", "others"},
            journal=kept,
            seed=0,
            level=0.95,
            on_progress=lambda done, total, what: None,
        )
    assert found.coverage is Coverage.NONE
    assert sentences.membership(found)[0].startswith("None of the images that this model")


def test_scores_depend_on_the_model_and_its_latents_alone(folders: Path, tmp_path: Path) -> None:
    model, again = (Generator.load(folders / "ldm") for _ in range(2))
    assert fingerprint(model) == fingerprint(again)
    shutil.copytree(folders / "ldm", tmp_path / "moved")
    write_latents(tmp_path / "moved", np.load(folders / "ldm/latents/latents.npy")[::-1], 0.5)
    assert fingerprint(Generator.load(tmp_path / "moved")) != fingerprint(model)
