"""Send alerts by HTTP POST in a separate thread, so that a dead receiver never slows the stream."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from edgeseg import __version__
from edgeseg.artifacts.documents import plural
from edgeseg.errors import UsageError
from edgeseg.stream.sinks.health import SinkReport

logger = logging.getLogger(__name__)

SIGNATURE = "X-Edgeseg-Signature"
SECRET_VARIABLE = "EDGESEG_WEBHOOK_SECRET"
"""Environment variable from which the command line takes the secret."""

_LATER = frozenset({408, 425, 429})
"""Refusals that say: not now (RFC 9110, RFC 8470, RFC 6585)."""


@dataclass(frozen=True)
class RetryLimits:
    """Retry limits of a webhook.

    Attributes:
        timeout_s: Time-out for connecting and for each read of the response.
        backoff_s: Seconds to wait before the second, third, … attempt; the last repeats.
        places: Maximum number of queued events; beyond it the oldest is dropped and counted.
        close_s: Seconds to wait for pending deliveries when the stream ends.
    """

    timeout_s: float = 5.0
    backoff_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    places: int = 100
    close_s: float = 0.5


class Webhook:
    """Posts JSON documents to a URL, in order.

    An answer of 2xx is a delivery. 5xx, 408, 425, 429, a time-out or no connection is tried
    again and again; any other answer, redirects included, is not. Certificates are verified.

    With a secret each request carries ``X-Edgeseg-Signature: sha256=HEX``: the HMAC-SHA256
    (RFC 2104) of the body. A document may come twice, when its answer got lost.

    Args:
        url: ``http://…`` or ``https://…``; user and password in it are sent as Basic
            credentials. Only its scheme and host are ever logged.
        secret: Key of the signature.
        patience: Limits.

    Raises:
        UsageError: It is not such a URL.

    Attributes:
        label: Name of the webhook in logs.
        delivered: Events that were accepted.
        lost: Events that were refused, pushed out, or not delivered at the end.
    """

    def __init__(
        self, url: str, secret: str | None = None, patience: RetryLimits | None = None
    ) -> None:
        parts = _checked(url)
        host = parts.netloc.rpartition("@")[2]
        self.label = f"the webhook at {parts.scheme}://{host}"
        self.delivered = 0
        self.lost = 0
        self._patience = patience or RetryLimits()
        self._secret = secret
        self._url = parts._replace(netloc=host, fragment="").geturl()
        self._authorization = _basic(parts)
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._why: str | None = None
        self._last: str | None = None
        self._errors = 0
        self._thread = threading.Thread(target=self._run, name="edgeseg webhook", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, document: Mapping[str, Any]) -> None:
        """Queue a JSON document for posting; never blocks."""
        body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        with self._changed:
            if len(self._waiting) >= self._patience.places:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(body)
            self._changed.notify_all()

    def report(self) -> SinkReport:
        """Return the current status; callable from any thread."""
        return SinkReport(
            name=self.label,
            kind="Webhook",
            state="ok" if self._why is None else "failed",
            written=self.delivered,
            lost=self.lost,
            skipped=0,
            errors=self._errors,
            error=self._last,
        )

    def close(self) -> None:
        """Deliver what can be delivered at once; the rest is counted and logged."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(self._patience.close_s)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()
        if self.lost:
            logger.error("%s: %s could not be delivered", self.label, plural(self.lost, "alert"))

    def _run(self) -> None:
        verified = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        opener = urllib.request.build_opener(verified, _NoRedirect)
        failures = 0
        while (body := self._first()) is not None:
            why, again = self._attempt(opener, body)
            self._why, self._last = why, why or self._last
            self._errors += why is not None
            if why is not None and again:
                if not failures:
                    logger.warning("%s: %s; it is tried again", self.label, why)
                failures += 1
                if not self._wait(failures):
                    return
                continue
            if why is not None:
                logger.error("%s: %s; the alert is lost", self.label, why)
            elif failures:
                logger.info("%s: delivers again", self.label)
            failures = 0
            self._done(body, delivered=why is None)

    def _first(self) -> bytes | None:
        """The event that waited longest; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting[0] if self._waiting else None

    def _done(self, body: bytes, *, delivered: bool) -> None:
        with self._changed:
            # While it was under way it may have been pushed out, and counted as lost.
            if self._waiting and self._waiting[0] is body:
                self._waiting.popleft()
                self.lost += not delivered
            elif delivered:
                self.lost -= 1
            self.delivered += delivered

    def _wait(self, failures: int) -> bool:
        """Until the next attempt; False when there will be none."""
        waits = self._patience.backoff_s
        with self._changed:
            return not self._changed.wait_for(
                lambda: self._closing, waits[min(failures, len(waits)) - 1]
            )

    def _attempt(
        self, opener: urllib.request.OpenerDirector, body: bytes
    ) -> tuple[str | None, bool]:
        """Why it failed, None if it did not; and whether to try again."""
        request = urllib.request.Request(self._url, body, self._headers(body), method="POST")
        try:
            with opener.open(request, timeout=self._patience.timeout_s):
                return None, False
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answered {error.code}", error.code >= 500 or error.code in _LATER
        except urllib.error.URLError as error:
            return _reason(error.reason), True
        except (OSError, http.client.HTTPException) as error:
            return _reason(error), True

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"edgeseg/{__version__}"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body)
        return headers


def signature(secret: str, body: bytes) -> str:
    """What the header says of a body; receivers compare with :func:`hmac.compare_digest`."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the alert."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _reason(error: BaseException | str) -> str:
    """Without the library's own words, which may hold the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate cannot be verified"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return f"no connection ({type(error).__name__})"


def _checked(url: str) -> SplitResult:
    hint = "write https://host/path; percent-encode a password with : / ? # or @"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    # What Python's HTTP client refuses, and would show while refusing.
    if not fits or not url.isascii() or any(each <= " " or each == "\x7f" for each in url):
        raise UsageError("the webhook is not an http:// or https:// URL", hint=hint)
    if "@" in parts.path + parts.query + parts.fragment and ":" in parts.netloc:
        raise UsageError("the webhook's URL has an '@' after its host", hint=hint)
    return parts


def _basic(parts: SplitResult) -> str | None:
    """Credentials of the URL as RFC 7617 sends them."""
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None
    return "Basic " + base64.b64encode(unquote(userinfo).encode()).decode()
