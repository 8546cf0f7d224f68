"""Every flag of every command with wrong values: status 2, one line, the flag's own name.

The walk takes the flags from the commands themselves, so a new flag without a check fails here.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.cli import commands, usage
from deepssim_jax.cli.main import main

# Enough for each command to come to the flag in question: IN is a folder with one image, FILE a file.
GIVEN = {
    "demo": ["--out=OUT"],
    "audit": ["--real=IN", "--synthetic=IN", "--allow_same", "--out=OUT"],
    "replicas": ["--real=IN", "--synthetic=IN", "--allow_same", "--out=OUT"],
    "duplicates": ["IN", "--out=OUT"],
    "index": ["IN", "--out=OUT"],
    "lookup": ["FILE", "--index=IN"],
    "review": ["IN"],
    "embed": ["--images=IN", "--out=OUT"],
    "score": ["--real=IN", "--synthetic=IN", "--out=OUT"],
    "evaluate": [
        *("--matrix=FILE", "--real_indices=FILE", "--synthetic_indices=FILE", "--table=FILE"),
        *("--near=0.5", "--exact=0.6", "--out=OUT"),
    ],
    "stress": ["--real=IN", "--out=OUT"],
    "verify": ["IN"],
    "prepare": ["--dataset=ixi", "--source=IN", "--out=OUT"],
    "train_encoder": ["--config=configs/deepssim_nano.py:smoke", "--workdir=OUT"],
    "train_vae": ["--config=configs/vae.py:smoke", "--workdir=OUT"],
    "train_ldm": ["--config=configs/ldm.py:smoke", "--workdir=OUT"],
    "generate": ["--workdir=IN", "--out=OUT", "--n=2"],
    "filter": ["--real=IN", "--synthetic=IN", "--out=OUT"],
    "utility": ["--real=IN", "--synthetic=IN", "--test=IN", "--out=OUT"],
    "convert": ["--source=FILE", "--out=OUT/x.safetensors", "--norm_num_groups=8"],
    "doctor": [],
}
# Wrong values of a kind, wherever it has no choices of its own.
BY_KIND = {
    "int": ["x", "1.5", "-7", "9" * 24],
    "float": ["x", "nan", "inf", "-7"],
    "bool": ["maybe"],
}
# Of text, what cannot be meant; a path is wrong where nothing lies.
WRONG_TEXT = {
    "subject_regex": ["(", "abc"],
    "slice": ["axial", "axail:0.5", "axial:1.5", "axial:-1"],
    "tools": ["n5"],
    "forget": ["@/nowhere/at_all", ""],
    "methods": ["cascde"],
    "size": ["12", "a,b"],
    "num_head_channels": ["a"],
    "betas": ["1"],
}
# Any folder or file can be made, and of any name.
FREE = {"out", "work", "workdir"}


def all_flags() -> list[tuple[str, str]]:
    out = []
    for command in commands.COMMANDS:
        module = commands.load(command)
        names = [flag.name for flag in usage.key_flags(module)]
        # Of configurations are the later tests.
        out += [(command, name) for name in names if name not in ("verbose", "config")]
    return out


def wrong_values(command: str, name: str) -> list[str]:
    (flag,) = (f for f in usage.key_flags(commands.load(command)) if f.name == name)
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return [f"{choices[0][:-1]}x", ""]
    if flag.boolean:
        return BY_KIND["bool"]
    kind = flag.flag_type()
    if name in ("near", "exact"):  # scores of any scale
        return BY_KIND["float"][:3]
    if kind in BY_KIND:
        return BY_KIND[kind]
    if name in WRONG_TEXT and not (name == "size" and kind == "int"):
        return WRONG_TEXT[name]
    return (
        []
        if name in FREE - ({"workdir"} if command == "generate" else set())
        else ["/nowhere/at_all"]
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "in").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(image).save(folder / "in" / "a.png")
    (folder / "file.csv").write_text("a,b\n1,2\n")
    return folder


def run(inputs: Path, out: Path, command: str, *changes: str) -> int:
    changed = {c.partition("=")[0] for c in changes}
    kept = [a for a in GIVEN[command] if a.partition("=")[0] not in changed]
    places = {"OUT": out / "out", "IN": inputs / "in", "FILE": inputs / "file.csv"}
    words = [*kept, *changes]
    for word, place in places.items():
        words = [w.replace(f"={word}", f"={place}") if w != word else str(place) for w in words]
    return main([command, *words])


def test_every_command_is_walked() -> None:
    assert GIVEN.keys() == commands.COMMANDS.keys()


@pytest.mark.parametrize(("command", "name"), all_flags())
def test_a_wrong_value_is_said_in_one_line(
    inputs: Path, tmp_path: Path, capfd, command: str, name: str
) -> None:
    for value in wrong_values(command, name):
        text = f"--{name}={value}"
        assert run(inputs, tmp_path, command, text) == 2, text
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("deepssim")]
        assert len(lines) == 1 and lines[0] in err.splitlines()[-1], (text, err)
        assert f"--{name}" in lines[0] and "\\x0a" not in lines[0], (text, err)
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("audit", "--retrieval=bth", "did you mean both?"),
        ("generate", "--sampler=dmp", "did you mean dpm?"),
        ("prepare", "--tools=skulstrip", "did you mean skullstrip?"),
        ("train_encoder", "--config.augment=stres", "did you mean stress?"),
        ("train_ldm", "--config.condition=variable", "did you mean variables?"),
    ],
)
def test_the_nearest_right_value_is_named(
    inputs: Path, tmp_path: Path, capfd, command, text, words
) -> None:
    assert run(inputs, tmp_path, command, text) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--size=abc", "--size=abc must be a whole number, for example 128"),
        ("--level=x", "--level=x must be a number, for example 0.5"),
        ("--explain=maybe", "--explain=maybe must be true or false"),
        ("--seed=99999999999999999999", "--seed=99999999999999999999"),
        ("--out=", "--out= is empty: give a value"),
        ("--real=", "--real= is empty: give a value"),
    ],
)
def test_a_wrong_value_is_said_in_our_words(inputs, tmp_path, capfd, text, words) -> None:
    assert run(inputs, tmp_path, "audit", text) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize("command", ["audit", "replicas", "embed", "filter", "stress", "utility"])
def test_an_expression_that_finds_no_patient_is_refused(inputs, tmp_path, capfd, command) -> None:
    given = ["--subject_regex=^(zz)"]
    for flag in {"filter": ["synthetic"], "utility": ["synthetic", "test"]}.get(command, []):
        (tmp_path / flag).mkdir()
        image = np.random.default_rng(len(flag)).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(image).save(tmp_path / flag / "b.png")
        given.append(f"--{flag}={tmp_path / flag}")
    assert run(inputs, tmp_path, command, *given) == 2
    err = capfd.readouterr().err
    assert "--subject_regex='^(zz)' is found in none of 1 file names" in err


# A wrong value of each field, by the field's type.
BY_TYPE = {int: "-1", float: "-1.0", tuple: "(0,)", bool: "7"}
WRONG_FIELDS = {
    "seed": "-1",
    "images": "/nowhere/at_all",
    "autoencoder": "/nowhere/at_all",
    "initial": "/nowhere/at_all.safetensors",
    "features": "/nowhere/at_all.safetensors",
    "table": "/nowhere/at_all.csv",
    "subject_regex": "(",
}


def all_fields() -> list[tuple[str, str]]:
    from deepssim_jax.training.config import EncoderConfig
    from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig

    kinds = {"train_encoder": EncoderConfig, "train_vae": AutoencoderConfig, "train_ldm": LdmConfig}
    return [(c, f.name) for c, kind in kinds.items() for f in dataclasses.fields(kind)]


@pytest.mark.parametrize(("command", "field"), all_fields())
def test_a_wrong_field_is_said_in_one_line(
    inputs: Path, tmp_path: Path, capfd, command: str, field: str
) -> None:
    from deepssim_jax.training.config import EncoderConfig
    from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig

    kinds = {"train_encoder": EncoderConfig, "train_vae": AutoencoderConfig, "train_ldm": LdmConfig}
    default = getattr(kinds[command](), field)
    value = WRONG_FIELDS.get(field) or BY_TYPE.get(type(default), "wrong")
    assert run(inputs, tmp_path, command, f"--config.{field}={value}") == 2
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("deepssim")]
    assert len(lines) == 1 and f"--config.{field}" in lines[0], err
    assert "\\x0a" not in err and "Traceback" not in err


CONFIGS = [
    ("--config=/nowhere/at_all.py", "--config: there is no such file"),
    ("--config=configs/deepssim_nano.py:smok", "smok"),
    ("--config.stebs=3", "stebs"),
    ("--config.steps=many", "steps"),
    ("--config.size=(64,)", "--config.size=(64,) must be 2 values"),
    ("--config.size=(66,66)", "--config.size=(66, 66) must be multiples of 4"),
    ("--config.batch=17", "--config.batch=17 must be a multiple of 16"),
    ("--config=configs/ldm.py:smoke", "holds LdmConfig, and this command needs EncoderConfig"),
]


@pytest.mark.parametrize(("text", "words"), CONFIGS)
def test_a_configuration_that_does_not_fit_is_said(
    inputs: Path, tmp_path: Path, capfd, text, words
) -> None:
    assert run(inputs, tmp_path, "train_encoder", text) == 2
    err = capfd.readouterr().err
    assert words in err and len(err.splitlines()) == 1 and "\\x0a" not in err


BROKEN = [
    ("x = (", "--config: its file could not be run: SyntaxError"),
    ("import nosuchmodule", "No module named 'nosuchmodule'"),
    ("def get_config():\n    return 1 / 0", "ZeroDivisionError: division by zero"),
    ("raise SystemExit(0)", "SystemExit"),
    (None, "this is a folder; give a .py file"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN)
def test_a_configuration_that_cannot_be_run_is_a_usage_error(
    tmp_path: Path, capfd, text: str | None, words: str
) -> None:
    path = tmp_path / "mine.py"
    path.mkdir() if text is None else path.write_text(text + "\n")
    assert main(["train_encoder", f"--config={path}", f"--workdir={tmp_path}/w"]) == 2
    err = capfd.readouterr().err
    assert words in err and len(err.splitlines()) == 1 and "Traceback" not in err


NEEDS = [
    *itertools.product(
        ["generate"],
        [
            *("--max_ssim=0.7", "--max_cosine=0.7", "--size=64", "--slice=axial:0.4", "--work=x"),
            *("--subject_regex=(a)", "--encoder=x", "--residual_pairs=3", "--budget=3", "--real=x"),
        ],
        [""],
        ["--safeguard"],
    ),
    ("generate", "--per_record=2", "", "--n and --per_record"),
    ("prepare", "--atlas=FILE", "", "mni among --tools"),
    ("prepare", "--demographics=FILE", "--dataset=corr", "--dataset=ixi"),
    ("prepare", "--size=64,64", "--volumes", "--volumes"),
    ("prepare", "--slice=axial:0.4", "--volumes", "--volumes"),
    ("replicas", "--segmentations_real=IN", "", "--segmentations_synthetic"),
    ("replicas", "--embeddings_synthetic=FILE", "", "--embeddings_real"),
    ("replicas", "--encoder=FILE", "--embeddings_real=FILE", "--embeddings_real"),
    ("convert", "--latent_scale=0.9", "--to=monai", "--to=ours"),
    ("train_encoder", "--config.table=FILE", "", "--config.images"),
    ("train_encoder", "--config.epochs=3", "", "--config.table"),
    ("train_ldm", "--config.table=FILE", "", "--config.condition"),
]


@pytest.mark.parametrize(("command", "flag", "beside", "words"), NEEDS)
def test_a_flag_that_needs_another_is_refused(
    inputs: Path, tmp_path: Path, capfd, command: str, flag: str, beside: str, words: str
) -> None:
    given = [flag, *([beside] if beside else [])]
    assert run(inputs, tmp_path, command, *given) == 2
    err = capfd.readouterr().err
    assert words in err and flag.partition("=")[0] in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *(("audit", flag) for flag in ("--real", "--synthetic", "--holdout")),
        ("replicas", "--synthetic"),
        ("duplicates", "--against"),
        ("embed", "--images"),
        ("filter", "--real"),
        ("filter", "--synthetic"),
        ("stress", "--real"),
    ],
)
def test_a_picture_in_place_of_a_folder_is_said_of_its_flag(
    inputs: Path, tmp_path: Path, capfd, command: str, flag: str
) -> None:
    picture = inputs / "in" / "a.png"
    assert run(inputs, tmp_path, command, f"{flag}={picture}") == 2
    assert f"deepssim {command}: {flag}: .png is no manifest" in capfd.readouterr().err
