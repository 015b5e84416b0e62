"""Container health check: read a stream's ``--metrics`` and exit with 0 (healthy) or 1.

The rule is that of the service's watchdog: while a source delivers frames, the number of segmented
frames must grow; a stream that is waiting for all of its sources is healthy.
"""

import sys
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def look(url: str) -> tuple[float, bool]:
    """Return the number of segmented frames and whether any source delivers frames."""
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
    """Return 0 if the stream is healthy, otherwise 1."""
    before, sending = look(url)
    time.sleep(float(seconds))
    after, still = look(url)
    if after > before or not (sending and still):
        return 0
    print(f"no frame in {seconds} s, though a source sends")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
