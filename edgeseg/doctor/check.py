"""What the doctor says: findings, each for a purpose, and what is possible as a consequence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "missing"]
Purpose = Literal[
    "base", "cpu", "gpu", "dla", "train", "build", "network", "usb", "csi", "show", "web",
    "report", "scale", "speed",
]  # fmt: skip

CAN: dict[Purpose, str] = {
    "base": "start",
    "train": "train and export",
    "build": "calibrate and build engines",
    "cpu": "run engines on the processor",
    "gpu": "run engines on the GPU",
    "dla": "run engines on the DLA",
    "network": "read files and network cameras",
    "usb": "read USB cameras",
    "csi": "read CSI cameras",
    "show": "show a window",
    "web": "serve the live page and metrics",
    "report": "draw curves and reports",
    "scale": "segment archives on a cluster",
}
"""Purpose → what a machine can then do; ``speed`` is none of these, it only makes them quicker."""


@dataclass(frozen=True)
class Trouble:
    """What a rule found.

    Attributes:
        found: What is wrong and what follows, as a clause.
        mend: Commands, one a line; what is no command is a shell comment.
        blocks: The rule's purpose is impossible until it is mended.
        name: What it is about, where the rule's own name says it worse.
    """

    found: str
    mend: str | None = None
    blocks: bool = False
    name: str = ""


@dataclass(frozen=True)
class Check:
    """One finding: ``missing`` stops edgeseg from running engines, ``note`` limits it."""

    name: str
    state: State
    found: str
    mend: str | None = None
    purpose: Purpose = "base"
    rule: str | None = None
    blocks: bool = False


@dataclass(frozen=True)
class Command:
    """A command of edgeseg and what stands in its way, if anything.

    ``why`` is there for the one build command that is recommended on this machine.
    """

    name: str
    usable: bool
    lacks: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class Findings:
    """All checks, and which commands work as a consequence."""

    checks: tuple[Check, ...]
    commands: tuple[Command, ...]
    machine: str = ""

    @property
    def healthy(self) -> bool:
        """Nothing that running an engine needs is missing."""
        return all(check.state != "missing" for check in self.checks)

    @property
    def recommended(self) -> Command | None:
        """What to build on this machine."""
        return next((command for command in self.commands if command.why), None)

    def obstacles(self, purpose: Purpose) -> tuple[Check, ...]:
        """What makes a purpose impossible; what stops all stops each."""
        return tuple(c for c in self.checks if c.blocks and c.purpose in {purpose, "base"})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "healthy": self.healthy,
            "checks": [asdict(check) for check in self.checks],
            "commands": [asdict(command) for command in self.commands],
        }
