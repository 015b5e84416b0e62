"""Whether frames leave a stream, by its ``--metrics``: exit 0 or 1, for ``HEALTHCHECK``.

The rule is that of the service's watchdog: while a source sends frames, their number must grow;
while all are waited for, nothing is wrong with the stream.
"""

from __future__ import annotations

import sys
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def look(url: str) -> tuple[float, bool]:
    """Frames segmented so far, and whether a source sends."""
    with urllib.request.urlopen(url, timeout=3) as page:
        families = {
            each.name: each for each in text_string_to_metric_families(page.read().decode())
        }
    states = families["edgeseg_source_state"].samples
    return (
        sum(each.value for each in families["edgeseg_frames"].samples if "total" in each.name),
        any(each.value for each in states if each.labels["state"] == "ok"),
    )


def main(url: str = "http://127.0.0.1:9100/metrics", seconds: str = "5") -> int:
    """0: all is well."""
    before, sending = look(url)
    time.sleep(float(seconds))
    after, still = look(url)
    if after > before or not (sending and still):
        return 0
    print(f"no frame in {seconds} s, though a source sends")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
