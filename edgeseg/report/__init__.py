"""Render JSON documents of edgeseg as a single-page report.

::

    write_report(Path("report.html"), title="nuclei", bench=document, machine={}, …)

The HTML page is self-contained: no script, nothing loaded from elsewhere, light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeseg.artifacts.files import write_atomic
from edgeseg.benchmark.budget import Recommendation
from edgeseg.benchmark.document import read_bench
from edgeseg.data.panels import WorstPictures
from edgeseg.errors import UsageError
from edgeseg.machine import Machine
from edgeseg.report.contents import Contents, Picture, StreamSummary, TrainingSummary, read_part
from edgeseg.report.html import fit
from edgeseg.report.markdown import render_markdown_page
from edgeseg.report.sections import page_of
from edgeseg.report.tree import Page

__all__ = ["Picture", "WorstPictures", "check_report", "write_report"]


def write_report(  # noqa: PLR0913 - each argument is a section of the page
    path: Path,
    *,
    title: str,
    bench: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    stream: Mapping[str, Any] | None = None,
    pictures: Sequence[Picture] = (),
    worst: WorstPictures | None = None,
    machine: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> None:
    """Write a report with a section for each part given.

    Args:
        path: ``*.html`` for a page with plots and pictures, ``*.md`` for text and tables alone.
        bench: Output of :meth:`edgeseg.benchmark.document.BenchReport.to_dict`; its
            ``recommendation``, if any, is shown.
        training: Training summary, see :class:`edgeseg.report.contents.TrainingSummary`.
        stream: Output of ``edgeseg stream --json``.
        pictures: PNG or JPEG files; made smaller where the page would pass 3 MB.
        worst: The worst pictures of one engine; their scores are the benchmark's.
        machine: Output of :meth:`edgeseg.machine.Machine.to_dict`; default: the benchmark's.
        commands: Command lines that produced the results.

    Raises:
        UsageError: Unknown suffix, too many pictures, or the file cannot be written.
        ArtifactError: A part is not valid, or a picture is neither PNG nor JPEG.
        RuntimeMissing: Matplotlib or Jinja are not installed (HTML only).
    """
    if check_report(path).suffix == ".html":
        pictures = fit(pictures)
    contents = Contents(
        title=title,
        bench=None if bench is None else read_bench(dict(bench), "the benchmark"),
        training=read_part(TrainingSummary, training, "the training summary"),
        stream=read_part(StreamSummary, stream, "the stream summary"),
        pictures=tuple(pictures),
        worst=worst,
        recommendation=read_part(
            Recommendation, (bench or {}).get("recommendation"), "the recommendation"
        ),
        machine=read_part(Machine, machine, "the machine"),
        commands=tuple(commands),
    )
    write_page(path, page_of(contents))


def check_report(path: Path) -> Path:
    """The path; raises UsageError unless it is .html or .md: before the work, not after."""
    path = Path(path)
    if path.suffix not in (".html", ".md"):
        raise UsageError(
            f"{path}: a report is .html or .md, not {path.suffix or 'without suffix'!r}"
        )
    return path


def write_page(path: Path, page: Page) -> None:
    """Render a report by the suffix of its file; raises as :func:`write_report`."""
    if check_report(path).suffix == ".html":
        from edgeseg.report.html import render_html

        write_atomic(path, render_html(page))
    else:
        write_atomic(path, render_markdown_page(page))
