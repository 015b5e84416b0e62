"""Files of an HLS playlist (RFC 8216): which ones are ours, and how FFmpeg names them."""

from __future__ import annotations

import re
import time
from pathlib import Path

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.stream.sinks.encoded import Muxer
from edgeseg.stream.sinks.files import Claim, make_folder, write_refusal

SEGMENT_S = 1
LISTED = 10
"""Segments in the playlist."""

_UNLISTED = 5
"""Segments that are kept beside those, for players that have read an older playlist."""

_LARGEST = 1 << 20
"""Bytes of a playlist; a larger one is none of ours."""


class Playlist:
    """A playlist of fragmented MP4 segments that is ours to write.

    Segments are named ``STEM-hls-NUMBER.m4s`` and their common beginning ``STEM-hls-NUMBER.mp4``.
    Numbers follow the clock, so that players tell those of the next run from those of this one.
    Files of an earlier run are removed.

    Args:
        path: Path of the playlist; its folder is created if missing.
        overwrite: Replace a playlist that no stream has written.

    Attributes:
        muxer: The muxer of FFmpeg that writes it.
        url: What FFmpeg opens.

    Raises:
        UsageError: There is such a playlist, something else, or a symbolic link.
        OutputError: The disk is full or gone, or another stream writes the playlist.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        make_folder(path.parent)
        self._path = path
        self._name = re.compile(rf"{re.escape(path.stem)}-hls-(\d{{1,18}})\.(m4s|mp4)", re.ASCII)
        try:
            self._check(overwrite)
            number = max(int(time.time()), self._clear() + 1)
            first = path.with_name(f"{path.stem}-hls-{number}.mp4")
            self._claim = Claim(first)
        except OSError as error:
            raise write_refusal(path, error) from error
        folder = str(path.parent.absolute())
        self.url = f"{folder}/{path.name}"  # absolute, so no protocol of FFmpeg
        self.muxer = Muxer(
            "hls",
            {
                "hls_time": str(SEGMENT_S),
                "hls_list_size": str(LISTED),
                "hls_delete_threshold": str(_UNLISTED),
                "hls_flags": "delete_segments+independent_segments+program_date_time+temp_file",
                "hls_segment_type": "fmp4",
                "hls_fmp4_init_filename": first.name,
                "hls_segment_filename": f"{folder}/{path.stem}-hls-%d.m4s",
                "start_number": str(number),
            },
            holds=True,  # FFmpeg begins a segment where the last one's duration ends
        )

    def close(self) -> None:
        """Let another stream have it."""
        self._claim.close()

    def _check(self, overwrite: bool) -> None:
        if "%" in str(self._path.absolute()):
            raise UsageError(
                f"{printable(str(self._path))}: the path of a playlist contains no '%'",
                hint="choose another path",
            )
        if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
            raise UsageError(
                f"{printable(str(self._path))} is not a file", hint="name the playlist itself"
            )
        if not overwrite and self._path.exists() and not self._is_ours():
            raise UsageError(
                f"{printable(str(self._path))} is not a playlist of a stream, and would be lost",
                hint="choose another path, or add --overwrite",
            )

    def _is_ours(self) -> bool:
        with self._path.open("rb") as file:
            lines = file.read(_LARGEST).decode("utf-8", "replace").splitlines()
        named = [line for line in lines if line and not line.startswith("#")]
        named += re.findall(r'URI="([^"]*)"', "\n".join(lines))
        return lines[:1] == ["#EXTM3U"] and all(map(self._name.fullmatch, named))

    def _clear(self) -> int:
        """Remove the playlist and its files, and return the largest number; 0 if there are none.

        A stream holds the beginning of its segments as long as it writes.
        """
        found = {each: self._name.fullmatch(each.name) for each in self._path.parent.iterdir()}
        ours = {each: match for each, match in found.items() if match}
        for each in ours:
            if each.suffix == ".mp4":
                Claim(each, overwrite=True).close()
        for each in (self._path, *ours):
            each.unlink(missing_ok=True)
        return max((int(match[1]) for match in ours.values()), default=0)
