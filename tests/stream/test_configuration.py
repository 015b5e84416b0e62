"""``edgeseg stream --config`` and ``--write-config``: one file for all options of the command."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.cli import make_app
from edgeseg.cli.configuration import _toml
from edgeseg.errors import UsageError
from edgeseg.sources.credentials import require_private

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

APART = {"help", "config", "write-config", "overwrite"}

# An option → what the command line is given, and what a file then holds.
GIVEN: dict[str, tuple[list[str], object]] = {
    "engine": (["net.onnx"], "{here}/net.onnx"),
    "camera": (["--camera", "0", "--camera", "2"], [0, 2]),
    "source": (
        ["--source", "clip.mkv", "--source", "rtsp://u:hunter2@h/live", "--source", "test:"],
        ["{here}/clip.mkv", "rtsp://u:hunter2@h/live", "test:"],
    ),
    "size": (["--size", "640x480"], "640x480"),
    "fps": (["--fps", "30"], 30.0),
    "credentials": (["--credentials", "/etc/cameras"], "/etc/cameras"),
    "ca": (["--ca", "ca.pem"], "{here}/ca.pem"),
    "insecure-camera": (["--insecure-camera", "front:322"], ["front:322"]),
    "decode": (["--decode", "cpu"], "cpu"),
    "max-pixels": (["--max-pixels", "9000000"], 9000000),
    "blur": (["--blur", "face,car", "--blur", "bus"], ["face,car", "bus"]),
    "pixelate": (["--pixelate", "sign"], ["sign"]),
    "blur-margin": (["--blur-margin", "4"], 4),
    "blur-hold": (["--blur-hold", "1.5"], 1.5),
    "cover": (
        ["--cover", "a b.json", "--cover", "/z.json on 1"],
        ["{here}/a b.json", "/z.json on 1"],
    ),
    "record": (["--record", "a b.mkv"], "{here}/a b.mkv"),
    "record-raw": (["--record-raw", "raw.mkv"], "{here}/raw.mkv"),
    "codec": (["--codec", "hevc"], "hevc"),
    "record-minutes": (["--record-minutes", "0.5"], 0.5),
    "record-keep": (["--record-keep", "3"], 3),
    "rotate": (["--rotate", "100MB"], "100MB"),
    "rotate-minutes": (["--rotate-minutes", "60"], 60.0),
    "keep-bytes": (["--keep-bytes", "2GB"], "2GB"),
    "keep-days": (["--keep-days", "30"], 30.0),
    "save-masks": (["--save-masks", "masks"], "{here}/masks"),
    "keep-uncertain": (["--keep-uncertain", "doubt"], "{here}/doubt"),
    "per-hour": (["--per-hour", "7"], 7),
    "json-lines": (["--json-lines", "out/a.jsonl"], "{here}/out/a.jsonl"),
    "coloured-masks": (["--coloured-masks"], True),
    "min-region": (["--min-region", "0.25"], 0.25),
    "alert": (
        ["--alert", "Road > 2% in zone.json", "--alert", '"traffic sign" >= 3 regions'],
        ["Road > 2% in {here}/zone.json", '"traffic sign" >= 3 regions'],
    ),
    "alert-lines": (["--alert-lines", "alerts.jsonl"], "{here}/alerts.jsonl"),
    "alert-webhook": (["--alert-webhook", "https://h/hook"], "https://h/hook"),
    "alert-snapshots": (["--alert-snapshots", "seen"], "{here}/seen"),
    "alert-clips": (["--alert-clips", "clips"], "{here}/clips"),
    "clip-before": (["--clip-before", "2.5"], 2.5),
    "clip-after": (["--clip-after", "7"], 7.0),
    "clip-memory": (["--clip-memory", "64MB"], "64MB"),
    "clip-keep": (["--clip-keep", "50"], 50),
    "mqtt": (["--mqtt", "mqtts://u:hunter2@h/gate"], "mqtts://u:hunter2@h/gate"),
    "mqtt-ca": (["--mqtt-ca", "broker.pem"], "{here}/broker.pem"),
    "mqtt-every": (["--mqtt-every", "2.5"], 2.5),
    "mqtt-discovery": (["--no-mqtt-discovery"], False),
    "publish": (["--publish", "out/live.m3u8"], "{here}/out/live.m3u8"),
    "publish-ca": (["--publish-ca", "server.pem"], "{here}/server.pem"),
    "window": (["--no-window"], False),
    "web": (["--web", "0.0.0.0:8080"], "0.0.0.0:8080"),
    "web-token": (["--web-token", "t\"o\\k"], "t\"o\\k"),
    "web-host": (["--web-host", "a.local", "--web-host", "b.local"], ["a.local", "b.local"]),
    "metrics": (["--metrics", "9100"], "9100"),
    "ground-truth": (["--ground-truth", "truth"], "{here}/truth"),
    "opacity": (["--opacity", "0.3"], 0.3),
    "outline": (["--outline"], True),
    "names": (["--no-names"], False),
    "legend": (["--no-legend"], False),
    "realtime": (["--every-frame"], False),
    "mode": (["--mode", "throughput"], "throughput"),
    "lanes": (["--lanes", "2"], 2),
    "batch": (["--batch", "4"], 4),
    "tiles": (["--tiles"], True),
    "tile-margin": (["--tile-margin", "16"], 16),
    "smooth": (["--smooth", "0.2"], 0.2),
    "keep-trying": (["--keep-trying"], True),
    "max-frames": (["--max-frames", "100"], 100),
    "duration": (["--duration", "1.5"], 1.5),
    "strict": (["--strict"], True),
    "threads": (["--threads", "2"], 2),
    "json": (["--json"], True),
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without variables that stand for options."""
    monkeypatch.chdir(tmp_path)
    for name in ("EDGESEG_WEB_TOKEN", "EDGESEG_WEBHOOK_URL", "EDGESEG_PUBLISH_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def values(*arguments: str) -> dict[str, Any]:
    """What the command's function would be called with, save for the files' own options."""
    command = typer.main.get_command(make_app()).commands["stream"]  # type: ignore[attr-defined]
    with command.make_context("stream", list(arguments)) as context:
        found = dict(context.params)
    return {
        name: found[name] for name in found if name not in ("config", "write_config", "overwrite")
    }


def expected(value: object, here: Path) -> object:
    if isinstance(value, list):
        return [expected(each, here) for each in value]
    return value.replace("{here}", str(here)) if isinstance(value, str) else value


def config(text: str, mode: int = 0o600, name: str = "stream.toml") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_every_option_of_the_help_is_tried_here(edgeseg: Any) -> None:
    listed = set(re.findall(r"^  (?:-h, )?--([a-z-]+)", edgeseg("stream", "--help").out, re.M))
    assert listed - APART == GIVEN.keys() - {"engine"}


def test_all_options_go_to_a_file_and_back(edgeseg: Any, here: Path) -> None:
    arguments = [text for texts, _ in GIVEN.values() for text in texts]
    written = edgeseg("stream", *arguments, "--write-config", "a.toml")
    assert written.code == 0, written.err
    assert json.loads(written.out) == {"config": "a.toml"}
    wanted = {key: expected(value, here) for key, (_, value) in GIVEN.items()}
    assert tomllib.loads(Path("a.toml").read_text()) == wanted

    direct, through = values(*arguments), values("--config", "a.toml")
    assert direct.keys() == through.keys()
    for name, value in direct.items():
        if name in (
            "source",
            "alert",
            "cover",
            "publish",
        ):  # relative paths within texts became absolute
            continue
        same = here / value if isinstance(value, Path) else value
        assert through[name] == same, name


def test_comments_hold_the_defaults_and_the_help(edgeseg: Any) -> None:
    assert edgeseg("stream", "--write-config", "a.toml").code == 0
    text = Path("a.toml").read_text()
    assert tomllib.loads(text) == {}
    plain = values()
    for key, value in tomllib.loads(re.sub(r"^# ([a-z-]+ = )", r"\1", text, flags=re.M)).items():
        default = plain["as_json" if key == "json" else key.replace("-", "_")]
        assert default in (None, (), value), key
    assert "# Masks with the classes' colours as palette; values stay ids.\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = config('web-token = "file"\nopacity = 0.1\ncamera = [1, 2]\nwindow = false')
    found = values("--config", file, "--camera", "7", "--opacity", "0.2", "--window")
    assert (found["camera"], found["opacity"], found["window"]) == ([7], 0.2, True)
    assert found["web_token"] == "file"
    monkeypatch.setenv("EDGESEG_WEB_TOKEN", "environment")
    assert values("--config", file)["web_token"] == "environment"
    assert values("--config", file, "--web-token", "line")["web_token"] == "line"


def test_what_the_environment_says_stays_there(
    edgeseg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_WEB_TOKEN", "hunter2")
    outcome = edgeseg("stream", "--web", "8080", "--write-config", "a.toml")
    assert outcome.code == 0
    assert "hunter2" not in Path("a.toml").read_text() + outcome.out + outcome.err


def test_a_stream_runs_from_a_file_whose_paths_are_relative_to_it(
    edgeseg: Any, bright_network: Path, make_video: Callable[..., Path], here: Path
) -> None:
    make_video(5, name="clip.mkv")
    zone = {"polygons": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}
    (here / "etc").mkdir()
    (here / "etc" / "zone.json").write_text(json.dumps(zone))
    text = f"""
        engine = "{os.path.relpath(bright_network, here / "etc")}"
        source = ["../clip.mkv"]
        json-lines = "out/a.jsonl"
        alert = ["bright > 0% in zone.json"]
        alert-lines = "out/alerts.jsonl"
        window = false
        json = true
    """
    (here / "elsewhere").mkdir()
    file = config(text, 0o644, "etc/stream.toml")
    os.chdir("elsewhere")
    outcome = edgeseg("stream", "--config", f"../{file}", "--max-frames", "3")
    assert outcome.code == 0, outcome.err
    assert outcome.document["frames"] == 3
    assert (here / "etc/out/a.jsonl").read_text().count('{"frame"') == 3
    assert '"raised"' in (here / "etc/out/alerts.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        ('sorce = ["test:"]', 1, "unknown option 'sorce'", "write source; "),
        ("opacity = 0.1\n\nrecord_keep = 3", 3, "unknown option 'record_keep'", "record-keep;"),
        ("# no\nno-window = true", 2, "unknown option 'no-window'", "write window = false"),
        ("every-frame = true", 1, "unknown option 'every-frame'", "write realtime = false"),
        ("qqqqqqqq = 1", 1, "unknown option 'qqqqqqqq'", "--help lists"),
        ("config = 'a.toml'", 1, "unknown option 'config'", "--help lists"),
        ("opacity = 0.1\n[stream]\nopacity = 0.1", 2, "unknown option 'stream'", "no tables"),
        ("'rtsp://u:hunter2@h' = 1", 1, "a key in quotes", None),
        ("window = 1", 1, "window: Input should be a valid boolean, found 1", "window = true"),
        ("window = 'no'", 1, "window: Input should be a valid boolean", "window = true"),
        ("batch = true", 1, "batch: Input should be a valid integer, found true", "batch = 1"),
        ("batch = 2.0", 1, "batch: Input should be a valid integer, found 2.0", "batch = 1"),
        ("fps = '30'", 1, "fps: Input should be a valid number", "fps = 1.0"),
        ("web = 8080", 1, "web: expected text in quotes, found 8080", 'web = "8080"'),
        ("duration = 07:32:00", 1, "duration: Input should be a valid number", "duration ="),
        ("mode = {fast = true}", 1, "mode: Input should be 'latency' or", 'mode = "latency"'),
        ("source = 'test:'", 1, "source: Input should be a valid array", "source = ["),
        ("camera = [0, 'a']", 1, "camera: 1: Input should be a valid integer", "camera = [1]"),
        ("record = ''", 1, "record: no file can have this name", None),
        ("\nopacity = 3", 2, "opacity: ", None),
        ("camera = [-1]", 1, "camera: ", None),
        ("size = '640'", 1, "size: expected WIDTHxHEIGHT, e.g. 512x256, not '640'", None),
        ("mode = 'fast'", 1, "mode: Input should be 'latency' or 'throughput'", None),
        ("metrics = 'x:y:z'", 1, "metrics: expected [HOST:]PORT", None),
        ("alert = ['Road >']", 1, "alert: an alert's rule, character 7", None),
        ("source = ['ftp://u:hunter2@h/']", 1, "source: sources of the kind ftp", None),
        ("mqtt = 'mqtts://u:hun/ter2@h/'", 1, "mqtt: the broker is not an mqtt://", "percent-"),
        ("mqtt-every = -1", 1, "mqtt-every: ", None),
        ("source = ['rtsp://u:hun/ter2@h/']", 1, "source: rtsp://***", "percent-encode"),
        ('names = true\nweb-host = ["""\nlanes = 1"""]\nlanes = 0', 4, "lanes: ", None),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    text: str, line: int, says: str, hint: str | None, edgeseg: Any
) -> None:
    outcome = edgeseg("stream", "--config", config(text), "--json")
    assert outcome.code == 2, outcome.err
    error = outcome.document["error"]
    assert error["message"].startswith(f"stream.toml:{line}: ")
    assert says in error["message"]
    assert hint is None or hint in error["hint"]
    assert "hunter2" not in outcome.out + outcome.err
    assert "ter2" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"source = [", 2, "stream.toml: expected TOML: "),
        (b"names = true\nnames = true", 2, "stream.toml: expected TOML: "),
        (b"source = ['\xff']", 2, "not valid UTF-8"),
        (b"x = " + b"[" * 5000, 2, "stream.toml: expected TOML"),
        (b"#" * (1 << 20) + b"#", 2, "at most 1048576 bytes"),
        (None, 2, "stream.toml: no such file"),
    ],
    ids=["unfinished", "twice", "bytes", "deep", "large", "missing"],
)
def test_what_is_no_configuration(data: bytes | None, code: int, says: str, edgeseg: Any) -> None:
    if data is not None:
        Path("stream.toml").write_bytes(data)
    outcome = edgeseg("stream", "--config", "stream.toml", "--json")
    assert outcome.code == code
    assert says in outcome.document["error"]["message"]


@pytest.mark.parametrize(
    "text",
    [
        'source = ["rtsp://u:hunter2@h/"]',
        'source = ["gst:rtspsrc location=rtsp://u:hunter2@h/ ! fakesink"]',
        'web-token = "hunter2"',
        'alert-webhook = "https://h/hunter2"',
        'mqtt = "mqtts://u:hunter2@h/gate"',
        'publish = "rtmp://h/app/hunter2"',
    ],
)
def test_a_file_with_a_secret_that_others_may_read_is_refused(text: str, edgeseg: Any) -> None:
    for mode in (0o644, 0o640, 0o604):
        outcome = edgeseg("stream", "--config", config(text, mode), "--json")
        assert outcome.code == 2
        assert outcome.document["error"]["hint"] == "chmod 600 stream.toml"
        assert "hunter2" not in outcome.out + outcome.err
    assert values("--config", config(text, 0o600))
    assert edgeseg("stream", "--config", "stream.toml", "--write-config", "b.toml").code == 0
    assert stat.S_IMODE(Path("b.toml").stat().st_mode) == 0o600
    assert tomllib.loads(Path("b.toml").read_text()) == tomllib.loads(text)


def test_a_file_without_secrets_may_be_read_by_all(edgeseg: Any) -> None:
    text = 'source = ["rtsp://front/live"]\nalert = ["Road > 2%"]\ncredentials = "/etc/netrc"'
    assert values("--config", config(text, 0o644))
    outcome = edgeseg("stream", "--config", "stream.toml", "--write-config", "b.toml")
    assert outcome.code == 0
    assert Path("b.toml").stat().st_mode & 0o044


def test_a_credential_of_systemd_may_show_a_right_of_the_group(tmp_path: Path) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(handed)}
    inside, outside = handed / "cameras", tmp_path / "cameras"
    for path in (inside, outside):
        path.touch(0o440)
        path.chmod(0o440)
    require_private(inside, environ=environ)
    for path, variables in ((inside, {}), (outside, environ)):
        with pytest.raises(UsageError, match="mode 440"):
            require_private(path, environ=variables)
    for mode in (0o444, 0o460, 0o404):
        inside.chmod(mode)
        with pytest.raises(UsageError, match="others may read"):
            require_private(inside, environ=environ)


Values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@given(Values | st.lists(st.text()) | st.lists(st.integers(0, 99)))
def test_any_value_is_toml(value: object) -> None:
    assert tomllib.loads(f"a = {_toml(value)}\nb = 1") == {"a": value, "b": 1}


def test_a_name_that_is_no_text_is_not_written(here: Path) -> None:
    arguments = [sys.executable, "-m", "edgeseg", "stream", "--write-config", "a.toml"]
    child = subprocess.run([*arguments, "--record", b"\xff.mkv"], capture_output=True, check=False)
    assert child.returncode == 2
    assert b"not valid UTF-8" in child.stderr
    assert not Path("a.toml").exists()


def test_a_file_that_is_there_is_replaced_only_on_request(edgeseg: Any, here: Path) -> None:
    path = here / "a.toml"
    path.write_text("# mine\n")
    refused = edgeseg("stream", "--camera", "0", "--write-config", "a.toml")
    assert refused.code == 2
    assert path.read_text() == "# mine\n"
    assert edgeseg("stream", "--camera", "0", "--write-config", "a.toml", "--overwrite").code == 0
    assert tomllib.loads(path.read_text()) == {"camera": [0]}


@pytest.mark.parametrize("option", ["--json-lines", "--write-config"])
@pytest.mark.parametrize("name", ["net.onnx", "net.onnx.json", "clip.mp4", "frames/1.png"])
def test_no_output_replaces_an_input_even_with_overwrite(
    edgeseg: Any, here: Path, option: str, name: str
) -> None:
    for each in ("net.onnx", "net.onnx.json", "clip.mp4", "frames/1.png", "frames/2.png"):
        (here / each).parent.mkdir(exist_ok=True)
        (here / each).write_text("kept")
    sources = ("--source", "clip.mp4", "--source", "frames/*.png", "--no-window")
    outcome = edgeseg("stream", "net.onnx", *sources, option, name, "--overwrite")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {name} is ")
    assert (here / name).read_text() == "kept"
