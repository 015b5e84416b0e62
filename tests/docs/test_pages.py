"""What the pages name is there: commands and their options, files, links."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pages import DOCS, PAGES, ROOT, Block, blocks, inline_code, links, name
from typer.main import get_command

import edgeseg
from edgeseg import errors
from edgeseg.cli import _words, make_app

SHELL = ("sh", "bash", "shell", "console")
ENDS = {"&&", "||", "|", ";", "&", ">", ">>", "<", ")"}
ASIDE = {"--help", "-h", "--install-completion", "--show-completion"}
FOREIGN = {"--system-site-packages"}
"""Options of other programs that a page names by themselves, besides torchrun's."""
PLACEHOLDER = re.compile(r"[A-Z]{3,}|…|\*")

every_page = pytest.mark.parametrize("page", PAGES, ids=name)


@cache
def root() -> Any:
    """The command line; making it anew for each word would take seconds."""
    return get_command(make_app())


def command_lines(block: Block) -> Iterator[list[str]]:
    """The arguments of each ``edgeseg`` in a block of shell."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":  # what stands behind no prompt was printed
        lines = [line for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        words.whitespace_split = True
        arguments: list[str] | None = None
        for before, word in pairwise(["", *words, ";"]):
            if word in ENDS:
                if arguments is not None:
                    yield arguments
                arguments = None
            elif arguments is not None:
                arguments.append(word)
            elif word.rpartition("/")[2] == "edgeseg" and _begins(before):
                arguments = []


def _begins(before: str) -> bool:
    """Whether a command may stand behind that word."""
    return before in {"", "(", "$", "--", "exec", "sudo", *ENDS} or "=" in before


def refusal(arguments: list[str]) -> str | None:
    """Why the command line does not take the arguments, None where it does."""
    if ASIDE & set(arguments):
        return None
    command: Any = root()
    # The file of a page is not here, and parsing the option reads it.
    here = [place for place, word in enumerate(arguments) if word == "--config"]
    left_out = {place for first in here for place in (first, first + 1)}
    rest = _words([word for place, word in enumerate(arguments) if place not in left_out])
    context = None
    try:
        while True:
            context = command.make_context("edgeseg", rest, parent=context)
            if not hasattr(command, "resolve_command"):
                return None
            left = [*context._protected_args, *context.args]
            _, command, rest = command.resolve_command(context, left)
    except Exception as error:  # Typer's, whose module is its own affair
        return f"{arguments}: {getattr(error, 'message', '') or type(error).__name__}"


@cache
def options(command: Any) -> set[str]:
    """All options of a command, and of the commands below it."""
    found = {each for option in command.params for each in (*option.opts, *option.secondary_opts)}
    return found.union(*map(options, getattr(command, "commands", {}).values()), ASIDE)


@cache
def torchrun_options() -> set[str]:
    from torch.distributed.run import get_args_parser

    return {each for action in get_args_parser()._actions for each in action.option_strings}


def named(words: list[str]) -> Any:
    """The command that the first words name, as far as they do."""
    command: Any = root()
    for word in _words(words):
        command = getattr(command, "commands", {}).get(word, command)
    return command


@every_page
def test_every_command_line_parses(page: Path) -> None:
    lines = [(block, words) for block in blocks(page, *SHELL) for words in command_lines(block)]
    assert [f"{block}: {why}" for block, words in lines if (why := refusal(words))] == []


@every_page
def test_every_option_in_the_text_exists(page: Path) -> None:
    wrong = []
    for code in inline_code(page):
        if code.startswith("edgeseg "):
            command = named(code.split()[1:3])
        elif code.startswith("--"):
            command = root()
        else:
            continue
        known = options(command) | FOREIGN | torchrun_options()
        found = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)
        wrong += [f"{code}: {each}" for each in found if each not in known]
    assert wrong == []


@every_page
def test_every_file_in_the_text_exists(page: Path) -> None:
    paths = [
        word
        for code in inline_code(page)
        if re.match(r"(edgeseg|tests|bench|docs|\.ci)/", code)
        for word in code.split()[:1]
        if not PLACEHOLDER.search(word)
    ]
    assert [path for path in paths if not (ROOT / path.partition("::")[0]).exists()] == []


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            fits = parts.scheme == "https" and "." in (parts.hostname or "")
            wrong += [] if fits and link.isascii() and " " not in link else [link]
        elif parts.path and not (page.parent / parts.path).exists():
            wrong.append(link)
    assert wrong == []


@every_page
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.text, str(block), "exec")


def test_every_public_name_has_its_entry() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    assert ".. automodule:: edgeseg.errors\n" in page
    names = set(edgeseg.__all__) - set(errors.__all__) - {"__version__"}
    assert [each for each in names if not re.search(rf":: edgeseg\.{each}$", page, re.M)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("edgeseg build --fp16", [["build", "--fp16"]]),
        ("pip install edgeseg && edgeseg demo  # minutes", [["demo"]]),
        ("A=b .venv/bin/edgeseg eval 'a b' > c", [["eval", "a b"]]),
        ("torchrun -m -- edgeseg train \\\n  --data d", [["train", "--data", "d"]]),
        ("cp -r edgeseg x; cat edgeseg", []),
    ],
)
def test_command_lines_are_found(line: str, found: list[list[str]]) -> None:
    assert list(command_lines(Block(ROOT / "x.md", 1, "sh", line, ""))) == found


def test_what_a_console_printed_is_no_command() -> None:
    shown = Block(ROOT / "x.md", 1, "console", "$ edgeseg doctor\nit's\nedgeseg none\n", "")
    assert list(command_lines(shown)) == [["doctor"]]


@pytest.mark.parametrize(
    "line",
    [
        "biuld --fp16",
        "build --fp17",
        "data chekc nuclei",
        "train",
        "train --data d --epochs many",
        "stream one two",
        "bench --nothing",
        "",
    ],
)
def test_command_lines_that_are_none_are_refused(line: str) -> None:
    assert refusal(line.split()) is not None


def test_the_pages_have_what_is_checked() -> None:
    assert sum(len(list(command_lines(b))) for p in PAGES for b in blocks(p, *SHELL)) > 30
    assert sum(1 for page in PAGES for _ in inline_code(page)) > 200
    assert sum(1 for page in PAGES for _ in links(page)) > 40
