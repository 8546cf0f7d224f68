"""Reference pages made from the code: commands with their flags, configurations with their fields.

Contract: Markdown; what a command or configuration states of itself is not changed, only escaped.
"""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

from absl import flags

from deepssim_jax.audit import tables
from deepssim_jax.cli import commands, usage
from deepssim_jax.training import config, generator_config

ROOT = Path(__file__).resolve().parents[2]
_CONFIGS = (
    ("train_encoder", config.EncoderConfig),
    ("train_vae", generator_config.AutoencoderConfig),
    ("train_ldm", generator_config.LdmConfig),
)


def _escaped(text: str) -> str:
    """Text in which nothing is markup but code in backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(x if x[:1] == "`" else re.sub(r"([<>*_\\|`\[\]])", r"\\\1", x) for x in parts)


def _prose(text: str) -> str:
    """A docstring: indented lines are commands, the rest is text."""
    blocks = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = block.splitlines()
        code = all(line.startswith("    ") for line in lines) or lines[0].startswith("deepssim ")
        if code:
            # A line end that the docstring's backslash has eaten.
            lines = [
                re.sub(r"(?<=\S) {4,}", " \\\\\n    ", line.removeprefix("    ")) for line in lines
            ]
            body = "\n".join(lines)
            blocks.append(f"```bash\n{body}\n```")
        else:
            blocks.append(_escaped(" ".join(line.strip() for line in lines)))
    return "\n\n".join(blocks)


def _flag(flag: flags.Flag) -> str:
    text = usage.flag_text(flag)
    default = usage.flag_default(flag)
    tail = f" ({_escaped(default)})" if default else ""
    return f"`{usage.flag_form(flag)}`\n: {_escaped(text)}{tail}"


def command_list() -> str:
    """Every command in one line."""
    rows = ["| command | what it does |", "|---|---|"]
    rows += [
        f"| [`{name}`](#{name}) | {_escaped(line)} |" for name, line in commands.COMMANDS.items()
    ]
    return "\n".join(rows)


def command_pages() -> str:
    """Every command with its description and flags."""
    return "\n\n".join(command_section(name) for name in commands.COMMANDS)


def command_section(name: str) -> str:
    """One command with its description and flags."""
    module = commands.load(name)
    positionals = " ".join(getattr(module, "POSITIONALS", ()))
    line = " ".join(word for word in ("deepssim", name, positionals, "[flags]") if word)
    shown = [_flag(flag) for flag in usage.key_flags(module)]
    return "\n\n".join(
        [f"({name})=\n## {name}", f"```text\n{line}\n```", _prose(module.__doc__ or ""), *shown]
    )


def config_files() -> str:
    """The configurations that ship, by what their docstrings state."""
    out = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        out.append(f"## `configs/{path.name}`\n\n{_prose(text)}")
    return "\n\n".join(out)


def config_fields() -> str:
    """The fields of each kind of configuration, with their defaults."""
    out = []
    for command, kind in _CONFIGS:
        rows = [
            f"| `{field.name}` | `{getattr(field.type, '__name__', field.type)}` | `{field.default!r}` |"
            for field in dataclasses.fields(kind)
        ]
        table = "\n".join(["| field | type | default |", "|---|---|---|", *rows])
        out.append(f"## Fields of `{command}`\n\n{_prose(kind.__doc__ or '')}\n\n{table}")
    return "\n\n".join(out)


def audit_columns() -> str:
    """The columns of an audit's tables, in their order."""
    names = ", ".join(f"`{column}`" for column in tables.COLUMNS)
    return f"In the files the columns are in this order: {names}."


PAGES = {
    "audit-columns": audit_columns,
    "command-list": command_list,
    "command-pages": command_pages,
    "config-files": config_files,
    "config-fields": config_fields,
}
