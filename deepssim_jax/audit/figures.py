"""The one figure of the report: how similar the best matches are, as inline SVG.

Written by hand rather than by a plotting library: a few kilobytes, legible on a phone, the same
bytes every time, and coloured by the page's own style (light, dark or print).
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from markupsafe import Markup

# name: (words, CSS class); in drawing order.
SERIES = {
    "real_to_real": ("real with other patients' real", "rr"),
    "holdout_to_real": ("held-out with real", "hr"),
    "synthetic_to_holdout": ("synthetic with held-out", "sh"),
    "same_patient": ("two scans of one patient", "hr"),
    "planted": ("copies made of real volumes with their originals", "sh"),
    "synthetic_to_real": ("synthetic with real", "sr"),
}
_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 54, 46
_BINS = 48
# Pixels from one label of the axis to the next, and for the word behind the mark and the words before it,
# at the size that text has on a phone.
_LABEL, _WORD, _BEFORE, _LINE = 52, 70, 190, 22


def _z(score: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(score, -0.999, 0.99995))


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Where a value of Fisher's z and a share lie on the picture."""

    low: float
    high: float
    top: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.top * (_HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> Iterator[str]:
        """Labels of the scores, as many as fit."""
        last, base = -_LABEL, self.y(0)
        for tick in (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.998, 0.9995):
            place = float(_z(np.array(tick)))
            if self.low <= place <= self.high and self.x(place) - last >= _LABEL:
                last = self.x(place)
                yield (
                    f'<line class="tick" x1="{last:.1f}" x2="{last:.1f}" y1="{base:.1f}" '
                    f'y2="{base + 5:.1f}"/><text x="{last:.1f}" y="{base + 18:.1f}" '
                    f'text-anchor="middle">{tick:g}</text>'
                )

    def grid(self, words: str) -> Iterator[str]:
        """Lines of equal shares, and the axis with its name."""
        for share in np.linspace(0, self.top / 1.08, 4)[1:]:
            height = self.y(share)
            yield (
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" '
                f'y2="{height:.1f}"/><text x="{_LEFT - 6}" y="{height + 4:.1f}" '
                f'text-anchor="end">{share:.0%}</text>'
            )
        base = self.y(0)
        yield (
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>'
            f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{words}</text>'
        )

    def steps(self, edges: np.ndarray, shares: np.ndarray, style: str) -> str:
        """One series."""
        points = [f"{self.x(edges[0]):.1f},{self.y(0):.1f}"]
        for left, right, share in zip(edges, edges[1:], shares, strict=False):
            points += [f"{self.x(place):.1f},{self.y(share):.1f}" for place in (left, right)]
        points.append(f"{self.x(edges[-1]):.1f},{self.y(0):.1f}")
        return f'<polyline class="series {style}" points="{" ".join(points)}"/>'

    def mark(self, exact: float) -> Iterator[str]:
        """The score of an exact copy, and what lies on either side of it."""
        place = self.x(float(_z(np.array(exact))))
        first, second = _TOP - 6 - _LINE, _TOP - 6
        words = [("exact", "start", 5, first)]
        if place >= _BEFORE:
            words += [("not exact:", "end", -5, first), ("near or unrelated", "end", -5, second)]
        elif place >= _BEFORE / 2:
            words.append(("not exact", "end", -5, first))
        yield (
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{first - 10}" '
            f'y2="{self.y(0):.1f}"/>'
        )
        for word, anchor, shift, height in words:
            yield (
                f'<text class="mark" x="{place + shift:.1f}" y="{height}" '
                f'text-anchor="{anchor}">{word}</text>'
            )


def histogram(distributions: Mapping[str, np.ndarray], *, exact: float) -> Markup:
    """Shares of images by the score of their best match, one stepped line a series.

    The axis is Fisher's z, labelled by the score: that is where differences near 1 can be seen.
    It spans all values, so that no extreme hides. `exact` is the score of an exact copy. It is the only
    mark: no score decides what is a copy.
    """
    shown = {n: _z(v[v > -1]) for n, v in distributions.items() if n in SERIES and len(v)}
    mark = float(_z(np.array(exact)))
    everything = np.concatenate([*shown.values(), [mark]])
    low, high = float(everything.min()) - 0.05, float(everything.max()) + 0.1
    right = (mark - low) / (1 - _WORD / (_WIDTH - _LEFT - _RIGHT))
    high = max(high, low + right)
    edges = np.linspace(low, high, _BINS + 1)
    shares = {n: np.histogram(v, edges)[0] / len(v) for n, v in shown.items()}
    axes = _Axes(low, high, max(float(s.max()) for s in shares.values()) * 1.08)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram of best-match '
        'scores" class="figure">',
        *axes.ticks(),
        *axes.grid("copy score of the best match"),
        *(axes.steps(edges, shares[n], SERIES[n][1]) for n in SERIES if n in shares),
        *axes.mark(exact),
        "</svg>",
    ]
    return Markup("".join(parts))


def legend(distributions: Mapping[str, np.ndarray]) -> list[tuple[str, str, int]]:
    """(words, CSS class, images) of the series shown."""
    return [
        (*SERIES[name], len(distributions[name]))
        for name in SERIES
        if name in distributions and len(distributions[name])
    ]
