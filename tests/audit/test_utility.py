"""Utility: the same budget for everyone, tested on strangers, and said soberly."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.audit import utility as utility_room
from deepssim_jax.audit import utility_report
from deepssim_jax.audit.utility import (
    REFERENCE,
    UNTREATED,
    Figure,
    Result,
    UtilityResult,
    UtilitySettings,
    measure,
    read_arms,
    utility,
)
from deepssim_jax.data.manifest import InputError
from deepssim_jax.ops.degradation import Task
from deepssim_jax.training.restoration import RestorationSettings, restore, train_restorer
from tests.kept import within, write_phantoms

SMALL = RestorationSettings(channels=4, steps=60, batch=4, patch=24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("utility")
    write_phantoms(folder / "all", 40, size=(32, 32), seed=2)
    for number, path in enumerate(sorted((folder / "all").glob("*.png"))):
        side = ("real", "synthetic", "test")[min(number // 16, 2)]
        (folder / side).mkdir(exist_ok=True)
        shutil.copy(path, folder / side / path.name)
    return folder


def arms_of(folders: Path, work: Path):
    arms = {name: folders / name for name in ("real", "synthetic")}
    return arms_in(work, arms, folders / "test", subject_regex=r"^(p\d+)_")


def arms_in(work: Path, arms: dict[str, Path], test: Path, *, size: int = 32, **how):
    return within(work, lambda w: read_arms(arms, test, w, size=size, **how))


@pytest.fixture(scope="module")
def result(folders: Path, tmp_path_factory):
    given = arms_of(folders, tmp_path_factory.mktemp("work"))
    arms, test, patients = given.arms, given.test, given.patients
    arms["broken"] = np.random.default_rng(0).random((16, 32, 32)).astype(np.float32)
    steps: list[int] = []
    settings = UtilitySettings(training=SMALL, seeds=2)
    found = utility(
        arms,
        test,
        patients,
        settings=settings,
        on_progress=lambda done, total, what: steps.append(done) if total == 720 else None,
    )
    assert steps[-1] == 720 and steps == sorted(steps)
    return found


def test_figures_are_those_of_skimage() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="skimage is not installed")
    rng = np.random.default_rng(0)
    clean = rng.random((3, 24, 24)).astype(np.float32)
    noisy = np.clip(clean + 0.1 * rng.standard_normal(clean.shape), 0, 1).astype(np.float32)
    found = measure(clean, noisy)
    for row in range(3):
        pair = clean[row], noisy[row]
        assert found[Figure.PSNR][row] == pytest.approx(
            skimage.peak_signal_noise_ratio(*pair, data_range=1), abs=1e-3
        )
        assert found[Figure.SSIM][row] == pytest.approx(
            skimage.structural_similarity(*pair, data_range=1), abs=1e-5
        )
    assert found[Figure.RMSE] == pytest.approx(np.sqrt(((clean - noisy) ** 2).mean((1, 2))))


def test_training_is_repeatable_and_learns() -> None:
    rows = np.linspace(0, 1, 32, dtype=np.float32)
    # Twice, because the arms have 16 images, too: one program trains all.
    images = np.tile([np.outer(rows, rows**k) for k in range(1, 9)], (2, 1, 1))
    runs = [
        train_restorer(images, task=Task.DENOISING, settings=SMALL, seed=seed) for seed in (0, 0, 1)
    ]
    noisy = images + 0.1 * np.random.default_rng(0).standard_normal(images.shape)
    restored = [restore(run, noisy.astype(np.float32), channels=4) for run in runs]
    np.testing.assert_array_equal(restored[0], restored[1])
    assert np.abs(restored[2] - restored[0]).max() > 1e-4
    assert measure(images, restored[0])[Figure.RMSE].mean() < 0.8 * np.sqrt(
        ((noisy - images) ** 2).mean()
    )
    with pytest.raises(ValueError, match="patch 64"):
        train_restorer(images, task=Task.DENOISING, settings=RestorationSettings(patch=64))


def test_every_arm_has_the_same_budget_and_is_compared_with_the_real_one(result) -> None:
    assert (result.images, result.test_images, result.test_patients) == (16, 8, 8)
    arms = [(one.task, one.arm) for one in result.results]
    assert arms == [
        (task, arm) for task in Task for arm in (UNTREATED, REFERENCE, "synthetic", "broken")
    ]
    for one in result.results:
        assert one.figures[Figure.PSNR].shape == (1 if one.arm == UNTREATED else 2, 8)
        assert bool(one.compared) == (one.arm != UNTREATED)
    found = {(one.task, one.arm): one for one in result.results}
    for task in Task:
        noise, phantoms = found[task, "broken"], found[task, "synthetic"]
        assert noise.of_patients(Figure.PSNR).mean() < phantoms.of_patients(Figure.PSNR).mean()
        # The same people's phantoms: nothing sets the two apart but chance.
        assert abs(phantoms.compared[Figure.SSIM].difference) < 0.05


def test_the_report_says_what_was_shown_and_what_not(result, tmp_path: Path) -> None:
    written = within(tmp_path, lambda w: utility_report.write(result, w))
    assert [path.name for path in written] == ["utility.html", "utility.json", "utility.csv"]
    assert not any(path.stat().st_mode & 0o077 for path in written)  # a row a patient, exact counts
    page = written[0].read_text()
    assert "large p-value" in page and page.count("<svg") == 6 and "<script" not in page
    assert "not shown" in page  # noise teaches nothing
    said = json.loads(written[1].read_text())
    assert said["test_patients"] == 8 and len(said["results"]) == 8
    rows = written[2].read_text().splitlines()
    assert len(rows) == 1 + 2 * (1 + 2 + 2 + 2) * 8
    assert "p00" not in page + written[2].read_text()
    for path in written:
        before = path.read_bytes()
        within(tmp_path, lambda w: utility_report.write(result, w))
        assert path.read_bytes() == before


def test_files_that_were_not_read_are_said_by_side(folders: Path, result, tmp_path: Path) -> None:
    real = tmp_path / "real"
    shutil.copytree(folders / "real", real)
    for path in sorted(real.glob("*.png"))[:5]:
        path.write_bytes(path.read_bytes()[:99])
    given = arms_in(tmp_path / "work", {"real": real}, folders / "test")
    assert len(given.arms["real"]) == 11
    whole = dataclasses.replace(result, accounts=given.accounts)
    out = tmp_path / "out"
    page, plain, _ = within(out, lambda w: utility_report.write(whole, w))
    sides = json.loads(plain.read_text())["inputs"]
    assert (sides["real"]["files_found"], sides["real"]["not_read"]) == (16, 5)
    assert sum(sides["real"]["reasons"].values()) == 5 and sides["test"]["not_read"] == 0
    assert "not read, and why" in page.read_text()
    assert "p00" not in page.read_text() + plain.read_text()  # who may read these reads no names
    assert len(json.loads((out / "inputs.json").read_text())["real"]["files"]) == 5


def test_what_would_make_the_test_worthless_is_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shares images"):
        arms_in(tmp_path / "a", {"real": folders / "real"}, folders / "real")
    recoded = (
        tmp_path / "recoded"
    )  # the same pixels in other bytes, of the real side and of the other one
    shutil.copytree(folders / "test", recoded)
    for side in ("real", "synthetic"):
        with Image.open(sorted((folders / side).glob("*.png"))[0]) as image:
            image.save(recoded / "p9999_x.bmp")
        arms = {name: folders / name for name in ("real", "synthetic")}
        with pytest.raises(InputError, match=f"shares images with --{side}: 1 of these"):
            arms_in(tmp_path / side, arms, recoded)
    test = np.random.default_rng(0).random((4, 32, 32), np.float32)
    with pytest.raises(InputError, match="shares images with --real: 1 of these"):
        utility({"real": test[3:]}, test, np.arange(4))
    again = tmp_path / "again"
    shutil.copytree(folders / "test", again)
    content = sorted((folders / "test").glob("*.png"))[0].read_bytes()
    (again / "p0001_other.png").write_bytes(content)  # another image of someone learned from
    shutil.rmtree(tmp_path / "test", ignore_errors=True)
    with pytest.raises(InputError, match="1 patients of --test"):
        arms_in(tmp_path / "b", {"real": folders / "real"}, again, subject_regex=r"^(p\d+)_")
    with pytest.raises(ValueError, match="size 30"):
        arms_in(tmp_path / "c", {"real": folders / "real"}, folders / "test", size=30)
    with pytest.raises(ValueError, match="must hold 'real'"):
        utility({}, np.zeros((3, 32, 32), np.float32), np.arange(3))


def flat_result(gain: float) -> UtilityResult:
    """Synthetic exactly as good as real, and real better than nothing by `gain` dB."""
    patients = np.repeat(np.arange(10), 2)
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 20))
    base = {f: np.full((2, 20), 0.5) + noise for f in Figure}
    signs = {Figure.PSNR: 1, Figure.SSIM: 1, Figure.RMSE: -1}
    trained = {f: values + signs[f] * gain for f, values in base.items()}
    stacked = {UNTREATED: base, REFERENCE: trained, "synthetic": trained}
    settings = UtilitySettings(tasks=(Task.DENOISING,))
    results = tuple(
        Result(
            Task.DENOISING,
            name,
            values,
            patients,
            utility_room._compared(stacked, name, patients, settings),
        )
        for name, values in stacked.items()
    )
    return UtilityResult(results, 30, {REFERENCE: 64, "synthetic": 30}, 20, 10, settings)


def test_nothing_is_claimed_where_nothing_was_learned(tmp_path: Path) -> None:
    """Networks that leave the image as it is are all alike: that is no equivalence."""
    lazy = flat_result(gain=0.0)
    assert "in 0 of 3 comparisons" in utility_report.headline(lazy)
    assert "not shown to be better than no network" in utility_report.headline(lazy)
    page = within(tmp_path, lambda w: utility_report.write(lazy, w))[0].read_text()
    assert page.count(">withheld<") == 3 and ">shown<" not in page
    content = json.loads((tmp_path / "utility.json").read_text())
    (synthetic,) = (r for r in content["results"] if r["arm"] == "synthetic")
    assert all(not f["equivalent"] and f["withheld"] for f in synthetic["compared"].values())
    assert "in 3 of 3 comparisons" in utility_report.headline(flat_result(gain=1.0))
    assert "Withheld" not in utility_report.headline(flat_result(gain=1.0))


def test_a_side_that_was_cut_is_said(tmp_path: Path) -> None:
    found = flat_result(gain=1.0)
    assert ("not all were used", "30 of 64 real images") in utility_report.summary(found)
    page = within(tmp_path, lambda w: utility_report.write(found, w))[0].read_text()
    assert "30 of 64 real images" in page
    assert json.loads((tmp_path / "utility.json").read_text())["images_given"]["real"] == 64
