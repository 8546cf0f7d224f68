"""Where a program's time goes on its device: the operations that take most of it."""

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

_SHOWN, _NAME = 8, 120


def summary(run: Callable[[], object]) -> list[dict[str, object]]:
    """The operations of one run that take most time, with their share of all; [] without a trace.

    On a GPU they are kernels. Of a CPU, and wherever the profiler is refused, nothing is said.
    """
    if jax.default_backend() == "cpu":
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.profiler.trace(folder):
                jax.block_until_ready(run())
            found = sorted(Path(folder).rglob("*.xplane.pb"))
            return by_operation(jax.profiler.ProfileData.from_file(str(found[0])))
        except (RuntimeError, IndexError, AttributeError, ValueError) as error:
            return [{"name": f"no profile: {type(error).__name__}: {str(error)[:200]}"}]


def by_operation(trace: jax.profiler.ProfileData) -> list[dict[str, object]]:
    """Sums over events of one name on the planes of devices, the longest first."""
    spent: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in trace.planes:
        if not plane.name.startswith("/device:"):
            continue
        for line in plane.lines:
            # The other lines say the same of modules, steps and sources.
            if line.name.startswith(("XLA", "Steps", "Source", "Framework", "Launch")):
                continue
            for event in line.events:
                spent[event.name] += event.duration_ns
                calls[event.name] += 1
    total = sum(spent.values())
    return [
        {
            "name": name[:_NAME],
            "share": float(f"{value / total:.3g}"),
            "ms": float(f"{value / 1e6:.4g}"),
            "calls": calls[name],
        }
        for name, value in spent.most_common(_SHOWN)
    ]
