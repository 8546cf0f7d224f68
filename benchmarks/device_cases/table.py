"""The table of a run's records."""

from collections.abc import Sequence


def table(records: Sequence[dict]) -> str:
    """One line a piece of work: rate, peers, share of the ceiling; then what disagreed or failed."""
    rows = [("work", "sizes", "rate", "ours / peer", "of ceiling", "seconds")]
    for record in records:
        if "items_per_s" in record:
            rows.append(_row(record))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    checks = [record for record in records if "agrees" in record]
    wrong = [record for record in checks if not record["agrees"]]
    if checks:
        lines.append(f"\nagreement with the CPU: {len(checks) - len(wrong)} of {len(checks)}")
    alone = [record for record in records if "worst" in record and "agrees" not in record]
    if alone:
        seen = ", ".join(sorted({name for record in alone for name in record["backends"]}))
        lines.append(
            f"\nagreement: one backend only ({seen}), nothing compared; {len(alone)} results made"
        )
    for record in wrong:
        worst, allowed = record["worst"], record["tolerance"]
        lines.append(f"  {record['work']}: {worst:g} where {allowed:g} is tolerated")
    for record in records:
        if "failed" in record:
            lines.append(f"FAILED {record['section']}: {record['failed']}")
    return "\n".join(line.rstrip() for line in lines)


def _row(record: dict) -> tuple[str, ...]:
    sizes = " ".join(
        f"{name}={'x'.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in record["sizes"].items()
        if name != "phases_s"
    )
    peers = ", ".join(
        f"{name} {peer['ours_is_times']:g}x" if "ours_is_times" in peer else f"{name} failed"
        for name, peer in record["peers"].items()
    )
    share = f"{record['share_of_ceiling']:.1%} ({record['bound']})" if "bound" in record else ""
    name = record["work"] + (" +flags" if "xla_flags" in record else "")
    rate = f"{record['items_per_s']:.3g} {record['unit']}/s"
    return name, sizes, rate, peers, share, f"{record['seconds']:.4g}"


def profiles(records: Sequence[dict]) -> str:
    """The operations of every profiled work, those of the smallest share of the ceiling first."""
    shown = [record for record in records if "programs" in record]
    shown.sort(key=lambda record: record.get("share_of_ceiling", 0.0))
    lines = []
    for record in shown:
        share = record.get("share_of_ceiling")
        reached = f", {share:.1%} of the ceiling" if share is not None else ""
        lines.append(f"{record['work']}: {record['seconds']:g} s{reached}")
        for row in record["programs"]:
            lines.append(
                f"  by XLA's count: {row['operations']:.3g} operations, {row['bytes']:.3g} bytes, "
                f"at least {row['least_ms']:.3g} ms, {row['temporary_bytes']:.3g} bytes beside "
                f"them: {row['name']}"
            )
        for row in record["top_operations"]:
            if "share" in row:
                lines.append(
                    f"  {row['share']:6.1%} {row['ms']:10.3f} ms {row['calls']:6d} x {row['name']}"
                )
            else:
                lines.append(f"  {row['name']}")
    return "\n".join(lines)
