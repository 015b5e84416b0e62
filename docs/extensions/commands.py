"""The directive ``commands``: every command and option, as the command line itself has them.

Typer writes the Markdown (``typer edgeseg.cli utils docs``), so that the page cannot go stale.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from edgeseg.cli import make_app


class Commands(SphinxDirective):
    """Sections named ``edgeseg COMMAND``, below the section that it stands in."""

    def run(self) -> list[nodes.Node]:
        """The nodes of those sections."""
        return self.parse_text_to_nodes(markdown(), allow_section_headings=True)


def markdown() -> str:
    """The command line in Markdown, without the title that Typer gives the whole."""
    application = str(Path(__file__).with_name("application.py"))
    typer = (sys.executable, "-m", "typer", application, "utils", "docs", "--name", "edgeseg")
    ran = subprocess.run(typer, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ExtensionError(f"typer could not describe edgeseg.cli: {ran.stderr}")
    text = ran.stdout.partition("\n")[2]
    for name, command in get_command(make_app()).commands.items():
        cut, whole = command.get_short_help_str(), command.get_short_help_str(limit=200)
        text = text.replace(f"* `{name}`: {cut}\n", f"* `{name}`: {whole}\n")
    return text


def setup(sphinx: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    sphinx.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
