"""How a TensorRT engine is to be built."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.errors import UsageError


@dataclass(frozen=True)
class PlanOptions:
    """How an engine is built.

    Attributes:
        targets: Compute capabilities such as ``sm_86``; none for every GPU that the runtime
            supports.
        batch: Smallest, typical and largest batch of a network whose batch varies.
        workspace_mib: Limit for scratch memory on the GPU; None leaves it to the runtime.
    """

    targets: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_mib: int | None = None

    def __post_init__(self) -> None:
        smallest, typical, largest = self.batch
        if not 1 <= smallest <= typical <= largest:
            raise UsageError(
                f"expected a batch of 1 <= smallest <= typical <= largest, not {self.batch}"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"the workspace is at least 1 MiB, not {self.workspace_mib}")
