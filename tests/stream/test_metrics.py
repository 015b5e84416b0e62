"""Prometheus's own parser reads what is served."""

import socket
import threading
import urllib.request
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from streaming import StillSource

from edgeseg.engines.base import Engine
from edgeseg.errors import OutputError
from edgeseg.stream import Stream, StreamOptions
from edgeseg.stream.sinks.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(metrics: Metrics) -> Samples:
    url = f"http://127.0.0.1:{metrics.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    engine = {"name": "model.int8.onnx", "runtime": "onnxruntime", "precision": "int8"}
    served = Metrics("127.0.0.1", 0, engine, ("background", "bright"))
    yield served
    served.close()


def test_counts_of_sources_are_as_they_stand_when_asked(metrics: Metrics) -> None:
    one, other = StillSource("rtsp://u:***@cam/1"), StillSource("camera:1", index=1)
    metrics.open([one, other])
    label = (("camera", "1"), ("source", "camera:1"))
    assert scrape(metrics)["edgeseg_frames_total", label] == 0
    other.taken, other.dropped, other.bad_frames, other.reconnects = 7, 5, 3, 2
    other.state = "stalled"
    samples = scrape(metrics)
    figures = ("frames", "dropped_frames", "bad_frames", "reconnects")
    assert [samples[f"edgeseg_{name}_total", label] for name in figures] == [7, 5, 3, 2]
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in samples.items()
        if name == "edgeseg_source_state" and dict(labels)["source"] == "camera:1"
    }
    assert states.pop("stalled") == 1
    assert set(states.values()) == {0}
    assert samples["edgeseg_frames_total", (("camera", "0"), ("source", one.label))] == 0


def test_two_sources_of_one_label_are_told_apart(metrics: Metrics) -> None:
    metrics.open([StillSource("test:"), StillSource("test:", index=1, taken=3)])
    url = f"http://127.0.0.1:{metrics.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if "{" in line]
    series = [line.rpartition(" ")[0] for line in lines]
    assert len(series) == len(set(series))
    samples = scrape(metrics)
    counts = [
        samples["edgeseg_frames_total", (("camera", n), ("source", "test:"))] for n in ("0", "1")
    ]
    assert counts == [0, 3]


def test_shares_of_a_source_that_is_lost_are_not_told(metrics: Metrics, engine: Engine) -> None:
    source = StillSource("test:64x48?frames=1")
    metrics.open([source])
    (result,) = Stream("test:64x48?frames=1", engine, StreamOptions(realtime=False))
    metrics.write(result)
    shares = [name for name, _ in scrape(metrics) if name == "edgeseg_class_share"]
    assert len(shares) == 2
    source.state = "stalled"
    assert not any(name == "edgeseg_class_share" for name, _ in scrape(metrics))


def test_results_fill_the_histograms(metrics: Metrics, engine: Engine) -> None:
    metrics.open([StillSource("test:64x48?frames=5", realtime=False)])
    results = list(Stream("test:64x48?frames=5", engine, StreamOptions(realtime=False)))
    for result in results:
        metrics.write(result)
    samples = scrape(metrics)
    label = (("camera", "0"), ("source", "test:64x48?frames=5"))
    assert samples["edgeseg_frame_age_seconds_count", label] == 5
    total = sum(result.age_ms for result in results) / 1000
    assert samples["edgeseg_frame_age_seconds_sum", label] == pytest.approx(total)
    assert samples["edgeseg_stage_seconds_count", (("stage", "infer"),)] == 5
    assert samples["edgeseg_flicker_share_count", label] == 3
    flickered = sum(result.flicker or 0 for result in results)
    assert samples["edgeseg_flicker_share_sum", label] == pytest.approx(flickered)
    bright = samples["edgeseg_class_share", (label[0], ("class", "bright"), label[1])]
    assert bright == pytest.approx(results[-1].mask().mean())
    assert any(name == "process_resident_memory_bytes" for name, _ in samples)
    info = [dict(labels) for name, labels in samples if name == "edgeseg_engine_info"]
    assert any(name == "edgeseg_build_info" for name, _ in samples)
    assert info == [{"name": "model.int8.onnx", "runtime": "onnxruntime", "precision": "int8"}]


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port} is already in use") as failed:
            Metrics("127.0.0.1", port).open([StillSource()])
    assert f"--metrics 127.0.0.1:{port + 1}" in str(failed.value.hint)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 200),
        ({"Host": "edge.example.org"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Accept": "application/openmetrics-text; version=1.0.0"}, 200),
        ({"Accept": "text/plain; version=x.y"}, 200),
    ],
)
def test_who_may_scrape(asked: dict[str, str], status: int) -> None:
    served = Metrics("127.0.0.1", 0, hosts=["Edge.example.org"])
    served.open([StillSource()])
    try:
        url = f"http://127.0.0.1:{served.port}/metrics"
        answer = httpx.get(url, headers=asked)
        assert answer.status_code == status
        assert ("edgeseg_frames_total" in answer.text) == (status == 200)
        assert answer.headers["connection"] == "close"
        assert httpx.post(url, content=b"x").status_code == 405
        assert httpx.get(url.removesuffix("metrics")).status_code == 404
    finally:
        served.close()


def test_idle_connections_start_no_threads_and_keep_no_probe_out(metrics: Metrics) -> None:
    metrics.open([StillSource()])
    before = set(threading.enumerate())
    idle = [socket.create_connection(("127.0.0.1", metrics.port)) for _ in range(100)]
    assert scrape(metrics)
    assert set(threading.enumerate()) <= before
    for each in idle:
        each.close()


def test_closing_frees_the_port_and_the_thread() -> None:
    before = set(threading.enumerate())
    served = Metrics("127.0.0.1", 0)
    served.open([StillSource()])
    served.close()
    served.close()
    assert set(threading.enumerate()) <= before
    socket.create_server(("127.0.0.1", served.port)).close()
