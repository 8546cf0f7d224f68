"""Dispatch, help, mistakes and exit codes of `deepssim COMMAND --flag=value`."""

import importlib
import inspect
import os
import signal
import subprocess
import sys
import time

import pytest

import deepssim_jax
from deepssim_jax.cli import commands, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.main import main

ECHO = '''
    """Says what it was given.

    A second paragraph.
    """

    from absl import flags

    _OUT = flags.DEFINE_string("out", None, "folder for the results")
    _SIZE = flags.DEFINE_integer("size", 128, "side in pixels")
    _MODE = flags.DEFINE_enum("mode", "fast", ["fast", "exact"], "how to search")
    _DEEP = flags.DEFINE_bool("deep", False, "look twice")
    _MANY = flags.DEFINE_multi_string("many", [], "may be given several times")
    flags.mark_flag_as_required("out")


    def main():
        print(_OUT.value, _SIZE.value, _MODE.value, _DEEP.value)
        return 0
'''


def raising(what: str) -> str:
    return f"""
        import json
        from deepssim_jax.cli import usage

        def main():
            {what}
    """


def test_help_lists_every_command_with_its_line(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, line in commands.COMMANDS.items():
        assert f"  {name} " in out
        assert line in out


def test_no_command_at_all_shows_the_help_and_is_an_error(capsys):
    assert main([]) == ExitCode.USAGE
    assert "usage: deepssim COMMAND" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == deepssim_jax.__version__


@pytest.mark.parametrize("command", list(commands.COMMANDS))
def test_every_command_exists_and_shows_its_flags(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: deepssim {command}")
    assert "--[no]verbose" in out
    module = importlib.import_module(f"deepssim_jax.cli.{command}")
    assert module.__doc__.strip().splitlines()[0] in out
    taken = inspect.signature(module.main).parameters
    assert len(taken) == len(getattr(module, "POSITIONALS", ()))


def test_a_command_gets_its_flags(plant, capsys):
    plant("echo", ECHO)
    assert main(["echo", "--out=a b", "--size", "64", "--mode=exact", "--deep"]) == 0
    assert capsys.readouterr().out == "a b 64 exact True\n"


def test_values_do_not_survive_into_the_next_run(plant, capsys):
    plant("echo", ECHO)
    assert main(["echo", "--out=a", "--size=64"]) == 0
    assert main(["echo", "--out=b"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "b 128 fast False"


def test_two_commands_may_share_a_flag_name(plant, capsys):
    plant("echo", ECHO)
    plant("echo2", ECHO)
    for command in ("echo", "echo2", "echo", "echo2"):
        assert main([command, "--out=x"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_command_help_shows_own_flags_with_defaults_only(plant, capsys):
    plant("echo", ECHO)
    assert main(["echo", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Says what it was given." in out
    assert "A second paragraph." in out
    assert "--out=VALUE" in out
    assert "(required)" in out
    assert "side in pixels (default: 128)" in out
    assert "--mode=fast|exact" in out
    assert "--[no]deep" in out
    assert "alsologtostderr" not in out
    assert "flagfile" not in out


def test_help_has_none_of_the_sentences_that_absl_adds(capsys):
    assert main(["stress", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "to specify a list of values" not in said and "<registered" not in said
    assert "may be repeated (default: registered, perturbed, harsh, edits)" in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "from deepssim_jax.training.config import EncoderConfig, variant\n"
            "def get_config(arg=''): return variant(EncoderConfig(), arg, name='mine')",
            "mine has no variant 'nosuch'; there is ':smoke', or none",
        ),
        (
            "def get_config(arg): return int(arg)",
            "invalid literal for int() with base 10: 'nosuch'",
        ),
        (
            "def get_config(arg): return arg + 1",
            'TypeError: can only concatenate str (not "int") to str',
        ),
        ("def get_config(arg): raise ValueError('two\\nlines')", "two lines"),
    ],
)
def test_what_a_config_raises_is_its_last_line_alone(tmp_path, capsys, body, words):
    path = tmp_path / "mine.py"
    path.write_text(f"{body}\n")
    assert (
        main(["train_encoder", f"--config={path}:nosuch", f"--workdir={tmp_path}"])
        == ExitCode.USAGE
    )
    assert capsys.readouterr().err == f"deepssim train_encoder: --config={path}:nosuch: {words}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["adit"], "did you mean `deepssim audit`?"),
        (["train-encoder"], "did you mean `deepssim train_encoder`?"),
        (["zzzz"], "`deepssim --help` lists them"),
        (["echo", "--out=x", "--sise=3"], "did you mean --size?"),
        (["echo", "--out=x", "--qqqqqq=3"], "`deepssim echo --help` lists all"),
        (["echo", "--out=x", "--logtostderr"], "there is no flag --logtostderr"),
        (["echo"], "--out=... (folder for the results)"),
        (["echo", "--out"], "Missing value for flag --out"),
        (["echo", "--out=x", "--size=big"], "--size=big"),
        (["echo", "--out=x", "--mode=fas"], "<fast|exact>"),
        (["echo", "--out=x", "there"], "'there'"),
        (["echo", "--out=x", "--size=3", "--size", "4"], "--size is given twice"),
        (["echo", "--out=x", "--out=x"], "--out is given twice"),
        (["echo", "--out=x", "--deep", "--nodeep"], "--deep is given twice"),
        (["echo", "--out=x", "--many=1", "--many=2", "--mode=exact", "--mode=fast"], "--mode is"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(plant, capsys, args, words):
    plant("echo", ECHO)
    assert main(args) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err


def test_a_file_of_flags_is_checked_like_the_command_line(plant, capsys, tmp_path):
    plant("echo", ECHO)
    (tmp_path / "flags").write_text("--size=3\n--out=x\n")
    assert main(["echo", f"--flagfile={tmp_path}/flags"]) == 0
    assert "x 3 fast" in capsys.readouterr().out
    assert main(["echo", f"--flagfile={tmp_path}/flags", "--size=4"]) == ExitCode.USAGE
    assert "--size is given twice" in capsys.readouterr().err
    assert main(["echo", f"--flagfile={tmp_path}/none", "--out=x"]) == ExitCode.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_positional_arguments_are_passed_on_when_the_command_names_them(plant, capsys):
    plant("check", 'POSITIONALS = ("DIR",)\n\ndef main(folder):\n    print(folder)\n    return 0\n')
    assert main(["check", "some/folder"]) == 0
    assert main(["check", "--verbose", "some/folder"]) == 0
    assert capsys.readouterr().out == "some/folder\n" * 2
    assert main(["check"]) == ExitCode.USAGE
    assert "check needs DIR" in capsys.readouterr().err
    assert main(["check", "a", "b"]) == ExitCode.USAGE


def test_overrides_may_come_before_the_config() -> None:
    given = ["--config.steps=7", "--workdir=a", "--config=f.py", "b"]
    assert usage.config_first(given) == ["--config=f.py", "--config.steps=7", "--workdir=a", "b"]
    given = ["--config.steps=7", "--config", "f.py"]
    assert usage.config_first(given) == ["--config", "f.py", "--config.steps=7"]


def test_config_overrides_reach_the_command(plant, tmp_path, capsys):
    (tmp_path / "settings.py").write_text(
        "import dataclasses\n\n\n@dataclasses.dataclass\nclass Settings:\n    steps: int = 5\n\n\n"
        "def get_config():\n    return Settings()\n"
    )
    plant(
        "fit",
        """
        from ml_collections import config_flags

        _CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment")

        def main():
            print(_CONFIG.value.steps)
            return 0
        """,
    )
    assert main(["fit", "--config.steps=7", f"--config={tmp_path}/settings.py"]) == 0
    assert capsys.readouterr().out == "7\n"
    assert main(["fit", f"--config={tmp_path}/settings.py", "--config.stebs=7"]) == ExitCode.USAGE
    assert "stebs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("raise ValueError('size 30 is no multiple of 32: try 32')", 2, "crash: size 30 is no"),
        ("raise OSError(28, 'No space left on device')", 1, "crash failed: OSError"),
        ("raise KeyError('x')", 1, "--verbose shows where"),
        ("raise KeyboardInterrupt", 75, "run the same command again to resume"),
        ("return 3", 3, ""),
        ("return 4", 4, ""),
    ],
)
def test_what_a_command_does_becomes_an_exit_status(plant, capsys, what, status, words):
    plant("crash", raising(what))
    assert main(["crash"]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


def test_verbose_shows_the_traceback(plant, capsys):
    plant("crash", raising("raise ValueError('bad')"))
    assert main(["crash", "--verbose"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == "deepssim crash: bad"


def test_a_name_with_control_characters_stays_on_one_line(plant, capsys):
    plant("crash", raising(r"raise ValueError('no image \x1b[2J a\nb')"))
    main(["crash"])
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_75(tmp_path, number):
    (tmp_path / "sleep.py").write_text(
        "import time\n\n\ndef main():\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    code = (
        "import sys\nfrom deepssim_jax import cli\nfrom deepssim_jax.cli import commands, main\n"
        f"cli.__path__.append({str(tmp_path)!r})\ncommands.COMMANDS['sleep'] = 'planted'\n"
        "sys.argv = ['deepssim', 'sleep']\nmain.run()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    start = time.monotonic()
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 75
    assert err == "deepssim sleep: stopped; run the same command again to resume\n"
    assert time.monotonic() - start < 10


def test_a_signal_during_a_long_call_of_compiled_code_ends_with_75(tmp_path):
    """As in XLA's compiler: the interpreter does not run, so no handler of Python's does."""
    (tmp_path / "stuck.py").write_text(
        "import ctypes\n\n\ndef main():\n    print('ready', flush=True)\n"
        "    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock\n"
        "    lock(mutex), lock(mutex)\n"
    )
    code = (
        "import sys\nfrom deepssim_jax import cli\nfrom deepssim_jax.cli import commands, main, stopping\n"
        f"cli.__path__.append({str(tmp_path)!r})\ncommands.COMMANDS['stuck'] = 'planted'\n"
        "stopping._ALONE_S = 0.2\nsys.argv = ['deepssim', 'stuck']\nmain.run()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 75
    assert err == "deepssim stuck: stopped; run the same command again to resume\n"


def test_a_signal_that_compiled_code_turned_into_an_error_is_a_stop(plant, capsys):
    plant(
        "crash",
        """
        import os, signal


        def main():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                return 0
            except KeyboardInterrupt as stop:
                raise RuntimeError("INTERNAL: a callback failed") from stop
        """,
    )
    assert main(["crash"]) == ExitCode.STOPPED
    assert capsys.readouterr().err.endswith("run the same command again to resume\n")


def test_signal_handlers_are_put_back(plant):
    plant("echo", ECHO)
    before = signal.getsignal(signal.SIGTERM)
    main(["echo", "--out=x"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_module_and_closed_pipe():
    """`python -m deepssim_jax` works, also when what reads its output goes away."""
    command = [sys.executable, "-m", "deepssim_jax", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: deepssim" in done.stdout
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert child.stderr == ""


def test_help_imports_neither_jax_nor_a_command():
    code = (
        "import sys\nfrom deepssim_jax.cli.main import main\nmain(['--help'])\n"
        "print([m for m in ('jax', 'numpy', 'deepssim_jax.cli.audit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_exit_codes_are_those_of_the_design():
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "POLICY_BROKEN": 3,
        "INCONCLUSIVE": 4,
        "STOPPED": 75,
    }


@pytest.mark.parametrize("flag", ["--budget=3", "--safeguard", "--real=training"])
def test_the_safeguard_and_its_flags_go_together(flag, capsys, tmp_path):
    assert main(["generate", f"--workdir={tmp_path}", f"--out={tmp_path}/x", flag]) == 2
    assert "--safeguard" in capsys.readouterr().err
