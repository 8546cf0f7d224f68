"""Charts of the reports: no text is cut off, and the mark names both of its sides."""

import html
import re

import numpy as np
import pytest

from deepssim_jax.audit import box_plot, figures

WIDTH = 640
# A letter at the size that text has on a phone, see report.css; bold ones are wider.
LETTER = 11.5
TEXT = re.compile(r'<text[^>]* x="([\d.]+)" y="[\d.]+"(?: text-anchor="(\w+)")?>([^<]*)</text>')


def spans(svg: str) -> dict[str, tuple[float, float]]:
    """From where to where each text of a chart reaches."""
    texts = TEXT.findall(re.sub(r'class="mark" ', "", svg))
    ends = {"": (0.0, 1.0), "start": (0.0, 1.0), "middle": (-0.5, 0.5), "end": (-1.0, 0.0)}
    out = {}
    for x, anchor, words in texts:
        low, high = (float(x) + share * LETTER * len(words) for share in ends[anchor])
        out[html.unescape(words)] = low, high
    return out


@pytest.mark.parametrize("exact", [0.66, 0.75, 0.85, 0.97])
def test_the_mark_names_its_sides_within_the_picture(exact: float):
    rng = np.random.default_rng(0)
    found = spans(
        figures.histogram({"synthetic_to_real": rng.uniform(0.65, 0.99, 80)}, exact=exact)
    )
    assert {word for word in found if "exact" in word} >= {"exact"}
    assert "near" not in found
    assert all(low >= 0 and high <= WIDTH + 20 for low, high in found.values())
    assert ("near or unrelated" in found) == (exact > 0.8)


def test_names_of_rows_are_whole():
    names = [words for words, _ in figures.SERIES.values()]
    values = {name: np.arange(5.0) for name in names}
    words = "evidence of the best match, from its keypoints that agree"
    found = spans(box_plot.box_plot(values, words=words, digits=2))
    assert set(names) <= set(found)
    assert all(found[name][0] >= 0 and found[name][1] <= WIDTH for name in names)
