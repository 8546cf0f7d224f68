"""Scores by class, as a picture: where they lie, and where the thresholds cut them."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deepssim_jax.scoring.evaluation import CLASSES

_COLOURS = ("#7a7a7a", "#e69f00", "#0072b2")  # distinct to colour-blind readers too


def draw_scores(scores: np.ndarray, labels: np.ndarray, *, near: float, exact: float) -> bytes:
    """A PNG: one density a class, each of area 1, so that rare classes are seen."""
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        low, high = min(float(scores.min()), near), max(float(scores.max()), exact)
        edges = np.linspace(low, high, 61).tolist()
        for number, (name, colour) in enumerate(zip(CLASSES, _COLOURS, strict=True)):
            chosen = scores[labels == number]
            if len(chosen):
                words = f"{name.replace('_', ' ')} ({len(chosen):,})"
                axes.hist(
                    chosen, edges, density=True, color=colour, alpha=0.35, histtype="stepfilled"
                )
                axes.hist(chosen, edges, density=True, color=colour, histtype="step", label=words)
        top = axes.get_ylim()[1]
        for value, word in ((near, "near"), (exact, "exact")):
            axes.axvline(value, color="black", linewidth=1, linestyle="--")
            axes.annotate(
                f"{word} {value:.2f}",
                (value, top),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                rotation=90,
                fontsize=9,
            )
        axes.set_xlabel("score")
        axes.set_ylabel("density within the class")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
