"""How the documentation is built: ``sphinx-build -W --keep-going -n -c docs . OUT``.

Sphinx reads the repository, not ``docs/`` alone: the README and the committed results are pages
too, and links between them are the same relative links that a reader of the sources follows.
"""

import sys
from pathlib import Path

import edgeseg

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "edgeseg"
version = release = edgeseg.__version__
copyright = "edgeseg contributors, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "commands",
    "options",
    "sources",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "bench/**", "edgeseg/data/nuclei/*.md"]
exclude_patterns = [".*", "**/.*", "**/*venv*", "**/runs", "**/_build", "build", "dist"]
suppress_warnings = ["toc.no_title"]  # a table that a script writes is linked from its README

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
smartquotes = False  # options have two hyphens

autodoc_typehints_format = "short"
python_display_short_literal_types = True
# Types of other libraries: nobody has their inventories where there is no network.
nitpick_ignore_regex = [("py:.*", r"(?!edgeseg).*")]

html_theme = "furo"
html_extra_path = ["site"]
html_title = f"edgeseg {version}"
html_copy_source = False
html_show_sphinx = False

# External links are checked where there is a network: sphinx-build -b linkcheck docs OUT.
linkcheck_timeout = 10
linkcheck_retries = 2
