"""The last thing an audit prints: a short table and the paths written."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepssim_jax.audit import sentences
from deepssim_jax.audit.result import AuditResult, Thresholds
from deepssim_jax.data.account import reason_rows
from deepssim_jax.data.records import on_screen
from deepssim_jax.detection.assessment import Verdict

WORDS = {
    Verdict.COPIES_FOUND: "copies found",
    Verdict.NONE_FOUND_WITHIN_LIMITS: "none found within these limits",
    Verdict.INCONCLUSIVE: "inconclusive",
}
_STYLES = {
    Verdict.COPIES_FOUND: "bold red",
    Verdict.NONE_FOUND_WITHIN_LIMITS: "bold green",
    Verdict.INCONCLUSIVE: "bold yellow",
}


def planted_rows(thresholds: Thresholds) -> list[tuple[str, str]]:
    """What the detector found of copies of these images, and so what it misses."""
    shares = [
        ("planted copies found", thresholds.planted_recall),
        ("planted, locally changed, found", thresholds.planted_near_recall),
    ]
    return [
        (name, f"{p.count} of {p.total} ({p.level:.0%} interval {p.low:.0%} to {p.high:.0%})")
        for name, p in shares
        if p is not None
    ]


def print_result(result: AuditResult, out: Path) -> None:
    """Prints the outcome to stdout; ids and paths of patients do not appear."""
    console, rate = Console(highlight=False), result.copy_rate
    console.print(Text(f"Verdict: {WORDS[result.verdict]}", style=_STYLES[result.verdict]))
    for reason in result.reasons:
        console.print(Text(f"  {reason}"))
    for note in on_screen(result.notes):
        console.print(Text(f"  {note}"))
    table = Table(show_header=False, box=None, pad_edge=False)
    people = "patients" if result.subjects_known else "real images"
    rows = [
        ("synthetic images", f"{result.counts['synthetic']:,}"),
        ("real images", f"{result.counts['real']:,}"),
        (
            "copies",
            f"{rate.count:,} ({rate.value:.2%}, {rate.level:.0%} interval {rate.low:.2%} to {rate.high:.2%})",
        ),
        (
            "of these exact, near",
            f"{result.classes['exact_duplicate']:,}, {result.classes['near_duplicate']:,}",
        ),
        (f"{people} exposed", f"{result.subjects_exposed:,} of {result.subjects_total:,}"),
        ("thresholds", _thresholds(result.thresholds)),
    ]
    rows += planted_rows(result.thresholds)
    rows += [
        (f"planted, {sentences.edit(row.change)}", f"{row.share.count} of {row.share.total} found")
        for row in result.assessment.recall_by_edit
        if row.share.count < row.share.total
    ]
    if len(result.exclusions):
        rows.append(("not tested", f"{len(result.exclusions):,} files, listed in inputs.csv"))
        listed = reason_rows(item.reason for item in result.exclusions)
        rows += [(reason, f"{count:,}") for reason, count in listed]
    inferred = result.membership
    for attack, found in inferred.figures.items() if inferred else ():
        shares = [
            f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%}) found at {at:.1%} false positives"
            if found.measurable(at)
            else f"{at:.1%} false positives not measurable"
            for at, share in found.detected
        ]
        bounds = f"{found.area:.3f} ({found.area_low:.3f} to {found.area_high:.3f})"
        rows.append((f"membership, {attack}", "; ".join([f"area {bounds}", *shares])))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for sentence in sentences.membership(inferred) if inferred else ():
        console.print(Text(f"  {sentence}"))
    for name in ("report.html", "report_share.html", "summary.json", "nearest.csv", "pairs.csv"):
        console.print(Text(f"  {out / name}"), soft_wrap=True)


def _thresholds(of: Thresholds) -> str:
    partial = ", ".join(f"{x:.2f}" for x in of.partial)
    return (
        f"local features {of.local:.2f}, partial correlations {partial}; exact from {of.exact:.3f}"
    )
