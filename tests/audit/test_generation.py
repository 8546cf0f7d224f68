"""Generating: image i is image i, whatever else is made, where, and after which stop."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from deepssim_jax import parallel
from deepssim_jax.audit import generation
from deepssim_jax.audit.folder_names import folders_of
from deepssim_jax.audit.generation import Generator, SamplingSettings, Wanted, generate
from deepssim_jax.cli.main import main
from deepssim_jax.data import conditions
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.diffusion.samplers import Sampler
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.network_file import Spec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training import generator as generators
from deepssim_jax.workspace import Workspace
from deepssim_jax.workspace.files import write_array

AUTOENCODER = AutoencoderSpec(channels=(4, 8), blocks=1, groups=4)
UNET = UNetSpec(channels=(8,), attention=(False,), heads=(8,), blocks=1, groups=4, context=3)
SETTINGS = SamplingSettings(Sampler.ANCESTRAL, steps=3, guidance=2.0, batch=1)


def weights(spec: Spec):
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[:-1])))).astype("f4")
        + np.float32(name.endswith("scale"))
        for name, shape in network_file.shapes(spec).items()
    }
    return network_file.from_tensors(spec, tensors, what="drawn")


def write_latents(workdir: Path, both: np.ndarray, scale: float) -> None:
    """Means and deviations [n, h, w, 2 c], as train_ldm leaves them."""
    folder = workdir / "latents"
    write_array(folder / "latents.npy", both)
    card = {"images": len(both), "scale": scale, "weights": "mark"}
    (folder / "latents.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """What train_ldm leaves behind."""
    folder = tmp_path_factory.mktemp("ldm")
    network_file.save(folder / generators.AUTOENCODER, AUTOENCODER, weights(AUTOENCODER), card={})
    schedule = Schedule()
    card = {
        "latent_scale": "0.7",
        "schedule": json.dumps({"steps": schedule.steps, "prediction": "v"}),
        "size": "[9, 7]",
        "conditioning": "variables",
        "columns": conditions.columns_to_json([]),
    }
    network_file.save(folder / generators.DENOISER, UNET, weights(UNET), card=card)
    rows = [["image_id", "subject_id", "copies", "sha256"]]
    rows += [["p1___training", "p1", "2", "x"], ["b/p2.png", "p2", "0", "y"]]
    rows += [["b/p 3.png", "p3", "1", "z"]]
    (folder / generators.RECORDS).write_text("".join(",".join(r) + "\n" for r in rows))
    told = np.random.default_rng(1).standard_normal((3, 1, 3)).astype(np.float32)
    np.save(folder / generators.CONDITIONS, told)
    return folder


@pytest.fixture(scope="module")
def generator(workdir: Path) -> Generator:
    return Generator.load(workdir)


def test_an_image_depends_on_its_number_and_the_seed_alone(generator, monkeypatch) -> None:
    together = generator.images([5, 0, 3, 11, 2], seed=4, settings=SETTINGS)
    assert together.shape == (5, 9, 7) and together.min() >= 0 and together.max() <= 1
    assert together.std() > 0.01
    alone = generator.images([11], seed=4, settings=SETTINGS)
    np.testing.assert_allclose(alone[0], together[3], atol=1e-4)
    assert np.abs(generator.images([11], seed=5, settings=SETTINGS) - alone).max() > 1e-3
    one_device = parallel.data_mesh(1)
    monkeypatch.setattr(parallel, "data_mesh", lambda: one_device)
    single = generator.images([5, 0, 3, 11, 2], seed=4, settings=SETTINGS)
    np.testing.assert_allclose(single, together, atol=1e-4)


@pytest.mark.parametrize(("devices", "batch"), [(1, 5), (2, 4)])
def test_other_batches_and_devices_change_no_more_than_is_said(
    generator: Generator, monkeypatch, devices: int, batch: int
) -> None:
    whole = generator.images(range(12), seed=4, settings=SETTINGS)
    mesh = parallel.data_mesh(devices)
    monkeypatch.setattr(parallel, "data_mesh", lambda: mesh)
    # What one process with so many devices would take for its batch.
    monkeypatch.setattr(generation, "_at_once", lambda settings: batch)
    found = generator.images(range(12), seed=4, settings=SETTINGS)
    assert np.abs(found - whole).max() < generation.TOLERANCE
    levels = [np.round(255 * images).astype(int) for images in (found, whole)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    again = generator.images(range(12), seed=4, settings=SETTINGS)
    np.testing.assert_array_equal(again, found)


def test_guidance_of_a_model_without_condition_is_refused(
    workdir: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(workdir, folder)
    spec = dataclasses.replace(UNET, context=None)
    card = network_file.load(workdir / generators.DENOISER, UNetSpec)[2]
    kept = {k: v for k, v in card.items() if k not in ("spec", "kind")}
    (folder / generators.DENOISER).unlink()
    network_file.save(folder / generators.DENOISER, spec, weights(spec), card=kept)
    flags = ["generate", f"--workdir={folder}", f"--out={tmp_path}/x", "--n=1", "--guidance=3"]
    assert main(flags) == 2
    assert "--guidance needs a model that was trained with --config.condition" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "x").exists()


def test_half_precision_gives_nearly_the_same_image(generator: Generator) -> None:
    whole = generator.images(range(8), seed=4, settings=SETTINGS)
    half = dataclasses.replace(SETTINGS, half=True)
    difference = np.abs(generator.images(range(8), seed=4, settings=half) - whole)
    assert 1e-5 < difference.max() < 0.1 * whole.std()


def test_conditions_are_those_of_training_images(generator: Generator) -> None:
    chosen = generator.records_of(range(40), seed=0)
    assert set(chosen.tolist()) == {0, 2}
    np.testing.assert_array_equal(chosen[7:9], generator.records_of([7, 8], seed=0))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_stopped_run_goes_on_to_the_same_files(generator: Generator, tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    n = 2 * jax.device_count() + 3
    assert generate(generator, tmp_path / "a", Wanted(n), settings=SETTINGS) == n
    with pytest.raises(KeyboardInterrupt):
        generate(generator, tmp_path / "b", Wanted(n), settings=SETTINGS, on_progress=stop)
    assert 0 < len(list((tmp_path / "b").glob("*.png"))) < n
    (tmp_path / "b" / "gen-000001.png").unlink()
    generate(generator, tmp_path / "b", Wanted(n), settings=SETTINGS)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with (tmp_path / "a" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"gen-{i:06d}.png" for i in range(n)]
    assert {row["weights"] for row in rows} == {generator.weights_hash}
    assert {row["condition"] for row in rows} == {"record 0", "record 2"}
    with Image.open(tmp_path / "a" / rows[0]["path"]) as picture:
        assert picture.size == (7, 9)
    with pytest.raises(ValueError, match=r"of another generation: seed \(0 there, 1 now\)"):
        generate(generator, tmp_path / "a", Wanted(n, seed=1), settings=SETTINGS)


def test_nifti_holds_what_png_holds_and_folders_do_not_mix(
    generator: Generator, tmp_path: Path
) -> None:
    nifti = ImageFormat.NIFTI
    for folder, image_format in (("png", ImageFormat.PNG), ("nifti", nifti), ("again", nifti)):
        generate(
            generator,
            tmp_path / folder,
            Wanted(per_record=1, image_format=image_format),
            settings=SETTINGS,
        )
    assert files(tmp_path / "nifti") == files(tmp_path / "again")
    sides = [read_manifest(tmp_path / f, role=Role.SYNTHETIC) for f in ("png", "nifti")]
    one, other = (
        [read_image(record, spec=SliceSpec.parse("axial:0.5")) for record in side.records]
        for side in sides
    )
    np.testing.assert_array_equal(one, np.round(np.stack(other) * 255))
    with (tmp_path / "nifti" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        "record-000000/gen-0.nii.gz", "record-000002/gen-0.nii.gz",
    ]  # fmt: skip
    assert [row["image_id"] for row in rows] == ["record-000000___gen-0", "record-000002___gen-0"]
    (tmp_path / "again" / rows[1]["path"]).unlink()
    generate(
        generator, tmp_path / "again", Wanted(per_record=1, image_format=nifti), settings=SETTINGS
    )
    assert files(tmp_path / "nifti") == files(tmp_path / "again")
    with pytest.raises(ValueError, match=r"of another generation: format \(nifti there, png now\)"):
        generate(generator, tmp_path / "nifti", Wanted(per_record=1), settings=SETTINGS)


def test_the_command_writes_the_format_that_it_is_told(workdir: Path, tmp_path: Path) -> None:
    flags = [f"--workdir={workdir}", f"--out={tmp_path}", "--n=1", "--batch=1"]
    flags += ["--sampler=ancestral", "--steps=3", "--guidance=2"]  # those of SETTINGS
    assert main(["generate", *flags, "--format=nifti"]) == 0
    assert (tmp_path / "gen-000000.nii.gz").is_file()
    assert main(["generate", *flags]) == 2


def test_images_of_each_record_lie_in_a_folder_that_names_nobody(
    generator: Generator, tmp_path: Path
) -> None:
    planned = generation.plan(generator, Wanted(per_record=2))
    assert [p.name for p in planned] == [
        "record-000000/gen-0.png", "record-000000/gen-1.png",
        "record-000002/gen-0.png", "record-000002/gen-1.png",
    ]  # fmt: skip
    assert [p.record for p in planned] == [0, 0, 2, 2]
    assert len({p.index for p in planned}) == 4
    with pytest.raises(ValueError, match="one of --n and --per_record; got 3 and 2"):
        generation.plan(generator, Wanted(3, per_record=2))
    generate(generator, tmp_path, Wanted(per_record=1), settings=SETTINGS)
    shared = [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_mode & 0o004]
    assert len(shared) >= 3
    said = "".join(p.relative_to(tmp_path).as_posix() for p in shared).encode()
    said += b"".join(p.read_bytes() for p in shared)
    for record in generator.records:
        assert record.image_id.encode() not in said
        assert Path(record.image_id).stem.encode() not in said


ALIKE = (
    "p00/scan.png", "p01/scan.png", "p01_scan.png", "P01_SCAN.jpg", "a.npy#0", "a.npy#1", "work.png",
    "manifest.csv.png", "..png", "u", "u___other", "x.0001", "x.0002", "p01_scan_4.png",
)  # fmt: skip


def test_sources_of_alike_names_get_a_folder_each() -> None:
    found = folders_of(dict(enumerate(ALIKE)), reserved=("work", "manifest.csv"))
    assert len({name.casefold() for name in found.values()}) == len(ALIKE)
    assert not {"work", "manifest.csv", ".", ".."} & set(found.values())
    assert (found[0], found[1], found[9]) == ("p00_scan", "p01_scan", "u")
    assert all(re.fullmatch(r"[\w.-]+", name) for name in found.values())


def test_fewer_images_than_are_there_are_refused_and_nothing_is_lost(
    generator: Generator, tmp_path: Path
) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(generator, tmp_path, Wanted(90), settings=SETTINGS, on_progress=stop)
    made = len(list(tmp_path.glob("*.png")))
    before = files(tmp_path)
    with pytest.raises(ValueError, match=rf"holds {made - 1} images .* larger --n than 1"):
        generate(generator, tmp_path, Wanted(1), settings=SETTINGS)
    assert {name: before[name] for name in before if "work" not in name}.items() <= (
        files(tmp_path).items()
    )
    assert generate(generator, tmp_path, Wanted(made + 1), settings=SETTINGS) == made + 1
    assert len(list(tmp_path.glob("*.png"))) == made + 1


def test_a_folder_that_is_not_finished_is_said(tmp_path: Path, workdir: Path) -> None:
    with pytest.raises(ValueError, match="finish train_ldm"):
        Generator.load(tmp_path)
    (tmp_path / generators.DENOISER).write_bytes((workdir / generators.AUTOENCODER).read_bytes())
    with pytest.raises(ValueError, match="holds a network of kind 'autoencoder'"):
        Generator.load(tmp_path)
    (tmp_path / generators.DENOISER).write_bytes(b"no file of weights")
    with pytest.raises(ValueError, match="is no network of this package"):
        Generator.load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        generators.DENOISER,
        generators.AUTOENCODER,
        generators.RECORDS,
        generators.CONDITIONS,
        "latents/latents.npy",
    ],
)
def test_a_file_that_was_changed_after_training_is_refused(
    workdir: Path, tmp_path: Path, name: str, capsys
) -> None:
    own = tmp_path / "ldm"
    shutil.copytree(workdir, tmp_path / "written")
    write_latents(tmp_path / "written", np.zeros((3, 5, 4, 6), np.float32), 0.7)
    with Workspace.open(own, command="train_ldm", flag="--workdir") as workspace:
        for path in sorted((tmp_path / "written").rglob("*.*")):
            workspace.write(path.relative_to(tmp_path / "written").as_posix(), path.read_bytes())
    assert Generator.load(own).latents.shape == (3, 5, 4, 3)
    content = bytearray((own / name).read_bytes())
    content[-1] ^= 1
    (own / name).write_bytes(content)
    call = ["generate", f"--workdir={own}", f"--out={tmp_path}/out", "--n=1", "--steps=1"]
    assert main([*call, "--away"]) == 2
    said = capsys.readouterr().err
    assert f"'ldm': its {name} was changed" in said and "run the same train_ldm again" in said
    assert not list(tmp_path.glob("out/*.png"))


def test_the_fingerprint_is_of_all_that_draws(workdir: Path, tmp_path: Path) -> None:
    known = {Generator.load(workdir).weights_hash}
    for name in (generators.DENOISER, generators.AUTOENCODER):
        shutil.copytree(workdir, tmp_path / name)
        spec = UNET if name == generators.DENOISER else AUTOENCODER
        state = jax.tree.map(lambda x: 2 * x, weights(spec))
        card = network_file.load(workdir / name, type(spec))[2]
        (tmp_path / name / name).unlink()
        network_file.save(tmp_path / name / name, spec, state, card=card)
        known.add(Generator.load(tmp_path / name).weights_hash)
    assert len(known) == 3


def test_steering_needs_the_latents_and_changes_what_is_drawn(
    workdir: Path, tmp_path: Path
) -> None:
    away = dataclasses.replace(SETTINGS, away=True)
    with pytest.raises(ValueError, match="latents"):
        Generator.load(workdir).images([0], seed=4, settings=away)
    shutil.copytree(workdir, tmp_path / "with")
    rng = np.random.default_rng(0)
    write_latents(tmp_path / "with", rng.normal(size=(3, 5, 4, 6)).astype(np.float32), 0.7)
    generator = Generator.load(tmp_path / "with")
    limit = generator.steering.limit
    assert generator.steering.directions.shape == (2, 60)  # the second record was held out
    trained = generator.latents[[0, 2]].reshape(2, -1)
    assert limit == pytest.approx(np.corrcoef(trained)[0, 1], abs=1e-5)
    plain, steered = (generator.images([0, 1], seed=4, settings=s) for s in (SETTINGS, away))
    assert np.abs(plain - steered).max() > 1e-3
