"""`deepssim COMMAND --flag=value`: picks the command, parses its flags, runs it.

Only the chosen command is imported. Whatever a command raises ends here as one line and an exit
status (`ExitCode`): input and usage errors 2, everything else 1, a signal 75.
"""

import contextlib
import io
import sys
from collections.abc import Sequence

from absl import flags

import deepssim_jax
from deepssim_jax.cli import (
    commands,
    common_flags,
    compile_cache,
    console,
    failures,
    memory,
    processes,
    retired_flags,
    stopping,
    usage,
)
from deepssim_jax.cli.exit_codes import ExitCode

_HELP = ("--help", "-h", "-help", "--helpfull", "help")


def _verbose(args: Sequence[str]) -> bool:
    # The flags may be what is wrong, so the command line is asked and not the parsed value.
    return f"--{common_flags.VERBOSE.name}" in args or "--verbose=true" in args


def _run(command: str, args: Sequence[str]) -> int:
    compile_cache.prepare()
    module = commands.load(command)
    if any(arg in _HELP[:-1] for arg in args):
        print(usage.command_help(command, module))
        return ExitCode.DONE
    args = usage.config_first(retired_flags.without(command, args))
    # ml_collections reads the overrides of a config file (--config.a.b=v) from sys.argv.
    sys_argv, sys.argv = sys.argv, [f"deepssim {command}", *args]
    try:
        positionals = usage.parse(command, module, args)
        if commands.together(command, module):
            processes.join()
        elif command != "doctor" and processes.number():
            return ExitCode.DONE  # the first process does it alone, and joins nobody
        with contextlib.ExitStack() as stack:
            if processes.number():
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(processes.following(stopping.leave_job))
            return int(module.main(*positionals))
    except ValueError as error:
        text = usage.in_flags(module, str(error))
        if text != str(error):
            error.args = (text,)
        raise
    finally:
        sys.argv = sys_argv


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: The command line without the program's name.

    Returns:
        The exit status, see `ExitCode`.
    """
    if not argv or argv[0] in _HELP:
        print(usage.overview())
        return ExitCode.DONE if argv else ExitCode.USAGE
    if argv[0] in ("--version", "version"):
        print(deepssim_jax.__version__)
        return ExitCode.DONE
    command, args = argv[0], list(argv[1:])
    name = f"deepssim {command}"
    try:
        if command not in commands.COMMANDS:
            name = "deepssim"
            raise usage.unknown_command(command)
        with stopping.by_signals(name), failures.quiet_libraries(args):
            return _run(command, args)
    except KeyboardInterrupt:
        stopping.say(name)
        return ExitCode.STOPPED
    except BrokenPipeError:
        raise
    except (usage.UsageError, flags.Error, ValueError) as error:
        line = f"{name}: {failures.said(error, args)}"
        status, cause = ExitCode.USAGE, error
    except Exception as error:
        typed = failures.of_arguments(error, args)
        line = f"{name}: {typed}" if typed else f"{name} failed: {failures.words(error, args)}"
        status, cause = ExitCode.USAGE if typed else ExitCode.FAILED, error
    if not processes.speaks(status):
        return status
    if _verbose(args):
        print(failures.trace(cause, args), file=sys.stderr, end="")
    elif status == ExitCode.FAILED:
        line += " (--verbose shows where)"
    console.error(line)
    return status


def run() -> None:
    """The entry point of the `deepssim` script."""
    memory.keep()
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold bytes that the terminal's encoding does not know.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stdout = None
        status = ExitCode.DONE
    if processes.in_job() and status in (ExitCode.FAILED, ExitCode.USAGE, ExitCode.STOPPED):
        stopping.leave_job(status)
    sys.exit(status)
