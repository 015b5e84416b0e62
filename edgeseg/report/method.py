"""Describe the method and the machine in words, for HTML and Markdown alike."""

from __future__ import annotations

from edgeseg.benchmark.document import BenchReport
from edgeseg.machine import Gpu, Machine


def method(bench: BenchReport) -> list[str]:
    """How the benchmark was measured, a paragraph an item."""
    config = bench.config
    threads = "its own choice of" if config.threads is None else str(config.threads)
    paragraphs = [
        f"Each call takes a picture as the camera delivers it to a label map of the picture's own "
        f"size: preprocess, infer, restore. {bench.pictures} pictures in turn; the runtime had "
        f"{threads} threads where a row does not say otherwise.",
        f"Engines were warmed up until the median of five calls moved by less than "
        f"{config.stable_within:.0%}, then measured in {config.rounds} rounds. In each round "
        f"every engine had one block of {config.block_seconds:.2g} s, in random order (seed "
        f"{config.seed}), so that clock speed and temperature favour none. A block during which "
        f"other processes used more than {config.max_other_load:.0%} of a core was dropped, as "
        f"long as half of the blocks remained.",
    ]
    if config.resamples:
        paragraphs.append(
            f"Intervals hold {config.confidence:.0%}: {config.resamples} bootstrap samples of "
            "whole blocks, since calls of one block resemble each other; for accuracy, of "
            "pictures, and for a drop the same pictures for both engines. They speak of what "
            "varied within this run, not of another run or another machine."
        )
    paragraphs.append(
        "The spread is the distance between the quartiles of the block medians, relative to "
        "their median: differences between engines that are smaller than it mean nothing."
    )
    if config.cold_starts:
        paragraphs.append(
            f"Start (to the first label map, files in the page cache) and peak memory are those of "
            f"fresh processes, medians of {config.cold_starts}."
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
    """Name and value of what is known of the machine."""
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
