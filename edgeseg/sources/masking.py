"""Mask secrets in URLs of sources.

Users and passwords go; of a query each value goes whose key is not known to be harmless, since
every maker of cameras names its tokens otherwise. Small numbers stay unless their key says that
they are secret. Of a path go values behind a key that says so, and segments that look random:
what a person would not have typed. A password that is a common word of the path is not recognised.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

from edgeseg.artifacts.documents import printable

HIDDEN = "***"

_SECRET_KEY = (
    r"(?:[a-z]*(?:pas|pwd|token|secret|key|auth|sig|cred|session|ticket|hash|nonce)[a-z]*"
    r"|pw|p|pin|sid|jwt|code|otp|psk|id_?token|hmac|sas|st|access|bearer|sess)"
)
_SECRET = re.compile(rf"(?i)(?<![a-z])({_SECRET_KEY}=)[^&;#?/\"']+")
_HARMLESS_KEY = re.compile(
    r"action|audio|bitrate|brightness|cam(?:era)?|chan(?:nel)?|ch|clock|cmd|codec|colou?r"
    r"|compression|contrast|date|duration|enablesrtp|end|format|(?:req_)?fps|frame(?:s|rate)"
    r"|h(?:eight)?|imagepath|img|inst(?:ance)?|interval|level|loop|mode|mp|multicast|name|number"
    r"|overlay|play_count|profile|proto(?:col)?|q(?:uality)?|rate|refresh|res(?:olution)?"
    r"|rotat(?:e|ion)|size|source|start|(?:sub)?stream(?:id|profile|type)?|subtype|text|time"
    r"|track(?:id)?|transport|type|unicast|user(?:_?name)?|v(?:ersion|ideo|iew)?|w(?:idth)?"
)
"""Keys of queries whose values people may see, in lower case."""

_HARMLESS_VALUE = re.compile(r"(?i)\d{1,3}|true|false|on|off|yes|no|")

_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_UNSPEAKABLE = re.compile(r"(?i)[bcdfghjklmnpqrstvwxz]{6}")
_RANDOM_LENGTH = 12
"""Letters and digits from which a path's segment may be a token."""


def masked_url(scheme: str, authority: str, rest: str) -> str:
    """``scheme://authority`` and what follows it, without what may be a secret."""
    userinfo, at, host = authority.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    known = f"{user}:{HIDDEN}" if colon else HIDDEN  # a lone user name may be a token
    return printable(f"{scheme}://{known + at if at else ''}{host}{masked_tail(rest)}", 500)


def masked_tail(tail: str) -> str:
    """Path, query and fragment of a URL without what may be a secret."""
    split = re.search(r"[?#]", tail)
    path, query = (tail[: split.start()], tail[split.start() :]) if split else (tail, "")
    path = "/".join(_segment(segment) for segment in path.split("/"))
    return path + re.sub(r"(?<=[?&;#])[^&;#?]+", lambda pair: _parameter(pair[0]), query)


def _segment(segment: str) -> str:
    """One between two slashes."""
    said = _SECRET.sub(rf"\1{HIDDEN}", segment)
    return HIDDEN if said == segment and looks_random(unquote(segment)) else said


def _parameter(text: str) -> str:
    """``key=value``, or a lone word, of a query."""
    key, equals, value = text.partition("=")
    if not equals:
        return HIDDEN if looks_random(unquote_plus(text)) else text
    name = unquote_plus(key).lower()
    harmless = _HARMLESS_KEY.fullmatch(name) and not looks_random(unquote_plus(value))
    small = _HARMLESS_VALUE.fullmatch(value) and not re.fullmatch(_SECRET_KEY, name)
    small = small and not _SECRET.search(f"{name}=x")
    return text if harmless or small else f"{key}={HIDDEN}"


def looks_random(text: str) -> bool:
    """Whether a word is long and made of no syllables and short numbers: a token, perhaps."""
    pieces = _PIECE.findall(text)
    letters = sum(map(len, pieces))
    if letters < _RANDOM_LENGTH:
        return False
    long_number = any(piece.isdecimal() and len(piece) > 8 for piece in pieces)
    return long_number or letters <= 3 * len(pieces) or bool(_UNSPEAKABLE.search(text))
