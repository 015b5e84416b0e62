"""The page of commands, which is made of the command line."""

import re
from typing import Any

import pytest
from pages import DOCS
from typer.main import get_command

from edgeseg.cli import make_app


def all_commands(command: Any = None, name: str = "edgeseg") -> dict[str, Any]:
    command = command or get_command(make_app())
    inner = getattr(command, "commands", {})
    below = (all_commands(each, f"{name} {part}") for part, each in inner.items())
    return {name: command} | {key: each for part in below for key, each in part.items()}


def test_the_page_has_every_command_and_option(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    import commands  # type: ignore[import-not-found]

    text = commands.markdown()
    sections = dict(re.findall(r"^#+ `(edgeseg [a-z ]+)`\n(.*?)(?=^#+ |\Z)", text, re.M | re.S))
    below = all_commands()
    del below["edgeseg"]
    assert sections.keys() == below.keys()
    for name, command in below.items():
        for parameter in command.params:
            option = parameter.opts[0] if parameter.opts[0].startswith("-") else None
            shown = option or parameter.metavar or parameter.name
            assert f"* `{shown}" in sections[name], (name, parameter.name)
    assert "..." not in text.partition("**Commands**")[2].partition("## ")[0]
