"""Frames, and what must come of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from standin import kernels

from edgeseg.engines.frames import FrameJob, FrameResult, FrameRunner
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.ops.overlay import Look, overlay, restored_areas
from edgeseg.ops.preprocess import preprocess, restore_labels

LOOK = Look(((0, 0, 0), (0, 158, 115), (230, 159, 0)), 0.4, True, {0})
JOB = FrameJob((37, 50), look=LOOK, areas=True)

needs_compiler = pytest.mark.skipif(
    kernels.COMPILER is None, reason="no C++ compiler here (apt install g++)"
)


def camera(job: FrameJob, count: int) -> list[list[NDArray[np.uint8]]]:
    """Batches of frames, none like another."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, job.batch, 6, 5, *job.shape[2:]), dtype=np.uint8)
    large = coarse.repeat(12, 2).repeat(12, 3)[:, :, : job.size[0], : job.size[1]]
    return [list(batch) for batch in large]


def expected(network: Path, job: FrameJob, frames: Sequence[NDArray[np.uint8]]) -> FrameResult:
    """Step by step with edgeseg.ops and ONNX Runtime."""
    with OnnxRuntimeEngine(network, threads=1) as engine:
        spec = engine.card.input
        labels = engine.infer(np.stack([preprocess(frame, spec) for frame in frames])).copy()
    masks = [restore_labels(each, job.size, spec) for each in labels]
    shown, areas = None, None
    if job.look is not None:
        style = {"outline": job.look.outline, "clear": job.look.clear}
        shown = np.stack(
            [
                overlay(frame, mask, job.look.palette, job.look.alpha, **style)
                for frame, mask in zip(frames, masks, strict=True)
            ]
        )
    if job.areas:
        areas = np.stack([restored_areas(each, job.size, spec, 3) for each in labels])
    return FrameResult(labels, shown, areas)


def same(found: FrameResult, wanted: FrameResult) -> None:
    for one, other in zip(vars(found).values(), vars(wanted).values(), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


def _seen(result: FrameResult) -> bytes:
    return b"" if result.shown is None else result.shown.tobytes()


def assert_right(network: Path, runner: FrameRunner, job: FrameJob, count: int = 5) -> None:
    """One by one, then two under way at a time."""
    batches = camera(job, count)
    wanted = [expected(network, job, batch) for batch in batches]
    assert len({each.labels.tobytes() + _seen(each) for each in wanted}) == count
    for batch, each in zip(batches, wanted, strict=True):
        same(runner.run([frame.copy() for frame in batch]), each)
    runner.submit(batches[0])
    for before, (batch, each) in enumerate(zip(batches[1:], wanted[:-1], strict=True)):
        runner.submit(batch)
        same(runner.collect(), each)
        assert before < count
    same(runner.collect(), wanted[-1])
