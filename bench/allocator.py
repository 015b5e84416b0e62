"""Measure what keeping freed memory saves a training on a CPU.

    python bench/allocator.py

Each sample is a process of its own that trains a `unet-lite` of width 16 on 8 pictures of 256x256
in bfloat16, with one thread. Processes with and without the setting take turns.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

from harness import circumstances, command_line, medians, turns, words, write_json

from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).with_name("results") / "training" / "allocator.json"
CASES = ("as it is", "freed memory kept")
STEPS, WARM_UP = 6, 2
MIB = 1024


def main() -> None:
    """Measure, print Markdown, write JSON."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of processes per case")
    parser.add_argument("--one", choices=CASES, help="measure one case in this process")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the results")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(sample(keep=options.one == CASES[1])))
        return
    samples: dict[str, list[dict[str, float | None]]] = {case: [] for case in CASES}
    for _, case in turns(CASES, options.rounds):
        command = [sys.executable, __file__, "--one", case]
        samples[case].append(json.loads(subprocess.check_output(command)))
    found = {case: medians(rows) for case, rows in samples.items()}
    document = {
        "schema": "edgeseg.allocator/1",
        **circumstances(),
        "rounds": options.rounds,
        "a_step": found,
    }
    write_json(options.out, document)
    columns = (
        *words("Allocator"),
        Column("CPU time a step", "s"),
        Column("Page faults a step", ""),
        Column("Memory", "MiB"),
    )
    rows = tuple(
        (case, f"{row['cpu_s']:.2f}", f"{row['page_faults']:.0f}", f"{row['peak_mib']:.0f}")
        for case, row in found.items()
    )
    print(render_markdown(Table(columns, rows)))


def sample(*, keep: bool) -> dict[str, float]:
    """CPU seconds and page faults of a step, and the largest memory of the process."""
    import torch

    from edgeseg.cli.allocator import keep_freed_memory
    from edgeseg.models import build

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build("unet-lite", 11, 3, width=16).train()
    pictures, labels = torch.randn(8, 3, 256, 256), torch.randint(0, 11, (8, 256, 256))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for step in range(STEPS):
        if step == WARM_UP:
            before = resource.getrusage(resource.RUSAGE_SELF)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pictures)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = resource.getrusage(resource.RUSAGE_SELF)
    steps = STEPS - WARM_UP
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu_s": cpu / steps,
        "page_faults": (after.ru_minflt - before.ru_minflt) / steps,
        "peak_mib": after.ru_maxrss / MIB,
    }


if __name__ == "__main__":
    main()
