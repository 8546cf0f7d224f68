"""What `utility` writes: a page to read, a table a test image, and the numbers.

Contract: nothing here names a patient or a file: test images have numbers. But there is a row for each of
them, and counts are exact, so every file is for its owner alone. The page is one HTML file without
scripts, as in `audit.page`.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from deepssim_jax.audit import page, tables
from deepssim_jax.audit.answer import Answer
from deepssim_jax.audit.box_plot import box_plot
from deepssim_jax.audit.utility import REFERENCE, UNTREATED, Figure, Result, UtilityResult
from deepssim_jax.workspace import Workspace

WORDS = {Figure.PSNR: "PSNR in dB", Figure.SSIM: "SSIM", Figure.RMSE: "RMSE on [0, 1]"}
_DIGITS = {Figure.PSNR: 2, Figure.SSIM: 4, Figure.RMSE: 4}


def write(result: UtilityResult, out: Workspace) -> tuple[Path, ...]:
    """Writes utility.html, utility.json and utility.csv, and of files inputs.json."""
    files = {
        "utility.html": _page(result).encode(),
        "utility.json": (json.dumps(_plain(result), indent=2) + "\n").encode(),
        "utility.csv": table(result).csv(),
    }
    inputs = {side: account.listed() for side, account in result.accounts.items()}
    if inputs:
        out.write("inputs.json", (json.dumps(inputs, indent=2) + "\n").encode())
    return tuple(out.write(name, content) for name, content in files.items())


def summary(result: UtilityResult) -> list[tuple[str, str]]:
    """A line a kind of network and task, for the end of a command."""
    cut = cut_sides(result)
    return [
        *([("not all were used", cut)] if cut else []),
        ("equivalence", headline(result)),
        *(
            (
                f"{one.task.value.replace('_', '-')}, {one.arm}",
                ", ".join(
                    f"{figure.value.upper()} {one.of_patients(figure).mean():.{digits}f}"
                    for figure, digits in _DIGITS.items()
                ),
            )
            for one in result.results
        ),
    ]


def means(result: UtilityResult) -> tables.Table:
    """A row a kind of network and task: figures averaged over seeds, images and patients."""
    rows = (
        (one.task.value, one.arm, *(float(one.of_patients(figure).mean()) for figure in Figure))
        for one in result.results
    )
    return tables.Table(("task", "arm", *(figure.value for figure in Figure)), tuple(rows))


def answer(result: UtilityResult) -> Answer:
    """What was shown, and the numbers of the first line."""
    return Answer(
        tone="none_found_within_limits",
        title="Are the synthetic images still useful?",
        sentences=(headline(result),),
        facts=(
            (f"{result.images:,}", "images learned from, of each kind"),
            (f"{result.settings.seeds}", "networks of each kind and task"),
            (f"{result.settings.training.steps:,}", "training steps each"),
            (f"{result.test_images:,}", "test images, all real"),
            (
                f"{result.test_patients:,}",
                "test patients; no test image has the pixels of one learned from",
            ),
        ),
    )


def cut_sides(result: UtilityResult) -> str:
    """Which sides were cut to the size of the smallest, or nothing."""
    return ", ".join(
        f"{result.images:,} of {count:,} {name} images"
        for name, count in result.given.items()
        if count > result.images
    )


def withheld(result: UtilityResult) -> list[str]:
    """The reasons for which claims are withheld, each once."""
    found = (result.withheld(task, figure) for task in result.settings.tasks for figure in Figure)
    return [reason for reason in found if reason]


def headline(result: UtilityResult) -> str:
    """Where equivalence was shown, and where no claim is made."""
    shown = [
        (one.arm, found.equivalent and not result.withheld(one.task, figure))
        for one in result.results
        if one.arm != REFERENCE
        for figure, found in one.compared.items()
    ]
    arms = list(dict.fromkeys(arm for arm, _ in shown))
    parts = []
    for arm in arms:
        hits = [equivalent for name, equivalent in shown if name == arm]
        parts.append(f"{arm} images: in {sum(hits)} of {len(hits)} comparisons")
    return (
        "Equivalence with networks that learned from real images, within the margins, was shown for "
        + "; ".join(parts)
        + "."
        + "".join(f" Withheld: {reason}." for reason in withheld(result))
    )


def _page(result: UtilityResult) -> str:
    tasks = []
    for task in result.settings.tasks:
        rows = [one for one in result.results if one.task is task]
        tasks.append(
            {
                "name": task.value.replace("_", "-"),
                "rows": [_row(one) for one in rows],
                "comparisons": [
                    (one.arm, WORDS[figure], _compared(result, one, figure))
                    for one in rows
                    if one.arm != REFERENCE
                    for figure in one.compared
                ],
                "plots": [
                    box_plot(
                        {one.arm: one.of_patients(figure) for one in rows},
                        words=WORDS[figure],
                        digits=_DIGITS[figure],
                    )
                    for figure in Figure
                ],
            }
        )
    return page.render(
        "utility",
        result=result,
        answer=answer(result),
        tasks=tasks,
        cut=cut_sides(result),
        accounts=result.accounts,
        words=list(WORDS.values()),
        untreated=UNTREATED,
        reference=REFERENCE,
        margins=[f"{WORDS[f]}: {margin:g}" for f, margin in result.settings.margins.items()],
    )


def _row(one: Result) -> tuple[str, list[str]]:
    cells = []
    for figure in Figure:
        found, digits = one.of_patients(figure), _DIGITS[figure]
        seeds = one.figures[figure].mean(1)
        spread = f", seeds {seeds.min():.{digits}f} to {seeds.max():.{digits}f}"
        cells.append(f"{found.mean():.{digits}f}{spread if len(seeds) > 1 else ''}")
    return one.arm, cells


def _compared(result: UtilityResult, one: Result, figure: Figure) -> dict[str, object]:
    found, digits = one.compared[figure], _DIGITS[figure]
    claim = "shown" if found.equivalent else "not shown"
    return {
        "difference": f"{found.difference:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})",
        "margin": f"±{found.margin:g}",
        "p_equivalence": _p(found.p_equivalence),
        "p_difference": _p(found.p_difference),
        "claim": "withheld" if result.withheld(one.task, figure) else claim,
    }


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _plain(result: UtilityResult) -> dict[str, object]:
    return {
        "images_learned_from": result.images,
        "images_given": dict(result.given),
        "inputs": {side: account.figures() for side, account in result.accounts.items()},
        "test_images": result.test_images,
        "test_patients": result.test_patients,
        "training": dataclasses.asdict(result.settings.training),
        "seeds": result.settings.seeds,
        "level": result.settings.level,
        "results": [
            {
                "task": one.task.value,
                "arm": one.arm,
                **{figure.value: float(one.of_patients(figure).mean()) for figure in Figure},
                "compared": {
                    figure.value: {
                        **dataclasses.asdict(found),
                        "against": UNTREATED if one.arm == REFERENCE else REFERENCE,
                        "equivalent": found.equivalent and not result.withheld(one.task, figure),
                        "withheld": result.withheld(one.task, figure),
                    }
                    for figure, found in one.compared.items()
                },
            }
            for one in result.results
        ],
    }


def table(result: UtilityResult) -> tables.Table:
    """A row a network and test image."""
    columns = ("task", "arm", "seed", "test_image", "patient", *(figure.value for figure in Figure))
    rows: list[tuple[object, ...]] = []
    for one in result.results:
        whole = np.stack([one.figures[figure] for figure in Figure], -1)
        for seed, row in np.ndindex(*whole.shape[:2]):
            figures = [float(value) for value in whole[seed, row]]
            rows.append((one.task.value, one.arm, seed, row, int(one.patients[row]), *figures))
    return tables.Table(columns, tuple(rows))
