"""Sphinx builds these pages and the API reference: ``sphinx-build -W --keep-going -b html docs docs/_build/html``.

Nothing is fetched from the network and nothing is mocked. The list of modules is made anew at each build, so that a module that
comes, moves or goes needs no line here. Source: own.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The reference is of this checkout, whatever else is installed.
sys.path.insert(0, str(ROOT))

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = _project["name"]
author = f"The {project} authors"
project_copyright = author
version = release = _project["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_sphinx = False

# ---- pages ----------------------------------------------------------------------------------------------------------

myst_heading_anchors = 3

# ---- API reference --------------------------------------------------------------------------------------------------

ROOMS = ("meddiff", "lightning_modules", "datamodules", "callbacks")
apidoc_modules = [
    {
        "path": f"../{room}",
        "destination": f"api/generated/{room}",
        "separate_modules": True,
        # `python -m meddiff` runs the command when it is imported.
        "exclude_patterns": ["**/__main__.py"],
        # A package's names are described where they live.
        "automodule_options": {"members", "undoc-members", "show-inheritance", "ignore-module-all"},
    }
    for room in ROOMS
]
# Lightning's and torch's own docstrings are written for other documents.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# There are none here, and looking for them parses every source once more.
autodoc_use_type_comments = False
napoleon_numpy_docstring = False
# In "Returns: values, finite: ..." napoleon takes "values" for a type and looks it up; that several things are called so is no
# fault of the text. What is not found at all is a warning only where a link was meant (MyST).
suppress_warnings = ["ref.python"]
# ``Attributes:`` as fields: as members of their own they would stand there twice.
napoleon_use_ivar = True
