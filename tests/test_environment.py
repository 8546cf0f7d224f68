"""The ground the other tests stand on is what they take it for."""

import os
import socket
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest


def test_eight_devices():
    assert jax.device_count() == 8


def test_broadcasting_over_ranks_raises():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_sockets_are_blocked(family):
    with socket.socket(family) as plug, pytest.raises(RuntimeError, match="network"):
        plug.connect(("localhost", 80))


def test_looking_up_a_host_is_blocked():
    with pytest.raises(RuntimeError, match="network"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_sockets_are_blocked_in_children():
    code = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert "NetworkBlocked" in child.stderr


def test_compile_cache_is_private():
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if os.path.basename(folder) != f"deepssim_jax-tests-{os.getuid()}":
        pytest.skip("the cache's folder was chosen by whoever started the tests")
    status = os.lstat(folder)
    assert stat.S_ISDIR(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o700
