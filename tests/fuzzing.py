"""Seeded damage to valid documents and files, for the tests that read what may lie on a disk."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# Values of other types and of the edges of each, in place of any value of a document.
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 256, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0,
    1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), "", "0", "a", "nan", "é",
    "\ud800", "\x00", "\x1b[2J", "[bold]", "x" * 10_000, "../../etc/passwd", "/etc/passwd",
    "/proc/self/mem", "/dev/zero", "a\x00b", "y" * 300, "/".join("z" * 3000), "~", ".", "..",
    "0" * 64, "F" * 64, [], {}, [[]], [0] * 300, {"": {}}, {"a": "b"}, ["a", "a"],
    "9999-12-31T23:59:59Z", "0000-00-00", "2026-01-01T00:00:00+99:99",
)  # fmt: skip


class Damage:
    """An endless supply of damaged copies of one valid JSON document, the same for one seed."""

    def __init__(self, valid: str, seed: int) -> None:
        self._valid = valid
        self._random = random.Random(seed)
        self._ways: tuple[Callable[[], bytes], ...] = (
            self._bytes, self._bytes, self._values, self._values, self._values, self._keys,
            self._duplicate, self._deep, self._cut, self._version,
        )  # fmt: skip

    def one(self) -> bytes:
        """The next damaged document."""
        return self._random.choice(self._ways)()

    def _bytes(self) -> bytes:
        """Bytes flipped, put in and taken out."""
        return damaged_bytes(self._valid.encode(), self._random)

    def _values(self) -> bytes:
        """Values swapped for others."""
        document = json.loads(self._valid)
        for _ in range(self._random.randint(1, 3)):
            holder, key = self._random.choice(list(_places(document)) or [({}, "a")])
            # A copy: the next swap may be inside of it.
            holder[key] = copy.deepcopy(self._random.choice(STRANGE))
        return _dumped(document)

    def _keys(self) -> bytes:
        """Keys taken out, named otherwise, and such as nobody knows."""
        document = json.loads(self._valid)
        dicts = [holder for holder, _ in _places(document) if isinstance(holder, dict)]
        holder = self._random.choice(dicts)
        key = self._random.choice(list(holder))
        value = holder.pop(key)
        if self._random.random() < 0.5:
            holder[self._random.choice((key + "s", "", "\x1b[31m", "k" * 5000, "\ud800"))] = value
        return _dumped(document)

    def _duplicate(self) -> bytes:
        """One key twice."""
        key = self._random.choice(list(json.loads(self._valid)))
        value = _dumped(self._random.choice(STRANGE))
        return b"{" + _dumped(key) + b":" + value + b"," + self._valid.encode()[1:]

    def _deep(self) -> bytes:
        """Brackets in brackets."""
        deep = self._random.choice((50, 300, 5000))
        pair = self._random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        inside = pair[0] * deep + b"1" + pair[1] * deep
        document = json.loads(self._valid)
        holder, key = self._random.choice(list(_places(document)))
        holder[key] = "@@"
        return _dumped(document).replace(b'"@@"', inside, 1)

    def _cut(self) -> bytes:
        """The beginning alone, or the whole with more behind it."""
        data = self._valid.encode()
        if self._random.random() < 0.5:
            return data[: self._random.randrange(len(data))]
        return data + self._random.choice((b"\x00", data, b"]", b"\xff\xfe", b"{}"))

    def _version(self) -> bytes:
        """Of another schema."""
        document = json.loads(self._valid)
        document["schema_version"] = self._random.choice(STRANGE)
        return _dumped(document)


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """Up to eight bytes flipped, put in, taken out, or runs of them copied elsewhere."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(damaged) + 1)
        way = chance.randrange(5)
        if way == 0 and place < len(damaged):
            damaged[place] ^= 1 << chance.randrange(8)
        elif way == 1:
            damaged[place:place] = chance.randbytes(chance.choice((1, 2, 9)))
        elif way == 2:
            del damaged[place : place + chance.choice((1, 2, 9, 60))]
        elif way == 3:
            run = damaged[place : place + chance.randint(1, 40)]
            target = chance.randrange(len(damaged) + 1)
            damaged[target:target] = run
        elif damaged:
            at = min(place, len(damaged) - 1)
            damaged[at] = chance.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(damaged)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a JSON document, however deep."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    found = []
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()
