"""The pages of the documentation, their fenced blocks and their links."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file that it stands in.
        line: Of the file, from 1.
        language: First word behind the fence, e.g. ``sh``.
        text: What it holds.
        remark: Text of the MyST comment (``% …``) on the line before the fence, else empty.
    """

    page: Path
    line: int
    language: str
    text: str
    remark: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """Of a page, as a reader of the repository knows it."""
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8")))


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The fenced blocks of a page in one of the languages, in their order."""
    lines = page.read_text("utf-8").splitlines()
    for token in tokens(page):
        language = token.info.split()[0] if token.info else ""
        if token.type == "fence" and language in languages:
            assert token.map is not None
            first = token.map[0]
            before = lines[first - 1] if first else ""
            remark = before[2:] if before.startswith("% ") else ""
            yield Block(page, first + 1, language, token.content, remark)


def links(page: Path) -> Iterator[str]:
    """Targets of the links and pictures of a page."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrGet({"link_open": "href", "image": "src"}.get(child.type, ""))
            if target is not None:
                yield str(target)


def inline_code(page: Path) -> Iterator[str]:
    """What stands between single backquotes, roles left out."""
    for token in tokens(page):
        before = ""
        for child in token.children or ():
            if child.type == "code_inline" and not before.endswith("}"):
                yield child.content
            before = child.content
