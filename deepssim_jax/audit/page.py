"""What the pages of all reports share: templates, pictures, lists of patients and of files.

Contract: each page is one HTML file, which a content security policy keeps off any network. Everything that
comes from files is escaped. The shared edition has no image, no path, no real identifier and no count from
1 to 4: see `audit.disclosure`.
"""

import base64
import collections
import functools
import io
from collections.abc import Callable, Mapping, Sequence

import jinja2
import numpy as np
from PIL import Image

from deepssim_jax.audit.disclosure import SMALL, Edition
from deepssim_jax.detection.result import Exclusion
from deepssim_jax.scoring.match import Moved
from deepssim_jax.workspace import Access, Workspace

_FLIPS = {
    "horizontal": "mirrored left-right",
    "vertical": "mirrored top-bottom",
    "both": "turned by 180°",
}
_STRETCHED = 1.05  # less than this in one direction is not worth a word


@functools.cache
def environment() -> jinja2.Environment:
    """Where templates come from: everything that they print is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("deepssim_jax.audit"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **content: object) -> str:
    """A page of `templates`, by its name without the suffix."""
    return environment().get_template(f"{template}.html.jinja").render(**content)


def write_editions(out: Workspace, render_edition: Callable[[Edition], str]) -> None:
    """Writes `report.html`, for the institution, and `report_share.html`, to be shared."""
    pages = {edition: render_edition(edition).encode() for edition in Edition}
    out.write("report.html", pages[Edition.INTERNAL])
    out.write("report_share.html", pages[Edition.SHARED], access=Access.SHARED)


def transformation(match: Moved) -> str:
    """What was done to the real image, in words, in the order of `ops.transform`: mirrored last."""
    parts = []
    if abs(match.rotation_deg) >= 0.5:
        side = "left" if match.rotation_deg > 0 else "right"
        parts.append(f"turned {abs(match.rotation_deg):.1f}° to the {side}")
    if abs(match.scale - 1) >= 0.01:
        parts.append(f"{'enlarged' if match.scale > 1 else 'reduced'} to {match.scale:.0%}")
    longest, shortest = np.linalg.svd(np.reshape(match.matrix, (2, 2)), compute_uv=False)
    if longest >= _STRETCHED * shortest:  # another aspect, or a shear
        parts.append(f"stretched {longest / max(shortest, 1e-9):.2f} times in one direction")
    moved = float(np.hypot(match.shift_y, match.shift_x))
    if moved >= 0.5:
        parts.append(f"moved {moved:.1f} px")
    if match.flip in _FLIPS:
        parts.append(f"then {_FLIPS[match.flip]}" if parts else _FLIPS[match.flip])
    return ", ".join(parts) or "in place"


def most_copied(
    copies: Mapping[str, int], edition: Edition, salt: bytes
) -> list[tuple[str, int | None]]:
    """Patients by how often they are copied, most first; outside their aliases without numbers.

    Numbers beside a total would give away the last of them, and a short list how many there are.
    """
    rows = sorted(copies.items(), key=lambda row: (-row[1], edition.alias(row[0], salt)))
    if edition is Edition.INTERNAL:
        return list(rows)
    if len(rows) < SMALL:
        return []
    return [(name, None) for name in sorted(edition.alias(name, salt) for name, _ in rows)]


def excluded_files(exclusions: Sequence[Exclusion], edition: Edition) -> list[tuple[str, str, str]]:
    """(side, reason, number) of files that were not tested; outside without reason and number.

    A verdict may rest on the number, and so would tell it.
    """
    if edition is Edition.SHARED:
        return [
            (role, "could not be used", "some") for role in sorted({x.role for x in exclusions})
        ]
    found = collections.Counter((item.role, item.reason) for item in exclusions)
    return sorted((role, reason, f"{count:,}") for (role, reason), count in found.items())


def data_uri(image: np.ndarray, *, lossy: bool = False) -> str:
    """A uint8 image as PNG for the `src` of a picture; as JPEG where many of them must be small."""
    buffer = io.BytesIO()
    form = "JPEG" if lossy else "PNG"
    Image.fromarray(image).save(buffer, form, optimize=True)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
