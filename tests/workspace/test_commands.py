"""Every command that writes refuses what is not its own, before anything is read or written."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepssim_jax.cli.main import main
from deepssim_jax.training.generator import train_autoencoder, train_denoiser
from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig
from deepssim_jax.workspace import WorkspaceError
from deepssim_jax.workspace.files import write_new
from tests.kept import write_phantoms
from tests.workspace.folders import tree

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    for seed, name in enumerate(("real", "synthetic", "test")):
        write_phantoms(folder / name, 2, size=(32, 32), seed=seed)
    (folder / "model").mkdir()
    (folder / "model" / "autoencoder.safetensors").write_bytes(b"weights")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.txt").write_text("mine")
    return folder


def command_lines(root: Path) -> dict[str, tuple[list[str], str, str]]:
    """By command: its line without the folder it writes, that flag, and an input's."""
    pair = [f"--real={root}/real", f"--synthetic={root}/synthetic"]
    labelled = [f"--{n}={root}/real/p0000_t1.png" for n in ("matrix", "real_indices", "table")]
    return {
        "audit": (pair, "out", "real"),
        "embed": ([f"--images={root}/real"], "out", "images"),
        "score": (pair, "out", "real"),
        "evaluate": ([*labelled, f"--synthetic_indices={root}/real/p0001_t1.png"], "out", ""),
        "stress": ([f"--real={root}/real"], "out", "real"),
        "replicas": (pair, "out", "real"),
        "utility": ([*pair, f"--test={root}/test"], "out", "real"),
        "filter": (pair, "out", "real"),
        "prepare": (["--dataset=ixi", f"--source={root}/real"], "out", "source"),
        "demo": ([], "out", ""),
    }


COMMANDS = sorted(command_lines(Path()))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_someone_else_is_refused(root: Path, command: str, capsys) -> None:
    line, flag, _ = command_lines(root)[command]
    before = tree(root)
    assert main([command, *line, f"--{flag}={root}/foreign"]) == 2
    words = capsys.readouterr().err
    assert f"--{flag}='foreign' holds 1 files or folders that this program did not make" in words
    assert tree(root) == before


@pytest.mark.parametrize("place", ["real", "real/new"])
@pytest.mark.parametrize("command", [c for c in COMMANDS if command_lines(Path())[c][2]])
def test_an_input_is_never_written_to(root: Path, command: str, place: str, capsys) -> None:
    line, flag, source = command_lines(root)[command]
    before = tree(root)
    assert main([command, *line, f"--{flag}={root}/{place}"]) == 2
    assert f"--{flag} is --{source} or lies inside of it" in capsys.readouterr().err
    assert tree(root) == before


LINKED = [("audit", "--real"), ("embed", "--images"), ("duplicates", ""), ("index", "")]
LISTED = [
    *(*LINKED, ("audit", "--synthetic"), ("filter", "--synthetic")),
    *(("utility", "--real"), ("stress", "--real")),
]


@pytest.mark.parametrize(
    ("command", "source", "linked"),
    [*((*case, True) for case in LINKED), *((*case, False) for case in LISTED)],
)
def test_files_read_from_elsewhere_are_never_written_beside(
    root: Path, tmp_path: Path, command: str, source: str, linked: bool, capsys
) -> None:
    """Images that lie in no input's folder: a link leads to them, or a manifest names them."""
    images = tmp_path / "set" / "images"
    write_phantoms(images, 2, size=(48, 48), seed=9)
    if linked:
        given = tmp_path / "links"
        given.mkdir()
        (given / "p.png").symlink_to(images / "p0000_t1.png")
    else:
        given = tmp_path / "set" / "listing.csv"
        given.write_text("path\nimages/p0000_t1.png\nimages/p0001_t1.png\n")
    line = command_lines(root)[command][0] if command in COMMANDS else []
    line = [word for word in line if not source or not word.startswith(f"{source}=")]
    line += [f"{source}={given}" if source else str(given), *(["--follow_links"] if linked else [])]
    before = tree(tmp_path)
    assert main([command, *line, f"--out={images}/new"]) == 2
    assert "--out lies in a folder of images that a listing names" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["audit", "replicas", "filter", "utility", "score"])
def test_one_input_given_twice_or_inside_of_the_other_is_refused(
    root: Path, command: str, capsys
) -> None:
    line, _, _ = command_lines(root)[command]
    before = tree(root)
    for real, words in ((f"{root}/real/../synthetic", "are the same files"), (root, "lies inside")):
        changed = [f"--real={real}" if x.startswith("--real=") else x for x in line]
        assert main([command, *changed, f"--out={root.parent}/new-{command}"]) == 2
        assert words in capsys.readouterr().err
    assert tree(root) == before and not (root.parent / f"new-{command}").exists()


@pytest.mark.parametrize(("place", "words"), [("foreign", "did not make"), ("real", "lies inside")])
@pytest.mark.parametrize("train", ["autoencoder", "denoiser"])
def test_a_training_refuses_likewise(root: Path, train: str, place: str, words: str) -> None:
    """By the functions: the flags of a configuration can be defined once in a process."""
    before = tree(root)
    images = str(root / "real")
    begin = {
        "autoencoder": lambda: train_autoencoder(AutoencoderConfig(images=images), root / place),
        "denoiser": lambda: train_denoiser(
            LdmConfig(images=images, autoencoder=str(root / "model")), root / place
        ),
    }[train]
    with pytest.raises(WorkspaceError, match=f"--workdir.*{words}"):
        begin()
    assert tree(root) == before


def test_a_training_in_the_folder_of_its_images_is_refused(root: Path) -> None:
    """The case that deleted them: --workdir=. --config.images=images/."""
    before = tree(root)
    line = ["train_encoder", f"--config={CONFIGS}/finetune.py", "--workdir=."]
    done = subprocess.run(
        [sys.executable, "-m", "deepssim_jax", *line, "--config.images=real/"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "give --workdir a folder of its own" in done.stderr, done.stderr
    assert tree(root) == before


def test_one_file_is_never_written_over_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    for _ in range(2):  # the same again is no error
        write_new(path, b"mine")
    with pytest.raises(ValueError, match="'mine.safetensors' exists already and is something else"):
        write_new(path, b"other")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="exists already"):
        write_new(tmp_path / "link", b"other")
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2
