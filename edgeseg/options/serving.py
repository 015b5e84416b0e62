"""Options with which Triton serves a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options


@dataclass(frozen=True)
class Serving(Options):
    """Settings with which Triton serves a model.

    ``max_batch`` is the largest batch that Triton may put together; only for a network that takes
    several pictures. None means 8, or what the engine was built for. ``queue_delay_ms`` is the
    maximum time that a request waits for others to form a batch.
    """

    name: Annotated[str | None, Option("With --triton: model name; default: CARD-PRECISION.")] = (
        None
    )
    max_batch: Annotated[
        int | None, Field(ge=1), Option("With --triton: maximum batch size; default: 8.")
    ] = None
    queue_delay_ms: Annotated[
        float,
        Field(ge=0, le=60_000),
        Option("With --triton: maximum queue delay, in ms.", names="--queue-delay"),
    ] = 1.0
    instances: Annotated[
        int, Field(ge=1), Option("With --triton: number of model instances per device.")
    ] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name, re.ASCII):
            raise UsageError(
                f"a model is named by letters, digits, '.', '_' and '-', not {self.name!r}"
            )
