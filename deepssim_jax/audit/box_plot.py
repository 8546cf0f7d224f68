"""Box plots as inline SVG, in the manner of `audit.figures`: the page's own colours, no library."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup, escape

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 60, 20, 20, 10, 40
_TICKS = 5


def box_plot(values: Mapping[str, np.ndarray], *, words: str, digits: int) -> Markup:
    """A row a name, which stands above it at any length: median, quartiles, the farthest values within 1.5
    ranges of them, and the rest.

    Args:
      values: figures by name.
      words: name of the axis.
      digits: after the decimal point of its labels.
    """
    everything = np.concatenate(list(values.values()))
    low, high = float(everything.min()), float(everything.max())
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin
    bottom = _TOP + _ROW * len(values)

    def x(value: float) -> str:
        return f"{_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    parts = []
    for tick in np.linspace(low + margin, high - margin, _TICKS):
        at = x(float(tick))
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{tick:.{digits}f}</text>'
        )
    for row, (name, found) in enumerate(values.items()):
        middle = _TOP + _ROW * row + 38
        first, median, third = np.quantile(found, [0.25, 0.5, 0.75])
        reach = 1.5 * (third - first)
        inside = found[(found >= first - reach) & (found <= third + reach)]
        parts.append(
            f'<text x="{_LEFT}" y="{middle - 20}">{escape(name)}</text>'
            f'<line class="series rr" style="stroke-dasharray:none" x1="{x(inside.min())}" '
            f'x2="{x(inside.max())}" y1="{middle}" y2="{middle}"/>'
            f'<rect class="series rr" style="stroke-dasharray:none;fill:var(--paper)" x="{x(first)}" '
            f'width="{max(float(x(third)) - float(x(first)), 1):.1f}" y="{middle - 12}" height="24"/>'
            f'<line class="series sr" x1="{x(median)}" x2="{x(median)}" y1="{middle - 12}" '
            f'y2="{middle + 12}"/>'
        )
        for value in found[(found < inside.min()) | (found > inside.max())]:
            parts.append(f'<circle class="series rr" cx="{x(value)}" cy="{middle}" r="2.5"/>')
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{bottom + 34}" '
        f'text-anchor="middle">{escape(words)}</text>'
    )
    return Markup(
        f'<svg class="figure" viewBox="0 0 {_WIDTH} {bottom + _BOTTOM}" role="img" '
        f'aria-label="{escape(words)} of test patients">{"".join(parts)}</svg>'
    )
