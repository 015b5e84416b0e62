"""The project's rules for its Dockerfiles, each a function from a parsed file to its faults."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Step:
    """An instruction: ``RUN`` and what follows it, continued lines put together."""

    name: str
    value: str


Stage = list[Step]


def stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, each from its ``FROM`` on."""
    with path.open("rb") as stream:
        parsed: list[dict[str, Any]] = DockerfileParser(fileobj=stream).structure
    found: list[Stage] = []
    for each in parsed:
        if each["instruction"] == "COMMENT":
            continue
        if each["instruction"] == "FROM":
            found.append([])
        found[-1].append(Step(each["instruction"], each["value"]))
    return found


def requirements(step: Step) -> list[Requirement]:
    """What a ``pip install`` is asked for; ``.[extra]`` as ``edgeseg[extra]``."""
    words = shlex.split(step.value)
    with_value = {"-c", "-C"}
    return [
        Requirement(re.sub(r"^\.", "edgeseg", word))
        for before, word in zip(words, words[1:], strict=False)
        if word not in ("install",) and not word.startswith("-") and before not in with_value
    ]


def packages(step: Step) -> list[str]:
    """What an ``apt-get install`` is asked for."""
    found = re.search(r"apt-get install (.*?)(&&|$)", step.value)
    return [word for word in shlex.split(found[1]) if not word.startswith("-")] if found else []


def base_is_pinned(file: list[Stage]) -> Iterator[str]:
    for stage in file:
        image = stage[0].value.split()[0]
        _, colon, tag = image.rpartition(":")
        if not colon or tag == "latest":
            yield f"{image} has no tag"


def apt_leaves_nothing(file: list[Stage]) -> Iterator[str]:
    for step in (step for stage in file for step in stage if "apt-get" in step.value):
        for part in ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*"):
            if part not in step.value:
                yield f"RUN {step.value}: no {part}"


def pip_keeps_no_cache(file: list[Stage]) -> Iterator[str]:
    for step in (step for stage in file for step in stage if "pip install" in step.value):
        if "--no-cache-dir" not in step.value:
            yield f"RUN {step.value}: no --no-cache-dir"


def what_changes_rarely_comes_first(file: list[Stage]) -> Iterator[str]:
    for stage in file:
        names = [
            "apt" if "apt-get" in step.value else "COPY" if step.name == "COPY" else ""
            for step in stage
        ]
        if "apt" in names and "COPY" in names[: names.index("apt")]:
            yield "a COPY before apt-get: packages are installed again at each change"
    for copied in _copied(file[0]):
        if "edgeseg" in copied and file[0].index(copied[0]) != _last_copy(file[0]):
            yield "the sources are not what is copied last"


def _last_copy(stage: Stage) -> int:
    return max(number for number, step in enumerate(stage) if step.name == "COPY")


def _copied(stage: Stage) -> Iterator[tuple[Any, ...]]:
    """The step and the sources of each COPY from the project."""
    for step in stage:
        if step.name == "COPY" and "--from" not in step.value:
            yield (step, *shlex.split(step.value)[:-1])


def sources_are_there(file: list[Stage]) -> Iterator[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for stage in file:
        for _, *names in _copied(stage):
            for name in names:
                if not (ROOT / name).exists():
                    yield f"COPY {name}: not in the project"
                ignored = False
                for pattern in patterns:  # the last that fits counts
                    if fnmatch(name, pattern.lstrip("!")):
                        ignored = not pattern.startswith("!")
                if ignored:
                    yield f"COPY {name}: left out by .dockerignore"


def extras_exist(file: list[Stage]) -> Iterator[str]:
    text = (ROOT / "pyproject.toml").read_text()
    known = set(re.findall(r"^([a-z-]+) = \[", text.partition("optional-dependencies]")[2], re.M))
    for step in (step for stage in file for step in stage if "pip install" in step.value):
        for asked in requirements(step):
            if asked.name == "edgeseg" and asked.extras - known:
                yield f"no extra {asked.extras - known}"


def runs_as_nobody_special(file: list[Stage]) -> Iterator[str]:
    users = [step.value for step in file[-1] if step.name == "USER"]
    if not users or not users[-1].isdecimal() or int(users[-1]) == 0:
        yield "the last stage has no USER by number other than 0"


def brings_no_compiler(file: list[Stage]) -> Iterator[str]:
    if len(file) < 2:
        yield "one stage alone: the compiler stays in the image"
    for step in file[-1]:
        if {"g++", "gcc", "cmake", "python3-dev"} & set(packages(step)):
            yield f"RUN {step.value}: a compiler in the last stage"


def holds_no_secret(file: list[Stage]) -> Iterator[str]:
    for step in (step for stage in file for step in stage):
        if step.name == "ADD":
            yield "ADD fetches and unpacks; COPY does not"
        if step.name in ("ENV", "ARG") and re.search(r"(?i)passw|secret|token|key\b", step.value):
            yield f"{step.name} {step.value}: stays in the image"


def says_how_it_is(file: list[Stage]) -> Iterator[str]:
    for name in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):
        found = [step.value for step in file[-1] if step.name == name]
        if len(found) != 1:
            yield f"{len(found)} {name}"
        elif name == "HEALTHCHECK":
            command(Step("CMD", found[0].partition("CMD ")[2]))
        else:
            command(Step(name, found[0]))


def command(step: Step) -> list[str]:
    """The words of a command in the form that needs no shell; ValueError in another."""
    words: list[str] = json.loads(step.value)
    return words


RULES: tuple[Callable[[list[Stage]], Iterator[str]], ...] = (
    base_is_pinned,
    apt_leaves_nothing,
    pip_keeps_no_cache,
    what_changes_rarely_comes_first,
    sources_are_there,
    extras_exist,
    runs_as_nobody_special,
    brings_no_compiler,
    holds_no_secret,
    says_how_it_is,
)


def faults(path: Path) -> list[str]:
    """What the rules find in a Dockerfile."""
    file = stages(path)
    return [fault for rule in RULES for fault in rule(file)]
