"""How Sphinx builds the documentation: `make docs`. Nothing here uses the network."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

import deepssim_jax  # noqa: E402

project = "deepssim_jax"
author = "the deepssim_jax authors"
version = release = deepssim_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]
# Flags begin with two hyphens.
smartquotes = False
# In docstrings single backticks are code.
default_role = "code"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "deepssim_jax"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def _escape(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Shapes such as [n, *space] are not emphasis."""
    del app, what, name, thing, options
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            lines[number] = "".join(
                x if x.startswith("`") else x.replace("*", r"\*") for x in parts
            )


def setup(app: Sphinx) -> None:
    """Registers the hook."""
    # Before napoleon, which writes markup of its own.
    app.connect("autodoc-process-docstring", _escape, priority=100)
