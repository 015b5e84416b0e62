"""Frames, and what must come of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from standin import kernels

from edgeseg.engines.cuda.stages import FrameJob
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.engines.pipeline import FramePipeline, PipelineResult
from edgeseg.ops.overlay import Look, overlay
from edgeseg.ops.preprocess import preprocess, restore_labels

LOOK = Look(((0, 0, 0), (0, 158, 115), (230, 159, 0)), 0.4, True, {0})
JOB = FrameJob((37, 50), look=LOOK)

needs_compiler = pytest.mark.skipif(
    kernels.COMPILER is None, reason="no C++ compiler here (apt install g++)"
)


def camera(job: FrameJob, count: int) -> list[list[NDArray[np.uint8]]]:
    """Batches of frames, none like another."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, job.batch, 6, 5, *job.shape[2:]), dtype=np.uint8)
    large = coarse.repeat(12, 2).repeat(12, 3)[:, :, : job.size[0], : job.size[1]]
    return [list(batch) for batch in large]


def expected(network: Path, job: FrameJob, frames: Sequence[NDArray[np.uint8]]) -> PipelineResult:
    """Step by step with edgeseg.ops and ONNX Runtime."""
    with OnnxRuntimeEngine(network, threads=1) as engine:
        spec = engine.card.input
        labels = engine.infer(np.stack([preprocess(frame, spec) for frame in frames])).copy()
    masks = [restore_labels(each, job.size, spec) for each in labels]
    painted = None
    if job.look is not None:
        style = {"outline": job.look.outline, "clear": job.look.clear}
        painted = [
            overlay(frame, mask, job.look.palette, job.look.alpha, **style)
            for frame, mask in zip(frames, masks, strict=True)
        ]
    return PipelineResult(list(labels), painted, {})


def same(found: PipelineResult, wanted: PipelineResult) -> None:
    for one, other in ((found.labels, wanted.labels), (found.painted, wanted.painted)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(np.stack(one), np.stack(other))


def _seen(result: PipelineResult) -> bytes:
    return b"".join(each.tobytes() for each in (*result.labels, *(result.painted or ())))


def assert_right(network: Path, pipeline: FramePipeline, job: FrameJob, count: int = 5) -> None:
    """One by one, then as many in flight at a time as it takes."""
    batches = camera(job, count)
    wanted = [expected(network, job, batch) for batch in batches]
    assert len({_seen(each) for each in wanted}) == count
    for batch, each in zip(batches, wanted, strict=True):
        same(pipeline.run([frame.copy() for frame in batch], job.look), each)
    ahead = pipeline.depth - 1
    for batch in batches[:ahead]:
        pipeline.submit(batch, job.look)
    for batch, each in zip(batches[ahead:], wanted, strict=False):
        pipeline.submit(batch, job.look)
        same(pipeline.collect(), each)
    for each in wanted[count - ahead :]:
        same(pipeline.collect(), each)
