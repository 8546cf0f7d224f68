"""Where a program's time goes on its device: what it needs by XLA's count, and what takes most of it."""

import collections
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from benchmarks.device_cases import card

_SHOWN, _PROGRAMS, _NAME = 8, 4, 120


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
        except Exception as error:  # the profiler may be refused; what was measured must stay
            return [{"name": f"no profile: {type(error).__name__}: {str(error)[:200]}"}]


def programs(*, beside: Sequence[object]) -> list[dict[str, object]]:
    """XLA's count of the programs compiled since there were those `beside`, the longest first.

    Of each its operations and bytes of one call, the least milliseconds that these take on this card
    (products in float32), and the bytes that it needs beside arguments and results. What is in a loop
    is counted once, and what a library's kernel does not at all.
    """
    most, found = card.ceilings(), []
    for executable in jax.devices()[0].client.live_executables():
        if any(executable is known for known in beside):
            continue
        try:
            counts = executable.cost_analysis()
            temporary = executable.get_compiled_memory_stats().temp_size_in_bytes
            name = executable.hlo_modules()[0].name
        except Exception:  # not every plug-in counts, and nothing measured may be lost by that
            continue
        counts = counts[0] if isinstance(counts, list) else counts
        flops, moved = counts.get("flops", 0.0), counts.get("bytes accessed", 0.0)
        least = max(flops / most.products_per_s[card.Kind.F32], moved / most.bytes_per_s)
        found.append(
            {
                "name": name[:_NAME],
                "operations": float(f"{flops:.4g}"),
                "bytes": float(f"{moved:.4g}"),
                "least_ms": float(f"{1e3 * least:.4g}"),
                "temporary_bytes": temporary,
            }
        )
    return sorted(found, key=lambda row: -row["least_ms"])[:_PROGRAMS]


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
