"""Who may ask for what."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from edgeseg.stream.web.guard import OPEN_PATHS, Guard, Rules, refusal

TOKEN = "correct-horse-battery"
PATHS = ("/", "/app.js", "/status", "/frames", "/history", "/nothing")


async def inside(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/broken":
        raise RuntimeError("planted")
    await PlainTextResponse("inside")(scope, receive, send)


class Client:
    """Asks the guard itself, without a server between; keeps cookies as a browser does."""

    def __init__(self, app: Any, base: str) -> None:
        self._app, self._base = app, base
        self._cookies = httpx.Cookies()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url=self._base, cookies=self._cookies
            ) as client:
                answer = await client.request(method, path, **options)
                self._cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)


async def in_pieces() -> AsyncIterator[bytes]:
    yield b"x"


def client(
    token: str | None = None,
    hosts: frozenset[str] = frozenset({"localhost"}),
    loopback: bool = True,
) -> Client:
    guard = Guard(inside, Rules(token, hosts, loopback, 8080))
    return Client(guard, "http://127.0.0.1:8080")


@pytest.fixture
def locked() -> Callable[[], Client]:
    return lambda: client(TOKEN, loopback=False)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_only_get_and_head(method: str) -> None:
    answer = client().request(method, "/status")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("LOCALHOST.:9000", 200),  # through a tunnel from another port
        ("[::1]:8080", 200),
        ("127.1.2.3", 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.1.7:8080", 421),
        ("", 421),
        ("[::1", 421),
        ("localhost:", 421),
        ("127.0.0.1:80/healthz?", 421),
        ("localhost/healthz?", 421),
        ("me@localhost", 421),
        ("[evil.example]:8080", 421),
    ],
)
def test_names_by_which_a_view_of_this_machine_is_called(host: str, status: int) -> None:
    assert client().get("/status", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("host", "status"), [("192.168.1.7:8080", 200), ("cam.example.org", 200), ("evil.example", 421)]
)
def test_names_by_which_a_view_for_others_is_called(host: str, status: int) -> None:
    view = client(TOKEN, frozenset({"cam.example.org"}), loopback=False)
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
    assert view.get("/status", headers=headers).status_code == status


def test_what_is_too_large() -> None:
    assert client().get(f"/status?after={'1' * 3000}").status_code == 414
    assert client().request("GET", "/status", content=b"x").status_code == 413
    assert client().request("GET", "/status", content=in_pieces()).status_code == 413
    assert client().get(f"/status?after={'1' * 1000}").status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),  # a link in a mail
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_other_sites_may_link_but_not_load(site: str, mode: str, status: int) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert client().get("/frames", headers=headers).status_code == status


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing(locked: Callable[[], Client], path: str) -> None:
    answer = locked().get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "inside" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:80/healthz?", "127.0.0.1/healthz#", "[::1]/healthz?"])
def test_a_host_that_would_be_another_path_opens_nothing(host: str) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/status",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }
    rules = Rules(TOKEN, frozenset({host.lower()}), loopback=False, port=8080)
    for each in (rules, replace(rules, hosts=frozenset())):
        answer = refusal(Request(scope), each)
        assert answer is not None
        assert answer.status_code in (401, 421)


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_what_needs_no_token(locked: Callable[[], Client], path: str) -> None:
    assert locked().get(path).status_code == 200


WRONG = ["", " ", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü\N{SNOWMAN}", "None"]


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_token(locked: Callable[[], Client], given: str) -> None:
    bearer = {"Authorization": f"Bearer {given}".encode()}
    assert locked().get("/status", headers=bearer).status_code == 401
    answer = locked().get("/", params={"token": given})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    cookie = {"Cookie": f"edgeseg-8080={given}".encode()}
    assert locked().get("/status", headers=cookie).status_code == 401


def test_strangers_have_one_answer_a_connection(locked: Callable[[], Client]) -> None:
    view = locked()
    for path in (*PATHS, *OPEN_PATHS):
        assert view.get(path).headers["connection"] == "close"
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert "connection" not in view.get("/status", headers=shown).headers


def test_the_token_is_not_in_what_is_printed_of_the_rules() -> None:
    assert TOKEN not in repr(Rules(TOKEN, frozenset(), loopback=False, port=8080))


def test_the_right_token_as_a_header(locked: Callable[[], Client]) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        assert locked().get("/status", headers=headers).text == "inside"
    basic = {"Authorization": f"Basic {TOKEN}"}
    assert locked().get("/status", headers=basic).status_code == 401


def test_the_right_token_in_the_address_becomes_a_cookie(locked: Callable[[], Client]) -> None:
    view = locked()
    answer = view.get("/", params={"token": TOKEN})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=./"' in answer.text
    assert TOKEN not in answer.text
    flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert not [flag for flag in flags if flag.startswith(("expires", "max-age", "domain"))]
    assert view.get("/status").text == "inside"
    assert view.get("/").text == "inside"


def test_a_token_in_the_address_of_anything_else_is_nothing(locked: Callable[[], Client]) -> None:
    assert locked().get("/status", params={"token": TOKEN}).status_code == 401


def test_the_cookie_of_another_view_on_this_host(locked: Callable[[], Client]) -> None:
    cookie = {"Cookie": f"edgeseg-8081={TOKEN}"}
    assert locked().get("/status", headers=cookie).status_code == 401


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_says_what_browsers_may_do(host: str) -> None:
    answer = client().get("/status", headers={"Host": host})
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers


def test_an_endpoint_that_raises_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    asking = client()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(AssertionError):  # the client misses an answer
                asking.get("/broken")
    (record,) = caplog.records
    assert "/broken" in record.getMessage()
    assert record.exc_info is None
