"""Several processes: how a job is recognised, what is wrong with it, and that it trains alike."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.cli import doctor, processes
from deepssim_jax.cli.processes import Job

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
