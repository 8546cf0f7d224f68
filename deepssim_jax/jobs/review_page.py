"""The reviewer's page: one HTML file with its pictures, its style and its script, and nothing else.

Contract: the content security policy lets run the one script and the one style whose SHA-256 it names, and
load nothing but pictures that are in the file. What comes from files is JSON, in which no markup can begin.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from deepssim_jax.audit.page import data_uri, environment
from deepssim_jax.jobs.review_pictures import PairView

# Of the pictures of a page: PNG of 8 bits, which is no larger than the pixels but for a header, in base64.
_MOST_BYTES = 48 * 2**20


@dataclasses.dataclass(frozen=True)
class Shown:
    """A pair on the page: `name` says nothing of it; `facts` and `margin` only where the reader may know.

    Points are drawn where there are facts: they are the program's evidence, too.
    """

    name: str
    view: PairView
    facts: tuple[tuple[str, str], ...] = ()
    margin: float | None = None


def fits(pairs: int, pixels: int) -> bool:
    """Whether so many pairs with so many pixels each, of both images together, keep the page bounded."""
    return pairs * pixels * 4 / 3 <= _MOST_BYTES


def page(pairs: Sequence[Shown], *, key: str, names: tuple[str, str], blind: bool) -> bytes:
    """The file.

    Args:
      pairs: in the order in which they are shown.
      key: of the page, under which a browser keeps its ratings.
      names: what the moving and the fixed image are called.
      blind: whether the reader sees pictures alone.
    """
    script, style = (_source(name) for name in ("review.js", "review.css"))
    content = {
        "key": key,
        "names": list(names),
        "blind": blind,
        "pairs": [_item(pair, blind=blind) for pair in pairs],
    }
    rendered = (
        environment()
        .get_template("review.html.jinja")
        .render(
            count=len(pairs),
            names=names,
            blind=blind,
            data=content,
            script=Markup(script),
            style=Markup(style),
            script_hash=_hash(script),
            style_hash=_hash(style),
        )
    )
    return rendered.encode()


def _source(name: str) -> str:
    """A file beside the templates, as it stands."""
    environment_ = environment()
    assert environment_.loader is not None
    return environment_.loader.get_source(environment_, name)[0]


def _hash(text: str) -> str:
    """As a content security policy names a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _item(pair: Shown, *, blind: bool) -> dict[str, object]:
    view = pair.view
    planes = [
        {
            "name": plane.name,
            "side": plane.fixed.shape[-1],
            "slices": len(plane.fixed),
            "fixed": data_uri(_strip(plane.fixed)),
            "moving": data_uri(_strip(plane.moving)),
        }
        for plane in view.planes
    ]
    item: dict[str, object] = {"id": pair.name, "planes": planes}
    if not blind:
        both = np.concatenate([view.fixed_points, view.moving_points], 1)
        item |= {
            "facts": [list(fact) for fact in pair.facts],
            "margin": pair.margin,
            "points": [[round(float(x), 4) for x in row] for row in both],
        }
    return item


def _strip(slices: np.ndarray) -> np.ndarray:
    """uint8 [n s, s]: slices below each other."""
    return slices.reshape(-1, slices.shape[-1])
