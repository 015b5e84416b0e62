"""The thread that opens, reads and closes a source.

A live source is reconnected indefinitely::

    starting → ok ⇄ stalled → reconnecting → ok …      (a live source)
    starting → ok → ended                              (a file, pictures)

Stalls are detected with our own monotonic clock, because OpenCV returns old frames with
``ok=True`` after a read that timed out.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import replace

from edgeseg.artifacts.documents import plural
from edgeseg.errors import AuthFailed, EdgesegError, OpenFailed, SourceError, SourceLost
from edgeseg.sources.capture import Frames, open_frames
from edgeseg.sources.decoding import device_for
from edgeseg.sources.packets import PacketTap
from edgeseg.sources.places import FramePosition
from edgeseg.sources.spec import SourceSpec
from edgeseg.stream.result import State, StreamResult
from edgeseg.stream.slots import Slot

logger = logging.getLogger(__name__)

_TIMED_OUT = 0.95
"""Share of the read time-out after which a read counts as timed out."""


class Reader:
    """Reads one source in its own thread.

    Args:
        realtime: Keep only the newest frame and play files at their own rate; otherwise deliver
            every frame and wait for the consumer.
        strict: Treat a file that ends before its declared end as an error.
        persistent: Retry a live source that cannot be opened the first time, like one whose
            connection was lost. Rejected credentials are final even so, because cameras lock
            out clients that keep trying.
        index: Number of the source in the stream.
        changed: Condition that the reader's slot notifies; several readers may share it.

    Attributes:
        error: Why the source failed or could not be opened yet; None once a frame arrived.
        taken: Number of segmented frames, counted by the stream.
        decoder: Device that decodes, or ``cpu``; None before the first frame, and for a source
            that is not decoded by PyAV.
        packets: Compressed packets of a network camera, see :meth:`offer_packets`.
    """

    def __init__(
        self,
        spec: SourceSpec,
        *,
        realtime: bool,
        strict: bool = False,
        persistent: bool = False,
        index: int = 0,
        changed: threading.Condition | None = None,
    ) -> None:
        self.spec = spec
        self.index = index
        self.label = spec.label
        self.live = spec.live
        self.realtime = realtime
        self.fps: float | None = None
        self.declared: int | None = None
        self.error: EdgesegError | None = None
        self.reconnects = 0
        self.bad_frames = 0
        self.taken = 0
        self.decoder: str | None = None
        self.packets: PacketTap | None = None
        self._strict = strict
        self._persistent = persistent
        self._limits = limits = spec.limits
        self.slot = Slot(1 if realtime else limits.queued, newest_wins=realtime, changed=changed)
        self._state: State = "starting"
        self._moving = threading.Lock()
        self._stopping = threading.Event()
        self._count = 0
        self._damaged = 0
        self._first_damaged = 0
        self._waiting_since: float | None = None
        self._waited = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"edgeseg reader of {spec.label}", daemon=True
        )

    def offer_packets(self) -> None:
        """Offer the compressed packets to outputs; not if they show what must not be seen."""
        self.packets = PacketTap()
        self.spec = replace(self.spec, packets=self.packets)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether any frame has arrived."""
        return self._count > 0

    @property
    def state(self) -> State:
        """Current state of the source."""
        self.watch()
        return self._state

    @property
    def over(self) -> bool:
        """Whether no more frames will arrive; some may still be queued."""
        return self._state in ("ended", "failed")

    @property
    def dropped(self) -> int:
        """Number of frames replaced by a newer one before they were taken."""
        return self.slot.dropped

    def reset_drops(self) -> None:
        """Reset the count of dropped frames."""
        self.slot.reset_drops()

    def stop(self) -> None:
        """Stop reading, without waiting for the current read."""
        self._stopping.set()
        self.slot.close(discard=True)

    def close(self, timeout: float = 0.25) -> bool:
        """Stop reading; return whether the thread ended. A blocked read may still return later."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self.spec.live:
                self._read_for_ever()
            else:
                self._read_to_the_end()
        except EdgesegError as error:
            self._fail(error)
        except Exception as error:
            logger.debug("the reader failed", exc_info=True)
            self._fail(
                SourceError(f"{self.spec.label}: the reader failed ({type(error).__name__})")
            )
        finally:
            self.slot.close()

    def _fail(self, error: EdgesegError) -> None:
        self.error = error
        self._move("failed")
        if self._persistent:  # not raised while other sources continue
            logger.error("%s", error.message)

    def _read_to_the_end(self) -> None:
        frames = self._session()
        if self._stopping.is_set():
            return
        if not self._count:
            raise OpenFailed(
                f"{self.spec.label}: no frame can be read",
                hint="check that it plays elsewhere, or copy it again",
            )
        self._report_damage(frames)
        self._move("ended")

    def _report_damage(self, frames: Frames) -> None:
        """Log how much of the file could not be read.

        Raises:
            SourceLost: With ``strict``, part of the file could not be read.
        """
        self.declared = frames.declared
        self.bad_frames = frames.unreadable
        if not frames.unreadable and not self._damaged:
            return
        found = f"{self._count} of {plural(self._count + frames.unreadable, 'frame')} could be read"
        if self._damaged:
            found += f", {self._damaged} of them with errors (the first is {self._first_damaged})"
        if self._strict:
            raise SourceLost(
                f"{self.spec.label}: {found}; it is truncated or corrupt",
                hint="copy it again; without --strict the stream takes what can be read",
            )
        logger.warning("%s: %s; it is truncated or corrupt", self.spec.label, found)

    def _read_for_ever(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            before = self._count
            why = self._attempt()
            if self._stopping.is_set():
                return
            self._move("reconnecting", why)
            failures = 0 if self._count > before else failures + 1
            self._stopping.wait(self._delay(failures))

    def _attempt(self) -> str:
        """Connect and read until no more frames arrive; return the reason it ended."""
        self._waited = 0.0
        try:
            self._survive_session()
            if not self._count and not self._stopping.is_set():
                raise OpenFailed(
                    f"{self.spec.label}: opened, but no frame came",
                    hint="check that the camera sends pictures",
                )
        except SourceError as error:
            final = not self._persistent or isinstance(error, AuthFailed)
            if final and not self._count:
                raise
            self.error = None if self._count else error
            return error.message
        if self._waited >= _TIMED_OUT * self._limits.read_s:
            return f"no frame for {self._waited:.1f} s"
        return "the connection ended"

    def _survive_session(self) -> None:
        """Run a session, and turn unexpected errors into SourceError so that it reconnects.

        Raises:
            SourceError: The source could not be opened, or an unexpected error occurred.
        """
        try:
            self._session()
        except SourceError:
            raise
        except Exception as error:  # MemoryError, too: the next frame may fit again
            logger.debug("the reader failed", exc_info=True)
            raise SourceError(
                f"{self.spec.label}: the reader failed ({type(error).__name__})"
            ) from error

    def _delay(self, failures: int) -> float:
        waits = self._limits.backoff_s
        jitter = random.uniform(-1, 1) * self._limits.jitter
        return waits[min(failures, len(waits) - 1)] * (1 + jitter)

    def _session(self) -> Frames:
        """Open the source, read until no more frames arrive, and close it."""
        frames = open_frames(self.spec)
        try:
            self.fps = frames.fps
            self.declared = None if self.live else frames.declared
            self._pump(frames)
        finally:
            frames.close()
        return frames

    def _pump(self, frames: Frames) -> None:
        pace = _Pace(frames.fps or 25.0) if self.realtime and not self.spec.live else None
        while not self._stopping.is_set():
            start = time.monotonic()
            self._waiting_since = start
            image = frames.read()
            took = time.monotonic() - start
            self._waiting_since = None
            self.bad_frames = frames.unreadable
            # After a time-out OpenCV may return the previous frame again as if it were new.
            if image is None or (took >= _TIMED_OUT * self._limits.read_s and self._may_repeat):
                self._waited = took
                return
            self._note_decoder(frames.decoder)
            place = frames.place or FramePosition(self._count)
            if pace is not None:
                pace.wait(place.media_time, self._stopping)
            frame = StreamResult(
                index=place.index,
                source=self.label,
                frame=image,
                captured_at=frames.captured_at or time.monotonic(),
                camera=self.index,
                name=frames.name,
                media_time=place.media_time,
                damaged=place.damaged,
                stages_ms={"capture": took * 1000},
            )
            self._deliver(frame)

    def _note_decoder(self, decoder: str | None) -> None:
        """Log which device decodes, or that it does not, when that becomes known or changes."""
        before, self.decoder = self.decoder, decoder
        if decoder is None and self.spec.decode == "auto":  # no reason to import PyAV
            return
        device = device_for(self.spec.decode)
        if device is None or (self._count and decoder == before):
            return
        level = logging.INFO if self.spec.decode == "auto" else logging.WARNING
        if decoder == device:
            logger.info("%s: decoded by %s", self.label, device)
        elif decoder is None:
            logger.log(level, "%s: not decoded by %s: not read by PyAV", self.label, device)
        else:
            logger.log(level, "%s: decoded by the CPU: %s cannot decode it", self.label, device)

    @property
    def _may_repeat(self) -> bool:
        """Whether a read that timed out may return an old frame."""
        return self.spec.live and self.spec.kind != "own"

    def _deliver(self, frame: StreamResult) -> None:
        self._count += 1
        if frame.damaged:
            self._first_damaged = self._first_damaged if self._damaged else frame.index
            self._damaged += 1
        self.error = None
        if self._state != "ok":
            self._move("ok", f"{frame.frame.shape[1]}x{frame.frame.shape[0]}")
        frame.reconnects = self.reconnects
        self.slot.put(frame)

    def watch(self) -> None:
        """Check for a stall; to be called regularly."""
        since = self._waiting_since
        if not self.spec.live or self._state != "ok" or since is None:
            return
        if time.monotonic() - since >= self._limits.stalled_s:
            self._move("stalled", f"no frame for {self._limits.stalled_s:g} s", only_from="ok")

    def _move(self, state: State, why: str = "", only_from: State | None = None) -> None:
        """Change the state and log the change."""
        with self._moving:
            before = self._state
            if before == state or only_from not in (None, before):
                return
            self._state = state
            self.reconnects += before == "reconnecting" and state == "ok" and self._count > 1
        if state != "failed":  # raised, and reported there
            level = logging.WARNING if state in ("stalled", "reconnecting") else logging.INFO
            logger.log(level, "%s: %s%s", self.spec.label, state, f" ({why})" if why else "")


class _Pace:
    """Plays frames of a file at their presentation times."""

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._due = time.monotonic()
        self._shown: float | None = None

    def wait(self, media_time: float | None, stopping: threading.Event) -> None:
        """Wait until the frame of ``media_time`` is due; None means one interval later."""
        if self._shown is not None:
            step = self._interval if media_time is None else media_time - self._shown
            # Restart the clock after a delay, or the backlog would be played in a burst.
            self._due = max(self._due + step, time.monotonic())
        self._shown = media_time if media_time is not None else self._shown or 0.0
        left = self._due - time.monotonic()
        if left > 0:
            stopping.wait(left)
