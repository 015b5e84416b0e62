"""Diagnose a machine: what it can do, and the commands that add what is missing."""

from __future__ import annotations

from edgeseg.doctor.check import Check, Command, Examination
from edgeseg.doctor.diagnosis import NEEDS, examine
from edgeseg.doctor.facts import SystemFacts, read, record
from edgeseg.doctor.rendering import render, show

__all__ = [
    "NEEDS",
    "Check",
    "Command",
    "Examination",
    "SystemFacts",
    "examine",
    "read",
    "record",
    "render",
    "show",
]
