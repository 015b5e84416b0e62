"""Large archives through one engine on many workers: resumable, and no file ends the run.

===============  ===========================================================================
``units.py``     what there is to do: pictures, and videos in ranges of frames
``work.py``      the job as every worker gets it, and one unit through it; no cluster in it
``journal.py``   what is done, kept in the output folder; what of it still holds
``videos.py``    exact ranges of frames
``cluster.py``   the only module that imports Ray: actors, their deaths, outcomes as they come
``run.py``       all of it, in the order in which it happens
``summary.py``   totals and tables
===============  ===========================================================================
"""

from __future__ import annotations

from edgeseg.archive.run import ArchiveConfig, segment_archive
from edgeseg.archive.summary import Summary

__all__ = ["ArchiveConfig", "Summary", "segment_archive"]
