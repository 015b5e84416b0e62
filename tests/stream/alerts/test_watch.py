"""When alerts are raised and cleared, on a clock that the test holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.stream.alerts import parse_rule
from edgeseg.stream.alerts.rule import RuleTracker

Script = list[tuple[float, float]]


def played(rule: str, script: Script) -> list[tuple[float, str]]:
    """What became of (time, value) after (time, value); a value below 0 is a loss."""
    tracker = RuleTracker(parse_rule(rule))
    outcomes = [
        (at, tracker.source_lost() if value < 0 else tracker.update(value, at))
        for at, value in script
    ]
    return [(at, outcome) for at, outcome in outcomes if outcome]


def test_a_loss_is_told_once_and_neither_raises_nor_clears() -> None:
    script: Script = [(0, 3), (1, -1), (2, -1), (3, 3), (4, 1)]
    assert played("Road > 2%", script) == [
        (0, "raised"),
        (1, "unknown"),
        (3, "raised"),
        (4, "cleared"),
    ]
    assert played("Road > 2%", [(0, 1), (1, -1), (3, 1)]) == [(1, "unknown"), (3, "cleared")]


def test_time_before_a_loss_does_not_count() -> None:
    script: Script = [(0, 3), (0.4, -1), (0.5, 3), (0.9, 3), (1.0, 3)]
    assert played("Road > 2% for 0.5s", script) == [(0.4, "unknown"), (1.0, "raised")]


def test_after_a_loss_nothing_cools_down() -> None:
    script: Script = [(0, 3), (1, -1), (2, 3)]
    assert played("Road > 2% cooldown 1min", script)[-1] == (2, "raised")


@pytest.mark.parametrize(
    ("script", "standing"),
    [
        ([], "idle"),
        ([(0, 3)], "pending"),
        ([(0, 3), (0.5, 3)], "raised"),
        ([(0, 3), (0.5, 3), (0.6, 1)], "raised"),
        ([(0, 3), (0.1, 1)], "idle"),
        ([(0, 3), (0.1, -1)], "unknown"),
    ],
)
def test_where_it_stands(script: Script, standing: str) -> None:
    tracker = RuleTracker(parse_rule("Road > 2% for 0.5s"))
    for at, value in script:
        _ = tracker.source_lost() if value < 0 else tracker.update(value, at)
    assert tracker.state == standing


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=60), st.integers(0, 6))
def test_outcomes_are_those_of_looking_back(steps: list[tuple[int, bool]], duration: int) -> None:
    """The twin looks back over the whole record at each frame instead of keeping a state."""
    at, script = 0, []
    for step, holds in steps:
        at += step
        script.append((float(at), 3.0 if holds else 1.0))
    expected: list[tuple[float, str]] = []
    raised = False
    for place, (now, value) in enumerate(script):
        holds = value > 2
        run = [place]
        while run[-1] and (script[run[-1] - 1][1] > 2) == holds:
            run.append(run[-1] - 1)
        if holds != raised and now - script[run[-1]][0] >= duration:
            raised = holds
            expected.append((now, "raised" if holds else "cleared"))
    assert played(f"Road > 2% for {duration}s", script) == expected


def test_an_alert_that_cools_down_is_raised_late() -> None:
    script: Script = [(0, 3), (1, 1), (2, 3), (9.9, 3), (10, 3), (11, 1), (12, 1), (25, 3)]
    expected = [(0, "raised"), (1, "cleared"), (10, "raised"), (11, "cleared"), (25, "raised")]
    assert played("Road > 2% cooldown 10s", script) == expected


def test_what_cools_down_must_still_hold_when_it_has() -> None:
    script: Script = [(0, 3), (1, 1), (2, 3), (9, 1), (10, 1)]
    assert played("Road > 2% cooldown 10s", script) == [(0, "raised"), (1, "cleared")]
