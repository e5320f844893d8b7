"""How Sphinx builds the site from the Markdown of this repository and the docstrings of the package: `make docs`."""

import sys
from pathlib import Path

from tailmatch import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "tailmatch"
author = copyright = "The tailmatch authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "navigation",
    "docstrings",
    "public_names",
]

# The source is the repository, so that links between its files are the same on the site as on a code host.
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "build", "data", "runs"]

myst_heading_anchors = 4
highlight_language = "text"

default_role = "literal"  # docstrings write code as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"tailmatch {__version__}"
html_static_path = ["extensions/static"]
html_css_files = ["site.css"]
html_extra_path = ["extensions/extra"]
html_copy_source = False
html_show_sourcelink = False
