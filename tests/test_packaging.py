"""What an installation contains, read from the files that decide it."""

import configparser
import importlib.metadata
import pathlib
import re

import deepssim_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepssim_jax"


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser(delimiters=("=",))
    setup.read(ROOT / "setup.cfg")
    return setup


def test_the_version_is_one():
    assert _setup()["metadata"]["version"] == deepssim_jax.__version__


def test_the_changelog_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "[Unreleased]" in text or f"[{deepssim_jax.__version__}]" in text


def test_every_file_beside_the_code_is_shipped():
    """A weight or a template that no pattern names would be missing from every installation."""
    patterns = _setup()["options.package_data"]["deepssim_jax"].split()
    shipped = {file for pattern in patterns for file in PACKAGE.glob(pattern)}
    beside = {
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc") and "__pycache__" not in file.parts
    }
    assert beside <= shipped, sorted(str(file.relative_to(ROOT)) for file in beside - shipped)


def test_every_room_with_code_is_a_package():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    missing = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert not missing, f"no __init__.py, so not installed: {missing}"


def test_extras_are_those_of_the_design():
    extras = set(_setup()["options.extras_require"])
    assert extras == {
        "dicom",
        "phantom",
        "convert",
        "tensorboard",
        "tpu",
        "cuda12",
        "cuda13",
        "test",
        "bench",
        "docs",
    }


def test_the_core_needs_no_torch():
    core = _setup()["options"]["install_requires"].lower()
    assert not re.search(r"^\s*(torch|tensorflow)", core, flags=re.MULTILINE)


def test_what_runs_here_is_what_is_asked_for():
    """jax and flax come in pairs: the installed ones satisfy the markers of this Python."""
    from packaging.requirements import Requirement

    for line in _setup()["options"]["install_requires"].splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            version = importlib.metadata.version(requirement.name)
            assert requirement.specifier.contains(version, prereleases=True), (line, version)
