"""The command line with all of its commands, for ``typer utils docs``."""

from edgeseg.cli import make_app

app = make_app()
