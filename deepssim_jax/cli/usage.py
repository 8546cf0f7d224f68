"""Help texts, and the answers to a command line that cannot be run."""

import difflib
import itertools
import math
import re
import shutil
import textwrap
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from absl import flags

from deepssim_jax.cli import common_flags
from deepssim_jax.cli.commands import COMMANDS, processes_of

_Config = TypeVar("_Config")
# What the parsers of flags say, in Python's words, and what is wanted.
_KINDS = {
    "invalid literal for int()": "a whole number, for example 128",
    "could not convert string to float": "a number, for example 0.5",
    "('Non-boolean argument to boolean flag'": "true or false",
}
_NO_FIELD = re.compile(r"Field (\w+) not found on dataclass")  # in ml_collections' words
_IN_CONFIG = (
    ": Error whilst parsing config file:"  # then a whole traceback, in ml_collections' words
)
_REQUIRED = "must have a value other than None"


class UsageError(Exception):
    """A command line that cannot be run; the message says what to write instead."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word that `word` was most likely meant to be, or None."""
    found = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 100)


def _entry(head: str, body: str, *, column: int) -> str:
    lines = textwrap.wrap(body, max(_width() - column, 30)) or [""]
    if len(head) + 2 > column:
        return "\n".join([head, *(" " * column + line for line in lines)])
    return "\n".join([head.ljust(column) + lines[0], *(" " * column + x for x in lines[1:])])


def overview() -> str:
    """Returns what `deepssim --help` prints."""
    rows = [_entry(f"  {name}", line, column=18) for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "usage: deepssim COMMAND --flag=value ...",
            "",
            "Finds the synthetic medical images that are copies of a patient's image.",
            "",
            *rows,
            "",
            "deepssim COMMAND --help   the flags of a command",
            "deepssim --version        the version",
        ]
    )


def key_flags(module: types.ModuleType) -> list[flags.Flag]:
    """Returns the flags that a command takes, its own before those of every command."""
    own = flags.FLAGS.get_key_flags_for_module(module)
    shared = flags.FLAGS.get_key_flags_for_module(common_flags)
    return [flag for flag in own if flag not in shared] + shared


def _is_required(flag: flags.Flag) -> bool:
    return any(_REQUIRED in str(v.message) for v in flag.validators)


def flag_default(flag: flags.Flag) -> str:
    """What a flag is where it is not given, in words; "" where there is nothing to say."""
    if _is_required(flag):
        return "required"
    if flag.boolean:
        return f"default: {str(bool(flag.default)).lower()}"
    if isinstance(flag.default, list):
        text = ", ".join(map(str, flag.default))
    else:
        text = (flag.default_as_str or "").strip("'")
    return f"default: {text}" if text else ""


def flag_text(flag: flags.Flag) -> str:
    """What a flag is for, in its module's words alone: absl adds the choices and how to repeat it."""
    text = " ".join((flag.help or "").split())
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        text = text.removeprefix(f"<{'|'.join(choices)}>: ")
    return text.removesuffix("; repeat this option to specify a list of values")


def flag_form(flag: flags.Flag) -> str:
    """How a flag is written: `--[no]name`, or `--name=` with its choices or its kind."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    choices = getattr(flag.parser, "enum_values", None)
    return f"--{flag.name}={'|'.join(choices) if choices else _placeholder(flag)}"


def _flag_entry(flag: flags.Flag) -> str:
    text, default = flag_text(flag), flag_default(flag)
    text = f"{text} ({default})" if default else text
    return _entry(f"  {flag_form(flag)}", text, column=30)


def _placeholder(flag: flags.Flag) -> str:
    kind = flag.flag_type()
    if kind in ("int", "float"):
        return kind.upper()
    if "list" in kind or "space separated" in kind:
        return "A,B,..."
    return "VALUE"


def command_help(command: str, module: types.ModuleType) -> str:
    """Returns what `deepssim COMMAND --help` prints: the command's own flags, with defaults."""
    positionals = " ".join(getattr(module, "POSITIONALS", ()))
    usage = " ".join(word for word in ("usage: deepssim", command, positionals, "[flags]") if word)
    return "\n".join(
        [
            usage,
            "",
            (module.__doc__ or COMMANDS[command]).strip(),
            *(("", processes_of(command)) if command != "doctor" else ()),
            "",
            *(_flag_entry(flag) for flag in key_flags(module)),
        ]
    )


def unknown_command(word: str) -> UsageError:
    """Returns the answer to a command that does not exist."""
    guess = nearest(word, COMMANDS)
    hint = f"did you mean `deepssim {guess}`?" if guess else "`deepssim --help` lists them"
    return UsageError(f"there is no command {word!r}: {hint}")


def check_flag_names(command: str, module: types.ModuleType, args: Sequence[str]) -> None:
    """Refuses a flag that is not the command's own, and one that is given twice but holds one value.

    Libraries define absl flags, too, and absl takes the last value of several; without this check a
    command would do both silently.

    Args:
        command: The command's name.
        module: The command's module.
        args: The command line after the command.

    Raises:
        UsageError: Names the flag, and the nearest one that exists.
    """
    known = {flag.name: flag for flag in key_flags(module)}
    seen: set[str] = set()
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return
        if not arg.startswith("-") or not arg.strip("-"):
            continue
        name, has_value, _ = arg.lstrip("-").partition("=")
        flag = known.get(name)
        if flag is None and name.startswith("no") and name[2:] in known and known[name[2:]].boolean:
            name, flag = name[2:], known[name[2:]]
        if flag is None and "." in name and name.partition(".")[0] in known:
            flag = known[name.partition(".")[0]]  # --config.a.b=value
        if flag is None and name == "undefok":
            next(rest, None) if not has_value else None
            continue
        if flag is None:
            guess = nearest(name, known)
            hint = f"did you mean --{guess}?" if guess else f"`deepssim {command} --help` lists all"
            raise UsageError(f"there is no flag --{name}: {hint}")
        if name in seen and not isinstance(flag, flags.MultiFlag):
            raise UsageError(f"--{name} is given twice, and one value is wanted: leave one out")
        seen.add(name)
        if not has_value and not flag.boolean:
            next(rest, None)


def config_first(args: Sequence[str]) -> list[str]:
    """The arguments with --config ahead of what changes its fields, as ml_collections wants them."""
    ahead: list[str] = []
    others: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--config":
            ahead += [arg, *itertools.islice(left, 1)]
        else:
            (ahead if arg.startswith("--config=") else others).append(arg)
    return ahead + others


def _one_line(text: str, *, known_flags: Iterable[flags.Flag]) -> str:
    """A library's message without its line breaks, with the choice that was most likely meant."""
    given, found, trace = text.partition(_IN_CONFIG)
    if found:  # the error follows the last indented line
        last = re.split(r"\n +\S.*\n(?=\S)", trace.strip())[-1].removeprefix("ValueError: ")
        return " ".join(f"{given}: {last}".split()).removeprefix("flag ")
    text = " ".join(text.split()).removeprefix("flag ")
    if field := _NO_FIELD.search(text):
        return f"there is no --config.{field[1]}; the configuration's file and its class list the fields"
    for said, meant in _KINDS.items():
        given, found, _ = text.partition(said)
        if found:
            return f"{given.rstrip(' :')} must be {meant}"
    for flag in known_flags:
        choices = getattr(flag.parser, "enum_values", None)
        if choices and text.startswith(f"--{flag.name}="):
            given = text.removeprefix(f"--{flag.name}=").partition(":")[0]
            guess = nearest(given, choices)
            return f"{text}; did you mean {guess}?" if guess else text
    return text


def config_of(flag: flags.FlagHolder, kind: type[_Config], example: str) -> _Config:
    """The configuration of a --config flag.

    Raises:
        UsageError: it cannot be loaded, or is of another job.
    """
    try:
        config = flag.value
        if not isinstance(config, kind):
            getattr(
                config, "any", None
            )  # of a file that cannot be read, ml_collections tells only now
    except (OSError, ImportError) as error:
        text = " ".join(str(error).split())
        if "No such file" in text:
            text = "there is no such file; check the path"
        elif "Is a directory" in text:
            text = "this is a folder; give a .py file with get_config(), for example " + example
        raise UsageError(f"--config: {text}") from error
    if not isinstance(config, kind):
        raise UsageError(
            f"--config holds {type(config).__name__}, and this command needs {kind.__name__}, for example "
            f"that of {example}"
        )
    return config


def belong(holders: Iterable[flags.FlagHolder], to: str, *, wanted: bool) -> None:
    """Refuses flags that were given and do nothing without something else.

    Args:
        holders: flags.
        to: what they need, for people.
        wanted: whether it is there.

    Raises:
        UsageError: names the first of them.
    """
    given = [h.name for h in holders if flags.FLAGS[h.name].present]
    if given and not wanted:
        rest = f" (so do {', '.join(f'--{name}' for name in given[1:])})" if given[1:] else ""
        raise UsageError(f"--{given[0]} needs {to}{rest}: add it, or leave the flag out")


def exists(holder: flags.FlagHolder, what: str) -> None:
    """Refuses a path that leads nowhere, or one of several.

    Raises:
        UsageError: names the flag, its value and what is wanted.
    """
    given = holder.value if isinstance(holder.value, list) else [holder.value]
    for path in given:
        if path is not None and not Path(path).expanduser().exists():
            raise UsageError(f"--{holder.name}={path}: there is no such {what}")


def listed(holder: flags.FlagHolder) -> tuple[str, ...]:
    """The values of a flag that may be repeated; @FILE stands for its lines.

    Raises:
        UsageError: a file cannot be read.
    """
    found: list[str] = []
    for value in holder.value:
        if not value.strip():
            raise UsageError(f"--{holder.name}= is empty: give a value, or leave the flag out")
        if not value.startswith("@"):
            found.append(value)
            continue
        try:
            text = Path(value[1:]).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--{holder.name}={value}: cannot be read as text") from error
        found += [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(found)


def in_flags(module: types.ModuleType, text: str) -> str:
    """A message about a setting, such as "size 30 must be ...", in the words of the command line.

    Settings and fields of a configuration bear the names of their flags; `SOURCES` of a command says
    under which flag its images were given.
    """
    for name, flag in getattr(module, "SOURCES", {}).items():
        if text.startswith(name):
            return flag + text.removeprefix(name)
    word, _, rest = text.partition(" ")
    known = {flag.name: flag for flag in key_flags(module)}
    if word in known and word != "config":
        return f"--{word}={rest}"
    config = known["config"].value if "config" in known else None
    return f"--config.{word}={rest}" if hasattr(config, word) else text


def parse(command: str, module: types.ModuleType, args: Sequence[str]) -> list[str]:
    """Parses a command's flags.

    Args:
        command: The command's name.
        module: The command's module, as `commands.load` gave it.
        args: The command line after the command.

    Returns:
        Its positional arguments, as many as the command names.

    Raises:
        UsageError: What is wrong, and what to write instead.
    """
    args = flags.FLAGS.read_flags_from_files(list(args))  # what they hold is checked, too
    check_flag_names(command, module, args)
    flags.FLAGS.set_gnu_getopt(True)
    try:
        given = flags.FLAGS([command, *args])[1:]
    except (flags.Error, ValueError, KeyError, OSError) as error:
        missing = [f for f in key_flags(module) if _is_required(f) and f.value is None]
        if missing and _REQUIRED in str(error):
            lines = "; ".join(f"--{flag.name}=... ({flag_text(flag)})" for flag in missing)
            raise UsageError(f"{command} needs {lines}") from error
        text = error.args[0] if isinstance(error, KeyError) else error  # str() of one adds quotes
        raise UsageError(_one_line(str(text), known_flags=key_flags(module))) from error
    except (Exception, SystemExit) as error:  # of a --config file, which is a program of the user's
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"--config: its file could not be run: {words}") from error
    for flag in key_flags(module):
        if flag.present and flag.value == "" and flag.default is None:
            raise UsageError(f"--{flag.name}= is empty: give a value, or leave the flag out")
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise UsageError(f"--{flag.name}={flag.value} must be a finite number")
        if isinstance(flag.value, int) and flag.value >= 2**32:  # no seed, side or number is larger
            raise UsageError(
                f"--{flag.name}={flag.value} must be a whole number of at most {2**32 - 1}"
            )
    names = getattr(module, "POSITIONALS", ())
    if len(given) > len(names):
        extra = given[len(names)]
        raise UsageError(
            f"{command} does not know what to do with {extra!r}: write --flag=value, "
            f"`deepssim {command} --help` lists the flags"
        )
    if len(given) < len(names):
        raise UsageError(f"{command} needs {' '.join(names)}: deepssim {command} {' '.join(names)}")
    return given
