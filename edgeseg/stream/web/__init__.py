"""The web view: a page with the live picture of each source, for any browser."""

from __future__ import annotations

from edgeseg.stream.web.status import About
from edgeseg.stream.web.view import WebLimits, WebView

__all__ = ["About", "WebLimits", "WebView"]
