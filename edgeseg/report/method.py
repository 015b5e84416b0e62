"""Describe the method and the machine in words."""

from __future__ import annotations

from edgeseg.benchmark.document import BenchReport
from edgeseg.machine import Gpu, Machine


def method(bench: BenchReport) -> list[str]:
    """How the benchmark was measured, one paragraph per item."""
    config = bench.config
    threads = "its default number of" if config.threads is None else str(config.threads)
    paragraphs = [
        f"Each call turns a picture as the camera delivers it into a label map of the same size: "
        f"preprocess, infer, restore. {bench.pictures} pictures in turn; the runtime had "
        f"{threads} threads unless a row states otherwise.",
        f"Engines were warmed up until the median of five calls moved by less than "
        f"{config.stable_within:.0%}, then measured in {config.rounds} rounds. In each round "
        f"every engine had one block of {config.block_seconds:.2g} s, in random order (seed "
        f"{config.seed}), so that clock speed and temperature favour no engine. A block "
        f"during which other processes used more than {config.max_other_load:.0%} of a core was "
        f"dropped, as long as half of the blocks remained.",
    ]
    if config.resamples:
        paragraphs.append(
            f"Intervals hold {config.confidence:.0%}: {config.resamples} bootstrap samples of "
            "whole blocks, since calls of one block resemble each other; for accuracy, of "
            "pictures, and for a drop the same pictures for both engines. They cover variation "
            "within this run, not between runs or machines."
        )
    paragraphs.append(
        "The spread is the interquartile range of the block medians, relative to their median: "
        "smaller differences between engines are not meaningful."
    )
    if config.cold_starts:
        paragraphs.append(
            f"Start-up (to the first label map, files in the page cache) and peak memory are "
            f"medians over {config.cold_starts} new processes."
        )
    if bench.labelled:
        paragraphs.append(
            f"Mean IoU is that of {bench.labelled} labelled pictures{_source(bench)}, compared at "
            "the size of their masks. A drop is stated in points (hundredths) against the FP32 "
            "engine."
        )
    return paragraphs


def _source(bench: BenchReport) -> str:
    data = bench.data
    if data is None:
        return ""
    split = f", {data.split}" if data.split else ""
    return f" ({data.name}{split}; SHA-256 of the files {data.sha256[:12]}…)"


def machine_facts(machine: Machine | None) -> list[tuple[str, str]]:
    """Names and values of the machine's known properties."""
    if machine is None:
        return []
    heat = machine.temperature_c
    facts = [
        ("Processor", machine.cpu),
        ("Board", machine.board),
        ("Cores", _cores(machine)),
        ("Instruction sets", ", ".join(machine.cpu_flags)),
        ("Memory", f"{machine.memory_mib} MiB" if machine.memory_mib else None),
        ("GPU", "; ".join(map(_gpu, machine.gpus)) or "none"),
        ("System", machine.os),
        ("Kernel", f"{machine.kernel} {machine.architecture}"),
        ("Governor", machine.governor),
        ("Temperature at start", f"{heat:.0f} °C" if heat is not None else None),
        ("Versions", ", ".join(f"{name} {text}" for name, text in machine.versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _cores(machine: Machine) -> str:
    if machine.cores == machine.usable_cores:
        return str(machine.cores)
    return f"{machine.usable_cores:g} of {machine.cores} usable"


def _gpu(gpu: Gpu) -> str:
    parts = [
        gpu.name,
        f"compute capability {gpu.compute_capability}" if gpu.compute_capability else "",
        f"{gpu.memory_mib} MiB" if gpu.memory_mib else "",
        f"driver {gpu.driver}" if gpu.driver else "",
    ]
    return ", ".join(filter(None, parts))
