"""Sphinx extension: `<!-- generated: NAME -->` in a page becomes the table or section of that name."""

import re

import reference
import tables
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PLACE = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
MAKERS = {**tables.TABLES, **reference.PAGES}


def filled(text: str) -> str:
    """A page with every place filled.

    Raises:
        ExtensionError: a page names what nothing makes.
    """

    def made(found: re.Match[str]) -> str:
        if found[1] not in MAKERS:
            raise ExtensionError(f"nothing makes {found[1]!r}; there are {', '.join(MAKERS)}")
        return MAKERS[found[1]]()

    return PLACE.sub(made, text)


def _on_source(app: Sphinx, docname: str, source: list[str]) -> None:
    del app, docname
    source[0] = filled(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("source-read", _on_source)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
