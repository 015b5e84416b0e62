"""The URL of a broker: what it means, what is refused, and that no message repeats it."""

import pytest

from edgeseg.errors import UsageError
from edgeseg.options.messaging import (
    PASSWORD,
    USER,
    Broker,
    Messaging,
    has_password,
    parse_broker,
    with_login,
)


@pytest.mark.parametrize(
    ("text", "broker"),
    [
        ("mqtt://h/gate", Broker("h", 1883, False, "gate")),
        ("mqtts://h/a/b/", Broker("h", 8883, True, "a/b")),
        ("mqtts://u@[::1]:99/gate", Broker("::1", 99, True, "gate", "u")),
        ("mqtt://u%40x:p%2Fw@h:99/a%20b", Broker("h", 99, False, "a b", "u@x", "p/w")),
        ("mqtt://u:@h/gate", Broker("h", 1883, False, "gate", "u", "")),
    ],
)
def test_what_a_url_means(text: str, broker: Broker) -> None:
    assert parse_broker(text) == broker
    assert has_password(text) == (broker.password is not None)


def test_a_prefix_names_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "orin #1")
    assert parse_broker("mqtt://h").prefix == "edgeseg/orin__1"
    assert str(parse_broker("mqtts://u:p@[::1]/gate")) == "mqtts://[::1]:8883"


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "http://hunter2@h/",
        "mqtt://",
        "mqtt://u:hunter2@h:0/",
        "mqtt://u:hunter2@h:port/",
        "mqtt://u:hun/ter2@h/",
        "mqtt://u:hunter2@h/a?b=c",
        "mqtt://u:hunter2@h/a#b",
        "mqtt://u:hunter2@h/a b",
        "mqtt://:hunter2@h/",
        "mqtt://u:hunter2@h/a/+/b",
        "mqtt://u:hunter2@h/a%23",
        "mqtt://u:hunter2@h/a//b",
        "mqtt://u:hunter2@h/$SYS",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_broker(text)
    assert "ter2" not in f"{refused.value}{refused.value.hint}"
    assert "write mqtts://" in str(refused.value.hint)


def test_the_url_goes_before_the_environment() -> None:
    environ = {USER: "eve", PASSWORD: "hunter2"}
    assert with_login(parse_broker("mqtt://h"), environ).user == "eve"
    mixed = with_login(parse_broker("mqtt://u@h"), environ)
    assert (mixed.user, mixed.password) == ("u", "hunter2")
    assert "hunter2" not in repr(mixed)
    assert with_login(parse_broker("mqtt://u:p@h"), environ).password == "p"
    with pytest.raises(UsageError, match="no user is given"):
        with_login(parse_broker("mqtt://h"), {PASSWORD: "hunter2"})


def test_a_certificate_without_tls() -> None:
    with pytest.raises(UsageError, match="needs a broker over TLS"):
        Messaging(mqtt=parse_broker("mqtt://h"), mqtt_ca="ca.pem").check()  # type: ignore[arg-type]
    Messaging(mqtt=parse_broker("mqtts://h"), mqtt_ca="ca.pem").check()  # type: ignore[arg-type]
