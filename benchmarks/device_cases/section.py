"""One measurement on a device: the work, its peers, and the record that comes of it."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from benchmarks.device_cases import card
from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.profiles import programs, summary
from benchmarks.device_cases.torch_device import release

# A median of as many runs as fit into the time given, but at least and at most so many.
_LEAST, _MOST = 3, 15


class CutOff(BaseException):
    """A section's time is over: no error, which readers and other libraries would take for one of theirs."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another program at the same work, of which it does `items`.

    `make` gives what is timed, which waits for its device. It is made after ours was measured: what it
    takes of the card's memory, or a failure of it, must not cost ours.
    """

    make: Callable[[], Callable[[], object]]
    items: float


@dataclasses.dataclass(frozen=True)
class Work:
    """What is measured.

    `run` does `items` of `unit`; what it returns is waited for. `bytes` and `products` (operations by
    kind) are what the task needs at least, by hand, from which the ceilings follow. What takes long is
    run `once`, after a smaller one has compiled its programs.
    """

    name: str
    unit: str
    items: float
    run: Callable[[], object]
    sizes: Mapping[str, object]
    peers: Mapping[str, Peer] = dataclasses.field(default_factory=dict)
    bytes: float | None = None
    products: Mapping[Kind, float] = dataclasses.field(default_factory=dict)
    once: bool = False


def times(run: Callable[[], object], *, seconds: float) -> list[float]:
    """Wall times of several runs after a warm-up."""
    jax.block_until_ready(run())
    out: list[float] = []
    while len(out) < _LEAST or (sum(out) < seconds and len(out) < _MOST):
        start = time.perf_counter()
        jax.block_until_ready(run())
        out.append(time.perf_counter() - start)
    return out


def peer_figures(peer: Peer, rate: float, *, seconds: float) -> dict[str, object]:
    """A peer's rate, and how many times it ours is; or why it could not run."""
    try:
        theirs = peer.items / statistics.median(times(peer.make(), seconds=seconds))
    except Exception as error:  # whatever another library raises
        return {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
    finally:
        gc.collect()
        release()
    return {"items_per_s": float(f"{theirs:.4g}"), "ours_is_times": float(f"{rate / theirs:.3g}")}


def bounds(work: Work, rate: float) -> dict[str, object]:
    """The rates that bandwidth and products allow, which of them is less, and the share reached."""
    most = card.ceilings()
    allowed: dict[str, float] = {}
    if work.bytes:
        allowed["bytes"] = work.items * most.bytes_per_s / work.bytes
    if work.products:
        needed = sum(count / most.products_per_s[kind] for kind, count in work.products.items())
        allowed["products"] = work.items / needed
    if not allowed:
        return {}
    nearest = min(allowed, key=lambda name: allowed[name])
    return {
        "at_most_per_s": {name: float(f"{value:.4g}") for name, value in allowed.items()},
        "ceilings": "nominal" if card.nominal() else "measured",
        "bound": nearest,
        "share_of_ceiling": float(f"{rate / allowed[nearest]:.3g}"),
    }


def measure(work: Work, *, seconds: float) -> Iterator[dict[str, object]]:
    """The record of one piece of work, which grows: ours first, then its profile, then each peer.

    `seconds` of runs are wanted, of it and of every peer.
    """
    before = jax.devices()[0].client.live_executables()
    start = time.perf_counter()
    jax.block_until_ready(work.run())
    first = time.perf_counter() - start
    spent = [first] if work.once else times(work.run, seconds=seconds)
    rate = work.items / statistics.median(spent)
    peers: dict[str, object] = {}
    record: dict[str, object] = {
        "work": work.name,
        "unit": work.unit,
        "items": work.items,
        "sizes": dict(work.sizes),
        "seconds": float(f"{statistics.median(spent):.4g}"),
        "spread_s": [float(f"{value:.4g}") for value in (min(spent), max(spent))],
        "runs": len(spent),
        "first_s": round(first, 2),
        "items_per_s": float(f"{rate:.4g}"),
        **bounds(work, rate),
        "programs": programs(beside=before),
        "peers": peers,
        "top_operations": [],
    }
    yield record
    if not work.once:
        record["top_operations"] = summary(work.run)
        yield record
    for name, peer in work.peers.items():
        peers[name] = peer_figures(peer, rate, seconds=seconds)
        yield record
