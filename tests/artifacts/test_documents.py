"""What is refused in a document, and that the refusal can be shown."""

import pytest

from edgeseg.artifacts.documents import Document, parse, printable
from edgeseg.errors import CorruptArtifact


class Small(Document):
    schema_version: int = 1
    value: float = 0.0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have(value: str) -> None:
    with pytest.raises(CorruptArtifact, match=r"a\.json: value: Input should be a finite number"):
        parse(Small, f'{{"value": {value}}}', "a.json")


@pytest.mark.parametrize("key", ["\\u001b[2J", "\\n", "k" * 5000])
def test_keys_neither_move_the_cursor_nor_fill_the_screen(key: str) -> None:
    with pytest.raises(CorruptArtifact) as caught:
        parse(Small, f'{{"{key}": 1}}', "a.json")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    assert caught.value.hint


def test_printable() -> None:
    assert printable("Größe ✓") == "Größe ✓"
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("a" * 400) == "a" * 300 + "…"
