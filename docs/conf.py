"""Sphinx: python -m sphinx -W docs docs/_build/html.

The notebooks are copied into the source folder. With BAYESLMM_NOTEBOOKS naming a folder of executed
ones (as .ci/run does) these are shown; otherwise those in notebooks/ are executed while building.
"""

import os
import re
import shutil
from pathlib import Path

import bayeslmm

HERE = Path(__file__).parent
_executed = os.environ.get("BAYESLMM_NOTEBOOKS")
_notebooks = HERE / "notebooks"
shutil.rmtree(_notebooks, ignore_errors=True)
shutil.copytree(
    Path(_executed) if _executed else HERE.parent / "notebooks",
    _notebooks,
    ignore=lambda folder, names: [name for name in names if not name.endswith(".ipynb")],
)

project = "bayeslmm"
author = "the bayeslmm maintainers"
version = release = bayeslmm.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "scripts"]
html_theme = "pydata_sphinx_theme"
html_title = "bayeslmm"
html_static_path = ["_static"]
html_css_files = ["bayeslmm.css"]
html_theme_options = {
    "navbar_align": "left",
    "show_nav_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_show_sourcelink = False

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off" if _executed else "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the class pages list their members themselves
templates_path = ["_templates"]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _links(app: object, docname: str, source: list[str]) -> None:
    """Links that hold on disk, as they hold in the built pages."""
    text = source[0].replace("](../notebooks/", "](notebooks/").replace("](../docs/", "](../")
    source[0] = re.sub(r"\]\(\.\./README\.md(#[\w-]+)?\)", "](index.md)", text)


def setup(app: object) -> None:
    """Register the rewriting of links."""
    app.connect("source-read", _links)  # type: ignore[attr-defined]
