"""Segment large archives with many workers. Runs are resumable and survive bad files.

===============  ===========================================================================
``units.py``     units of work: pictures, and ranges of video frames
``work.py``      the job description, and processing of one unit; independent of Ray
``journal.py``   the record of finished units in the output folder, for resuming
``videos.py``    exact ranges of video frames
``cluster.py``   the only module that imports Ray: actors, crashes, streaming of outcomes
``run.py``       the entry point, which runs all steps in order
``summary.py``   totals and tables of results
===============  ===========================================================================
"""

from __future__ import annotations

from edgeseg.archive.run import ArchiveConfig, Summary, segment_archive

__all__ = ["ArchiveConfig", "Summary", "segment_archive"]
