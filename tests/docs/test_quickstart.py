"""The quick start, word for word, and what it leaves for the examples in Python."""

import doctest
import json
from pathlib import Path

import cv2
import pytest
from pages import PAGES, blocks, name
from walking import Walk, unquoted, walk

pytestmark = pytest.mark.timeout(900)  # it trains, on a machine that may be busy


def test_every_command_runs_and_prints_what_is_quoted(quickstart: Walk) -> None:
    assert quickstart.faults == []
    assert len(quickstart.ran) >= 8


def test_it_ends_with_a_stream_of_all_held_out_pictures(quickstart: Walk) -> None:
    pictures = sorted(path.name for path in (quickstart.folder / "nuclei/val/images").iterdir())
    lines = (quickstart.folder / "frames.jsonl").read_text().splitlines()
    frames = [line for line in map(json.loads, lines) if "frame" in line]
    assert [frame["name"] for frame in frames] == pictures
    recording = cv2.VideoCapture(str(quickstart.folder / "overlay.mkv"))
    assert recording.get(cv2.CAP_PROP_FRAME_COUNT) == len(pictures)


def test_int8_is_about_a_third_of_fp32_as_the_page_says(quickstart: Walk) -> None:
    run = quickstart.folder / "runs/nuclei"
    share = (run / "model.int8.onnx").stat().st_size / (run / "model.onnx").stat().st_size
    assert 0.25 < share < 0.4


@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p, "pycon"))], ids=name)
def test_the_examples_of_a_page_hold(
    page: Path, quickstart: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one interpreter a page, in the folder that the quick start left."""
    monkeypatch.chdir(quickstart.folder)
    assert faults_of(page) == ""


def faults_of(page: Path) -> str:
    """What doctest says of the ``pycon`` blocks of a page, run one after another."""
    parser, told, names = doctest.DocTestParser(), [], {"__name__": "example"}
    for block in blocks(page, "pycon"):
        example = parser.get_doctest(block.text, names, str(block), name(page), block.line)
        doctest.DocTestRunner(verbose=False).run(example, out=told.append, clear_globs=False)
        names = example.globs
    return "".join(told)


def test_an_example_that_does_not_hold_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```pycon\n>>> x = 1\n```\n```pycon\n>>> x\n2\n>>> x\n1\n```\n")
    assert faults_of(page).count("Expected:\n    2\nGot:\n    1") == 1


PRINTED = "epoch 1/6  loss 0.93  6.7 s\nepoch 2/6  loss 0.50  6.4 s\nrecordings: a.mkv\n"


@pytest.mark.parametrize(
    ("quoted", "faults"),
    [
        (PRINTED, 0),
        ("epoch 1/99  loss 0.0001  12 s", 0),
        ("epoch 1/6 …", 0),
        ("epoch 1/6  loss -0.93  6.7 s", 0),  # a figure may be below zero elsewhere
        ("epoch 2/6  loss 0.50  6.4 s\n  recordings: a.mkv", 0),
        ("recordings: a.mkv\nepoch 2/6  loss 0.50  6.4 s", 1),  # in another order
        ("epoch 3/6  loss 0.50  6.4 s\n" * 3, 1),  # more often than printed
        ("recordings: b.mkv", 1),
        ("epoch 1/6  loss 0.93", 1),  # not the whole line, and no …
        ("recording: a.mkv", 1),
    ],
)
def test_quotes_are_compared_but_for_their_figures(quoted: str, faults: int) -> None:
    assert len(unquoted(quoted, PRINTED)) == faults


def test_a_page_that_does_not_hold_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\npip install nothing\n```\n```text\nSuccess\n```\n"
        "```sh\necho 12 frames\n```\n```text\n13 frames\nframes: 12\n```\n"
        "% not walked: it never ends\n```sh\nsleep 1000\n```\n"
        "```sh\nfalse | cat\n```\n```sh\ntouch later\n```\n"
    )
    (tmp_path / "here").mkdir()
    done = walk(page, tmp_path / "here")
    assert done.ran == ["echo 12 frames\n", "false | cat\n"]
    assert [fault.partition(":")[2] for fault in done.faults] == [
        "4: quotes what was not run",
        "10: 'frames: 12' is not printed here",
        "18: ended with 1: ",
    ]
