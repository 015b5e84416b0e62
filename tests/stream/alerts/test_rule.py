"""The grammar of rules: what is understood, written back, and refused with a mark at the place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import UsageError
from edgeseg.stream.alerts import AlertRule, parse_rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "Pedestrian > 2% in zone.json for 0.5s",
            AlertRule("Pedestrian", ">", 2.0, "%", zone=Path("zone.json"), duration=0.5),
        ),
        (
            '"traffic sign">=3 regions on 1 for 2 s cooldown 5min',
            AlertRule("traffic sign", ">=", 3, "regions", source=1, duration=2, cooldown=300),
        ),
        ("Road<5000px", AlertRule("Road", "<", 5000, "px")),
        ("Road <= 0.25 %", AlertRule("Road", "<=", 0.25, "%")),
        (
            "Road > 1px cooldown 250ms on 0",
            AlertRule("Road", ">", 1, "px", source=0, cooldown=0.25),
        ),
        (
            r'"a \"b\" \\ c" > 0 px in "my zones/à é.json"',
            AlertRule(r'a "b" \ c', ">", 0, "px", zone=Path("my zones/à é.json")),
        ),
        ('"in" > 0% in "for"', AlertRule("in", ">", 0, "%", zone=Path("for"))),
    ],
)
def test_what_a_rule_means(text: str, rule: AlertRule) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
SECONDS = st.decimals(0, 10**6, places=3).map(float)


@given(
    label=NAMES,
    comparison=st.sampled_from([">", ">=", "<", "<="]),
    amount=st.decimals(0, 100, places=6).map(float),
    unit=st.sampled_from(["%", "px", "regions"]),
    zone=st.none() | NAMES.map(Path),
    source=st.none() | st.integers(0, 9999),
    duration=SECONDS,
    cooldown=SECONDS,
)
def test_a_rule_is_read_back_from_its_text(
    label: str,
    comparison: str,
    amount: float,
    unit: str,
    zone: Path | None,
    source: int | None,
    duration: float,
    cooldown: float,
) -> None:
    number = amount if unit == "%" else float(int(amount))
    rule = AlertRule(label, comparison, number, unit, zone, source, duration, cooldown)  # type: ignore[arg-type]
    assert parse_rule(str(rule)) == rule


@given(st.text(st.sampled_from('Rin for>=<5%px"\\ .0s\ttin'), max_size=30) | st.text(max_size=30))
def test_any_text_is_a_rule_or_refused_with_a_mark_within_it(text: str) -> None:
    try:
        rule = parse_rule(text)
    except UsageError as error:
        said, shown, mark = error.message.split("\n")
        place = int(said.split("character ")[1].split(":")[0])
        assert len(mark) == place + 2
        assert 1 <= place <= len(text) + 1
        assert len(shown) == len(text) + 2
    else:
        assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "place", "expected", "found"),
    [
        ("", 1, "the name of a class", "found the end"),
        ("> 2%", 1, "the name of a class", "found '>'"),
        ('"" > 2%', 1, "the name of a class", "found"),
        ("Road", 5, "a comparison", "found the end"),
        ("traffic sign > 2%", 9, "a comparison", "found 'sign'"),
        ("Road = 2%", 6, "a name, a comparison or a number", "found '= 2%'"),
        ("Road > lots", 8, "a number with %, px or regions", "found 'lots'"),
        ("Road > -1 px", 8, "a number", "found '-1'"),
        ("Road > ٣ px", 8, "a number", "found"),
        ("Road > 1e3 px", 9, "%, px or regions", "found 'e3'"),
        ("Road > 2 in zone.json", 10, "%, px or regions", "found 'in'"),
        ("Road > 2", 9, "a unit", "found the end"),
        ("Road > 101%", 8, "at most 100 %", "found '101%'"),
        ("Road > 2.5 regions", 8, "a whole number of regions", "found '2.5'"),
        ("Road > 2% inside z", 11, "in, on, for, cooldown or the end", "found 'inside'"),
        ("Road > 2% in", 13, "the file of a zone", "found the end"),
        ("Road > 2% in a in b", 16, "in once only", "found 'in'"),
        ("Road > 2% on x", 14, "the number of a source", "found 'x'"),
        ("Road > 2% for 5", 16, "a unit", "found the end"),
        ("Road > 2% for 5h", 16, "ms, s or min", "found 'h'"),
        ("Road > 2% for soon", 15, "a duration", "found 'soon'"),
        ('Road > 2% in "zone', 14, "a closing quote", "found"),
    ],
)
def test_what_is_wrong_is_shown_at_its_place(
    text: str, place: int, expected: str, found: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_rule(text)
    said, shown, mark = refused.value.message.split("\n")
    assert said.startswith(f"an alert's rule, character {place}: expected {expected}")
    assert found in said
    assert (shown, mark) == (f"  {text}", " " * (place + 1) + "^")
    assert refused.value.hint


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [(">", [0, 0, 1]), (">=", [0, 1, 1]), ("<", [1, 0, 0]), ("<=", [1, 1, 0])],
)
def test_comparisons(comparison: str, holds: list[int]) -> None:
    rule = parse_rule(f"Road {comparison} 5 px")
    assert [rule.holds(value) for value in (4, 5, 6)] == holds
