"""Render a report as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from pathlib import Path

from edgeseg import __version__
from edgeseg.errors import RuntimeMissing
from edgeseg.report.pictures import data_uri
from edgeseg.report.tree import Page


def render_html(page: Page) -> str:
    """The whole page.

    Raises:
        RuntimeMissing: Matplotlib or Jinja are not installed.
        CorruptArtifact: A picture is neither PNG nor JPEG.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise RuntimeMissing(
            f"reports need Jinja: {error}", hint="pip install 'edgeseg[report]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "data_uri": data_uri,
        # Our own SVG, whose text Matplotlib has escaped.
        "svg": lambda plot: Markup(plot.svg()),
    }
    template = environment.get_template("page.html.j2")
    return template.render(page=page, version=__version__) + "\n"
