"""What this machine can do, and the exact commands for what it cannot."""

from __future__ import annotations

from edgeseg.doctor.diagnosis import NEEDS, Check, Command, Findings, examine, render

__all__ = ["NEEDS", "Check", "Command", "Findings", "examine", "render"]
