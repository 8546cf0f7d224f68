"""Training on a user's own images: what a batch is made of, and the command from end to end."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from scipy import ndimage

from configs import finetune
from deepssim_jax.cli.main import main
from deepssim_jax.data import pipelines
from deepssim_jax.data.manifest import InputError, Role
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder
from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.training import loop
from deepssim_jax.training.own_pairs import ImagePairs, TablePairs
from deepssim_jax.training.pairs import ECHO
from tests.kept import open_images
from tests.training.test_loop import SPEC

PATIENTS, EACH = 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three pictures of each of twelve patients, in the reference layout too."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    (root / "flat").mkdir()
    with (root / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["real_key", "synth_key", "ssim", "split"])
        for patient in range(PATIENTS):
            person = rng.normal(size=(64, 64))
            (root / "reference" / f"u{patient}").mkdir(parents=True)
            for number in range(EACH):
                noise = ndimage.gaussian_filter(person + rng.normal(size=(64, 64)), 3)
                image = Image.fromarray((128 + 600 * noise).clip(0, 255).astype(np.uint8))
                image.save(root / "flat" / f"p{patient:02d}_{number}.png")
                name = "training" if number == 0 else f"gen-{number - 1}"
                image.save(root / "reference" / f"u{patient}" / f"{name}.png")
            split = "valid" if patient >= 9 else "train"
            for number in range(EACH - 1):
                key = f"u{patient}___"
                value = 0.1 * patient / PATIENTS
                writer.writerow([f"{key}training", f"{key}gen-{number}", value, split])
    return root


@pytest.fixture(scope="module")
def images(folder: Path, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return open_images(folder / "flat", store, size=(64, 64), subject_regex="^(p[0-9]+)_")


def test_patients_are_on_one_side_alone(images) -> None:
    train, held = pipelines.split_by_patient(images, seed=3)
    people = [{images.subject_ids[r] for r in rows} for rows in (train, held)]
    assert not people[0] & people[1] and len(people[1]) == round(0.15 * PATIENTS)
    assert sorted([*train, *held]) == list(range(PATIENTS * EACH))


def test_a_batch_is_a_function_of_seed_and_number(images) -> None:
    rows = np.arange(20)
    first, again, other = (
        pipelines.image_batches(images, rows, batch=8, seed=seed) for seed in (0, 0, 1)
    )
    for number in (7, 0, 3):
        np.testing.assert_array_equal(first[number], again[number])
    assert not np.array_equal(first[0], other[0])
    seen = np.concatenate([first[i] for i in range(5)])  # two epochs of twenty
    _, times = np.unique(seen.reshape(40, -1), axis=0, return_counts=True)
    assert set(times) == {2} and len(times) == 20


def test_similarities_are_spread_and_true(images) -> None:
    maker = ImagePairs.of(images, batch=16, seed=0, augment=AugmentConfig())
    batches = [maker(step) for step in range(0, 6 * ECHO, ECHO)]
    np.testing.assert_array_equal(batches[2].a, maker(2 * ECHO).a)
    targets = np.concatenate([np.asarray(b.target) for b in batches])
    filled = np.histogram(targets, bins=np.linspace(0, 1.001, 11))[0]
    assert (filled > 0).sum() >= 6 and filled.max() <= 0.5 * len(targets)
    # Without augmentation the images are what the targets were computed from, as they lie; a stranger
    # that was aligned may come to lie a little better.
    from skimage.metrics import structural_similarity

    batch = batches[0]
    for i in range(4):
        a, b = np.asarray(batch.a[i], np.float64), np.asarray(batch.b[i], np.float64)
        expected = structural_similarity(a, b, data_range=np.ptp(a))
        assert expected - 1e-4 <= float(batch.target[i]) <= expected + 0.05
        assert batch.all[i, i] == batch.target[i]
    held = {images.take([r])[0].tobytes() for r in pipelines.split_by_patient(images, seed=0)[1]}
    assert all(x.tobytes() in held for x in maker.validation[0])


def test_a_table_gives_its_own_similarities(folder: Path, tmp_path: Path) -> None:
    images = open_images(
        folder / "reference", tmp_path / "s", size=(64, 48), roles=(Role.REAL, Role.SYNTHETIC)
    )
    table = TablePairs.of(folder / "pairs.csv", images, batch=4, seed=0, augment=AugmentConfig.v2())
    assert len(table.table) == 18 and table.batches_an_epoch == 4
    batch = table(0)
    assert batch.a.shape == (4, 64, 48) and batch.all is None
    named = table.names(0).removeprefix("the pairs ").split(", ")
    patients = [int(n.split("___")[0][1:]) for n in named]
    np.testing.assert_allclose(batch.target, 0.1 * np.array(patients) / PATIENTS, rtol=1e-5)
    assert set(np.round(np.asarray(table(-1).target) * PATIENTS / 0.1)) <= {9, 10, 11}


def test_a_table_that_does_not_fit_says_where(folder: Path, tmp_path: Path) -> None:
    images = open_images(
        folder / "reference", tmp_path / "s", size=(64, 64), roles=(Role.REAL, Role.SYNTHETIC)
    )
    table = tmp_path / "t.csv"
    for text, words in (
        ("real_key,synth_key,ssim\n", "no column split"),
        ("real_key,synth_key,ssim,split\na,b,0.5,train\n", "line 2: its real_key is not among"),
        (
            "real_key,synth_key,ssim,split\nu0___training,u0___gen-0,high,train\n",
            "line 2: its ssim is no number",
        ),
        ('real_key,synth_key,ssim,split\na,b,0.5,test\n"a,b,0.5,train\n', "line 3: its quotes"),
        ("real_key,synth_key,ssim,split\n", "no row whose split is 'train'"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=words):
            pipelines.PairTable.read(table, images, split="train")


def test_one_patient_cannot_be_split(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for path in sorted((folder / "flat").glob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "few")
    images = open_images(tmp_path / "few", tmp_path / "s", size=(64, 64), subject_regex="^(p)")
    with pytest.raises(InputError, match="one patient"):
        pipelines.split_by_patient(images, seed=0)


def test_fine_tuning_from_a_folder_to_an_encoder(
    folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Of a tiny one: the shipped one, which is what the configuration names, compiles for a minute."""
    monkeypatch.setattr(loop, "VALIDATION_BATCHES", 2)
    assert finetune.get_config().initial == "default"
    fresh = encoders.from_module(Embedder(SPEC, rngs=nnx.Rngs(0)))
    encoders.save_encoder(tmp_path / "fresh.safetensors", fresh, card={})
    root = Path(__file__).resolve().parents[2]
    command = [
        "train_encoder",
        f"--config={root}/configs/finetune.py:smoke",
        f"--config.images={folder}/flat",
        "--config.subject_regex=^(p[0-9]+)_",
        f"--config.initial={tmp_path}/fresh.safetensors",
        f"--workdir={tmp_path}/run",
    ]
    assert main(command) == 0
    assert "36 images" in capsys.readouterr().out
    assert load_encoder(tmp_path / "run" / "encoder.safetensors").spec == SPEC
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "mae" in x] == [2, 4]
    rates = [json.loads(x) for x in (tmp_path / "run" / "speed.jsonl").read_text().splitlines()]
    assert all(x["images_per_s"] > 0 for x in rates)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.augment=v3", "must be v1 or v2 or stress or volumes"),
        ("--config.batch=20", "multiple of 16"),
        ("--config.table=x.csv", "--config.table='x.csv' is not there"),
        ("--config.initial=nothing.pth", "--config.initial='nothing.pth' is not there"),
        ("--config.network=huge", "must be nano or tiny or base or volume"),
    ],
)
def test_a_wrong_setting_is_an_input_error(change: str, words: str, tmp_path, capsys) -> None:
    root = Path(__file__).resolve().parents[2]
    config = f"--config={root}/configs/deepssim_nano.py:smoke"
    assert main(["train_encoder", config, f"--workdir={tmp_path}", change]) == 2
    assert words in capsys.readouterr().err
