"""Planted commands, so that the command line is tested without running an audit."""

import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest
from absl import flags

from deepssim_jax import cli
from deepssim_jax.cli import commands


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def plant(tmp_path, monkeypatch) -> Iterator[Callable[[str, str], None]]:
    """Yields `plant(name, code)`, which adds a command for the length of one test."""
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    monkeypatch.setattr("sys.dont_write_bytecode", True)

    def plant(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.setitem(commands.COMMANDS, name, "planted")

    yield plant
    for file in tmp_path.glob("*.py"):
        module = f"deepssim_jax.cli.{file.stem}"
        for flag in flags.FLAGS.get_flags_for_module(module):
            delattr(flags.FLAGS, flag.name)
        commands._set_aside.pop(module, None)
        sys.modules.pop(module, None)
        vars(cli).pop(file.stem, None)
