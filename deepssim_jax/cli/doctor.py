"""Shows what was detected: devices, processes, versions, weights, caches and optional parts.

Nothing is changed and nothing leaves the machine. Exit status 1 when audits cannot run here.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import pathlib
import platform
from typing import Any

from absl import flags

import deepssim_jax
from deepssim_jax.cli import compile_cache, console, processes
from deepssim_jax.cli.exit_codes import ExitCode

_JSON = flags.DEFINE_bool("json", False, "print one JSON object for programs")

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "dm-pix",
    "numpy",
    "scipy",
    "scikit-learn",
    "nibabel",
    "pillow",
    "safetensors",
    "matplotlib",
    "jinja2",
)

# extra: (the module that shows it is there, what it enables)
_EXTRAS = {
    "dicom": ("pydicom", "reading DICOM files"),
    "phantom": ("nilearn", "phantoms from the ICBM152 tissue maps instead of a procedural anatomy"),
    "convert": ("torch", "reading other projects' PyTorch weights"),
    "tpu": ("libtpu", "running on TPUs"),
    "cuda12": ("jax_cuda12_plugin", "running on NVIDIA GPUs with CUDA 12"),
    "cuda13": ("jax_cuda13_plugin", "running on NVIDIA GPUs with CUDA 13"),
}

# Launchers that jax.distributed.initialize() recognises by these variables.
_LAUNCHERS = {
    "SLURM": ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "Cloud TPU": ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
    "Kubernetes": ("JOB_COMPLETION_INDEX", "KUBERNETES_SERVICE_HOST"),
}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    try:
        import jax

        found = jax.devices()
    except Exception as error:  # a broken driver is what this command is there to show
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "platform": found[0].platform,
        "count": len(found),
        "kinds": sorted({device.device_kind for device in found}),
        "process": jax.process_index(),
        "processes": jax.process_count(),
        "local": jax.local_device_count(),
    }


def _launcher() -> dict[str, Any]:
    for name, variables in _LAUNCHERS.items():
        found = {key: os.environ[key] for key in variables if key in os.environ}
        if len(found) == len(variables):
            return {"name": name, "variables": found}
    return {"name": None, "variables": {}}


def _weights() -> list[dict[str, Any]]:
    folder = importlib.resources.files("deepssim_jax") / "weights"
    if not folder.is_dir():
        return []
    files = [item for item in folder.iterdir() if item.name.endswith(".safetensors")]
    return [
        {
            "name": item.name,
            "bytes": len(data := item.read_bytes()),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for item in sorted(files, key=lambda item: item.name)
    ]


def _cache() -> dict[str, Any]:
    folder = os.environ.get(compile_cache.VARIABLE)
    if not folder:
        return {"folder": None, "private": None, "programs": 0, "bytes": 0}
    path = pathlib.Path(folder)
    sizes = [item.stat().st_size for item in path.rglob("*") if item.is_file()]
    return {
        "folder": folder,
        "private": compile_cache.private(path),
        "programs": len(sizes),
        "bytes": sum(sizes),
    }


def _cpus() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS", "JAX_PLATFORMS")
    return {
        "cores": os.cpu_count(),
        "usable": usable,
        "variables": {name: os.environ[name] for name in names if name in os.environ},
    }


def examine() -> dict[str, Any]:
    """Returns everything that the command shows, as plain JSON values."""
    facts: dict[str, Any] = {
        "deepssim_jax": deepssim_jax.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {package: _version(package) for package in _PACKAGES},
        "devices": _devices(),
        "launcher": _launcher(),
        "threads": _cpus(),
        "weights": _weights(),
        "compile_cache": _cache(),
        "extras": {
            extra: {"present": importlib.util.find_spec(module) is not None, "enables": enables}
            for extra, (module, enables) in _EXTRAS.items()
        },
    }
    job, problems = None, []
    try:
        job = processes.detect(os.environ)
        problems = processes.problems(job, os.environ)
    except ValueError as error:
        problems = [str(error)]
    facts["job"] = job and dataclasses.asdict(job)
    facts["problems"] = [*_problems(facts), *problems]
    return facts


def _problems(facts: dict[str, Any]) -> list[str]:
    problems = [
        f"{package} is not installed: pip install --force-reinstall deepssim-jax"
        for package, version in facts["versions"].items()
        if version is None
    ]
    if "error" in facts["devices"]:
        problems.append(
            f"jax finds no device ({facts['devices']['error']}); JAX_PLATFORMS=cpu runs on the CPU"
        )
    if not facts["weights"]:
        problems.append("no encoder came with the package: pass one by --encoder=FILE")
    if facts["compile_cache"]["private"] is False:
        folder = facts["compile_cache"]["folder"]
        if pathlib.Path(folder).exists():
            problems.append(
                f"others can enter the compile cache {folder}, and who can write it can run code "
                f"as you: {compile_cache.remedy(pathlib.Path(folder))}"
            )
    return problems


def _lines(facts: dict[str, Any]) -> str:
    devices, cache, threads = facts["devices"], facts["compile_cache"], facts["threads"]
    if "error" in devices:
        device_line = "none"
        process_line = "unknown"
    else:
        device_line = f"{devices['count']} x {', '.join(devices['kinds'])} ({devices['platform']})"
        process_line = f"{devices['process'] + 1} of {devices['processes']}"
    launcher = facts["launcher"]
    rows = [
        ("deepssim_jax", facts["deepssim_jax"]),
        ("python", f"{facts['python']} on {facts['system']}"),
        ("devices", device_line),
        ("process", process_line),
        ("launcher", launcher["name"] or "none detected"),
        ("job", f"{facts['job']['processes']} processes" if facts["job"] else "this process alone"),
        ("cpu cores", f"{threads['usable']} usable of {threads['cores']}"),
        *((name, value) for name, value in threads["variables"].items()),
        (
            "compile cache",
            f"{cache['folder']}: {cache['programs']} files, {cache['bytes'] / 2**20:.1f} MiB"
            if cache["folder"]
            else "off",
        ),
        *(
            ("weights", f"{w['name']}  {w['bytes'] / 2**20:.1f} MiB  sha256 {w['sha256']}")
            for w in facts["weights"]
        ),
    ]
    versions = [(name, version or "missing") for name, version in facts["versions"].items()]
    extras = [
        (name, "present" if extra["present"] else "absent", extra["enables"])
        for name, extra in facts["extras"].items()
    ]
    problems = [f"problem: {console.printable(text)}" for text in facts["problems"]]
    blocks = [
        console.table(rows),
        "versions\n" + console.table([("", *row) for row in versions]),
        "extras (pip install 'deepssim-jax[NAME]')\n" + console.table([("", *x) for x in extras]),
        "\n".join(problems or ["no problem found"]),
    ]
    return "\n\n".join(blocks)


def main() -> int:
    """Prints what was detected.

    Returns:
        `ExitCode.DONE`, or `ExitCode.FAILED` when jax or a package it needs does not work.
    """
    facts = examine()
    print(json.dumps(facts, indent=2) if _JSON.value else _lines(facts))
    broken = "error" in facts["devices"] or None in facts["versions"].values()
    return ExitCode.FAILED if broken else ExitCode.DONE
