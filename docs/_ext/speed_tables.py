"""Tables of speed, on CPUs and on accelerators."""

from collections.abc import Sequence

import cells
from cells import records, table


def throughput() -> str:
    """The newest rate of every kernel on a CPU, and beside other libraries."""
    latest = {r["case"]: r for r in records("throughput")}
    rows = []
    for name, r in sorted(latest.items()):
        rate = f"{r['items_per_s']:,.4g} {r['unit']}/s"
        rows.append((f"`{name}`", rate, _ratios(r["peers"]), r["day"]))
    return table(("work", "rate", "rate relative to", "date"), rows)


def tpu() -> str:
    """The newest compilation of every program for TPUs; none was run."""
    latest = {(r["program"], r["topology"]): r for r in records("tpu_compile")}
    rows = []
    for (program, topology), r in sorted(latest.items()):
        collectives = ", ".join(r["collectives"]) or "none"
        memory = f"{r['bytes_a_chip'] / 2**20:,.0f}"
        rows.append((f"`{program}`", topology, memory, collectives))
    return table(("program", "chips", "MiB a chip", "collectives"), rows)


def devices() -> str:
    """A table for every accelerator of which there is a record, the rehearsal on a CPU left out."""
    found = []
    for path in sorted(cells.RESULTS.glob("device_*.jsonl")):
        if path.stem != "device_rehearsal":
            found.append(_device(records(path.stem)))
    return "\n\n".join(found) or "There is no record of an accelerator yet."


def _device(measured: Sequence[dict]) -> str:
    about = next(r for r in measured if "device" in r)
    rows, unfinished, checks = [], [], []
    keys = ("section", "work", "xla_flags")
    newest = {tuple(r.get(key) for key in keys): r for r in measured}
    for r in newest.values():
        if "failed" in r:
            why = r["failed"].replace("it hung", "compiling had not ended after")
            unfinished.append((f"`{r['section']}`", why.replace("after for", "after")))
        elif "agrees" in r:
            checks.append(r["agrees"])
        elif "items_per_s" in r:
            rows.append(_work(r))
    head = ("work", "rate", "share of the hardware's ceiling", "rate relative to")
    out = [f"## {about['device']}", "", f"Measured on {about['day']}, {_versions(about)}.", ""]
    out += [table(head, rows), ""]
    if checks:
        agreed = f"{sum(checks)} of {len(checks)}"
        out += [f"Results that agree with the CPU's within their tolerance: {agreed}.", ""]
    if unfinished:
        out += ["Not measured, or not completely:", "", table(("section", "reason"), unfinished)]
    return "\n".join(out).rstrip()


def _versions(record: dict) -> str:
    names = ("jax", "flax", "torch")
    known = (f"{name} {record['versions'][name]}" for name in names if name in record["versions"])
    return ", ".join((f"Python {record['python']}", *known))


def _work(record: dict) -> tuple[str, ...]:
    ceiling = ""
    if "bound" in record:
        ceiling = f"{100 * record['share_of_ceiling']:.2g} % of {record['bound']}"
    rate = f"{record['items_per_s']:.3g} {record['unit']}/s"
    flags = " with other XLA flags" if "xla_flags" in record else ""
    return f"`{record['work']}`{flags}", rate, ceiling, _ratios(record["peers"])


def _ratios(peers: dict[str, dict]) -> str:
    """How many times as fast as each other library, where that was measured."""
    measured = {name: peer for name, peer in peers.items() if "ours_is_times" in peer}
    return ", ".join(
        f"{peer['ours_is_times']:.3g} x {name.replace('_', ' ')}" for name, peer in measured.items()
    )
