"""Where the view may listen, and what is said where it cannot."""

import socket

import pytest

from edgeseg.errors import OutputError, UsageError
from edgeseg.stream.web.address import Address, browse_to, listen, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("8080", "127.0.0.1", 8080, True),
        ("0", "127.0.0.1", 0, True),
        ("127.0.0.5:1", "127.0.0.5", 1, True),
        ("localhost:80", "localhost", 80, True),
        ("[::1]:8080", "::1", 8080, True),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("[::]:8080", "::", 8080, False),
        ("192.168.1.7:65535", "192.168.1.7", 65535, False),
        ("Box.local:8080", "box.local", 8080, False),
        ("localhost.example.com:80", "localhost.example.com", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)


@pytest.mark.parametrize(
    "text", ["", "localhost", "65536", ":8080", "::1:8080", "http://a:1", "a b:1", "8080 ", "-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:.PORT") as failed:
        parse_address(text)
    assert failed.value.hint


def test_any_free_port_and_a_port_in_use() -> None:
    with listen(parse_address("0"), 1) as first:
        port = first.getsockname()[1]
        assert port
        with pytest.raises(OutputError, match=f"127.0.0.1:{port} is already in use") as failed:
            listen(Address("127.0.0.1", port), 1)
    assert f"--web 127.0.0.1:{port + 1}" in str(failed.value.hint)
    listen(Address("127.0.0.1", port), 1).close()  # free again


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(OutputError, match="no such address") as failed:
        listen(Address(host, 0), 1)
    assert "0.0.0.0" in str(failed.value.hint)


def test_what_to_open_in_a_browser() -> None:
    assert str(browse_to(Address("127.0.0.1", 80))) == "127.0.0.1:80"
    assert str(browse_to(Address("::1", 80))) == "[::1]:80"
    everywhere = browse_to(Address("0.0.0.0", 80))
    assert everywhere.host != "0.0.0.0"
    socket.create_server((everywhere.host, 0)).close()  # one of this machine's
