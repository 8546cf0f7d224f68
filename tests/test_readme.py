"""The README promises only what exists."""

import pathlib
import re

import pytest

import deepssim_jax as ds
from deepssim_jax.cli import commands, usage
from deepssim_jax.cli.exit_codes import ExitCode

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_compile_and_use_public_names():
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert blocks
    for code in blocks:
        compile(code, "README.md", "exec")
        names = set(re.findall(r"\bds\.(\w+)", code))
        assert names <= set(ds.__all__), names - set(ds.__all__)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"deepssim ([a-z_]+[^`\n]*)", README))))
def test_commands_and_their_flags_exist(line):
    command, *rest = line.split()
    if command not in commands.COMMANDS:
        pytest.fail(f"the README shows `deepssim {command}`")
    module = commands.load(command)
    known = {flag.name for flag in usage.key_flags(module)} | {"help"}
    asked = {re.split(r"[=.]", word[2:])[0] for word in rest if word.startswith("--")}
    assert asked <= known


def test_flags_named_in_the_text_exist():
    known = {"help"}
    for command in ("audit", "duplicates", "generate", "stress"):  # those that the text speaks of
        known |= {flag.name for flag in usage.key_flags(commands.load(command))}
    named = set(re.findall(r"`--([a-z_]+)", README))
    assert named <= known, named - known


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_exit_codes_are_all_there():
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    assert table == {int(code) for code in ExitCode}


def test_pictures_and_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), f"the README links {target}"
