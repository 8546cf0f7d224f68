"""The script for accelerators runs dry on a CPU: every section, its records, its table, its limits."""

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.device_cases import agreement, card, operations, profiles, section, table
from benchmarks.device_cases.schedule import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
# They compile for long, and what else is run of their networks and kernels is tested elsewhere.
SLOW = {
    "aligned", "audit", "autoencoder_step", "denoiser_step", "embedding", "encoder_step", "local_features",
    "registration", "sampling",
}  # fmt: skip


def run(out: Path, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.device", "--tiny", f"--out={out}", *given]
    return subprocess.run(
        command,
        cwd=ROOT,
        # Programs are run a few times and compiled once: the compiler takes most of the time.
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "device_cpu.jsonl").read_text().splitlines()]


def check(out: Path, done: subprocess.CompletedProcess[str], asked: set[str]) -> None:
    assert done.returncode == 0, done.stdout[-4000:]
    found = records(out)
    assert {record["section"] for record in found} == asked
    for record in found:
        assert {"jax", "numpy"} <= record["versions"].keys() and record["device"] == "cpu"
        assert "agrees" not in record  # there is but one platform
        assert record["work"] in done.stdout or record["worst"] <= record["tolerance"]
        if "items_per_s" in record:
            assert record["seconds"] > 0 and record["sizes"] and record["runs"] >= 1
        if "share_of_ceiling" in record:
            assert record["bound"] in record["at_most_per_s"] and record["ceilings"] == "measured"
    assert len(list(out.iterdir())) <= 8
    assert not (out / "device_unfinished.jsonl").exists()


def test_dry_run(tmp_path: Path) -> None:
    asked = [name for name in SECTIONS if name not in SLOW]
    assert len(asked) >= 7
    done = run(tmp_path, "--seconds=1500", *(f"--section={name}" for name in asked))
    check(tmp_path, done, set(asked))
    alone = [record for record in records(tmp_path) if "worst" in record]
    assert len(alone) >= 4
    assert f"one backend only (cpu), nothing compared; {len(alone)} results" in done.stdout


@pytest.mark.slow
def test_dry_run_of_what_takes_long(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds=1500", *(f"--section={name}" for name in sorted(SLOW)))
    check(tmp_path, done, SLOW)
    audited = next(record for record in records(tmp_path) if record["work"] == "audit")
    assert sum(audited["sizes"]["phases_s"].values()) <= audited["seconds"]


def test_time_that_is_over_leaves_what_was_measured(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds=0.5", "--section=ceilings", "--section=ssim")
    assert done.returncode == 1
    lines = next(tmp_path.glob("device_*.jsonl")).read_text().splitlines()
    failed = {record["section"]: record["failed"] for record in map(json.loads, lines)}
    # Who ends them, the section itself or who watches it, is a matter of moments.
    assert failed.keys() == {"ceilings", "ssim"} and failed["ceilings"].startswith("cut off: ")
    assert failed["ssim"] == "no time was left" or failed["ssim"].startswith("cut off: ")
    assert f"FAILED ssim: {failed['ssim']}" in done.stdout
    assert "benchmarks/device.sh --section=ceilings --section=ssim" in done.stdout


def test_without_an_accelerator_only_a_dry_run_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.device", f"--out={tmp_path}", "--section=ceilings"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "JAX sees no accelerator; --tiny is a dry run" in done.stderr


def test_bounds_are_those_of_the_nearer_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = card.NOMINAL["H100 80GB HBM3"]
    monkeypatch.setattr(card, "ceilings", lambda: known)
    work = section.Work(
        "w", "pairs", 1000.0, lambda: None, {}, bytes=3.35e9, products={card.Kind.BF16: 989e6}
    )
    found = section.bounds(work, rate=5e5)  # a millisecond by bytes, a microsecond by products
    assert found["bound"] == "bytes" and found["at_most_per_s"] == {"bytes": 1e6, "products": 1e9}
    assert found["share_of_ceiling"] == 0.5


def test_a_peer_that_cannot_be_made_does_not_cost_ours() -> None:
    def broken() -> None:
        raise RuntimeError("out of memory")

    peers = {"p": section.Peer(broken, 1)}
    work = section.Work("w", "pairs", 3.0, lambda: None, {"n": 3}, peers)
    steps = list(section.measure(work, seconds=0.01))
    assert steps[-1]["peers"] == {"p": {"failed": "RuntimeError: out of memory"}}
    assert steps[-1]["items_per_s"] > 0


def test_records_are_given_before_the_peers_run() -> None:
    def stuck() -> None:
        raise section.CutOff("its time was over")

    work = section.Work("w", "pairs", 1.0, lambda: None, {}, {"p": section.Peer(stuck, 1)})
    steps = section.measure(work, seconds=0.01)
    assert [next(steps)["peers"] for _ in range(2)] == [{}, {}]  # with its profile, too
    with pytest.raises(section.CutOff):
        next(steps)


def test_products_are_counted() -> None:
    a, b = jnp.ones((3, 5, 7)), jnp.ones((3, 7, 11))
    once = 2.0 * 3 * 5 * 7 * 11
    assert operations.products(jnp.matmul, a, b) == once
    looped = jax.jit(lambda a, b: jax.lax.map(lambda _: a @ b, jnp.arange(4)))
    assert operations.products(looped, a, b) == 4 * once
    # Its gradients are a product each.
    grad = jax.grad(lambda a, b: (a @ b).sum(), (0, 1))
    assert operations.products(grad, a, b) == 3 * once
    image, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((2, 2, 6, 10))

    def convolved(image: jax.Array, kernel: jax.Array) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (2, 2), "VALID", dimension_numbers=names)

    forward = 2.0 * 2 * 4 * 4 * 10 * 2 * 2 * 6
    assert operations.products(convolved, image, kernel) == forward
    assert operations.products(convolved, image, kernel) == pytest.approx(
        jax.jit(convolved).lower(image, kernel).cost_analysis()["flops"]
    )
    back = jax.grad(lambda image, kernel: convolved(image, kernel).sum(), (0, 1))
    assert operations.products(back, image, kernel) == pytest.approx(3 * forward)


def test_wheels_hold_what_a_bare_machine_lacks() -> None:
    """All that is required comes as a wheel or with JAX, flax, optax, orbax, PyTorch and scikit-image."""
    bare = {
        "jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy", "scipy", "absl-py", "tifffile",
        "scikit-learn", "safetensors", "filelock", "pillow", "matplotlib", "jinja2", "rich",
    }  # fmt: skip
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = {
        re.split(r"[ <>=!;\[]", line)[0]
        for line in setup["options"]["install_requires"].strip().splitlines()
        if line and not line.startswith("#")
    }
    wheels = (ROOT / "benchmarks" / "wheels.txt").read_text().splitlines()
    assert required - bare <= {line for line in wheels if not line.startswith("#")}


def test_differences() -> None:
    a = np.array([1.0, 2.0], np.float32)
    assert agreement.difference(a, a + np.float32(0.5)) == 0.5
    assert agreement.difference(np.array(["x", "y"]), np.array(["x", "z"])) == 1
    assert agreement.difference(a, a[:1]) == float("inf")


def test_points_are_matched_whatever_their_order() -> None:
    a = np.random.default_rng(0).uniform(0, 100, (2, 50, 2))
    assert agreement.unmatched(a, a[:, ::-1] + 0.01) == 0
    b = a.copy()
    b[0, 0] = -50
    assert agreement.unmatched(b, a) == 0.01


def test_agreement_is_said_between_two_backends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, np.ndarray]:
        raise MemoryError("too large")

    made = {
        "similarity": lambda: {"ssim": np.array([0.5, 0.25], np.float32)},
        "audit": lambda: {"labels": np.array(["copy", "new"])},
    }
    monkeypatch.setattr(agreement, "kernels", lambda tiny: made | {"local": broken})
    monkeypatch.setenv(agreement.REFERENCE, str(tmp_path))
    agreement.write(tmp_path, tiny=False)
    assert "MemoryError: too large" in (tmp_path / "local.txt").read_text()
    alone = list(agreement.compared(False))
    assert [record.get("backends") for record in alone] == [["cpu"], ["cpu"], None]
    assert not any("agrees" in record for record in alone)
    assert alone[2] == {"failed": "local: MemoryError: too large"}
    np.savez(tmp_path / "audit.npz", labels=np.array(["copy", "copy"]))
    monkeypatch.setattr(agreement, "kernels", lambda tiny: made | {"local": dict})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    both = list(agreement.compared(False))
    assert [record.get("agrees") for record in both] == [True, False, None]
    assert both[1]["worst"] == 1 and both[0]["backends"] == ["cpu", "gpu"]
    assert "local: RuntimeError: the CPU's process failed" in both[2]["failed"]
    with pytest.raises(RuntimeError, match="on gpu, not on the CPU"):
        agreement.write(tmp_path, tiny=False)


@pytest.mark.slow
def test_every_kernel_is_compared() -> None:
    made = {
        name: value
        for run in agreement.kernels(tiny=False).values()
        for name, value in run().items()
    }
    assert made.keys() == agreement.TOLERANCES.keys()
    assert all(value.size for value in made.values())
    assert (made["local_reference"] == np.arange(16)).all()


def test_the_table_says_what_is_wrong() -> None:
    text = table.table(
        [
            {
                "section": "s",
                "work": "agreement_x",
                "worst": 0.2,
                "tolerance": 0.1,
                "agrees": False,
            },
            {"section": "t", "failed": "it hung for 9 s"},
        ]
    )
    assert "0 of 1" in text and "agreement_x: 0.2 where 0.1" in text and "FAILED t: it hung" in text


def test_operations_are_summed_by_name() -> None:
    class Made:
        def __init__(self, **fields: object):
            self.__dict__.update(fields)

    def event(name: str, nanoseconds: float) -> Made:
        return Made(name=name, duration_ns=nanoseconds)

    stream = Made(name="Stream #1", events=[event("gemm", 3e6), event("sort", 1e6)])
    more = Made(name="Stream #2", events=[event("gemm", 4e6)])
    modules = Made(name="XLA Modules", events=[event("jit_run", 9e6)])
    host = Made(name="/host:CPU", lines=[Made(name="python", events=[event("run", 9e9)])])
    trace = Made(planes=[Made(name="/device:GPU:0", lines=[stream, more, modules]), host])
    assert profiles.by_operation(trace) == [
        {"name": "gemm", "share": 0.875, "ms": 7.0, "calls": 2},
        {"name": "sort", "share": 0.125, "ms": 1.0, "calls": 1},
    ]
