"""Benchmarks made by hand, with every key filled, for tests of what is made of them; short ones."""

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from edgeseg.benchmark import measure, timing
from edgeseg.benchmark.conditions import Conditions, During, GpuState, Temperature
from edgeseg.benchmark.document import (
    BenchReport,
    BlockSeries,
    DataSummary,
    EngineAccuracy,
    NetworkSummary,
    PictureScore,
    Run,
)
from edgeseg.benchmark.energy import EnergyMeter, Sensor
from edgeseg.machine import Gpu, Machine
from edgeseg.metrics import ConfusionMatrix
from edgeseg.options.benchmark import BenchConfig


def shorten_benchmarks(patch: pytest.MonkeyPatch) -> None:
    """Blocks as short as ``--seconds`` says, and hardly any warm-up: seconds an engine less."""

    def warm_up(case: timing.Case, images: timing.Images, config: BenchConfig) -> bool:
        return timing.warm_up(case, images, replace(config, warm_up_seconds=0.1))

    block_seconds = property(lambda config: config.seconds / config.rounds)
    patch.setattr(BenchConfig, "block_seconds", block_seconds)
    patch.setattr(measure, "warm_up", warm_up)


MACHINE = Machine(
    cpu="AMD EPYC 9R14",
    cores=2,
    usable_cores=2.0,
    cpu_flags=("avx2", "avx512_vnni"),
    memory_mib=24105,
    architecture="x86_64",
    os="Debian GNU/Linux 12",
    kernel="6.18",
    gpus=(Gpu("NVIDIA H200", "580.65", 143771, "9.0"),),
    versions={"python": "3.11.7"},
)
CLASSES = ("background", "nucleus", "boundary")
POINTS = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


ABSENT = Run(
    engine="runs/n/model.fp16.engine",
    name="nuclei",
    runtime="tensorrt-rtx",
    precision="fp16",
    bytes=3 * 2**20,
    runs_here=False,
    reason="runs/n/model.fp16.engine needs an NVIDIA GPU",
)


def plain_run(engine: str, **more: Any) -> Run:
    given: dict[str, Any] = {
        "engine": engine,
        "name": "nuclei",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "bytes": 2**20,
        "batch": 1,
        "threads": 2,
    }
    return Run(**given | more)


def bench_of(*runs: Run, **more: Any) -> BenchReport:
    given: dict[str, Any] = {
        "machine": MACHINE,
        "config": BenchConfig(threads=2),
        "reference": None,
        "pictures": 14,
        "labelled": 14,
        "notes": (),
        "runs": runs,
    }
    return BenchReport(**given | more)


def rich_run(engine: str, precision: str, median: float, **more: Any) -> Run:
    """A row with every key, its figures computed from 12 blocks of 40 calls."""
    noise = np.random.default_rng(round(1000 * median))
    blocks = median * noise.lognormal(0, 0.05, (12, 40)) * noise.lognormal(0, 0.01, (12, 1))
    calls = blocks.ravel()
    points = {name: float(np.percentile(calls, point)) for name, point in POINTS.items()}
    ends = {"mean": float(calls.mean()), "max": float(calls.max())}
    shares = {"preprocess": 0.05, "infer": 0.9, "restore": 0.05}
    given: dict[str, Any] = {
        "precision": precision,
        "network": NetworkSummary(arch="unet-lite", options={"width": 16}, size=(256, 128)),
        "bytes": round(2**20 * median / 7),
        "latency_ms": points | ends,
        "latency_interval_ms": {
            name: (0.98 * value, 1.03 * value) for name, value in points.items()
        },
        "stages_ms": {
            stage: {name: share * value for name, value in points.items()}
            for stage, share in shares.items()
        },
        "stages_interval_ms": {
            stage: {"p50": (0.97 * share * median, 1.04 * share * median)}
            for stage, share in shares.items()
        },
        "throughput_fps": 1000 / ends["mean"],
        "throughput_interval_fps": (980 / ends["mean"], 1030 / ends["mean"]),
        "speedup": 25 / median,
        "pixel_agreement": 0.9912,
        "low_precision_share": 0.871,
        "cold_start_ms": {"open": 8 * median, "first_inference": 2 * median, "total": 20 * median},
        "peak_rss_mib": 90 + median,
        "energy_mj_per_frame": 17.3 * median,
        "energy_above_idle_mj_per_frame": 11.9 * median,
        "power_w": 17.3,
        "calls": calls.size,
        "blocks": 12,
        "blocks_dropped": 2,
        "spread": 0.023,
        "latency_quantiles_ms": tuple(float(q) for q in np.percentile(calls, range(101))),
        "block_series": tuple(
            BlockSeries(
                round=place,
                calls=40,
                median_ms=float(np.median(block)),
                mean_ms=float(block.mean()),
            )
            for place, block in enumerate(blocks)
        ),
    }
    return plain_run(engine, **given | more)


def rich_accuracy(engine: str, quality: float, seed: int = 0) -> EngineAccuracy:
    """Five pictures of 40×30 pixels, of which a share of ``quality`` is labelled right."""
    noise = np.random.default_rng(seed)
    whole = ConfusionMatrix(len(CLASSES))
    pictures = []
    for place in range(5):
        truth = noise.choice(len(CLASSES), (30, 40), p=(0.7, 0.25, 0.05)).astype(np.uint8)
        right = noise.random((30, 40)) < quality - 0.03 * place
        labels = np.where(right, truth, noise.integers(0, len(CLASSES), (30, 40))).astype(np.uint8)
        alone = ConfusionMatrix(len(CLASSES))
        alone.update(truth, labels)
        whole.matrix += alone.matrix
        hits = np.diag(alone.matrix)
        unions = alone.matrix.sum(0) + alone.matrix.sum(1) - hits
        pictures.append(
            PictureScore(
                name=f"val/images/{place}.png",
                iou=alone.mean_iou,
                hits=tuple(map(int, hits)),
                unions=tuple(map(int, unions)),
            )
        )
    return EngineAccuracy(
        engine=engine,
        classes=CLASSES,
        pictures=tuple(pictures),
        confusion=tuple(tuple(map(int, row)) for row in whole.matrix),
    )


def rich_bench(**more: Any) -> BenchReport:
    """Three engines, two of them swept over threads or batches, one for another machine."""
    sharp, coarse, small = "runs/n/model.onnx", "runs/n/model.int8.onnx", "runs/s/model.onnx"
    scores = [rich_accuracy(sharp, 0.95), rich_accuracy(coarse, 0.93), rich_accuracy(small, 0.83)]
    ious = [_mean_iou(entry) for entry in scores]

    def scored(place: int) -> dict[str, Any]:
        iou, drop = ious[place], ious[0] - ious[place]
        return {
            "mean_iou": iou,
            "mean_iou_interval": (iou - 0.02, iou + 0.02),
            "drop": drop,
            "drop_interval": (drop - 0.004, drop + 0.004) if place else None,
        }

    given: dict[str, Any] = {
        "created": datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc),
        "before": conditions(2450.0, 51.0, 0.31),
        "during": During(seconds=83.0, other_cores=0.07, steal_share=0.002, throttle_events=0),
        "after": conditions(2300.0, 63.0, 1.94),
        "reference": sharp,
        "labelled": 5,
        "data": DataSummary(name="nuclei", split="val", sha256="ab" * 32),
        "energy": EnergyMeter(
            sensors=(Sensor(name="rapl package-0", covers="the processor", idle_w=9.4),)
        ),
        "notes": ("Blocks dropped: model.onnx (2 of 14).",),
        "accuracy": tuple(scores),
    }
    runs = (
        rich_run(sharp, "fp32", 25.0, **scored(0)),
        rich_run(sharp, "fp32", 44.0, threads=1, **scored(0)),
        rich_run(coarse, "int8", 10.0, **scored(1)),
        rich_run(coarse, "int8", 37.0, batch=4, **scored(1)),
        rich_run(small, "fp32", 14.0, name="small", **scored(2)),
        ABSENT,
    )
    return bench_of(*runs, **given | more)


def conditions(mhz: float, degrees: float, load: float) -> Conditions:
    return Conditions(
        at=datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc),
        cpu_mhz=(mhz, mhz + 11),
        cpu_max_mhz=3700.0,
        cpu_cap_mhz=3600.0,
        governors=("performance",),
        temperatures=(Temperature(sensor="k10temp Tctl", celsius=degrees, limit_c=95.0),),
        load_average=load,
        gpus=(
            GpuState(
                name="NVIDIA H200", sm_mhz=1980.0, temperature_c=degrees - 12, power_w=2 * degrees
            ),
        ),
    )


def _mean_iou(entry: EngineAccuracy) -> float:
    hits = np.sum([picture.hits for picture in entry.pictures], axis=0)
    unions = np.sum([picture.unions for picture in entry.pictures], axis=0)
    return float(np.mean(hits / unions))
