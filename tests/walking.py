"""A page taken word for word: its shell blocks are run, what they print is held against it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pages import ROOT, blocks

NOT_WALKED = "not walked"
INSTALLS = re.compile(r"^(pip |python3 -m venv |sudo |apt )", re.MULTILINE)
"""Blocks with such a line are left out: CI installs the same in a fresh environment."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass
class Walk:
    """What walking a page left behind.

    Attributes:
        folder: Where it was walked.
        ran: The shell blocks that were run.
        faults: ``page:line: what is not as the page says``.
    """

    folder: Path
    ran: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def walk(page: Path, folder: Path) -> Walk:
    """Run the ``sh`` blocks of a page in ``folder`` up to the first that fails.

    A ``text`` block quotes lines of what the ``sh`` block before it printed, in their order: any
    number stands for any number, ``…`` for any text. What is not walked must not be quoted.
    """
    done = Walk(folder)
    inherited = environment(folder.parent / "bin")
    printed: str | None = None
    for block in blocks(page, "sh", "text"):
        if block.language == "text":
            if printed is None:
                done.faults.append(f"{block}: quotes what was not run")
            else:
                done.faults += [f"{block}: {what}" for what in unquoted(block.text, printed)]
        elif block.remark.startswith(NOT_WALKED) or INSTALLS.search(block.text):
            printed = None
        else:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=folder,
                env=inherited,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            printed = ran.stdout
            done.ran.append(block.text)
            if ran.returncode:
                done.faults.append(f"{block}: ended with {ran.returncode}: {printed}")
                break
    return done


def unquoted(quoted: str, printed: str) -> list[str]:
    """The lines of ``quoted`` that ``printed`` does not hold in this order."""
    left = iter(printed.splitlines())
    return [
        f"{line!r} is not printed here"
        for line in quoted.splitlines()
        if line.strip() and not any(pattern(line).fullmatch(each) for each in left)
    ]


def pattern(line: str) -> re.Pattern[str]:
    """What a quoted line stands for."""
    parts = [re.escape(part) for part in _NUMBER.split(line.strip())]
    return re.compile(r"\s*" + _NUMBER.pattern.join(parts).replace("…", ".*") + r"\s*")


def environment(programs: Path) -> dict[str, str]:
    """This environment, with ``edgeseg`` and ``python`` those of this process and checkout."""
    programs.mkdir()
    scripts = {
        # As pip writes it.
        "edgeseg": f"#!{sys.executable}\nfrom edgeseg.__main__ import run\nrun()\n",
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
