"""A machine without accelerators computes on a device a core, as far as the batch goes."""

import os
import subprocess
import sys
import types

import jax
import pytest

from deepssim_jax import parallel

COUNT = """
import os, sys
os.sched_getaffinity = lambda process: range(6)
from deepssim_jax import parallel
import jax
parallel.use_cores(int(sys.argv[1]))
print(jax.device_count())
"""


@pytest.mark.parametrize(
    ("batch", "devices"),
    [
        (48, 6),  # six cores and eight images each
        (16, 4),  # five do not divide the batch
        (8, 2),  # at least four images each
        (7, 1),
        (3, 1),
    ],
)
def test_devices_that_are_asked_for(batch: int, devices: int, monkeypatch) -> None:
    asked = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    config = types.SimpleNamespace(values={"jax_num_cpu_devices": -1}, update=asked.__setitem__)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "config", config)
        parallel.use_cores(batch)
    assert asked == {"jax_num_cpu_devices": devices}


@pytest.mark.parametrize(
    ("batch", "own", "devices"),
    [
        (48, {}, 6),
        (48, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
        (48, {"JAX_NUM_CPU_DEVICES": "2"}, 2),
    ],
)
def test_devices_of_a_machine_of_six_cores(batch: int, own: dict[str, str], devices: int) -> None:
    named = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    clean = {name: value for name, value in os.environ.items() if name not in named}
    command = [sys.executable, "-c", COUNT, str(batch)]
    environment = clean | {"JAX_PLATFORMS": "cpu"} | own
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) == devices
