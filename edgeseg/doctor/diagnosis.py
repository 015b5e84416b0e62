"""Diagnose a machine from its facts.

:func:`examine` uses nothing but :class:`edgeseg.doctor.facts.SystemFacts`, so it also works on
the recorded description of another machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeseg.doctor.advice import recommended
from edgeseg.doctor.check import Check, Command, Examination, Purpose, Trouble
from edgeseg.doctor.facts import SystemFacts
from edgeseg.doctor.inventory import inventory, machine_name
from edgeseg.doctor.probe import probe
from edgeseg.doctor.rules import RULES, Rule, rule_name

RUN = ("numpy", "opencv", "onnxruntime")
LEARN = ("torch", "safetensors", "onnx", "onnxscript")
NEEDS: dict[str, tuple[str, ...]] = {
    "train": ("numpy", "opencv", "torch", "kornia", "safetensors", "matplotlib"),
    "export": (*RUN, *LEARN),
    "calibrate": (*RUN, "onnx"),
    "build": (*RUN, "onnx"),
    "build --runtime openvino": (*RUN, "onnx", "openvino"),
    "build --runtime tensorrt": (*RUN, "onnx", "tensorrt"),
    "build --runtime tensorrt-rtx": (*RUN, "onnx", "tensorrt-rtx"),
    "eval": RUN,
    "infer": RUN,
    "infer --cluster": (*RUN, "ray", "av"),
    "stream": RUN,
    "stream --web": (*RUN, "starlette", "uvicorn", "h11"),
    "stream --metrics": (*RUN, "prometheus-client", "starlette", "uvicorn", "h11"),
    "stream --mqtt": (*RUN, "paho-mqtt"),
    "bench": RUN,
    "bench --report": (*RUN, "matplotlib", "jinja2"),
    "demo": (*RUN, *LEARN, "kornia", "matplotlib", "jinja2"),
}
"""Command → libraries that it requires."""

_STOPS: tuple[Purpose, ...] = ("base", "cpu")
"""Purposes without which edgeseg cannot run any engine."""


def examine(facts: SystemFacts | None = None) -> Examination:
    """Diagnose a machine, by default this one. A broken library never raises."""
    facts = facts or probe()
    checks = (*inventory(facts), *troubles(facts))
    advice = recommended(facts, checks, _lacks(facts, "build"))
    commands = (Command(name, not _lacks(facts, name), _lacks(facts, name)) for name in NEEDS)
    return Examination(
        checks, (*commands, *((advice,) if advice else ())), machine=machine_name(facts)
    )


def troubles(facts: SystemFacts) -> Iterator[Check]:
    """Yield a check for each rule that finds a problem."""
    for purpose, rules in RULES.items():
        for rule in rules:
            trouble = _trouble(purpose, rule, facts)
            if trouble is not None:
                yield _check(purpose, rule, trouble)


def _trouble(purpose: Purpose, rule: Rule, facts: SystemFacts) -> Trouble | None:
    """Apply a rule; Jetson-only purposes are skipped on other machines."""
    if purpose in {"dla", "csi"} and facts.jetson is None:
        return None
    return rule(facts)


def _check(purpose: Purpose, rule: Rule, trouble: Trouble) -> Check:
    return Check(
        name=rule_name(rule).replace("-", " "),
        state="missing" if trouble.blocks and purpose in _STOPS else "note",
        found=trouble.found,
        hint=trouble.hint,
        purpose=purpose,
        rule=rule_name(rule),
        blocks=trouble.blocks,
    )


def _lacks(facts: SystemFacts, command: str) -> tuple[str, ...]:
    return tuple(key for key in NEEDS[command] if not _usable(facts, key))


def _usable(facts: SystemFacts, key: str) -> bool:
    """Whether a library imports, if that was tried, or else is installed."""
    if key == "tensorrt":
        return bool(facts.tensorrt)
    return not facts.library(key).error if key in RUN else key in facts.distributions
