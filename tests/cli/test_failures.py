"""A failure names no file and no patient, whatever raised it."""

import errno
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.cli import failures
from deepssim_jax.cli.main import main
from deepssim_jax.data.records import InputError
from tests.kept import write_phantoms

ID = "SMITH_4711"
RAISING = """
    import logging, warnings
    from pathlib import Path
    import numpy as np

    # In two parts: the trace shows lines of code.
    ID = "SMITH" + "_4711"

    def main():
        path = Path(f"/patients/{{ID}}/scan_1.png")
        {what}
"""


@pytest.mark.parametrize("verbose", [[], ["--verbose"]])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("path.read_bytes()", "FileNotFoundError: No such file or directory"),
        ("float(ID)", "could not convert string to float: (not shown)"),
        ("{}[ID]", "KeyError: (not shown)"),
        (
            "raise OSError(f'cannot identify image file {path}')",
            "OSError: cannot identify image file",
        ),
        ("raise RuntimeError(f'in {ID}/a.dcm') from KeyError(ID)", "RuntimeError: in"),
        ("b'\\xff'.decode()", "can't decode byte"),
    ],
)
def test_no_name_leaves(plant, capsys, what: str, words: str, verbose: list[str]) -> None:
    plant("crash", RAISING.format(what=what))
    status = main(["crash", *verbose])
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert words in captured.err
    assert ID not in captured.err + captured.out
    assert ("Traceback" in captured.err) == bool(verbose)


def test_our_own_words_are_shown(tmp_path: Path, capsys) -> None:
    """Suffixes, and names that the program gives, stand in messages of ours; a file's name does not."""
    assert main(["embed", f"--images={tmp_path}", f"--out={tmp_path}/../out"]) == 2
    words = capsys.readouterr().err
    assert ".nii.gz" in words and ".dcm.gz" in words and "not shown" not in words
    (tmp_path / "mine.csv").write_text("path\n")
    args = ["audit", "--real=x"]
    error = InputError("mine.csv and IXI002-Guys-0828-T1.nii.gz are not nearest.csv or pairs.csv")
    with pytest.raises(InputError) as raised:
        _raised_in_the_package(error)
    hidden = "(not shown) and (not shown) are not nearest.csv or pairs.csv"
    assert failures.said(raised.value, args) == hidden


def _raised_in_the_package(error: Exception) -> None:
    code = compile("raise error", str(Path(failures.__file__)), "exec")
    exec(code, {"error": error})


def test_what_was_typed_may_be_repeated(plant, capsys) -> None:
    plant("crash", 'def main():\n    raise ValueError("--real=my/folder.png: no such thing")\n')
    main(["crash"])
    assert "(not shown)" in capsys.readouterr().err
    plant(
        "again",
        """
        from absl import flags

        _REAL = flags.DEFINE_string("real", None, "a folder")

        def main():
            raise ValueError(f"--real={_REAL.value}: no such thing")
        """,
    )
    main(["again", "--real=my/folder.png"])
    assert "--real=my/folder.png: no such thing" in capsys.readouterr().err


def test_warnings_and_logs_of_libraries_hold_no_name(plant, capsys, monkeypatch) -> None:
    plant(
        "warns",
        RAISING.format(
            what="""warnings.warn(f"odd tag in {path}")
        logging.getLogger("reader").warning("bad header in '%s'", path)
        return 0"""
        ),
    )
    # The tests' own handlers would take the message before it is printed.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["warns"]) == 0
    err = capsys.readouterr().err
    assert "UserWarning: odd tag in (not shown)" in err and "reader: bad header in" in err
    assert ID not in err
    assert warnings.showwarning is before


def broken_inputs(folder: Path) -> None:
    """Files whose names and contents bear an id, none of which can be used."""
    folder.mkdir()
    for suffix in ("png", "tif", "nii", "nii.gz", "dcm", "npy", "npz", "jpg"):
        (folder / f"{ID}_{suffix.replace('.', '')}.{suffix}").write_bytes(f"{ID}".encode() * 40)
    (folder / "table.csv").write_text(f"path,image_id,subject_id\n{ID}.png,{ID},{ID}\n")
    (folder / "headless.csv").write_text(f"a scan of {ID},{ID}\nb,{ID}\n")
    (folder / "quote.csv").write_text(f'path,subject_id\n{ID}.png,"{ID}\nb.png,{ID}\n')
    (folder / "ratings.csv").write_text(f"synthetic_id,replica\n{ID},maybe {ID}\n")
    (folder / "pairs.csv").write_text(f"real_key,synth_key,label\n{ID},{ID},{ID}\n")
    np.savez(folder / "keys.npz", data=np.array(["other"]))
    np.savez(folder / "matrix.npz", data=np.ones((1, 1)))


@pytest.mark.parametrize("verbose", [[], ["--verbose"]])
@pytest.mark.parametrize(
    "command",
    [
        "audit --real=IN --synthetic=IN --allow_same --out=OUT",
        "audit --real=IN/table.csv --synthetic=IN --out=OUT",
        "audit --real=IN/headless.csv --synthetic=IN --out=OUT",
        "audit --real=IN/quote.csv --synthetic=IN --out=OUT",
        "replicas --real=IN --synthetic=IN --allow_same --out=OUT",
        "embed --images=IN --out=OUT",
        "score --real=IN --synthetic=IN --out=OUT",
        "evaluate --matrix=IN/matrix.npz --real_indices=IN/keys.npz --synthetic_indices=IN/keys.npz "
        "--table=IN/pairs.csv --out=OUT",
        "stress --real=IN --out=OUT",
        "filter --real=IN --synthetic=IN --out=OUT",
        "utility --real=IN --synthetic=IN --test=IN --out=OUT",
        "prepare --dataset=ixi --source=IN --out=OUT",
        "convert --source=IN/matrix.npz --out=OUT/x.safetensors",
        "verify IN",
        "train_encoder --config=configs/deepssim_nano.py:smoke --config.images=IN --workdir=OUT",
        "train_vae --config=configs/vae.py:smoke --config.images=IN --workdir=OUT",
        "train_ldm --config=configs/ldm.py:smoke --config.images=IN --config.autoencoder=IN --workdir=OUT",
        "generate --workdir=IN --n=1 --out=OUT",
        "generate --workdir=IN --n=1 --safeguard --real=IN --out=OUT",
        "audit --real=IN --synthetic=IN --allow_same --model=IN --out=OUT",
        "duplicates IN --out=OUT",
        "duplicates IN --against=IN/table.csv --out=OUT",
        "index IN --out=OUT",
        "lookup IN --index=IN --out=OUT",
        "convert --source=IN/keys.npz --out=OUT/x.safetensors",
    ],
)
def test_broken_inputs_are_told_without_their_names(
    tmp_path: Path, capfd, command: str, verbose: list[str]
) -> None:
    broken_inputs(tmp_path / "in")
    words = command.replace("IN", str(tmp_path / "in")).replace("OUT", str(tmp_path / "out"))
    assert main([*words.split(), *verbose]) == 2
    captured = capfd.readouterr()
    assert captured.err
    assert ID not in captured.err + captured.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images=in", f"--out={'x' * 300}/a"], "--out: a name in this path has more than 255"),
        (["--images=in", "--out", "ä" * 200], "--out: a name in this path has more than 255 bytes"),
        ([f"--images={'x' * 300}", "--out=o"], "--images: a name in this path has more than 255"),
    ],
)
def test_a_name_that_no_system_stores_is_said_of_its_flag(
    tmp_path: Path, monkeypatch, capsys, words: list[str], said: str
) -> None:
    write_phantoms(tmp_path / "in", 2, size=(32, 32), seed=1)
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_name_that_is_too_long_elsewhere_is_a_failure() -> None:
    error = OSError(errno.ENAMETOOLONG, "File name too long")
    assert failures.of_arguments(error, ["embed", "--images=in"]) is None
    assert failures.of_arguments(OSError(errno.EIO, ""), [f"--out={'x' * 300}"]) is None
