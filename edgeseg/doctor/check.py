"""Results of a diagnosis: checks, and the commands that work as a consequence."""

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
"""Purpose → what it enables; ``speed`` is not listed, since it enables nothing new."""


@dataclass(frozen=True)
class Trouble:
    """A problem found by a rule.

    Attributes:
        found: Problem and its consequence, as a clause.
        hint: Commands that fix it, one per line; other text is a shell comment.
        blocks: Whether the purpose of the rule is impossible until it is fixed.
        name: Subject of the problem, if clearer than the name of the rule.
    """

    found: str
    hint: str | None = None
    blocks: bool = False
    name: str = ""


@dataclass(frozen=True)
class Check:
    """One check; ``missing`` prevents edgeseg from running engines, ``note`` limits it."""

    name: str
    state: State
    found: str
    hint: str | None = None
    purpose: Purpose = "base"
    rule: str | None = None
    blocks: bool = False


@dataclass(frozen=True)
class Command:
    """A command of edgeseg and the requirements that it lacks.

    ``why`` is set only for the build command that is recommended on this machine.
    """

    name: str
    usable: bool
    lacks: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class Examination:
    """All checks of a machine, and which commands work on it."""

    checks: tuple[Check, ...]
    commands: tuple[Command, ...]
    machine: str = ""

    @property
    def healthy(self) -> bool:
        """Whether everything needed to run an engine is there."""
        return all(check.state != "missing" for check in self.checks)

    @property
    def recommended(self) -> Command | None:
        """The recommended build command, or None."""
        return next((command for command in self.commands if command.why), None)

    def obstacles(self, purpose: Purpose) -> tuple[Check, ...]:
        """Checks that make a purpose impossible, including those that block everything."""
        return tuple(c for c in self.checks if c.blocks and c.purpose in {purpose, "base"})

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "healthy": self.healthy,
            "checks": [asdict(check) for check in self.checks],
            "commands": [asdict(command) for command in self.commands],
        }
