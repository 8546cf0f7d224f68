"""Several processes: how a job is recognised, what is wrong with it, and that it trains alike."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.cli import commands, doctor, processes
from deepssim_jax.cli.processes import Job
from deepssim_jax.testing import assert_same_outputs
from tests.kept import share_secret, write_phantoms

ROOT = Path(__file__).resolve().parents[2]
OWN = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        (OWN, Job("variables", 2, 1, "a:1")),
        ({**OWN, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, Job("SLURM", 4, 3, None)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, Job("TPU", 4, None, None)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ],
)
def test_a_job_is_recognised(environment: dict[str, str], job: Job | None) -> None:
    assert processes.detect(environment) == job


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is not"),
        ({"JAX_PROCESS_ID": "2"}, r"must lie in \[0, 2\)"),
        ({"JAX_NUM_PROCESSES": "two"}, "'two' is no whole number"),
    ],
)
def test_variables_that_contradict_are_said(change: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        processes.detect({**OWN, **change})


def test_the_doctor_catches_what_would_hang(monkeypatch) -> None:
    loop = {**OWN, "JAX_COORDINATOR_ADDRESS": "127.0.0.1:80", "SLURM_NNODES": "2"}
    found = processes.problems(processes.detect(loop), loop)
    assert len(found) == 1 and "other 1 nodes cannot reach" in found[0]
    part = {
        "SLURM_PROCID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "CUDA_VISIBLE_DEVICES": "0,1",
    }
    found = processes.problems(processes.detect(part), part)
    assert len(found) == 1 and "GPUs 0,1 of 8" in found[0]
    assert processes.problems(None, {}) == []
    for name, value in loop.items():
        monkeypatch.setenv(name, value)
    assert any("cannot reach" in text for text in doctor.examine()["problems"])
    monkeypatch.setenv("JAX_PROCESS_ID", "9")
    assert any("must lie in" in text for text in doctor.examine()["problems"])


@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*s*h*")), ids=lambda p: p.name)
def test_recipes_are_valid_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


CONFIG = """
from deepssim_jax.training.config import EncoderConfig

def get_config(arg=""):
    return EncoderConfig(size=(32, 32), batch=16, steps=3, warmup=1, validate_every=3,
                         checkpoint_every=3, average=0.9)
"""


# Slow, and not for a busy machine: processes that start half a minute apart give each other up.
@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    known = subprocess.run(["getent", "hosts", socket.gethostname()], stdout=subprocess.DEVNULL)
    if known.returncode:
        pytest.skip("this machine's own name has no address, which JAX's processes need on a CPU")
    (tmp_path / "config.py").write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    figures = {}
    for name, count, devices in (("two", "2", "4"), ("one", "1", "8")):
        command = [
            "train_encoder",
            f"--config={tmp_path}/config.py",
            f"--workdir={tmp_path / name}",
        ]
        environment = os.environ | {
            "PROCESSES": count,
            "DEVICES": devices,
            "PORT": port,
            "PYTHON": sys.executable,
            "XLA_FLAGS": "",
        }
        done = subprocess.run(
            [shutil.which("bash"), str(ROOT / "launch" / "local.sh"), *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("encoder.safetensors") == 1  # one process speaks
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        figures[name] = [json.loads(line) for line in lines]
    for one, two in zip(figures["one"], figures["two"], strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_allclose(one[key], two[key], rtol=2e-3, err_msg=key)


# Slow for the same reason.
@pytest.mark.slow
def test_a_job_of_two_stops_on_a_signal(tmp_path: Path) -> None:
    """JAX's own service would swallow SIGTERM, and a lost process would end the others with a stack."""
    (tmp_path / "config.py").write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"PROCESSES": "2", "DEVICES": "2", "PORT": port, "XLA_FLAGS": ""}
    job = subprocess.Popen(
        [
            *(shutil.which("bash"), str(ROOT / "launch" / "local.sh"), "train_encoder"),
            *(f"--config={tmp_path}/config.py", f"--workdir={tmp_path / 'run'}"),
        ],
        env=environment | {"PYTHON": sys.executable, "JAX_COMPILATION_CACHE_DIR": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    for line in job.stderr:  # the first line says that the step compiles
        if "still at work" in line:
            break
    job.terminate()
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 75, errors[-2000:]
    assert errors.count("stopped; run the same command again to resume") == 1
    assert "***" not in errors and "Traceback" not in errors


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: int
    out: str
    errors: str
    seconds: float


# Of one job: four processes on two cores that others use, too, each compiling by itself.
_LONGEST = 900


def job(*command: object, count: int = 2, devices: int = 1, python: str = sys.executable) -> Ended:
    """Runs a command on several processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {
        "PROCESSES": str(count),
        "DEVICES": str(devices),
        "PORT": port,
        "PYTHON": python,
        "XLA_FLAGS": "",
    }
    begin = time.monotonic()
    done = subprocess.run(
        [shutil.which("bash"), str(ROOT / "launch" / "local.sh"), *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        cwd=ROOT,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - begin)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two sides of a few phantoms; three of the second one are copies."""
    root = tmp_path_factory.mktemp("images")
    write_phantoms(root / "real", 24, size=(64, 64), seed=1)
    write_phantoms(root / "synthetic", 6, size=(64, 64), seed=2)
    for number in range(3):
        shutil.copy(root / "real" / f"p{number:04d}_t1.png", root / "synthetic" / f"c{number}.png")
    return root


def test_two_processes_embed_as_one_does(images: Path, tmp_path: Path) -> None:
    how = ["embed", f"--images={images / 'real'}", "--size=64"]
    for count in (1, 2):
        done = job(*how, f"--out={tmp_path / str(count)}", count=count)
        assert done.status == 0, done.errors
        assert done.out.count("dimensions") == 1  # one process speaks
    assert_same_outputs(tmp_path / "1", tmp_path / "2")


# What a failing machine does to one process of two, and what is said of it, last.
BROKEN = """
import os, signal, sys, time
from deepssim_jax.cli import main
if os.environ["JAX_PROCESS_ID"] == "{victim}":
    from deepssim_jax.data import manifest
    def fail(*args, **how):
        {what}
    manifest.read_manifest = fail
sys.argv = sys.argv[2:]
sys.orig_argv = [sys.executable, __file__, "-m", *sys.argv]
main.run()
"""


ERROR = 'raise RuntimeError("the disk is on fire")', 1, "the disk is on fire"
KILL = "os.kill(os.getpid(), signal.SIGKILL)", 137, "process {victim} was ended by signal 9"


# Each way of failing and each of the two processes once; the other two pairings are slow.
@pytest.mark.parametrize(
    ("victim", "what", "status", "words"),
    [
        pytest.param(0, *ERROR, id="error-0"),
        pytest.param(1, *ERROR, id="error-1", marks=pytest.mark.slow),
        pytest.param(0, *KILL, id="kill-0", marks=pytest.mark.slow),
        pytest.param(1, *KILL, id="kill-1"),
    ],
)
def test_a_process_that_fails_ends_the_others(
    images: Path, tmp_path: Path, victim: int, what: str, status: int, words: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n" + BROKEN.format(victim=victim, what=what))
    program.chmod(0o755)
    out = tmp_path / "out"
    done = job("embed", f"--images={images / 'real'}", f"--out={out}", "--size=64", python=program)
    assert done.status == status, done.errors
    assert words.format(victim=victim) in done.errors.splitlines()[-1], done.errors
    assert done.errors.count("the disk is on fire") == (status == 1)
    assert done.seconds < 60  # most of it passes before they have found each other


def test_what_is_wrong_is_said_once(images: Path, tmp_path: Path) -> None:
    for given in ("--imags=x", f"--images={tmp_path / 'nowhere'}"):
        done = job("embed", given, f"--out={tmp_path / 'out'}")
        assert done.status == 2
        assert len(done.errors.splitlines()) == 1, done.errors


def test_one_process_does_what_gains_nothing_from_several(tmp_path: Path) -> None:
    done = job("convert", f"--source={tmp_path / 'none.pt'}", f"--out={tmp_path / 'x'}")
    assert done.status == 2
    assert len(done.errors.splitlines()) == 1, done.errors
    assert "the first one does this alone" in commands.processes_of("convert")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_job_writes_what_one_process_writes(images: Path, tmp_path: Path, count: int) -> None:
    stores = {side: tmp_path / "stores" / side for side in ("real", "synthetic")}
    for side, out in stores.items():
        assert job("embed", f"--images={images / side}", f"--out={out}", "--size=64").status == 0
    pair = [f"--real={images / 'real'}", f"--synthetic={images / 'synthetic'}", "--size=64"]
    score = [f"--{side}={out}" for side, out in stores.items()]
    for name, command in {
        "audit": ["audit", *pair, "--plant=4"],
        "score": ["score", *score],
        "duplicates": ["duplicates", images / "synthetic", "--size=64"],
    }.items():
        for number in (1, count):
            out = tmp_path / name / str(number)
            if name == "audit":
                share_secret(out, command=name)
            done = job(*command, f"--out={out}", count=number)
            assert done.status in (0, 4), done.errors
        assert_same_outputs(tmp_path / name / "1", tmp_path / name / str(count))


def test_a_signal_that_the_garbage_collector_swallows_is_heard(tmp_path: Path) -> None:
    """Exceptions of a destructor are dropped, that of a signal too."""
    program = """
        import os, signal, time
        from deepssim_jax.cli import stopping
        class Late:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
        try:
            with stopping.by_signals("test"):
                Late()
                time.sleep(20)
        except KeyboardInterrupt:
            print("heard")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("heard\n", "", 0)
