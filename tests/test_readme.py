"""README and documentation promise only what exists."""

import re
from pathlib import Path

import pytest

import deepssim_jax as ds
from deepssim_jax.cli import commands, usage
from deepssim_jax.cli.exit_codes import ExitCode

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
PAGES = sorted([ROOT / name for name in NAMES] + list((ROOT / "docs").rglob("*.md")))
# One line a command, also where a shell's line goes on.
TEXTS = {page: page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES}
README = TEXTS[ROOT / "README.md"]
LINES = sorted(
    {x for text in TEXTS.values() for x in re.findall(r"deepssim ([a-z_]+[^`\n]*)", text)}
)
# Flags of other programs that pages name.
OTHERS = {"index-url"}


def flags_of(command: str) -> set[str]:
    """Names of a command's flags."""
    return {flag.name for flag in usage.key_flags(commands.load(command))} | {"help"}


def test_python_blocks_compile_and_use_public_names():
    blocks = [
        x for t in TEXTS.values() for x in re.findall(r"```python\n(.*?)```", t, flags=re.DOTALL)
    ]
    assert len(blocks) > 1
    for code in blocks:
        compile(code, "page.md", "exec")
        names = set(re.findall(r"\bds\.(\w+)", code))
        assert names <= set(ds.__all__), names - set(ds.__all__)


@pytest.mark.parametrize("line", LINES)
def test_commands_and_their_flags_exist(line):
    command, *rest = line.split()
    if command not in commands.COMMANDS:
        pytest.fail(f"a page shows `deepssim {command}`")
    asked = {re.split(r"[=.]", word[2:])[0] for word in rest if word.startswith("--")}
    assert asked <= flags_of(command)


def test_flags_named_in_the_text_exist():
    known = OTHERS.union(*map(flags_of, commands.COMMANDS))
    for page, text in TEXTS.items():
        if page.parent.name != "benchmarks":  # whose scripts have flags of their own
            named = set(re.findall(r"`--([a-z_]+)", text))
            assert named <= known, f"{page.name}: {named - known}"


def test_every_command_is_named_in_the_readme():
    rest = set(commands.COMMANDS) - set(re.findall(r"`deepssim ([a-z_]+)`", README))
    # Stages of an audit and what papers need: the page of commands has them.
    assert rest == {"embed", "score", "evaluate", "prepare", "convert"}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for text in TEXTS.values():
        for target in set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_exit_codes_are_all_there():
    page = TEXTS[ROOT / "docs/reference/exit_codes.md"]
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)}
    assert table == {int(code) for code in ExitCode}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_and_linked_files_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXTS[page]):
        if "://" not in target:
            assert (page.parent / target).is_file(), f"{page.name} links {target}"


def test_the_readme_is_a_page_to_read():
    assert README.count("\n") <= 150
