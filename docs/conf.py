"""Sphinx's settings: ``python -m sphinx -W -b html docs docs/_build``."""

import re
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pyrovae"
author = "The pyrovae developers"
project_copyright = author
version = release = version_of("pyrovae")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "pyrovae"
html_static_path: list[str] = []
html_theme_options = {"navigation_with_keys": True}


def _as_rst(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape what docstrings write plainly and reStructuredText would read as markup: (*batch, d), |x|, ``x``s."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``[^`]*``)", line)
        parts[::2] = [re.sub(r"(?<![\\*])\*(?=[a-z])", r"\\*", part).replace("|", r"\|") for part in parts[::2]]
        parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
        lines[i] = "".join(parts)


def setup(app: "Sphinx") -> None:
    """Connect the hook."""
    app.connect("autodoc-process-docstring", _as_rst)
